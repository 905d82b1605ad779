"""What is decided of a part so far in a decision in rounds, from step to step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.part import Part


@dataclass
class ClusterState:
    """What is decided of the n rows of a cluster so far, in visiting order.

    Attributes
    ----------
    order : ndarray of shape (n,), int64
        Position of each row in the cluster.
    rows : ndarray of shape (n,), int64
    keeper, leader : ndarrays of shape (n,), int64
        Row that is kept for each, and leader of the step that visited it, of any cluster; -1 while a row is open.
        A sample that an earlier run kept is both, as `encode_earlier` returns it.
    sums : ndarray of shape (c,), int64
        What each concept's sum has reached.
    """

    order: NDArray[np.int64]
    rows: NDArray[np.int64]
    keeper: NDArray[np.int64]
    leader: NDArray[np.int64]
    sums: NDArray[np.int64]

    @property
    def is_open(self) -> NDArray[np.bool_]:
        """Mask of the rows (n,) that are not decided."""
        return self.keeper == OPEN


OPEN = -1  # in place of a row


def encode_earlier(names: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the names of samples that earlier runs kept as numbers below `OPEN`; these numbers give the names back."""
    return -2 - names


COLUMNS = ("order", "rows", "keeper", "leader")  # of a state


class Trial(NamedTuple):
    """One decision in rounds.

    Attributes
    ----------
    eps : int
        Ten-thousandths.
    most : int
        Largest eps that the search may come to, for what is remembered.
    """

    eps: int
    most: int


def save_states(part: Part, trial: Trial, version: int, states: dict[int, ClusterState]) -> None:
    """Keep the states of all clusters of a part for the next step."""
    found = list(states.values())
    columns = [np.concatenate([getattr(state, name) for state in found]) for name in COLUMNS]
    clusters = np.array([(number, len(state.rows)) for number, state in states.items()], np.int64)
    sums = np.stack([state.sums for state in found])
    part.save(_name(trial, version), {"clusters": clusters, "sums": sums, "rows": np.stack(columns)})


def load_states(part: Part, trial: Trial, version: int) -> dict[int, ClusterState]:
    """Return the states that a step has saved, by cluster."""
    saved = part.load(_name(trial, version))
    assert saved is not None
    states, start = {}, 0
    for (number, size), sums in zip(saved["clusters"].tolist(), saved["sums"], strict=True):
        columns = saved["rows"][:, start : start + size].copy()
        order, rows, keeper, leader = columns
        states[number] = ClusterState(order, rows, keeper, leader, sums)
        start += size
    return states


def _name(trial: Trial, version: int) -> str:
    return f"{name_of(trial)}{version}"


def name_of(trial: Trial) -> str:
    """Return how the names begin under which the steps of a trial save what they know."""
    return f"round-{trial.eps}-"
