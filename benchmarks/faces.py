"""FairFace (Karkkainen and Joo, WACV 2021; CC BY 4.0) as it is published, or as WebDataset shards with its labels.

The labels are what annotators perceived. Copies of the label files that went through a spreadsheet hold dates where
ages were; these are repaired, and any other unknown value is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from fairdedup.datasets import open_input
from fairdedup.datasets.images import decode
from fairdedup.errors import UserError

VALUES = {
    "race": ("Black", "East Asian", "Indian", "Latino_Hispanic", "Middle Eastern", "Southeast Asian", "White"),
    "gender": ("Female", "Male"),
    "age": ("0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "more than 70"),
}
SPREADSHEET = {
    **dict.fromkeys(("03-Sep", "3-Sep", "09-Mar", "9-Mar"), "3-9"),
    **dict.fromkeys(("Oct-19", "19-Oct"), "10-19"),
}


@dataclass(frozen=True)
class Face:
    """One face: where it is from, its file's hash, its picture, and what annotators perceived."""

    name: str
    digest: str
    picture: Image.Image | None
    labels: dict[str, str]


def checked(labels: dict[str, str], place: str) -> dict[str, str]:
    """Return race, gender and age by FairFace's names, ages repaired.

    Raises
    ------
    UserError
        If one of them is missing or is no value of FairFace's.
    """
    out = {}
    for attribute, values in VALUES.items():
        value = str(labels.get(attribute))
        value = SPREADSHEET.get(value, value) if attribute == "age" else value
        if value not in values:
            raise UserError(f"{place}: {attribute} {value!r} is no label of FairFace: it has {', '.join(values)}")
        out[attribute] = value
    return out


def label_file(csv: Path) -> pd.DataFrame:
    """Read ``fairface_label_*.csv``: race, gender and age by file, as ``val/1.jpg``.

    Raises
    ------
    UserError
        If a column is missing, a label unknown or a file named twice.
    """
    table = pd.read_csv(csv, dtype=str, keep_default_na=False)
    for column in ("file", *VALUES):
        if column not in table:
            raise UserError(f"{csv} has columns {', '.join(table.columns)}: FairFace's has file, age, gender and race")
    twice = table["file"][table["file"].duplicated()]
    if len(twice):
        raise UserError(f"{csv} names {twice.iloc[0]!r} twice: take one line out")
    lines = [checked(line, f"{csv}, {line['file']}") for line in table.to_dict("records")]
    return pd.DataFrame(lines, index=table["file"])


def faces(source: str, labels: Path | None = None) -> Iterator[Face]:
    """Yield the faces of a folder with its label file, or of tar shards whose members carry their labels.

    Parameters
    ----------
    source : str
        The folder ``val`` or ``train`` of the official layout, or tar shards (braces and globs too).
    labels : Path, optional
        Of a folder; else ``fairface_label_<folder>.csv`` beside it. A file that the folder lacks is left out.
    """
    dataset = open_input(source)
    known: pd.DataFrame | None = None
    if dataset.format == "folder":
        folder = Path(source)
        known = label_file(labels or folder.parent / f"fairface_label_{folder.name}.csv")
        known = known.rename(index=lambda file: Path(file).name)
    for shard in dataset.shards:
        for sample in shard.read():
            if sample.image is None:
                raise UserError(f"{sample.source}: {sample.error}")
            if known is None:
                found = sample.metadata
            elif sample.id in known.index:
                found = known.loc[sample.id].to_dict()
            else:
                continue
            digest = hashlib.sha256(sample.image).hexdigest()
            yield Face(sample.source, digest, decode(sample.image), checked(found, sample.source))


def table_of(labels: list[dict[str, str]]) -> pd.DataFrame:
    """Return labels as ordered categories, so that groups always come in FairFace's order."""
    table = pd.DataFrame(labels)
    return pd.DataFrame({a: pd.Categorical(table[a], categories=list(values)) for a, values in VALUES.items()})


def skewed(labels: pd.DataFrame, race: str, gender: str, rng: np.random.Generator) -> np.ndarray:
    """Return the rows of a draw in which one race makes up about 60 % and one gender about 70 %, as web data may."""
    keep_race = 0.6 / 0.4 * (labels["race"] != race).sum() / max(1, (labels["race"] == race).sum())
    chance = np.where(labels["race"] == race, 1.0, min(1.0, 1 / keep_race))
    chance = chance * np.where(labels["gender"] == gender, 1.0, 3 / 7)
    return np.flatnonzero(rng.random(len(labels)) < chance)
