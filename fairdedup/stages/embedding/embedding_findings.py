"""What reading the input has found besides samples, over all shards: unused files, and damage with what it has cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median

from fairdedup.datasets.findings import describe_unused
from fairdedup.datasets.npy_arrays import DAMAGED_NPY
from fairdedup.datasets.rows import DAMAGED
from fairdedup.datasets.table_files import DAMAGED_ARROW
from fairdedup.errors import format_count
from fairdedup.storage.records import ShardRecord


def add_unused(records: Sequence[ShardRecord], found: Mapping[str, int]) -> dict[str, int]:
    """Return how many files and members no sample uses, by ending.

    Parameters
    ----------
    records : sequence of ShardRecord
        Records of all shards.
    found : mapping of str to int
        The files that were found when the input was opened.
    """
    total = Counter(found)
    for record in records:
        total.update(record.unused)
    return dict(sorted(total.items()))


def describe_damage(records: Sequence[ShardRecord]) -> list[str]:
    """Return a sentence for each damaged shard: what is damaged, and about how many rows are lost.

    Rows of a table or an array that cannot be read are rejected, so they are counted. Otherwise the estimate is the
    median number of rows of the undamaged shards, less what was read; without any it is unknown.

    Parameters
    ----------
    records : sequence of ShardRecord
        Records of all shards.
    """
    whole = [record.input for record in records if record.damage is None]
    lines = []
    for record in records:
        if record.damage is not None:
            rejected = sum(row.reason in (DAMAGED, DAMAGED_ARROW, DAMAGED_NPY) for row in record.rejected)
            if rejected:
                lines.append(
                    f"{record.name} is damaged: {record.damage}; "
                    f"{format_count(rejected, 'row is', 'rows are')} rejected"
                )
                continue
            lost = max(0, round(median(whole)) - record.input) if whole else None
            cost = (
                "an unknown number of rows is lost"
                if lost is None
                else f"about {format_count(lost, 'row is', 'rows are')} lost"
            )
            lines.append(f"{record.name} is damaged: {record.damage}; {cost}")
    return lines


def list_warnings(unused: Mapping[str, int], damaged: Sequence[str], remarks: Sequence[str]) -> list[str]:
    """Return the warnings of run.json about what was found in the input besides its samples."""
    passed_over = [f"not read: {describe_unused(unused)}"] if unused else []
    return [*damaged, *passed_over, *remarks]
