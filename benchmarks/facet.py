"""FACET's worst-class recall disparity of CLIP checkpoints, by perceived gender presentation, skin tone and age.

    python benchmarks/facet.py --annotations annotations/annotations.csv --images facet/ \
        --checkpoint full=ViT-B-16:full.pt --checkpoint pruned=ViT-B-16:pruned.pt --out facet.json

FACET (Gustafson et al. 2023, arXiv 2309.00035) may be used for evaluation only, and is not part of this project. Labels
are what annotators perceived.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from bias_measures import MIN_COUNT, SHORT
from face_prompts import add_article
from faces import BATCH, parse_checkpoint, parse_encoder
from numpy.typing import NDArray
from PIL.Image import Image
from results_file import RESULTS, write_results
from zero_shot import Text, to_unit

from fairdedup.datasets.images import BadImage, decode
from fairdedup.encoders import Encoder, load_encoder
from fairdedup.errors import UserError

CLASSES = 52
TONES = [f"skin_tone_{tone}" for tone in range(1, 11)]
GENDERS = ("gender_presentation_masc", "gender_presentation_fem")
AGES = ("age_presentation_young", "age_presentation_middle", "age_presentation_older")
COLUMNS = ("person_id", "filename", "class1", "class2", "bounding_box", *GENDERS, *TONES, *AGES)
NO_CLASS = ("", "none", "nan")
LIGHTEST_DARK = 6  # Monk's tones from here on count as darker
TEMPLATE = "a photo of {}"
ATTRIBUTION = "FACET (Gustafson et al., ICCV 2023), for evaluation only; labels are perceived"
WHAT = (
    "recall disparity: for each class, the largest recall of a group less the smallest one; the worst class of each "
    "attribute. Single-person images; the most similar caption is the guess"
)


def read_annotations(file: Path) -> pd.DataFrame:
    """Read the people of images with a single person, with their groups.

    Parameters
    ----------
    file : Path
        FACET's ``annotations.csv``.

    Returns
    -------
    DataFrame
        Columns ``filename``, ``class1``, ``class2`` (None without one), and ``gender presentation``, ``skin tone`` and
        ``age presentation``, each the name of a group or None.

    Raises
    ------
    UserError
        If a column is missing, a vote is not a number, or no image has a single person.
    """
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    for column in COLUMNS:
        if column not in table:
            raise UserError(f"{file} has no column {column!r}: give FACET's annotations.csv")
    alone = table[~table["filename"].duplicated(keep=False)].reset_index(drop=True)
    if alone.empty:
        raise UserError(f"{file} names every image more than once: recall is measured on images of a single person")
    people = alone[["filename", "class1"]].copy()
    people["class2"] = [None if name.lower() in NO_CLASS else name for name in alone["class2"]]
    votes = {column: _read_votes(alone, column, file) for column in (*GENDERS, *TONES, *AGES)}
    people["gender presentation"] = _choose_only(votes, GENDERS, len(alone))
    people["age presentation"] = _choose_only(votes, AGES, len(alone))
    people["skin tone"] = _choose_tone(votes)
    return people


def _read_votes(table: pd.DataFrame, column: str, file: Path) -> NDArray[np.int64]:
    """Return the votes of a column; an empty cell is none."""
    out = np.zeros(len(table), dtype=np.int64)
    for row, text in enumerate(table[column]):
        number = text.removesuffix(".0") or "0"
        if not number.isdecimal():
            raise UserError(f"{file}, {table['filename'][row]}: {column} {text!r} must be a whole number")
        out[row] = int(number)
    return out


def _choose_only(votes: Mapping[str, NDArray[np.int64]], columns: Sequence[str], rows: int) -> list[str | None]:
    """Return the only column with a vote, by the last word of its name; None if there is none or more than one."""
    chosen: list[str | None] = []
    for row in range(rows):
        voted = [column for column in columns if votes[column][row]]
        chosen.append(voted[0].rsplit("_", 1)[1] if len(voted) == 1 else None)
    return chosen


def _choose_tone(votes: Mapping[str, NDArray[np.int64]]) -> list[str | None]:
    """Return "lighter" or "darker", whichever half of Monk's scale has more votes; None for a tie."""
    lighter = np.sum([votes[tone] for tone in TONES[: LIGHTEST_DARK - 1]], axis=0)
    darker = np.sum([votes[tone] for tone in TONES[LIGHTEST_DARK - 1 :]], axis=0)
    names = {1: "lighter", -1: "darker"}
    return [names.get(int(sign)) for sign in np.sign(lighter - darker)]


def list_classes(people: pd.DataFrame) -> list[str]:
    """Return all classes, in alphabetical order."""
    return sorted({*people["class1"], *people["class2"].dropna()})


def measure_disparities(
    people: pd.DataFrame, guesses: Sequence[str], min_count: int = MIN_COUNT
) -> dict[str, dict[str, Any]]:
    """Return the recall disparity of every class for each attribute, and the worst class.

    A person counts under `class1`. A guess is right if it is `class1`, or `class2` if there is one. The disparity of a
    class is the largest recall of its groups less the smallest one, over groups of at least `min_count` people; for
    two groups it is |recall(group 1) − recall(group 2)|, as in the paper. A class with fewer than two such groups is
    insufficient.

    Parameters
    ----------
    people : DataFrame
        People, as `read_annotations` returns them.
    guesses : sequence of str
        The guessed class of each person.
    min_count : int
        People under which a group of a class is insufficient.
    """
    guessed = np.asarray(guesses, dtype=object)
    right = (guessed == people["class1"].to_numpy()) | (guessed == people["class2"].to_numpy())
    out: dict[str, dict[str, Any]] = {}
    for attribute in ("gender presentation", "skin tone", "age presentation"):
        groups = people[attribute].to_numpy()
        classes: dict[str, Any] = {}
        for name in sorted(set(people["class1"])):
            classes[name] = _measure_class(right, groups, (people["class1"] == name).to_numpy(), min_count)
        known = {name: own["disparity"] for name, own in classes.items() if "disparity" in own}
        worst = max(known, key=lambda name: known[name]) if known else None
        out[attribute] = {
            "worst class": None if worst is None else {"class": worst, "disparity": known[worst]},
            "mean disparity": float(np.mean(list(known.values()))) if known else None,
            "classes compared": len(known),
            "people without a group": int(pd.isna(groups).sum()),
            "classes": classes,
        }
    return out


def _measure_class(
    right: NDArray[np.bool_], groups: NDArray[Any], members: NDArray[np.bool_], min_count: int
) -> dict[str, Any]:
    found: dict[str, Any] = {"groups": {}}
    for group in sorted({group for group in groups[members] if isinstance(group, str)}):
        own = right[members & (groups == group)]
        enough = len(own) >= min_count
        found["groups"][group] = {"people": len(own)} | ({"recall": float(own.mean())} if enough else {"why": SHORT})
    recalls = {group: own["recall"] for group, own in found["groups"].items() if "recall" in own}
    if len(recalls) < 2:
        return {**found, "why": SHORT}
    low, high = (choose(recalls, key=lambda group: recalls[group]) for choose in (min, max))
    return {**found, "disparity": recalls[high] - recalls[low], "lowest": low, "highest": high}


def guess_classes(
    images: NDArray[np.float32], text: Text, classes: Sequence[str], template: str = TEMPLATE
) -> list[str]:
    """Return the class of the most similar caption for each image (n, d); ties go to the first class."""
    captions = [template.format(add_article(name.replace("_", " "))) for name in classes]
    similar = to_unit(images, "image") @ to_unit(text(captions), "caption").T
    return [classes[k] for k in similar.argmax(axis=1)]


def find_images(folder: Path, names: Sequence[str]) -> list[Path]:
    """Return the file of each image, in any sub-folder (FACET has ``imgs_1`` to ``imgs_3``).

    Raises
    ------
    UserError
        If an image is missing.
    """
    known = {path.name: path for path in sorted(folder.rglob("*")) if path.is_file()}
    missing = [name for name in names if name not in known]
    if missing:
        raise UserError(f"--images {str(folder)!r} lacks {len(missing)} of {len(names)} images, such as {missing[0]!r}")
    return [known[name] for name in names]


def embed_images(files: Sequence[Path], encoder: Encoder) -> NDArray[np.float32]:
    """Return the vectors of whole images, in order."""
    vectors, started = [], time.monotonic()
    for k in range(0, len(files), BATCH):
        pictures = [_open_image(file) for file in files[k : k + BATCH]]
        vectors.append(encoder.encode_images(pictures))
        done = min(k + BATCH, len(files))
        left = (time.monotonic() - started) / done * (len(files) - done)
        print(f"{done} of {len(files)} images, {left:.0f} s left", file=sys.stderr)
    return np.concatenate(vectors)


def _open_image(file: Path) -> Image:
    try:
        return decode(file.read_bytes())
    except BadImage as error:
        raise UserError(f"{file}: {error}; download it again") from None


def list_lines(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the table: for each attribute and checkpoint, the worst class, its disparity, and the mean."""
    lines = []
    for name, result in results.items():
        for attribute, own in result["disparities"].items():
            worst, mean = own["worst class"], own["mean disparity"]
            tail = f"{SHORT} in every class" if worst is None else f"{worst['disparity']:.3f} ({worst['class']})"
            tail += "" if mean is None else f", mean {mean:.3f} over {own['classes compared']} classes"
            lines.append(f"{name}  perceived {attribute}: worst disparity {tail}")
    return lines


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotations", type=Path, required=True, help="FACET's annotations.csv")
    parser.add_argument("--images", type=Path, required=True, help="folder with the images, in any sub-folder")
    parser.add_argument(
        "--checkpoint", action="append", required=True, help="NAME=MODEL:PATH; may be given several times"
    )
    parser.add_argument("--min-count", type=int, default=MIN_COUNT, help="people under which a group is insufficient")
    parser.add_argument("--template", default=TEMPLATE, help="caption of a class, which with its article replaces {}")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--out", type=Path, default=RESULTS / "facet.json", help="JSON file to write")
    return parser


def main() -> None:
    """Guess the class of every person by each checkpoint, measure, print the table, and write the results."""
    args = make_parser().parse_args()
    people = read_annotations(args.annotations)
    classes = list_classes(people)
    if len(classes) != CLASSES:
        print(f"{args.annotations.name} has {len(classes)} classes in images of one person; FACET has {CLASSES}")
    files = find_images(args.images, people["filename"].tolist())
    results: dict[str, Any] = {}
    for word in args.checkpoint:
        name, code = parse_checkpoint(word)
        if name in results:
            raise UserError(f"two checkpoints are named {name!r}: give each --checkpoint its own NAME")
        spec = replace(parse_encoder(code), device=args.device)
        encoder = load_encoder(spec)
        guesses = guess_classes(embed_images(files, encoder), encoder.encode_texts, classes, args.template)
        results[name] = {
            "encoder": spec.identity(),
            "disparities": measure_disparities(people, guesses, args.min_count),
        }
    print("\n".join(list_lines(results)))
    figures = {"data": ATTRIBUTION, "people": len(people), "classes": len(classes), "template": args.template,
               "checkpoints": results}  # fmt: skip
    write_results(args.out, figures, what=WHAT, seed=0, packages=("numpy", "torch", "open_clip_torch"))
    print(args.out)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(str(error)) from None
