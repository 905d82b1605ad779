"""Exact copies of images across shards: which rows share a vector, and where that vector is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.made_of import marked_file
from fairdedup.storage.remedies import embed_again
from fairdedup.storage.sealed_files import open_array


@dataclass(frozen=True)
class Copies:
    """Exact copies among the images of one shard.

    Attributes
    ----------
    here : dict of int to int
        Position of each copy whose first image is in the same shard, and the position of that image.
    elsewhere : dict of int to tuple of int
        Position of each image whose vector is in a file of shared vectors, and where it is there: number of the shard,
        place in its file. The shard's own shared images are among them.
    shared : tuple of int
        Positions of the shard's own images whose vectors other shards use.
    """

    here: dict[int, int] = field(default_factory=dict)
    elsewhere: dict[int, tuple[int, int]] = field(default_factory=dict)
    shared: tuple[int, ...] = ()

    def select(self, rows: range) -> Copies:
        """Return the copies at some positions; the first images of those in `here` may be at others."""
        here = {position: first for position, first in self.here.items() if position in rows}
        elsewhere = {position: place for position, place in self.elsewhere.items() if position in rows}
        return Copies(here, elsewhere, tuple(position for position in self.shared if position in rows))

    def owners(self) -> set[int]:
        """Return the numbers of the shards whose shared vectors this shard needs."""
        return {owner for owner, _ in self.elsewhere.values()}


def load_shared(root: Path, copies: Copies) -> dict[int, NDArray[np.float16]]:
    """Return the shared vector (d,) of each position that has one; images that cannot be used have none."""
    run = RunDirectory(root)
    remedy = embed_again(root)
    files = {owner: open_array(marked_file(run.shared_vectors(owner), remedy)) for owner in copies.owners()}
    vectors = {position: files[owner][place] for position, (owner, place) in copies.elsewhere.items()}
    return {position: vector for position, vector in vectors.items() if vector.any()}
