"""The most similar vectors of others, by torch on a GPU or on torch's CPU: those that may be it come back.

The error of a product is bounded as in device_products.py, so those that come back contain the right ones, ties too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.device_products import (
    FILTERED,
    Candidates,
    copy_back,
    copy_to_device,
    explain_memory,
    in_float32,
)


class DeviceSearch:
    """Vectors on a device that are searched for the most similar ones of others.

    Parameters
    ----------
    scaled : torch.Tensor of shape (m, d), float32
        Float16 vectors, divided by their lengths.
    """

    def __init__(self, scaled: Any) -> None:
        self.scaled = scaled

    @classmethod
    def put(cls, scaled: NDArray[np.float32], device: str) -> DeviceSearch | None:
        """Copy vectors (m, d) to a device; return None if they do not fit into its memory."""
        values = copy_to_device(scaled, device)
        return None if values is None else cls(values)

    @property
    def step(self) -> int:
        """Number of queries to search for at a time."""
        return max(1, FILTERED // len(self.scaled))

    def find_near_best(
        self,
        x: NDArray[np.float32],
        squares: NDArray[np.float64],
        most: int,
        slack: float,
        within: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
        first: int | None = None,
    ) -> Candidates:
        """Return for each query the vectors among which the most similar ones are.

        Parameters
        ----------
        x : ndarray of shape (n, d), float32
            Queries: float16 values. At most `step` of them.
        squares : ndarray of shape (n,), float64
            Their squared lengths.
        most : int
            Number of most similar vectors that are looked for, at most m.
        slack : float
            Twice the largest error of a scaled product, or more.
        within : (ndarray of shape (n,), ndarray of shape (m,)), int64, optional
            Only a query and a vector of the same number are compared.
        first : int, optional
            Place of the first query, where the queries are consecutive ones of the vectors. Then each is compared only
            with the vectors before it.

        Returns
        -------
        Candidates
            The vectors whose scaled product is at most `slack` below the `most`-th largest of the query.
        """
        import torch

        device = self.scaled.device
        with in_float32(), explain_memory():
            queries = torch.from_numpy(x).to(device)
            products = queries @ self.scaled[: None if first is None else first + len(x)].t()
            products /= torch.from_numpy(np.sqrt(squares).astype(np.float32)).to(device)[:, None]
            if within is not None:
                mine, theirs = (torch.from_numpy(np.array(codes)).to(device) for codes in within)
                products.masked_fill_(mine[:, None] != theirs[None, : products.shape[1]], -torch.inf)
            if first is not None:
                places = torch.arange(products.shape[1], device=device)
                products.masked_fill_(places[None, :] >= places[first:, None], -torch.inf)
            floor = products.topk(most, dim=1).values[:, -1:] - np.float32(slack + 1e-6)  # and its own rounding
            return copy_back(products, (products >= floor) & (products > -torch.inf))
