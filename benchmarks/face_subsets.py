"""The sets and subsets of train_on_subsets.py: faces are decoded once, and each seed draws, embeds and prunes a set.

Everything is a function of the study's options and a seed, and lies in files, so that a stopped study goes on.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from baseline_subsets import count_by_recall, draw_equal_shares, draw_from_groups, prune_by_complexity
from captioned_faces import PROTOTYPES, Setting, draw_set, iterate_pictures
from face_comparison import RULES, calibrate_on_faces, correct_for_draw, count_priors
from faces import (
    BATCH,
    VALUES,
    Faces,
    make_label_table,
    parse_encoder,
    read_faces,
    read_known_digests,
    scale_to_unit,
)
from numpy.typing import NDArray
from PIL import Image
from small_clip import Recipe, make_transform
from study_results import SUBJECT

from fairdedup import deduplicate
from fairdedup.core.prototypes import Prototypes
from fairdedup.encoders import EncoderSpec, load_encoder
from fairdedup.errors import UserError
from fairdedup.prototype_files import read_prototypes, write_prototypes
from fairdedup.stages.caption_embedding import embed_captions, read_captions
from fairdedup.storage.sealed_files import Unsealed

SIDE = 96  # of the faces that a set is drawn from: pixels
LABELS = 500  # labelled faces, of those that a set does not contain, for calibration and recalls
CALIBRATED = SUBJECT
BY_RECALL, BY_COMPLEXITY, BY_LABELS = "DRoP", "DBP", "true labels"
OPTIONS: dict[str, dict[str, Any]] = {
    **{name: RULES[name] for name in ("random", "semdedup --published", "semdedup")},
    **{name: RULES[name] for name in ("fairdedup --published", "fairdedup")},
    "balanced": {"rule": "balanced"},
    CALIBRATED: {"rule": "balanced"},
}
SUBSETS = ("full", *OPTIONS, BY_RECALL, BY_COMPLEXITY, BY_LABELS)
WITH_RESERVE, WITH_SHARES = f"{CALIBRATED} --reserve 0.3", f"{CALIBRATED} --correct-shares"
FURTHER = {WITH_RESERVE: {"rule": "balanced", "reserve": 0.3}, WITH_SHARES: {"rule": "balanced"}}  # after the plan
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Study:
    """What every process needs to know.

    Attributes
    ----------
    work : Path
        Folder of all intermediate files.
    faces : tuple of str
        Sources of the faces that sets are drawn from.
    held_out : str
        Source of the faces that models are evaluated on.
    encoder : str
        What embeds the sets: MODEL:WEIGHTS.
    setting : Setting
        How sets are drawn.
    recipe : Recipe
        How models are trained.
    keep : float
        Share of a set that every subset but "full" keeps.
    epochs_equal : bool
        Whether all subsets are trained for the same number of epochs in place of steps.
    """

    work: Path
    faces: tuple[str, ...]
    held_out: str
    encoder: str
    setting: Setting = field(default_factory=Setting)
    recipe: Recipe = field(default_factory=Recipe)
    keep: float = 0.5
    epochs_equal: bool = False

    def set_folder(self, seed: int) -> Path:
        """Return where the set of a seed lies."""
        return self.work / "sets" / str(seed)

    def spec(self) -> EncoderSpec:
        """Return the encoder of the sets, with one thread for each process."""
        known = parse_encoder(self.encoder)
        return EncoderSpec(known.model, known.pretrained, known.batch_size, known.device, known.dtype, 1)


@contextmanager
def write_folder(folder: Path) -> Iterator[Path | None]:
    """Yield a folder to fill, which becomes `folder` at the end; None if that exists."""
    if folder.is_dir():
        yield None
        return
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    partial.rename(folder)


def decode_faces(
    sources: tuple[str, ...], convert: Callable[[Image.Image], NDArray[np.uint8]], folder: Path, known: set[str]
) -> None:
    """Write the pixels and labels of all faces of some sources but the known ones, unless that is done."""
    with write_folder(folder) as partial:
        if partial is None:
            return
        pixels, found, left_out, started = [], [], 0, time.monotonic()
        for face in chain.from_iterable(read_faces(source) for source in sources):
            assert face.picture is not None
            if face.digest in known:
                left_out += 1
                continue
            pixels.append(convert(face.picture))
            found.append(face)
            if len(found) % 2000 == 0:
                rate = len(found) / (time.monotonic() - started)
                print(f"{len(found)} faces decoded, {rate:.0f} a second", file=sys.stderr)
        if left_out:
            print(f"{left_out} faces that the encoder was trained on are left out", file=sys.stderr)
        if not found:
            raise UserError(f"{' '.join(sources)} has no new faces with labels: give shards or the official layout")
        np.save(partial / "pixels.npy", np.stack(pixels))
        table = make_label_table([face.labels for face in found]).astype(str)
        table.assign(digest=[face.digest for face in found]).to_parquet(partial / "labels.parquet")


def read_decoded(folder: Path) -> tuple[NDArray[np.uint8], pd.DataFrame, list[str]]:
    """Return pixels, shared among processes, labels as ordered categories, and the hashes of the files."""
    table = pd.read_parquet(folder / "labels.parquet")
    labels = make_label_table(table[list(VALUES)].to_dict("records"))  # type: ignore[arg-type]
    return np.load(folder / "pixels.npy", mmap_mode="c"), labels, table["digest"].tolist()


def prepare_faces(study: Study) -> None:
    """Decode the faces to draw from and those to evaluate on, and leave out what the encoder was trained on."""

    def as_square(picture: Image.Image) -> NDArray[np.uint8]:
        rgb = picture.convert("RGB")
        small = rgb if rgb.size == (SIDE, SIDE) else rgb.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        return np.asarray(small, dtype=np.uint8)

    known = read_known_digests(study.spec().pretrained) or set()
    decode_faces(study.faces, as_square, study.work / "faces", known)
    decode_faces((study.held_out,), make_transform(study.recipe), study.work / "held-out", known)


def prepare_set(study: Study, seed: int) -> None:
    """Draw the set of a seed and write its rows, pictures, vectors and prototypes, unless that is done."""
    with write_folder(study.set_folder(seed)) as partial:
        if partial is None:
            return
        pixels, labels, digests = read_decoded(study.work / "faces")
        rows = draw_set(labels, study.setting, seed)
        rows.to_parquet(partial / "rows.parquet")
        encoder, convert = load_encoder(study.spec()), make_transform(study.recipe)
        vectors: list[NDArray[np.float32]] = []
        images, batch = np.empty((len(rows), 3, study.recipe.pixels, study.recipe.pixels), np.uint8), []
        for k, picture in enumerate(iterate_pictures(pixels, rows, seed)):
            images[k] = convert(picture)
            batch.append(picture)
            if len(batch) == BATCH or k + 1 == len(rows):
                vectors.append(encoder.encode_images(batch))
                batch = []
                print(f"seed {seed}: {k + 1} of {len(rows)} pictures drawn and embedded", file=sys.stderr)
        np.save(partial / "images.npy", images)
        np.save(partial / "vectors.npy", np.concatenate(vectors))
        prototypes = Prototypes.of(embed_captions(read_captions(PROTOTYPES), study.spec()))
        write_prototypes(partial / "prototypes.parquet", prototypes)
        chosen = choose_labelled(labels, rows["face"].to_numpy(), np.random.default_rng([seed, 2]))
        np.save(partial / "labelled.npy", chosen)
        np.save(partial / "labelled-vectors.npy", encoder.encode_images([Image.fromarray(pixels[k]) for k in chosen]))


def choose_labelled(labels: pd.DataFrame, taken: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return up to `LABELS` random faces that the set does not have, among them one of each group that has any."""
    others = rng.permutation(np.setdiff1d(np.arange(len(labels)), taken))
    if not len(others):
        raise UserError("the set has all faces: none is left to calibrate on, so give more --faces")
    own = labels.iloc[others].reset_index(drop=True)
    first = np.unique(np.concatenate([np.flatnonzero(~own[a].duplicated()) for a in VALUES]))
    rest = np.setdiff1d(np.arange(len(others)), first)
    return np.sort(others[np.concatenate([first, rest])[:LABELS]])


def read_labelled(study: Study, seed: int) -> Faces:
    """Return the labelled faces of a seed, which its set does not have."""
    _, labels, digests = read_decoded(study.work / "faces")
    folder = study.set_folder(seed)
    chosen = np.load(folder / "labelled.npy")
    names = [str(k) for k in chosen.tolist()]
    own = labels.iloc[chosen].reset_index(drop=True)
    return Faces(np.load(folder / "labelled-vectors.npy"), own, [digests[k] for k in chosen], names)


def number_cells(labels: pd.DataFrame) -> NDArray[np.int64]:
    """Return the number of the intersection of perceived race and gender of each row, 0 to 13."""
    race, gender = (pd.Categorical(labels[a], categories=list(VALUES[a])).codes for a in ("race", "gender"))
    return np.asarray(race, np.int64) * len(VALUES["gender"]) + gender


def measure_recalls(faces: Faces, prototypes: Prototypes) -> NDArray[np.float64]:
    """Return the recall of each intersection of race and gender, where both must be right; 1/2 without faces."""
    x, right = scale_to_unit(faces.vectors), np.ones(len(faces.vectors), bool)
    for attribute in prototypes.attributes:
        name = attribute.name.removeprefix("perceived ")
        if name in ("race", "gender"):
            guesses = np.array(attribute.concepts)[(x @ attribute.vectors.astype(np.float32).T).argmax(axis=1)]
            right &= guesses == faces.labels[name].astype(str).to_numpy()
    cells = number_cells(faces.labels)
    number = len(VALUES["race"]) * len(VALUES["gender"])
    sizes, hits = np.bincount(cells, minlength=number), np.bincount(cells, right, number)
    return np.where(sizes > 0, hits / np.maximum(sizes, 1), 0.5)


def choose_subset(study: Study, seed: int, name: str) -> tuple[pd.DataFrame, Mask]:
    """Return the rows of the set of a seed, and which of them a subset keeps.

    Parameters
    ----------
    study : Study
        The study.
    seed : int
        Seed of the set, its clusters and of what is random.
    name : str
        A name of `SUBSETS` or `FURTHER`. All but "full" keep the same number of rows.
    """
    folder = study.set_folder(seed)
    rows = pd.read_parquet(folder / "rows.parquet")
    n = len(rows)
    kept, rng = int(study.keep * n + 0.5), np.random.default_rng([seed, 3])
    if name == "full":
        return rows, np.ones(n, bool)
    if name == BY_LABELS:
        ages = np.asarray(pd.Categorical(rows["age"], categories=list(VALUES["age"])).codes, np.int64)
        return rows, draw_equal_shares(number_cells(rows), ages, kept, rng)
    vectors = np.load(folder / "vectors.npy")
    if name == BY_COMPLEXITY:
        return rows, prune_by_complexity(vectors, kept, seed)
    prototypes = read_prototypes(Unsealed(folder / "prototypes.parquet", "a file of this benchmark's own"))
    if name == BY_RECALL:
        cells, recalls = number_cells(rows), measure_recalls(read_labelled(study, seed), prototypes)
        sizes = np.bincount(cells, minlength=len(recalls))
        return rows, draw_from_groups(cells, count_by_recall(sizes, recalls, kept), rng)
    if name.startswith(CALIBRATED):
        labelled = read_labelled(study, seed)
        prototypes = calibrate_on_faces(prototypes, labelled)
        if name == WITH_SHARES:
            prototypes = correct_for_draw(prototypes, vectors, count_priors(prototypes, labelled))
    options = (OPTIONS | FURTHER)[name]
    result = deduplicate(vectors, keep=study.keep, prototypes=prototypes, seed=seed, leftover=0, **options)
    mask = result.decisions["kept"].to_numpy()
    assert mask.sum() == kept, "subsets are compared at one count"
    return rows, mask


def describe_subset(rows: pd.DataFrame, mask: Mask) -> dict[str, float]:
    """Return how many faces a subset has, and the share of all groups but the set's majority, of each attribute."""
    own = rows[mask]
    out = {
        "rows": float(len(own)),
        "distinct faces": float(own["face"].nunique()),
        "share of rows with another picture of the same face": float(own["face"].duplicated(keep=False).mean()),
    }
    for attribute in VALUES:
        majority = rows[attribute].value_counts().index[0]
        out[f"share of non-majority groups, {attribute}"] = float((own[attribute] != majority).mean())
    return out
