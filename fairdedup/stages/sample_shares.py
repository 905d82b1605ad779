"""Shares of the groups of the built-in sample before and after a decision, by the labels that it was drawn with."""

from __future__ import annotations

import pandas as pd

from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.manifest import GroupShare
from fairdedup.storage.run_files import read_table

COLUMNS = ("perceived_gender", "age", "skin_tone")


def measure_sample_shares(directory: RunDirectory) -> list[GroupShare]:
    """Return the share of each drawn group among the valid and among the kept samples, by attribute, then by name."""
    labels = read_table(directory.root / "sample" / "labels.parquet").to_pandas()
    parts = sorted((directory.root / "decisions").glob("*.parquet"))
    decisions = pd.concat([read_table(part, ["id", "kept"]).to_pandas() for part in parts])
    merged = labels.merge(decisions, on="id")
    shares = []
    for column in COLUMNS:
        known = merged[merged[column] != "none"]
        before = known[column].value_counts(normalize=True)
        after = known.loc[known["kept"], column].value_counts(normalize=True)
        for group in sorted(before.index):
            share = GroupShare(
                attribute=f"drawn {column.replace('_', ' ')}",
                group=str(group),
                input=float(before[group]),
                kept=float(after.get(group, 0.0)),
            )
            shares.append(share)
    return shares
