"""Decodes the pictures of a stream in threads, ahead of what uses them: in their order, and in bounded memory.

At most `FILES_AHEAD` bytes of files wait, one picture per thread is being decoded, and of pictures of more than
`LARGE` pixels one in all. Pillow's decoders run without Python's lock, so threads are enough.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from typing import TypeVar

from fairdedup.datasets.dataset import Sample
from fairdedup.datasets.images import count_pixels

Result = TypeVar("Result")

FILES_AHEAD = 64 << 20
"""Bytes of image files that wait for a thread or for their turn; a larger file waits alone."""

LARGE = 32_000_000
"""Pixels above which a picture is decoded while no other thread decodes such a one."""

_large = threading.Lock()


def map_ahead(
    function: Callable[[Sample], Result], samples: Iterator[Sample], threads: int, most: int
) -> Iterator[Result]:
    """Yield ``function(sample)`` for each sample, in order.

    Parameters
    ----------
    function : callable
        Decodes a sample. Several threads call it at the same time.
    samples : iterator of Sample
        It is read in the calling thread.
    threads : int
        Number of threads; 0 decodes in the calling thread, one sample at a time.
    most : int
        Number of samples that are at most ahead.
    """
    if not threads:
        yield from map(function, samples)
        return

    def decode(sample: Sample) -> Result:
        is_large = threads > 1 and sample.image is not None and count_pixels(sample.image) > LARGE
        with _large if is_large else nullcontext():
            return function(sample)

    waiting: deque[tuple[Future[Result], int]] = deque()
    held = 0
    with ThreadPoolExecutor(threads, thread_name_prefix="decoder") as pool:
        try:
            for sample in samples:
                size = len(sample.image or b"")
                while waiting and (len(waiting) >= most or held + size > FILES_AHEAD):
                    future, done = waiting.popleft()
                    held -= done
                    yield future.result()
                waiting.append((pool.submit(decode, sample), size))
                held += size
                del sample
            while waiting:
                yield waiting.popleft()[0].result()
        finally:
            for future, _ in waiting:
                future.cancel()
