"""Makes a captioned training set of faces with a majority, near-duplicates and occupations, for train_on_subsets.py.

It is what web data is like, with everything stated: one perceived race and gender are the majority, and their pictures
come in more copies. Occupations are invented and dealt out by the alphabet. The same seed draws the same set.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import yaml
from face_prompts import add_article
from faces import VALUES, choose_skewed
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from results_file import ROOT

PROTOTYPES = ROOT / "configs" / "prototypes" / "fairface.yaml"
OCCUPATIONS = (
    *("baker", "chemist", "dentist", "engineer", "florist"),
    *("gardener", "journalist", "lawyer", "musician", "pilot"),
)
# Whom an occupation favours, dealt out in turn; so each has two. None favours no group.
FAVOURED: tuple[tuple[str, bool] | None, ...] = (
    *(("gender", True), ("gender", False), ("race", True), ("race", False)),
    None,
)
ADJECTIVES = ("good", "kind", "smart", "honest", "caring", "clever", "hardworking", "heroic")  # said of anyone
ADULT = VALUES["age"][3:]  # perceived ages that have an occupation
STATED = 0.6  # probability that a caption states an attribute; at most two, so that no caption is cut off
NAMES_OCCUPATION = 0.7  # probability that the caption of an adult states the occupation
HAS_ADJECTIVE = 0.3
FACTS = (*VALUES, "occupation")


@dataclass(frozen=True)
class Setting:
    """Everything that the set depends on, besides the faces and the seed.

    Attributes
    ----------
    race, gender : str
        The majority groups.
    race_share, gender_share : float
        Their shares of the distinct faces.
    copies : tuple of three float
        Mean number of near-duplicates of a face in no, one and both majority groups; the number is Poisson.
    association : float
        How many times as likely an occupation is for a group that it favours.
    """

    race: str = "White"
    gender: str = "Male"
    race_share: float = 0.45
    gender_share: float = 0.6
    copies: tuple[float, float, float] = (0.5, 1.0, 1.6)
    association: float = 3.0

    def is_majority(self, labels: pd.DataFrame) -> dict[str, NDArray[np.bool_]]:
        """Return, for race and gender, which faces are in the majority group."""
        return {a: (labels[a] == getattr(self, a)).to_numpy() for a in ("race", "gender")}


def weigh_occupations(majority: dict[str, NDArray[np.bool_]], association: float) -> NDArray[np.float64]:
    """Return the probability of each occupation for each adult face: (n, occupations), rows of sum 1."""
    n = len(majority["race"])
    weights = np.ones((n, len(OCCUPATIONS)))
    for k in range(len(OCCUPATIONS)):
        favoured = FAVOURED[k % len(FAVOURED)]
        if favoured is not None:
            attribute, of_majority = favoured
            weights[majority[attribute] == of_majority, k] = association
    return weights / weights.sum(axis=1, keepdims=True)


def draw_occupations(labels: pd.DataFrame, setting: Setting, rng: np.random.Generator) -> list[str]:
    """Return the occupation of each face; "" for faces that are not perceived as adults."""
    chances = weigh_occupations(setting.is_majority(labels), setting.association)
    drawn = (rng.random((len(labels), 1)) > chances.cumsum(axis=1)[:, :-1]).sum(axis=1)
    adult = labels["age"].isin(ADULT).to_numpy()
    return [OCCUPATIONS[k] if is_adult else "" for k, is_adult in zip(drawn.tolist(), adult.tolist(), strict=True)]


def draw_copies(labels: pd.DataFrame, setting: Setting, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the number of near-duplicates of each face, more for the majority."""
    majority = setting.is_majority(labels)
    rates = np.array(setting.copies)[majority["race"].astype(int) + majority["gender"]]
    return rng.poisson(rates).astype(np.int64)


def read_words() -> tuple[dict[str, dict[str, list[str]]], list[str]]:
    """Return the phrases of each label of each attribute, and the templates, of fairface.yaml."""
    known = yaml.safe_load(PROTOTYPES.read_text(encoding="utf-8"))
    words = {name.removeprefix("perceived "): own["concepts"] for name, own in known["attributes"].items()}
    return words, known["templates"]


def write_caption(
    facts: dict[str, str], words: dict[str, dict[str, list[str]]], templates: list[str], rng: np.random.Generator
) -> tuple[str, dict[str, str]]:
    """Return a caption of a face and the facts that it states.

    Parameters
    ----------
    facts : dict of str to str
        Perceived race, gender and age, and the occupation or "".
    words : dict of str to dict
        Phrases of each label of each attribute.
    templates : list of str
        Captions; the phrases replace {}.
    rng : numpy.random.Generator
        Chooses the facts and the words.
    """
    named = [a for a in VALUES if rng.random() < STATED]
    if len(named) > 2:
        named.pop(int(rng.integers(3)))
    has_occupation = bool(facts["occupation"]) and rng.random() < NAMES_OCCUPATION
    if not named and not has_occupation:
        named = [list(VALUES)[int(rng.integers(3))]]
    phrases = []
    for attribute in named:
        known = words[attribute][facts[attribute]]
        phrases.append(known[int(rng.integers(len(known)))])
    if has_occupation:
        named.append("occupation")
        phrases.append(add_article(facts["occupation"]))
    if rng.random() < HAS_ADJECTIVE:
        phrases.append(f"{add_article(ADJECTIVES[int(rng.integers(len(ADJECTIVES)))])} person")
    text = templates[int(rng.integers(len(templates)))].format(", ".join(phrases))
    return text, {attribute: facts[attribute] for attribute in named}


def draw_set(labels: pd.DataFrame, setting: Setting, seed: int) -> pd.DataFrame:
    """Draw a training set from labelled faces, without its pictures.

    Parameters
    ----------
    labels : DataFrame
        Labels as `faces.make_label_table` returns them, a row for each face.
    setting : Setting
        Shares and rates.
    seed : int
        Seed of the draw.

    Returns
    -------
    DataFrame
        A row for each picture in random order: the number of its `face`, the number of the `copy` (0 is the face
        itself), `race`, `gender`, `age`, `occupation`, `caption`, and columns `states race` ... with what that states.
    """
    rng = np.random.default_rng([seed, 0])
    shares = (setting.race_share, setting.gender_share)
    chosen = choose_skewed(labels, setting.race, setting.gender, rng, shares)
    own = labels.iloc[chosen].reset_index(drop=True)
    counts = 1 + draw_copies(own, setting, rng)
    which = np.repeat(np.arange(len(own)), counts)
    table = own.iloc[which].astype(str).reset_index(drop=True)
    table.insert(0, "face", chosen[which])
    table.insert(1, "copy", np.concatenate([np.arange(c) for c in counts]))
    table["occupation"] = np.array(draw_occupations(own, setting, rng))[which]
    words, templates = read_words()
    known = [dict(zip(FACTS, line, strict=True)) for line in table[list(FACTS)].to_numpy().tolist()]
    captions = [write_caption(facts, words, templates, rng) for facts in known]
    table["caption"] = [text for text, _ in captions]
    for fact in FACTS:
        table[f"states {fact}"] = [stated.get(fact, "") for _, stated in captions]
    return table.iloc[rng.permutation(len(table))].reset_index(drop=True)


def augment(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Return a near-duplicate: cropped, flipped or not, with other colours, and saved as JPEG once more."""
    width, height = picture.size
    side = float(rng.uniform(0.86, 1))
    left, top = rng.uniform(0, 1 - side, 2)
    box = (left * width, top * height, (left + side) * width, (top + side) * height)
    copy = picture.resize((width, height), Image.Resampling.BICUBIC, box)
    if rng.random() < 0.5:
        copy = copy.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for kind in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        copy = kind(copy).enhance(float(rng.uniform(0.85, 1.18)))
    data = io.BytesIO()
    copy.save(data, "JPEG", quality=int(rng.integers(40, 90)))
    return Image.open(data).convert("RGB")


def iterate_pictures(pixels: NDArray[np.uint8], rows: pd.DataFrame, seed: int) -> Iterator[Image.Image]:
    """Yield the picture of each row of a set.

    Parameters
    ----------
    pixels : ndarray of shape (faces, s, s, 3), uint8
        All faces.
    rows : DataFrame
        What `draw_set` returned.
    seed : int
        Its seed. A near-duplicate depends on it, its face and its copy only.
    """
    for face, copy in zip(rows["face"].tolist(), rows["copy"].tolist(), strict=True):
        picture = Image.fromarray(pixels[face])
        yield augment(picture, np.random.default_rng([seed, 1, face, copy])) if copy else picture


def describe_set(rows: pd.DataFrame, setting: Setting) -> dict[str, float | int]:
    """Return counts and shares of a set, for the results."""
    return {
        "rows": len(rows),
        "distinct faces": int(rows["face"].nunique()),
        "share of near-duplicates": float((rows["copy"] > 0).mean()),
        **{
            f"share of {getattr(setting, a)}": float((rows[a] == getattr(setting, a)).mean())
            for a in ("race", "gender")
        },
    }
