"""Captions for the sample's pictures in the style of web alt text: each states some facts of a picture.

A `Caption` also lists these facts, so that the training of the built-in encoder knows which pictures it fits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fairdedup.sample.people import OUTDOOR, Person, Scene, pick

NOUNS = {"woman": ("woman", "woman", "lady"), "man": ("man", "man", "gentleman")}
ADJECTIVES = {"woman": "female", "man": "male"}
AGE_WORDS = {
    "young": ("young", "youthful"),
    "middle-aged": ("middle-aged",),
    "older": ("older", "elderly", "senior"),
}
SKIN_WORDS = {
    "light": ("light skin", "fair skin", "a light skin tone"),
    "medium": ("medium skin", "tan skin", "a medium skin tone"),
    "dark": ("dark skin", "deep brown skin", "a dark skin tone"),
}
STYLE_WORDS = {
    "long": "long hair",
    "bob": "a bob",
    "bun": "a bun",
    "ponytail": "a ponytail",
    "curls": "big curls",
    "pixie": "a pixie cut",
    "headscarf": "a headscarf",
    "short": "short hair",
    "side parting": "a side parting",
    "buzz cut": "a buzz cut",
    "short curls": "short curls",
    "bald": "a bald head",
}
PLACE_WORDS = {
    "office": "in an office",
    "construction site": "at a construction site",
    "fire station": "at a fire station",
    "studio": "in front of a plain backdrop",
}
OPENINGS = ("", "", "a photo of ", "a picture of ", "portrait of ", "stock photo of ")
FRAMING_WORDS = {
    "close-up": "close-up portrait",
    "half-length": "half-length portrait",
    "wide": "full-length",
}


@dataclass(frozen=True)
class Caption:
    """A caption and the facts that it states: attribute -> value, a subset of `Scene.facts()`."""

    text: str
    said: dict[str, str]


def write_caption(scene: Scene, rng: np.random.Generator) -> Caption:
    """Return one of the many captions of a scene.

    Parameters
    ----------
    scene : Scene
        The picture.
    rng : numpy.random.Generator
        Chooses the facts and the words.

    Returns
    -------
    Caption
        The text, and the facts that it states.
    """
    return _caption_empty_place(scene, rng) if scene.person is None else _caption_person(scene, scene.person, rng)


def _caption_empty_place(scene: Scene, rng: np.random.Generator) -> Caption:
    texts = (
        f"{_article('empty ' + scene.place)} with nobody in it",
        f"{scene.place}, no people",
        f"a photo of {_article(scene.place)} without people",
        f"empty {scene.place}",
    )
    return _append_setting(pick(rng, texts), {"people": "nobody", "place": scene.place}, scene, rng)


def _caption_person(scene: Scene, person: Person, rng: np.random.Generator) -> Caption:
    said = {"people": "somebody"}

    def say(attribute: str, chance: float) -> bool:
        if rng.random() >= chance:
            return False
        said[attribute] = scene.facts()[attribute]
        return True

    age = pick(rng, AGE_WORDS[person.age]) + " " if say("age", 0.3) else ""
    gendered = say("gender", 0.65)
    if not say("occupation", 0.7):
        who = pick(rng, NOUNS[person.gender]) if gendered else "person"
        text = _article(age + who)
    elif not gendered:
        text = _article(age + scene.occupation)
    elif rng.random() < 0.5:
        text = _article(f"{age}{ADJECTIVES[person.gender]} {scene.occupation}")
    else:
        text = f"{_article(age + pick(rng, NOUNS[person.gender]))} working as {_article(scene.occupation)}"
    looks = []
    if say("skin tone", 0.2):
        looks.append(pick(rng, SKIN_WORDS[person.skin_tone]))
    if person.hair_style not in ("bald", "headscarf") and say("hair colour", 0.3):
        looks.append(f"{person.hair_colour} hair")
    elif say("hair style", 0.15):
        looks.append(STYLE_WORDS[person.hair_style])
    if len(looks) < 2 and person.glasses and say("glasses", 0.4):
        looks.append("glasses")
    if len(looks) < 2 and person.beard and say("beard", 0.4):
        looks.append("a beard")
    if looks:
        text += " with " + " and ".join(looks)
    if say("accent", 0.2):
        text += f", {scene.accent} outfit"
    if say("place", 0.5):
        text += " " + PLACE_WORDS.get(scene.place, f"in a {scene.place}")
    return _append_setting(pick(rng, OPENINGS) + text, said, scene, rng)


def _append_setting(text: str, said: dict[str, str], scene: Scene, rng: np.random.Generator) -> Caption:
    if rng.random() < 0.25:
        text += f", {scene.backdrop} {'sky' if scene.place in OUTDOOR else 'wall'}"
        said["backdrop"] = scene.backdrop
    if rng.random() < 0.25:
        text += f", {FRAMING_WORDS[scene.framing] if scene.person else scene.framing + ' view'}"
        said["framing"] = scene.framing
    if rng.random() < 0.2:
        text += f", {scene.light}"
        said["light"] = scene.light
    return Caption(text, said)


def _article(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun
