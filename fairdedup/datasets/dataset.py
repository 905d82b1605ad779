"""What every reader returns: samples or vectors, shard by shard, in row order.

Shards are small picklable values that name bytes; they open nothing until a worker reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from fairdedup.datasets.findings import Findings
from fairdedup.storage.object_stores import any_in

BYTES_A_PICTURE = 10_000  # a low guess: thumbnails have fewer, photographs many more

Metadata = dict[str, Any]
"""The columns of one sample besides its id and caption: free-form, as the input has them."""


@dataclass(frozen=True)
class Sample:
    """One sample of an image shard, readable or not.

    Attributes
    ----------
    position : int
        Position in the shard, from 0; samples that cannot be read count too.
    id : str
        The sample's own key. The stages check that ids are unique over the data set.
    image : bytes or None
        The encoded image file; None if the sample is rejected already.
    caption : str or None
        The text that accompanies the image; None if there is none or it is empty.
    metadata : dict
        The other columns of the input; never a key ``id`` or ``caption``, which are fields of their own.
    source : str
        Location of the sample, for messages: ``shard-00000.tar/000012.jpg`` or a relative path.
    error : str or None
        Why there is no usable image; None if and only if there is an ``image``.
    """

    position: int
    id: str
    image: bytes | None
    caption: str | None = None
    metadata: Metadata = field(default_factory=dict)
    source: str = ""
    error: str | None = None


class Shard(Protocol):
    """What shards of images and of embeddings have in common; picklable, and cheap to build and to send."""

    @property
    def name(self) -> str:
        """Name of the shard, unique in its data set."""

    @property
    def fs(self) -> AbstractFileSystem:
        """File system that the shard is read from."""

    @property
    def path(self) -> str:
        """Path on `fs` of the file or folder that the shard is read from."""

    @property
    def rows(self) -> int | None:
        """Number of samples, for progress; None if it is known only after reading the shard."""

    def fingerprint(self) -> str:
        """Return a short text that changes with the content: a hash of name, size and time or etag, not of data."""


class ImageShard(Shard, Protocol):
    """One shard of images with captions."""

    def read(self, findings: Findings | None = None) -> Iterator[Sample]:
        """Yield every sample in position order, one in memory at a time.

        Parameters
        ----------
        findings : Findings or None
            Where to note what no sample uses, and damage; complete after the last sample.

        Raises
        ------
        UserError
            If the shard is damaged, unless it was opened with `ReadOptions.skip_damaged`; or if its files cannot be
            assigned to samples without a guess.
        """

    @property
    def is_seekable(self) -> bool:
        """Whether a part of the samples can be read at little more than its own cost."""

    def select(self, start: int, stop: int) -> ImageShard:
        """Return the shard with the samples at positions from start to stop only; they keep their positions."""


class EmbeddingShard(Shard, Protocol):
    """One shard of ready embeddings, with the metadata of each row."""

    def vectors(self) -> np.ndarray:
        """Return the (n, d) float16, float32 or float64 array, memory-mapped where the file is local."""

    def metadata(self) -> pa.Table:
        """Return n rows: column ``id`` (string) first, then every other metadata column of the input."""

    def faults(self) -> dict[int, str]:
        """Return, by position, why rows cannot be used, if their vectors (all NaN) do not show the reason."""

    def findings(self) -> Findings:
        """Return the damage that reading the shard has found; see `ImageShard.read` for what it raises."""


def find_reading_memory(shard: Shard) -> int:
    """Return the bytes that reading a shard needs beside those of one image; 0 for a reader that needs no more."""
    return int(getattr(shard, "memory", 0))


def estimate_rows(shard: Shard) -> int | None:
    """Return about how many samples a shard has; None if that would take a request to a store, or more."""
    if shard.rows is not None or not isinstance(shard.fs, LocalFileSystem):
        return shard.rows
    try:
        return int(shard.fs.size(shard.path)) // BYTES_A_PICTURE + 1
    except OSError:  # whoever reads it will say so
        return None


@dataclass(frozen=True)
class Dataset:
    """An opened input.

    Attributes
    ----------
    kind : {"images", "embeddings"}
        What the shards hold: images, which still have to be embedded, or ready embeddings.
    format : str
        The registered name of its format.
    source : str
        INPUT as the user gave it.
    shards : tuple of ImageShard or of EmbeddingShard
        Its shards, in natural name order.
    column : str or None
        The column of images, paths or vectors; or the ending of the members of a tar that are the images, if the user
        chose it.
    unused : mapping of str to int
        How many files were found and are not read, by ending; what is found inside of shards is counted as they are
        read.
    remarks : tuple of str
        What the user should know about how the input is read, a sentence each.
    former_fingerprints : mapping of str to str or None
        Fingerprint of every shard by name, before the file was renamed; None if it was not.
    """

    kind: Literal["images", "embeddings"]
    format: str
    source: str
    shards: tuple[ImageShard, ...] | tuple[EmbeddingShard, ...]
    column: str | None = None
    unused: Mapping[str, int] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    former_fingerprints: Mapping[str, str] | None = None

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Fingerprint of every shard by name, computed once, since each may be a request to an object store."""
        if self.former_fingerprints is not None:
            return dict(self.former_fingerprints)
        return {shard.name: shard.fingerprint() for shard in self.shards}

    def lies_in(self, folder: Path) -> bool:
        """Tell whether any shard is read from inside a folder, after following links."""
        return any_in((shard.fs.unstrip_protocol(shard.path) for shard in self.shards), folder)
