"""`deduplicate()`: the whole decision in memory, by the same code that the command line runs over files.

This module checks and converts the arguments. It never decides a row itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairdedup.argument_checks import check_choice, check_text, read_flag, read_number, read_whole
from fairdedup.arrays import as_matrix, open_masks
from fairdedup.core.decision_columns import DECISION_COLUMNS
from fairdedup.core.devices import choose_device, use_device
from fairdedup.core.keep_fraction import check_amount
from fairdedup.core.leftover import SIZE as LEFTOVER
from fairdedup.core.leftover import check_size
from fairdedup.core.model import Options
from fairdedup.core.prototypes import Prototypes
from fairdedup.core.reach import REACH_CLUSTERS
from fairdedup.core.rules.base import Rule
from fairdedup.core.rules.registry import choose_rule, find_rule, rule_for_column, rule_names
from fairdedup.decision_in_memory import DataInMemory
from fairdedup.errors import UserError, format_count
from fairdedup.in_memory import are_labels, make_parts
from fairdedup.picture_inputs import are_pictures, embed_pictures
from fairdedup.result import Result
from fairdedup.row_inputs import read_inputs

__all__ = ["DECISION_COLUMNS", "Result", "deduplicate"]


def deduplicate(
    embeddings: Any,
    keep: float | None = None,
    *,
    at_most: float | None = None,
    eps: float | None = None,
    rule: str | Rule | None = None,
    prototypes: Any = None,
    ids: Any = None,
    clusters: Any = "auto",
    seed: int = 0,
    cover: bool | None = None,
    reach: str | float | None = None,
    reach_clusters: int = REACH_CLUSTERS,
    published: bool = False,
    start: str = "cluster",
    calibrate: str = "none",
    target: str | Mapping[str, Mapping[str, float]] = "uniform",
    temperature: float | str | Mapping[str, float] = "auto",
    reserve: float = 0.1,
    prefer: Any = None,
    always_keep: Any = None,
    within: Any = None,
    leftover: int = LEFTOVER,
    device: str = "auto",
    encoder: str | None = None,
) -> Result:
    """Remove semantic duplicates from embeddings, or from pictures.

    Parameters
    ----------
    embeddings : array-like of shape (n, d)
        Vectors of any length, from NumPy, torch, pandas or Arrow (a list column). They are scaled to unit length and
        rounded to float16 first. Zero rows, and rows with a value that is not finite or is masked, are rejected.
        With `encoder`, a list of PIL images or of paths instead; those that cannot be read or decoded are rejected.
    keep : float, optional
        Keep exactly floor(keep * valid + 0.5) rows; in (0, 1]. Exactly one of keep, at_most and eps must be given.
    at_most : float, optional
        Keep at most this fraction of the valid rows; in (0, 1]. Nothing is re-admitted.
    eps : float, optional
        Two rows that are compared are duplicates when their cosine is above 1 - eps. A whole number of ten-thousandths,
        0 to 2.
    rule : str or Rule, optional
        Which member of a neighbourhood is kept: "fairdedup", "balanced", "semdedup", "prefer", "semdedup-chain",
        "random-neighbour", "random", or the name of a rule that you registered. By default "prefer" where `prefer` is
        given, "fairdedup" where `prototypes` are, else "semdedup", with a warning.
    prototypes : array-like of shape (c, d), or mapping attribute -> {concept: (d,)}, optional
        Needed by "fairdedup" and "balanced". An array is one attribute. A concept named "absent" holds one or more
        vectors of pictures that the attribute does not apply to.
    ids : array-like of shape (n,), optional
        Unique ids; the row numbers if not given. The result has them as the very objects of the list or the array,
        whatever hashable type they have. A list of plain int or float becomes an array of numbers.
    clusters : int, "auto" or array-like of shape (n,)
        Number of clusters, or the labels (integers >= 0) of an existing clustering.
    seed : int
        Seed of the clustering and of the random rules.
    cover : bool, optional
        Whether a kept sample removes only its own neighbours: then every removed row has a kept duplicate, and no two
        kept rows that are compared are duplicates. By default it does, with every rule that forms neighbourhoods.
    reach : "auto" or float, optional
        How near another cluster a row must lie to be compared with its rows: the largest difference of its cosines
        to the two centroids, 0 to 2; "auto" derives it from eps. 0 compares rows within clusters only, as all
        published methods do. By default "auto" with every rule that forms neighbourhoods, and 0 if labels are given.
    reach_clusters : int
        Number of most similar clusters that a row can reach, its own included; 16 by default.
    published : bool
        Whether to follow the papers' own procedure: ``cover=False, reach=0``.
    start : {"cluster", "zero"}
        `fairdedup`: whether concept sums start from the cluster's mean similarity, or from zero.
    calibrate : {"none", "zscore"}
        `fairdedup`: whether the similarity to each concept is standardised over the data set first.
    target : {"uniform", "data"} or mapping attribute -> {concept: share}
        `balanced`: shares to aim at.
    temperature : float, "auto" or mapping attribute -> float
        `balanced`: temperature of the softmax over an attribute's concepts.
    reserve : float
        `balanced`: share of the kept count that is reserved for rare rows of all clusters; 0 to 0.3.
    prefer : array-like of shape (n,), optional
        `prefer`: numbers; the row with the highest of a neighbourhood is kept. Missing ones (NaN, None, masked)
        come last.
    always_keep : array-like, optional
        IDs, or a mask of shape (n,), of rows that are kept whatever the rule; their duplicates are removed first.
    within : array-like of shape (n,), optional
        Values such as albums, classes or languages: rows are compared only where these are equal. Any hashable values
        do; missing ones (NaN, None, masked) are equal to each other. Each value in a cluster keeps at least one row.
    leftover : int
        Number of kept rows, drawn with the seed, that are looked up among all kept rows: `Result.leftover` counts those
        that still have a duplicate there. 1,000 by default, at most 100,000; 0 turns it off.
    device : {"auto", "cpu", "cuda"}
        Device on which k-means trains, rows are assigned and duplicates are found: "auto" takes a GPU where torch
        sees one and the work is much. The result is the same on all. The encoder runs on it too.
    encoder : str, optional
        What embeds pictures: ``MODEL:TAG`` of open_clip, ``MODEL:FILE``, ``hf-hub:OWNER/NAME``, ``local-dir:FOLDER``,
        or ``fairdedup-small``, which is built in and for trials only. `prototypes` must come from the same model.

    Returns
    -------
    Result
        The kept ids, and every decision.

    Raises
    ------
    UserError
        If an argument is wrong. It is a ValueError, whose message of one line says what, where, and a remedy.

    References
    ----------
    Abbas et al. 2023, SemDeDup, arXiv 2303.09540. Slyman et al. 2024, FairDeDup, CVPR, arXiv 2404.16123.

    Examples
    --------
    >>> import numpy as np
    >>> from fairdedup import deduplicate
    >>> x = np.random.default_rng(0).standard_normal((100, 8))
    >>> result = deduplicate(np.concatenate([x, x]), keep=0.5, rule="semdedup")
    >>> len(result.kept)
    100
    """
    keep, at_most, eps = (
        None if value is None else read_number(name, value, example)
        for name, value, example in (("keep", keep, "0.5"), ("at_most", at_most, "0.5"), ("eps", eps, "0.05"))
    )
    seed, reserve = read_whole("seed", seed), read_number("reserve", reserve, "0.1")
    for name, text, forms in (
        ("start", start, "cluster or zero"),
        ("calibrate", calibrate, "none or zscore"),
        ("device", device, "auto, cpu or cuda"),
    ):
        check_text(name, text, forms)
    size = read_whole("leftover", leftover)
    check_size(size)
    check_choice("target", target, "uniform, data or {attribute: shares}")
    check_choice("temperature", temperature, "a number above 0, auto or {attribute: number}", number=True)
    known_rule, why = _choose_rule(rule, prototypes, prefer)
    cover, reach = _settle_comparison(known_rule, cover, reach, published, labelled=are_labels(clusters))
    options = Options(
        rule=known_rule,
        cover=cover,
        seed=seed,
        start=start,
        calibrate=calibrate,
        target=target,
        temperature=temperature,
        reserve=reserve,
        protected=always_keep is not None,
        reach=reach,
        reach_clusters=reach_clusters,
        within=within is not None,
    )
    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"`device={device}` is unknown: choose auto, cpu or cuda")
    choose_device(device, 0)  # refuses a GPU that is not there, whatever the rule needs
    if (prefer is not None) != known_rule.needs_column:
        raise UserError(
            f"`rule={rule_for_column().name}` and `prefer` go together: give both, `prefer` as numbers of shape (n,)"
        )
    faults: dict[int, str] = {}
    if encoder is not None or are_pictures(embeddings):
        check_amount(keep, at_most, eps)  # before a model is loaded
        embeddings, faults = embed_pictures(embeddings, encoder, device)
    vectors = as_matrix(embeddings)
    concepts = _read_prototypes(prototypes, vectors.shape[1])
    given = read_inputs(vectors, ids, always_keep, prefer, within)
    with use_device(device):
        parts = make_parts(given, clusters, options, device, at_most if keep is None else keep)
    data = DataInMemory(given, parts, options, concepts, size, device, () if why is None else (why,), faults)
    return data.decide(keep=keep, at_most=at_most, eps=eps)


def _settle_comparison(
    rule: Rule, cover: Any, reach: str | float | None, published: Any, *, labelled: bool
) -> tuple[bool, str | float]:
    """Return `cover` and `reach` as they were given, or else as `published`, the rule and given labels have them."""
    if read_flag("published", published):
        for name, value in (("cover", cover), ("reach", reach)):
            if value:
                raise UserError(
                    f"`published=True` is `cover=False` with `reach=0`; got `{name}={value}`: leave one of them out"
                )
        return False, 0
    if reach is None:
        reach = "auto" if rule.sweeps and not labelled else 0
    return rule.sweeps if cover is None else read_flag("cover", cover), reach


def _choose_rule(rule: Any, prototypes: Any, prefer: Any) -> tuple[Rule, str | None]:
    """Return the rule that is named, or else one that fits what is given and why it is another than the default."""
    if isinstance(rule, Rule):
        return rule, None
    if rule is None:
        name, why = choose_rule(has_prototypes=prototypes is not None, has_column=prefer is not None)
        return find_rule(name), None if why is None else f"{why}: for a fair rule give `prototypes`"
    check_text("rule", rule, f"one of {', '.join(rule_names())}")
    return find_rule(rule), None


def _read_prototypes(prototypes: Any, dimension: int) -> Prototypes | None:
    """Return the prototypes; refuse those that do not have the dimension of the embeddings."""
    if prototypes is None:
        return None
    concepts = Prototypes.of(open_masks(prototypes))
    if concepts.dimension != dimension:
        raise UserError(
            f"`prototypes` have {format_count(concepts.dimension, 'dimension')} and the embeddings {dimension}: "
            "both must come from one model"
        )
    return concepts
