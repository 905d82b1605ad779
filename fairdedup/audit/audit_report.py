"""The report of an audit as typed values: one model for each object in report/audit.json.

A model rounds its values to 9 decimals and stores a missing one (NaN) as None, so that the file, the tables and the
gate all read the same numbers. A key that was never set is left out of the file.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

from fairdedup.storage.manifest import LeftoverRecord

DECIMALS = 9


def to_json_value(value: Any) -> Any:
    """Return a value that JSON can hold.

    NaN becomes None, an infinity becomes text, other floats are rounded to 9 decimals, NumPy scalars become Python's,
    and a list of missing values only becomes None. Dicts and lists are converted at every level.
    """
    if isinstance(value, dict):
        return {name: to_json_value(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        values = [to_json_value(v) for v in value]
        return None if values and all(v is None for v in values) else values
    if isinstance(value, float):
        return None if math.isnan(value) else str(float(value)) if math.isinf(value) else round(float(value), DECIMALS)
    return value.item() if isinstance(value, np.generic) else value


def _round(value: Any) -> float | None:
    """Return a number rounded, or None for NaN; "-inf" is read as minus infinity."""
    number = math.nan if value is None else float(value)
    return None if math.isnan(number) else number if math.isinf(number) else round(number, DECIMALS)


def _round_interval(value: Any) -> tuple[float | None, ...] | None:
    bounds = None if value is None else tuple(_round(v) for v in value)
    return None if bounds is None or None in bounds else bounds


Amount = int | float  # a number of samples, or a sum of soft memberships
Finite = Annotated[float, AfterValidator(lambda number: round(number, DECIMALS))]
Number = Annotated[float | None, BeforeValidator(_round)]
Interval = Annotated[tuple[float, float] | None, BeforeValidator(_round_interval)]


class _Model(BaseModel):
    model_config = ConfigDict(validate_assignment=True)  # without it a value set later would not be rounded


class RemovedSample(_Model):
    """A removed sample of a group, named as an example.

    Attributes
    ----------
    id : str
        Id of the sample.
    representative : str or None
        Id of the kept sample that represents it; None for a rule without representatives.
    similarity : float or None
        Cosine of the two.
    membership : float
        Membership of the sample in the group, 0 to 1.
    """

    id: str
    representative: str | None
    similarity: Number
    membership: Finite


class ClusterLoss(_Model):
    """What a group lost in one cluster.

    Attributes
    ----------
    cluster : int
        Number of the cluster.
    rows, kept : float
        Rows and kept rows of all groups of the attribute in it.
    group_rows, group_kept : float
        Rows and kept rows of the group in it.
    cost : float
        Number of kept samples that the group lost through the cluster.
    lost : list of RemovedSample
        Examples.
    """

    cluster: int
    rows: Finite
    kept: Finite
    group_rows: Finite
    group_kept: Finite
    cost: Finite
    lost: list[RemovedSample]


class NeighbourhoodLoss(_Model):
    """What a group lost through the choice in one neighbourhood; the other fields are those of `ClusterLoss`.

    Attributes
    ----------
    neighbourhood : int
        Number of the neighbourhood.
    """

    neighbourhood: int
    cluster: int
    rows: Finite
    kept: Finite
    group_rows: Finite
    group_kept: Finite
    cost: Finite
    lost: list[RemovedSample]


class GroupLoss(_Model):
    """How many kept samples a group is short of its fair share, and where.

    Attributes
    ----------
    between, within, whole : float
        The loss through clusters that were pruned harder, the loss through choices inside clusters, and their sum.
    clusters_between, clusters_within : list of ClusterLoss
        The clusters with the largest losses of each kind. Not set for an insufficient group.
    neighbourhoods : list of NeighbourhoodLoss
        The neighbourhoods with the largest losses in these clusters. Not set for an insufficient group.
    """

    between: Finite
    within: Finite
    whole: Finite
    clusters_between: list[ClusterLoss] = []
    clusters_within: list[ClusterLoss] = []
    neighbourhoods: list[NeighbourhoodLoss] = []


class GroupReport(_Model):
    """What was kept of one group. An insufficient group has only counts and a loss.

    Attributes
    ----------
    group : str
        Label of the group; for an intersection, the labels joined by " × ".
    before, kept : int or float
        Rows, and kept rows.
    sufficient : bool
        Whether the group has at least `min_count` rows.
    rate, to_best : float or None
        Keep rate, and its ratio to the largest keep rate of a sufficient group.
    share_before, share_after, shift : float or None
        Share of the rows, of the kept rows, and the difference.
    skew : float or None
        ln(share_after / share_before); minus infinity if no sample of the group is kept.
    rate_interval, shift_interval, skew_interval : tuple of float or None
        95 % intervals over resampled clusters.
    under_four_fifths : bool or None
        Whether `to_best` is under 0.8.
    p, p_holm : float or None
        p-value against `random`, plain and with Holm's correction.
    why : str or None
        Why a value is missing.
    loss : GroupLoss
        How many kept samples the group is short of its fair share, and where.
    """

    group: str
    before: Amount
    kept: Amount
    sufficient: bool
    rate: Number = None
    rate_interval: Interval = None
    to_best: Number = None
    under_four_fifths: bool | None = None
    share_before: Number = None
    share_after: Number = None
    shift: Number = None
    shift_interval: Interval = None
    skew: Number = None
    skew_interval: Interval = None
    p: Number = None
    p_holm: Number = None
    why: str | None = None
    loss: GroupLoss

    def model_post_init(self, context: Any) -> None:
        """Mark every field as set, so that the file has all keys, with null for a missing value."""
        self.model_fields_set.update(type(self).model_fields)


class AttributeReport(_Model):
    """What was kept of the groups of one attribute or intersection.

    The fields from `keep_rate` on are not set if no sample has a label of the attribute.

    Attributes
    ----------
    attribute : str
        Name of the attribute; for an intersection, the names joined by " × ".
    attributes : list of str
        Names of the attributes that are crossed.
    intersection : bool
        Whether several attributes are crossed.
    rows, kept : int or float
        Rows and kept rows of all groups.
    unlabelled : int or None
        Number of samples in the run without a label; None for soft memberships.
    groups : list of GroupReport
        Groups that have a row.
    keep_rate : float
        Kept rows / rows.
    ratio, ratio_interval : float and tuple of float, or None
        Smallest keep rate of a sufficient group / largest one.
    under_four_fifths : bool or None
        Whether `ratio` is under 0.8.
    majority : str
        Group with the most rows.
    non_majority_before, non_majority_after : float or None
        Share of all other groups.
    target : str
        Name of the target shares: "uniform", "data" or "the run's own".
    distance_before, distance_after : float or None
        Total variation to the target shares.
    kl_to_full, kl_to_uniform : float or None
        KL divergence, in nats, of the shares after from the shares before, and from equal shares.
    test : str
        Name of the test that gave the p-values.
    why : str
        Why values are missing; not set if none is.
    """

    attribute: str
    attributes: list[str]
    intersection: bool
    rows: Amount
    kept: Amount
    unlabelled: int | None
    groups: list[GroupReport]
    keep_rate: Number = None
    ratio: Number = None
    ratio_interval: Interval = None
    under_four_fifths: bool | None = None
    majority: str = ""
    non_majority_before: Number = None
    non_majority_after: Number = None
    target: str = ""
    distance_before: Number = None
    distance_after: Number = None
    kl_to_full: Number = None
    kl_to_uniform: Number = None
    test: str = ""
    why: str | None = None


class SuggestionReport(_Model):
    """Where the samples suggested for labelling were written.

    Attributes
    ----------
    file : str
        Path of the CSV.
    rows, clusters : int
        Number of samples, and of the clusters that contain them.
    """

    file: str
    rows: int
    clusters: int


class AuditReport(_Model):
    """All results of an audit: the content of report/audit.json.

    Attributes
    ----------
    source : str
        "labels" or "soft membership".
    says : str
        The source as part of a sentence.
    rule : str
        Rule that made the decisions.
    counts : dict of str to int
        Numbers of rows of the run, as in run.json.
    min_count, draws, seed : int
        Options of the audit.
    confidence : float
        Level of the intervals.
    leftover : LeftoverRecord
        How many kept samples still have a kept duplicate, as in run.json; not set if that was not measured.
    notes : list of str
        Remarks for the reader.
    attributes : list of AttributeReport
        Attributes and intersections.
    suggested : SuggestionReport or None
        Where the suggested samples were written; not set without --suggest-labels.
    """

    source: str
    says: str
    rule: str
    counts: dict[str, int]
    min_count: int
    confidence: float
    draws: int
    seed: int
    leftover: LeftoverRecord | None = None
    notes: list[str]
    attributes: list[AttributeReport]
    suggested: SuggestionReport | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the content of report/audit.json."""
        return to_json_value(self.model_dump(exclude_unset=True))
