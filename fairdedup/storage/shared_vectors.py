"""What image shards share: which of their files are exact copies, and the vectors that one lends to the others."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.run_files import read_array


@dataclass(frozen=True)
class Copies:
    """What a shard shares.

    Attributes
    ----------
    here : dict of int to int
        Positions of copies, and of the first such image where it is of the same shard.
    elsewhere : dict of int to tuple of int
        Positions of images that are lent, and where their vector is: number of a shard, place in its lent file.
        The shard's own lent images are among them.
    lent : tuple of int
        Positions of the shard's own images that other shards take.
    """

    here: dict[int, int] = field(default_factory=dict)
    elsewhere: dict[int, tuple[int, int]] = field(default_factory=dict)
    lent: tuple[int, ...] = ()

    def lenders(self) -> set[int]:
        """Return the numbers of the shards whose lent files are needed."""
        return {owner for owner, _ in self.elsewhere.values()}


def load_shared(root: Path, copies: Copies) -> dict[int, NDArray[np.float16]]:
    """Return the vectors (d,) of the positions that are lent; those that could not be used are left out."""
    run = RunDirectory(root)
    files = {owner: np.asarray(read_array(run.lent(owner))) for owner in copies.lenders()}
    vectors = {position: files[owner][place] for position, (owner, place) in copies.elsewhere.items()}
    return {position: vector for position, vector in vectors.items() if vector.any()}
