"""Evaluation samples (``--exclude-near``): rows too near to one of them are excluded, whatever their clusters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.nearest import most_similar
from fairdedup.core.similarity import EPS_UNIT, Vectors
from fairdedup.storage.contents import Embedded
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.records import ShardRecord
from fairdedup.storage.shard_files import open_shard_vectors

BLOCK = 1 << 14  # rows, and evaluation samples, that are compared at a time


@dataclass(frozen=True)
class EvaluationVectors:
    """The vectors of evaluation samples on disk, which every task can read.

    Attributes
    ----------
    directory : RunDirectory
    shards : list of ShardRecord
        Records of the embedding shards that have vectors.
    eps : int
        Ten-thousandths; a row is too near if its cosine is above 1 - eps.
    """

    directory: RunDirectory
    shards: list[ShardRecord]
    eps: int


@dataclass(frozen=True)
class Evaluation:
    """Evaluation samples.

    Attributes
    ----------
    embedded : Embedded
        Embeddings of the samples.
    name : str
        Value of ``--exclude-near``.
    eps : int
        Ten-thousandths; a row is too near if its cosine is above 1 - eps.
    """

    embedded: Embedded
    name: str
    eps: int

    def vectors(self) -> EvaluationVectors:
        """Return the vectors in the form that tasks take."""
        shards = [record for record in self.embedded.records if record.valid]
        return EvaluationVectors(self.embedded.directory, shards, self.eps)


def find_too_near(unit: NDArray[np.float16], evaluation: EvaluationVectors) -> NDArray[np.int64]:
    """Return the evaluation sample that each row is too near to.

    Parameters
    ----------
    unit : ndarray of shape (n, d), float16
        Vectors of the rows.
    evaluation : EvaluationVectors

    Returns
    -------
    ndarray of shape (n,), int64
        Place of the most similar evaluation sample, ties to the first; -1 where none is too near.
    """
    opened = [open_shard_vectors(evaluation.directory, record) for record in evaluation.shards]
    found = np.full(len(unit), -1)
    for start in range(0, len(unit), BLOCK):
        own = Vectors.of(unit[start : start + BLOCK])
        best, place = np.full(len(own), -2.0), np.full(len(own), -1)
        before = 0
        for others in opened:
            for first in range(0, len(others), BLOCK):
                nearest, similarity = most_similar(own, Vectors.of(others[first : first + BLOCK]))
                more = similarity > best
                best[more], place[more] = similarity[more], before + first + nearest[more]
            before += len(others)
        near = best > 1.0 - evaluation.eps / EPS_UNIT
        found[start : start + BLOCK][near] = place[near]
    return found
