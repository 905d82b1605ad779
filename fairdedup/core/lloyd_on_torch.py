"""One iteration of `lloyd` by torch, for a GPU: the same integers as on the CPU.

Tests run it on torch's CPU, through the same code. It never decides how rows are rounded.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.devices import torch_name
from fairdedup.core.lloyd import Near, Rounded, Sums, assign_and_add

PRODUCTS = 1 << 26  # products that are in the memory of the device at a time
LEAST_ROWS = 32  # `torch._int_mm` on CUDA needs more than 16 rows, and widths that are multiples of 8
MULTIPLE = 8


def assign_and_add_on(
    device: str, rows: Rounded, centroids: NDArray[np.float16], mean: NDArray[np.float16], work: float
) -> Sums:
    """Return what `assign_and_add` does, computed on a device.

    Parameters
    ----------
    device : str
        What `choose_device` has returned.
    rows, centroids, mean, work
        As of `assign_and_add`.
    """
    if device == "cpu":
        return assign_and_add(rows, centroids, mean, work)
    return assign_and_add_by_torch(torch_name(device), rows, Near.of(centroids, mean), len(centroids))


def assign_and_add_by_torch(device: str, rows: Rounded, near: Near, clusters: int) -> Sums:
    """Find the centroid of each row by rounded products of torch, and add the rows up by centroid.

    Parameters
    ----------
    device : str
        A device of torch.
    rows : Rounded of n rows
        A piece of the sample.
    near : Near of k or more centroids
        The centroids; those behind k only pad.
    clusters : int
        Number of centroids, k.
    """
    import torch

    n, d = rows.values.shape
    wide = -d % MULTIPLE
    other = torch.from_numpy(np.pad(near.values, ((0, 0), (0, wide)))).to(device).t()
    scales, offsets = (torch.from_numpy(array).to(device) for array in (near.scales, near.offsets))
    sums = torch.zeros((clusters, d), dtype=torch.int64, device=device)
    counts = torch.zeros(clusters, dtype=torch.int64, device=device)
    step = max(LEAST_ROWS, PRODUCTS // len(near.values))
    for first in range(0, n, step):
        last = min(n, first + step)
        tall = max(0, LEAST_ROWS - (last - first))
        values = torch.from_numpy(np.pad(rows.values[first:last], ((0, tall), (0, wide)))).to(device)
        steps = torch.from_numpy(np.array(rows.steps[first:last])).to(device)
        products = torch._int_mm(values, other)[: last - first]
        scores = products.double().mul_(scales).mul_(steps[:, None]).add_(offsets)  # exact
        labels = scores.argmax(1)  # the first of equals
        sums.index_add_(0, labels, values[: last - first, :d].long().mul_(steps[:, None]))
        counts.index_add_(0, labels, torch.ones_like(labels))
    return Sums(sums.cpu().numpy(), counts.cpu().numpy())
