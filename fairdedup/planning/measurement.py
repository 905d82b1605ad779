"""The types of what was measured: seconds of a stage for its work, and the job that memory was measured in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """What a stage costs.

    Attributes
    ----------
    unit : float
        Seconds of one worker for a unit of work.
    shard : float
        Seconds of one worker for each shard, beside that.
    source : str
        Where in the results file the seconds are.
    """

    unit: float
    shard: float
    source: str


@dataclass(frozen=True)
class MeasuredJob:
    """The largest job that was measured.

    Attributes
    ----------
    source : str
        Results file, and the name of the job in it.
    hardware : str
        What it ran on.
    rows, dim, clusters : int
        Its size.
    largest : int
        Rows of its largest cluster.
    """

    source: str
    hardware: str
    rows: int
    dim: int
    clusters: int
    largest: int
