"""Moves batches to the device of a model and vectors back, without waiting: a GPU computes while the next batch comes.

On a GPU, memory is pinned, copies have a stream of their own, and pictures travel as bytes and are scaled to the
model's range there. On a CPU the same code waits for each batch. This module knows no model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairdedup.encoders.torch_imports import torch
from fairdedup.errors import UserError

IN_FLIGHT = 2  # batches that are on their way at a time, each with a buffer of its own


class Normalisation(NamedTuple):
    """What a model's own transform does with the bytes of a picture: (x / 255 - mean) / std, for each channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def apply(self, batch: torch.Tensor) -> torch.Tensor:
        """Return bytes (n, c, h, w) as float32, by the operations of torchvision in their order."""
        mean, std = (torch.tensor(values, device=batch.device)[:, None, None] for values in self)
        return batch.float().div_(255).sub_(mean).div_(std)


def split_transform(transform: Any) -> tuple[Any, Normalisation | None]:
    """Take the normalisation off a transform, so that the device can do it.

    Parameters
    ----------
    transform : torchvision.transforms.Compose
        The transform of a model for inference.

    Returns
    -------
    transform : torchvision.transforms.Compose
        What is left, which returns bytes (c, h, w); the whole transform if it does not end as expected.
    normalisation : Normalisation or None
    """
    from torchvision.transforms import Compose, Normalize, PILToTensor, ToTensor

    steps = list(getattr(transform, "transforms", None) or [])
    if len(steps) < 2 or not isinstance(steps[-2], ToTensor) or type(steps[-1]) is not Normalize:
        return transform, None
    mean, std = (tuple(float(value) for value in values) for values in (steps[-1].mean, steps[-1].std))
    return Compose([*steps[:-2], PILToTensor()]), Normalisation(mean, std)


class PendingVectors:
    """Vectors that a device may still be computing.

    Parameters
    ----------
    vectors : torch.Tensor of shape (n, d), float32
        Memory of the CPU, into which they are copied.
    done : torch.cuda.Event or None
        When the copy is there; None if it is.
    """

    def __init__(self, vectors: torch.Tensor, done: Any = None) -> None:
        self._vectors, self._done = vectors, done

    def wait(self) -> NDArray[np.float32]:
        """Return the vectors (n, d), once they are there."""
        if self._done is not None:
            self._done.synchronize()
        return np.asarray(self._vectors.numpy())


class DeviceBatches:
    """Runs functions of a model on batches.

    Parameters
    ----------
    batch_size : int
        Largest number of inputs of a batch.
    device : str
        A device of torch.
    dtype : torch.dtype
        Number format of the model.
    channels_last : bool
        Whether pictures are laid out with their channels last, which tensor cores want.
    normalisation : Normalisation or None
        What is done with pictures that are bytes; None if they are not.
    """

    def __init__(
        self,
        batch_size: int,
        device: str,
        dtype: torch.dtype,
        *,
        channels_last: bool = False,
        normalisation: Normalisation | None = None,
    ) -> None:
        self.batch_size, self.dtype, self.normalisation = batch_size, dtype, normalisation
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.device = torch.device(device)
        self._has_streams = self.device.type == "cuda"
        self._copies: Any = torch.cuda.Stream(self.device) if self._has_streams else None
        self._buffers: list[torch.Tensor | None] = [None] * IN_FLIGHT
        self._running: list[PendingVectors | None] = [None] * IN_FLIGHT
        self._turn = 0

    def begin(self, inputs: Sequence[torch.Tensor], encode: Callable[[torch.Tensor], torch.Tensor]) -> PendingVectors:
        """Begin a batch. The oldest one of `IN_FLIGHT` is waited for before.

        Parameters
        ----------
        inputs : sequence of 1 to `batch_size` torch.Tensor
            Inputs of equal shapes. They are copied at once.
        encode : callable
            Turns the batch, on the device, into vectors (n, d).

        Raises
        ------
        UserError
            If the batch does not fit into the memory of the device.
        """
        slot, self._turn = self._turn, (self._turn + 1) % IN_FLIGHT
        before = self._running[slot]
        if before is not None:
            before.wait()  # its buffer is free, and no more batches are in the memory of the device
        try:
            with torch.inference_mode():
                self._running[slot] = pending = self._copy_back(encode(self._put(inputs, slot)).float())
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"--batch-size {self.batch_size} does not fit into the memory of {self.device.type}: lower it"
            ) from error
        return pending

    def _put(self, inputs: Sequence[torch.Tensor], slot: int) -> torch.Tensor:
        """Return a batch on the device, as the model takes it."""
        stacked = torch.stack(list(inputs), out=self._buffer(inputs[0], slot)[: len(inputs)])
        with torch.cuda.stream(self._copies) if self._has_streams else nullcontext():
            batch = stacked.to(self.device, non_blocking=True)
        if self._has_streams:
            model = torch.cuda.current_stream(self.device)
            model.wait_stream(self._copies)
            batch.record_stream(model)  # its memory is not used again before the model is done with it
        if self.normalisation is not None and batch.dtype == torch.uint8:
            batch = self.normalisation.apply(batch)
        if not batch.is_floating_point():
            return batch
        return batch.to(self.dtype, memory_format=self.layout if batch.ndim == 4 else torch.preserve_format)

    def _buffer(self, example: torch.Tensor, slot: int) -> torch.Tensor:
        """Return the buffer of a slot for inputs like an example: (batch_size, ...)."""
        known = self._buffers[slot]
        if known is None or known.shape[1:] != example.shape or known.dtype != example.dtype:
            shape = (self.batch_size, *example.shape)
            known = torch.empty(shape, dtype=example.dtype, pin_memory=self._has_streams)
            self._buffers[slot] = known
        return known

    def _copy_back(self, vectors: torch.Tensor) -> PendingVectors:
        if not self._has_streams:
            return PendingVectors(vectors)
        copied = torch.empty(vectors.shape, dtype=vectors.dtype, pin_memory=True)
        copied.copy_(vectors, non_blocking=True)
        done = torch.cuda.Event()
        done.record(torch.cuda.current_stream(self.device))
        return PendingVectors(copied, done)
