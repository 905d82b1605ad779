"""The figures of a report as typed values. Nothing here reads a file or knows how the page looks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairdedup.storage.manifest import RunManifest


@dataclass
class ShownSample:
    """A sample that the page shows.

    Attributes
    ----------
    row : int
        Position in the input.
    id : str
    kept, readmitted : bool
    cluster : int
    representative : int
        Row of the sample that stands for it; -1 where there is none in this run.
    similarity : float or None
        Cosine to the representative.
    centroid_similarity : float
    caption : str or None
        Its beginning, if it is long.
    width, height, bytes : int or None
        Size of the picture in pixels, and of its file.
    """

    row: int
    id: str
    kept: bool
    readmitted: bool
    cluster: int
    representative: int
    similarity: float | None
    centroid_similarity: float
    caption: str | None = None
    width: int | None = None
    height: int | None = None
    bytes: int | None = None


@dataclass(frozen=True)
class LostGroup:
    """The group that a choice cost most: the expected less the actual share of the one that is kept, 0 to 1."""

    attribute: str
    group: str
    loss: float


@dataclass(frozen=True)
class Neighbourhood:
    """A kept sample and those that it stands for.

    Attributes
    ----------
    row : int
        Row of the kept sample.
    size : int
        Number of removed samples that it stands for.
    members : list of (int, float)
        Rows of some of these with their cosines, most similar first; the least similar one is always among them.
    least : float
        Least of all their cosines.
    lost : LostGroup or None
    """

    row: int
    size: int
    members: list[tuple[int, float]]
    least: float
    lost: LostGroup | None = None


@dataclass(frozen=True)
class Pair:
    """Two samples and their cosine. With `removed` the first was removed for the second, otherwise both are kept."""

    first: int
    second: int
    cosine: float
    removed: bool


@dataclass(frozen=True)
class Band:
    """Pairs with a cosine of more than `low` and at most `high`.

    Attributes
    ----------
    low, high : float
    count : int or None
        Number of removed samples in the band; None where no sample was removed, under the threshold.
    pairs : list of Pair
        Examples.
    """

    low: float
    high: float
    count: int | None
    pairs: list[Pair]


@dataclass(frozen=True)
class GroupFigure:
    """Share of a group before and after.

    Attributes
    ----------
    group : str
    before, after : float
        Shares, 0 to 1.
    interval : (float, float) or None
        95 % interval of the change.
    """

    group: str
    before: float
    after: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class AttributeFigure:
    """Groups of an attribute."""

    attribute: str
    groups: list[GroupFigure]


@dataclass(frozen=True)
class GroupFigures:
    """Shares of groups before and after the decision.

    Attributes
    ----------
    source : str
        Where the groups come from, as part of a sentence.
    perceived : bool
        Whether an encoder perceived them; they are not labels.
    attributes : list of AttributeFigure
    """

    source: str
    perceived: bool
    attributes: list[AttributeFigure]


@dataclass(frozen=True)
class Rejection:
    """A reason for which samples were rejected.

    Attributes
    ----------
    reason : str
    count : int
    examples : list of (str, str)
        Id and place of some samples.
    """

    reason: str
    count: int
    examples: list[tuple[str, str]]


@dataclass(frozen=True)
class EmbeddingMap:
    """Samples in a plane.

    Attributes
    ----------
    rows : ndarray of shape (n,), int64, ascending
    x, y : ndarray of shape (n,), uint16
    kept : ndarray of shape (n,), bool
    cluster : ndarray of shape (n,), int64
    representative : ndarray of shape (n,), int64
        Row; -1 where there is none.
    similarity : ndarray of shape (n,), float64
        Cosine to the representative; NaN where there is none.
    groups : dict of str to ndarray of shape (n,), uint8
        Number of each sample's group, by attribute; 255 without one.
    names : dict of str to list of str
        Names of these groups, by attribute.
    ids, captions : list of str, or None
        None where there are too many to put them on a page.
    among : int
        Number of samples that these were drawn from.
    explained : float
        Share of the variance that both directions have, 0 to 1; 0 where another method than PCA placed the points.
    method : str
        "PCA", "PaCMAP" or "UMAP".
    remark : str
        Why an installed method was not used; empty otherwise.
    reach : float
        Half the width of all that `x` and `y` can express, in half widths of the first view.
    """

    rows: NDArray[np.int64]
    x: NDArray[np.uint16]
    y: NDArray[np.uint16]
    kept: NDArray[np.bool_]
    cluster: NDArray[np.int64]
    representative: NDArray[np.int64]
    similarity: NDArray[np.float64]
    groups: dict[str, NDArray[np.uint8]]
    names: dict[str, list[str]]
    ids: list[str] | None
    captions: list[str] | None
    among: int
    explained: float
    method: str = "PCA"
    remark: str = ""
    reach: float = 1.0


@dataclass(frozen=True)
class ReportFigures:
    """All that the page shows, but for the pictures.

    Attributes
    ----------
    name : str
        Name of the run directory.
    manifest : RunManifest
    groups : GroupFigures or None
    similarities : ndarray of shape (20001,), int64
        Number of removed samples by cosine to their representative, in ten-thousandths from -1.
    sizes : ndarray of shape (k, 2), int64
        Valid and kept samples of each cluster.
    gallery : list of Neighbourhood
    neighbourhoods : int
        Number of kept samples that stand for a removed one.
    bands : list of Band
        By ascending cosine.
    outliers : list of int
        Rows that are farthest from their centroids.
    rejections : list of Rejection
        The commonest reason first.
    map : EmbeddingMap or None
    samples : dict of int to ShownSample
        Every sample that is named by its row above, apart from the map.
    suggestion : str
        Sentence about the eps that the data suggest; empty without one.
    sampled : bool
        Whether the pairs under the threshold, the groups lost and the map come from a part of the run.
    """

    name: str
    manifest: RunManifest
    groups: GroupFigures | None
    similarities: NDArray[np.int64]
    sizes: NDArray[np.int64]
    gallery: list[Neighbourhood]
    neighbourhoods: int
    bands: list[Band]
    outliers: list[int]
    rejections: list[Rejection]
    map: EmbeddingMap | None
    samples: dict[int, ShownSample] = field(default_factory=dict)
    suggestion: str = ""
    sampled: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """Options of the decision."""
        return self.manifest.config["prune"]
