"""The message about an id that two samples of an input share, with advice that fits where the two are."""

from __future__ import annotations

from fairdedup.datasets.dataset import Shard
from fairdedup.errors import UserError


def duplicate_id_error(name: str, first: Shard, second: Shard) -> UserError:
    """Return the error about a duplicate id.

    Parameters
    ----------
    name : str
        The id.
    first, second : Shard
        The shards of the two samples, perhaps the same one. ``--id shard/key`` tells apart samples of different files.
    """
    if first.name != second.name and first.path != second.path:
        return UserError(
            f"duplicate id {name!r} in {first.name} and {second.name}: make ids unique, or add --id shard/key"
        )
    places = (
        f"{first.name}, where two samples have it" if first.name == second.name else f"{first.name} and {second.name}"
    )
    return UserError(
        f"duplicate id {name!r} in {places}: make ids unique there, by renaming or removing one of the two samples"
    )
