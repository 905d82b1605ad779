"""Shares of the groups of the built-in sample before and after a decision, by the labels that it was drawn with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pyarrow as pa

from fairdedup.storage.config_record import read_config_record
from fairdedup.storage.contents import Embedded
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.manifest import GroupShare
from fairdedup.storage.remedies import MAKE_AGAIN
from fairdedup.storage.result_files import result_part
from fairdedup.storage.sealed_files import Seal, Unsealed, load_table
from fairdedup.storage.shard_files import read_known_columns

COLUMNS = ("perceived_gender", "age", "skin_tone")
DRAWN_BY = "drawn by fairdedup sample"  # what the sample's pictures have in the column `source`


def are_drawn(embedded: Embedded) -> bool:
    """Tell whether the pictures are drawn ones of `fairdedup sample`: those of the first shard that has any.

    Parameters
    ----------
    embedded : Embedded
    """
    filled = next((record for record in embedded.records if record.valid), None)
    if filled is None:
        return False
    known = read_known_columns(embedded.directory, filled, ["source"])
    return known.num_columns > 0 and set(known.column("source").to_pylist()) == {DRAWN_BY}


def measure_sample_shares(directory: RunDirectory, files: Mapping[str, str]) -> list[GroupShare]:
    """Return the share of each drawn group among the valid and among the kept samples, by attribute, then by name.

    Parameters
    ----------
    directory : RunDirectory
    files : mapping of str to str
        Seals of the results, by path below the run directory.
    """
    labels = load_table(labels_of(directory))
    numbers = range(sum(name.startswith("decisions/") for name in files))
    parts = [result_part(directory, "decisions", number, files) for number in numbers]
    decisions = pa.concat_tables(load_table(part, ["id", "kept"]) for part in parts)
    kept = dict(zip(decisions["id"].to_pylist(), decisions["kept"].to_pylist(), strict=True))
    shares = []
    for column in COLUMNS:
        groups = zip(labels["id"].to_pylist(), labels[column].to_pylist(), strict=True)
        known = [(group, kept[name]) for name, group in groups if group != "none" and name in kept]
        before, after = Counter(group for group, _ in known), Counter(group for group, stays in known if stays)
        for group in sorted(before):
            share = GroupShare(
                attribute=f"drawn {column.replace('_', ' ')}",
                group=str(group),
                input=before[group] / before.total(),
                kept=after[group] / after.total() if after else 0.0,
            )
            shares.append(share)
    return shares


def check_sample_labels(directory: RunDirectory) -> None:
    """Raise `DamagedFileError` if the labels of the built-in sample of a run are damaged."""
    source = labels_of(directory)
    if isinstance(source, Seal):
        source.verify()


def labels_of(directory: RunDirectory) -> Seal | Unsealed:
    """Return the labels of the sample with the seal that config.json has since the sample was embedded."""
    path, sealed = directory.root / "sample" / "labels.parquet", read_config_record(directory).sample
    if sealed is None:
        return Unsealed(path, "a version without this seal has drawn the sample")
    return Seal(path, sealed, MAKE_AGAIN)
