"""What every reader gives: samples or vectors, shard by shard, in row order (DESIGN sections 2 and 4).

Shards are small picklable values that name bytes; they open nothing until a worker asks them to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
from fsspec import AbstractFileSystem

from fairdedup.storage.object_stores import any_in


@dataclass(frozen=True)
class Sample:
    """One member of an image shard, readable or not.

    Attributes
    ----------
    position : int
        Place in the shard, from 0; members that cannot be read still count.
    id : str
        The sample's own key. Whether ids are unique over the data set is checked by the pipeline.
    image : bytes or None
        The encoded image file; None when the sample is rejected already.
    caption : str or None
        The text beside the image; None when there is none or it is empty.
    metadata : dict
        Scalar columns of the input; never a key ``id`` or ``caption``, which are fields of their own.
    source : str
        Where the sample lies, for people: ``shard-00000.tar/000012.jpg`` or a relative path.
    error : str or None
        Why there is no usable image; None exactly when ``image`` is there.
    """

    position: int
    id: str
    image: bytes | None
    caption: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    source: str = ""
    error: str | None = None


class ImageShard(Protocol):
    """One shard of images with captions; picklable, and cheap to build and to send to a worker."""

    @property
    def name(self) -> str:
        """The shard's name, unique in its data set."""

    @property
    def fs(self) -> AbstractFileSystem:
        """Where it lies."""

    @property
    def path(self) -> str:
        """The file or folder on `fs` that it is read from."""

    @property
    def rows(self) -> int | None:
        """How many samples it holds, for progress; None where only reading it tells."""

    def read(self) -> Iterator[Sample]:
        """Yield every sample in position order, holding one at a time."""

    def fingerprint(self) -> str:
        """Return a short text that changes when the bytes do (name, size, time or etag), at no reading."""


class EmbeddingShard(Protocol):
    """One shard of ready embeddings with what is known of each row; picklable and cheap to build."""

    @property
    def name(self) -> str:
        """The shard's name, unique in its data set."""

    @property
    def fs(self) -> AbstractFileSystem:
        """Where it lies."""

    @property
    def path(self) -> str:
        """The file or folder on `fs` that it is read from."""

    @property
    def rows(self) -> int | None:
        """How many samples it holds, for progress; None where only reading it tells."""

    def vectors(self) -> np.ndarray:
        """Return the (n, d) float16, float32 or float64 array, memory-mapped where the file is local."""

    def metadata(self) -> pa.Table:
        """Return n rows: column ``id`` (string) first, then every other metadata column of the input."""

    def faults(self) -> dict[int, str]:
        """Return why rows cannot be used whose vectors, which hold NaN then, do not tell."""

    def fingerprint(self) -> str:
        """Return a short text that changes when the bytes do (name, size, time or etag), at no reading."""


@dataclass(frozen=True)
class Dataset:
    """An input recognised: its kind, its format and its shards in natural name order."""

    kind: Literal["images", "embeddings"]
    format: str
    source: str
    shards: tuple[ImageShard, ...] | tuple[EmbeddingShard, ...]

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Name and fingerprint of every shard; asked for once, since each may be a call to an object store."""
        return {shard.name: shard.fingerprint() for shard in self.shards}

    def lies_in(self, folder: Path) -> bool:
        """Tell whether anything of it is read from this folder, links followed."""
        return any_in((shard.fs.unstrip_protocol(shard.path) for shard in self.shards), folder)
