"""Reads FairFace (Karkkainen and Joo, WACV 2021; CC BY 4.0) as published, or as WebDataset shards with its labels.

The labels are what annotators perceived. Some copies of the label files went through a spreadsheet and contain dates
instead of ages. These are repaired; any other unknown value is an error.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from fairdedup.datasets import open_input
from fairdedup.datasets.images import decode
from fairdedup.encoders import EncoderSpec, check_model, load_encoder
from fairdedup.errors import UserError

VALUES = {
    "race": ("Black", "East Asian", "Indian", "Latino_Hispanic", "Middle Eastern", "Southeast Asian", "White"),
    "gender": ("Female", "Male"),
    "age": ("0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "more than 70"),
}
ATTRIBUTION = "FairFace (Karkkainen and Joo, WACV 2021), CC BY 4.0; labels are perceived attributes"
BATCH = 512  # faces that are encoded at a time
SPREADSHEET = {
    **dict.fromkeys(("03-Sep", "3-Sep", "09-Mar", "9-Mar"), "3-9"),
    **dict.fromkeys(("Oct-19", "19-Oct"), "10-19"),
}


@dataclass(frozen=True)
class Face:
    """One face: its source, the hash of its file, its picture, and what annotators perceived."""

    name: str
    digest: str
    picture: Image.Image | None
    labels: dict[str, str]


def check_labels(labels: dict[str, str], place: str) -> dict[str, str]:
    """Return race, gender and age under FairFace's names, with ages repaired.

    Parameters
    ----------
    labels : dict of str to str
        Labels of one face.
    place : str
        Where the labels were read, for the error.

    Raises
    ------
    UserError
        If a label is missing or unknown.
    """
    out = {}
    for attribute, values in VALUES.items():
        value = str(labels.get(attribute))
        value = SPREADSHEET.get(value, value) if attribute == "age" else value
        if value not in values:
            raise UserError(
                f"{place}: {attribute} {value!r} is not a label of FairFace: write one of {', '.join(values)}"
            )
        out[attribute] = value
    return out


def read_label_file(csv: Path) -> pd.DataFrame:
    """Read ``fairface_label_*.csv``: race, gender and age of each file, such as ``val/1.jpg``.

    Raises
    ------
    UserError
        If a column is missing, a label is unknown, or a file is listed twice.
    """
    table = pd.read_csv(csv, dtype=str, keep_default_na=False)
    for column in ("file", *VALUES):
        if column not in table:
            raise UserError(f"{csv} has columns {', '.join(table.columns)}: it must have file, age, gender and race")
    twice = table["file"][table["file"].duplicated()]
    if len(twice):
        raise UserError(f"{csv} names {twice.iloc[0]!r} twice: remove one line")
    lines = [check_labels(line, f"{csv}, {line['file']}") for line in table.to_dict("records")]
    return pd.DataFrame(lines, index=table["file"])


def read_faces(source: str, labels: Path | None = None) -> Iterator[Face]:
    """Yield the faces of a folder with its label file, or of tar shards whose members carry their labels.

    Parameters
    ----------
    source : str
        The folder ``val`` or ``train`` of the official layout, or tar shards (braces and globs too).
    labels : Path, optional
        Label file of a folder  [default: ``fairface_label_<folder>.csv`` next to it]. Faces without labels are skipped.
    """
    dataset = open_input(source)
    known: pd.DataFrame | None = None
    if dataset.format == "folder":
        folder = Path(source)
        known = read_label_file(labels or folder.parent / f"fairface_label_{folder.name}.csv")
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
            yield Face(sample.source, digest, decode(sample.image), check_labels(found, sample.source))


def make_label_table(labels: list[dict[str, str]]) -> pd.DataFrame:
    """Return labels as ordered categories, so that groups always come in FairFace's order."""
    table = pd.DataFrame(labels)
    return pd.DataFrame({a: pd.Categorical(table[a], categories=list(values)) for a, values in VALUES.items()})


def choose_skewed(
    labels: pd.DataFrame, race: str, gender: str, rng: np.random.Generator, shares: tuple[float, float] = (0.6, 0.7)
) -> np.ndarray:
    """Draw rows so that one race makes up about 60 % and one gender about 70 %, as in web data, and return them.

    The other races, and all ages, keep their relative shares. Every draw contains all faces of that race and gender.

    Parameters
    ----------
    labels : DataFrame
        Labels as `make_label_table` returns them.
    race, gender : str
        The groups that become the majority.
    rng : numpy.random.Generator
        Source of randomness.
    shares : tuple of two float
        Shares of that race and that gender.
    """
    chance = np.ones(len(labels))
    for column, value, share in (("race", race, shares[0]), ("gender", gender, shares[1])):
        own = (labels[column] == value).to_numpy()
        chance *= np.where(own, share / own.mean(), (1 - share) / (1 - own.mean()))
    return np.flatnonzero(rng.random(len(labels)) < chance / chance.max())


@dataclass(frozen=True)
class Faces:
    """Faces to prune: their vectors (n, d), and labels, hashes and names, which only the measures read."""

    vectors: np.ndarray
    labels: pd.DataFrame
    digests: list[str]
    names: list[str]

    def take(self, rows: np.ndarray) -> Faces:
        """Return the faces of some rows."""
        return Faces(
            self.vectors[rows],
            self.labels.iloc[rows].reset_index(drop=True),
            [self.digests[k] for k in rows],
            [self.names[k] for k in rows],
        )


def parse_encoder(text: str) -> EncoderSpec:
    """Read ``MODEL:WEIGHTS`` (a tag or a file), or ``local-dir:FOLDER`` or ``hf-hub:NAME``, which have weights."""
    model, _, weights = (text, "", "") if text.startswith(("local-dir:", "hf-hub:")) else text.partition(":")
    check_model(model, weights or None)
    return EncoderSpec(model, weights or None, 64, "cpu", "float32", os.cpu_count() or 1)


def parse_checkpoint(text: str) -> tuple[str, str]:
    """Read ``NAME=MODEL:PATH``, and return the name and ``MODEL:PATH``, for `parse_encoder`."""
    name, _, encoder = text.partition("=")
    if not name or not encoder:
        raise UserError(f"--checkpoint {text!r}: write NAME=MODEL:PATH, such as full=ViT-B-16:full.pt")
    return name, encoder


def embed_faces(sources: list[str], labels: Path | None, spec: EncoderSpec, most: int | None = None) -> Faces:
    """Embed the faces of all sources, in order.

    Parameters
    ----------
    sources : list of str
        Folders or tar shards, as `read_faces` reads them.
    labels : Path or None
        Label file of a folder.
    spec : EncoderSpec
        The encoder.
    most : int, optional
        Largest number of faces of each source.
    """
    encoder = load_encoder(spec)
    vectors, batch, found = [], [], []
    started = time.monotonic()
    for source in sources:
        for face in islice(read_faces(source, labels), most):
            batch.append(face.picture)
            found.append(face)
            if len(batch) == BATCH:
                vectors.append(encoder.encode_images(batch))
                batch = []
                print(f"{len(found)} faces, {len(found) / (time.monotonic() - started):.0f} a second", file=sys.stderr)
    if batch:
        vectors.append(encoder.encode_images(batch))
    table = make_label_table([face.labels for face in found])
    return Faces(np.concatenate(vectors), table, [f.digest for f in found], [f.name for f in found])


def scale_to_unit(vectors: np.ndarray) -> np.ndarray:
    """Scale each row to unit length."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def write_embeddings(faces: Faces, folder: Path) -> None:
    """Write vectors and labels in clip-retrieval's layout."""
    for name in ("img_emb", "metadata"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    np.save(folder / "img_emb" / "img_emb_0.npy", faces.vectors)
    table = faces.labels.astype(str).assign(id=faces.names, sha256=faces.digests)
    pq.write_table(pa.Table.from_pandas(table, preserve_index=False), folder / "metadata" / "metadata_0.parquet")


def read_embeddings(folder: Path) -> Faces:
    """Read what `write_embeddings` wrote, or ready embeddings whose metadata has id, race, gender and age."""
    table = pq.read_table(folder / "metadata" / "metadata_0.parquet").to_pandas()
    lines: list[dict[str, str]] = table[list(VALUES)].to_dict("records")
    digests = table["sha256"].tolist() if "sha256" in table else [""] * len(table)
    return Faces(np.load(folder / "img_emb" / "img_emb_0.npy"), make_label_table(lines), digests, table["id"].tolist())


def find_weights(spec: EncoderSpec) -> str | None:
    """Return the path or the tag of an encoder's weights; those of a model folder are where lite0.py writes them."""
    if spec.model.startswith("local-dir:"):
        return str(Path(spec.model.removeprefix("local-dir:")) / "open_clip_model.safetensors")
    return spec.pretrained


def read_known_digests(weights: str | None) -> set[str] | None:
    """Return the hashes of the files that an encoder was trained on, or None, with a line on stdout, if unknown.

    Parameters
    ----------
    weights : str or None
        Path of the encoder's weights. The list of faces that it was trained on is in a file next to it.
    """
    list_file = Path(weights).with_suffix(".faces.txt") if weights else Path()
    if not list_file.is_file():
        print(f"the faces that {weights or 'this encoder'} was trained on are unknown: there is no list next to it")
        return None
    return set(list_file.read_text().split())


def leave_out_known_faces(faces: Faces, weights: str | None, *, allow: bool, leave_out: bool) -> tuple[Faces, int]:
    """Return the faces, and how many of them the encoder was trained on.

    Parameters
    ----------
    faces : Faces
        The faces to prune.
    weights : str or None
        Path of the encoder's weights. The list of faces that it was trained on is in a file next to it.
    allow : bool
        Whether to prune faces that the encoder was trained on.
    leave_out : bool
        Whether to leave these faces out.

    Raises
    ------
    UserError
        If there are such faces, and neither option is given: an encoder separates known faces better than new ones.
    """
    trained = read_known_digests(weights)
    if trained is None:
        return faces, 0
    new = np.array([digest not in trained for digest in faces.digests])
    seen = [name for name, is_new in zip(faces.names, new, strict=True) if not is_new]
    if seen and leave_out:
        print(f"{weights} was trained on {len(seen)} of these {len(faces.names)} faces: they are left out")
        return faces.take(np.flatnonzero(new)), 0
    if seen and not allow:
        raise UserError(
            f"{weights} was trained on {len(seen)} of these faces ({seen[0]} is one): give --without-known-faces, "
            "or --same-faces to prune them anyway"
        )
    print(f"{weights} was trained on {len(seen)} of these {len(faces.names)} faces")
    return faces, len(seen)
