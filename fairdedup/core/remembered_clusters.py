"""What no eps changes of the clusters of a part: computed in the first step of a decision in rounds, then remembered.

The memo of a part is empty in another process, so this goes through what the part saves. A step that finds it there
reads no vector that it does not need.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.model import Plan
from fairdedup.core.part import Part
from fairdedup.core.pinned import PinnedRows
from fairdedup.core.rules.base import Preference

_NAME = "clusters"


def recall_clusters(part: Part, plan: Plan) -> None:
    """Put into the memo of a part what an earlier step has saved; without it, nothing.

    Parameters
    ----------
    part : Part
        At least one cluster.
    plan : Plan
        What is known about the whole data set.
    """
    saved = None if part.memo else part.load(_NAME)
    if saved is None:
        return
    saved = {name: np.array(array) for name, array in saved.items()}
    ends, stop = np.cumsum(saved["sizes"]).tolist(), 0
    for k, number in enumerate(saved["clusters"].tolist()):
        own, stop = slice(stop, ends[k]), ends[k]
        part.memo["centroid similarity", number] = saved["centroid_similarity"][own]
        weight = int(saved["likeness_weight"][k])
        preference = Preference(saved["price"][own], weight, saved["similarity"][own], saved["sums"][k])
        part.memo["preference", number] = (plan, preference)
        if "needed" in saved:
            part.memo["pinned", number] = PinnedRows(saved["needed"][own], saved["keeper"][own])


def save_clusters(part: Part, numbers: list[int], plan: Plan) -> None:
    """Save what the memo of a part has of some clusters for the later steps, unless it is saved.

    Parameters
    ----------
    part : Part
        At least one cluster.
    numbers : list of int
        Numbers of its clusters.
    plan : Plan
        What is known about the whole data set.
    """
    if part.load(_NAME) is not None:
        return
    memo = part.memo
    similarity = [memo["centroid similarity", number] for number in numbers]
    preferences = [memo["preference", number][1] for number in numbers]
    pinned = [memo.get(("pinned", number)) for number in numbers]
    arrays: dict[str, NDArray[Any]] = {
        "clusters": np.array(numbers, np.int64),
        "sizes": np.array([len(own) for own in similarity], np.int64),
        "centroid_similarity": np.concatenate(similarity),
        "price": np.concatenate([own.price for own in preferences]),
        "likeness_weight": np.array([own.likeness_weight for own in preferences], np.int64),
        "similarity": np.concatenate([own.similarity for own in preferences]),
        "sums": np.stack([own.sums for own in preferences]),
    }
    if any(own is not None for own in pinned):
        known = [own or PinnedRows.none(len(rows)) for own, rows in zip(pinned, similarity, strict=True)]
        arrays["needed"] = np.concatenate([own.needed for own in known])
        arrays["keeper"] = np.concatenate([own.keeper for own in known])
    part.save(_NAME, arrays)
