"""People and places of the sample's pictures: seeded attributes with the skew of web data.

A `Scene` describes all that a picture shows, and nothing here draws. `make_scenes` generates scenes in series, because
on the web the same staff page, uniform and backdrop appear again with another face.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

GENDERS = ("woman", "man")
AGES = ("young", "middle-aged", "older")
SKIN_TONES = ("light", "medium", "dark")
FRAMINGS = ("close-up", "half-length", "wide")
LIGHTS = ("daylight", "evening light", "dim light")

# Workplace, share of the pictures, and share of women: the imbalance that an audit should notice.
OCCUPATIONS: dict[str, tuple[str, float, float]] = {
    "office worker": ("office", 0.15, 0.47),
    "teacher": ("classroom", 0.13, 0.74),
    "nurse": ("hospital ward", 0.13, 0.87),
    "doctor": ("clinic", 0.11, 0.38),
    "scientist": ("laboratory", 0.10, 0.36),
    "chef": ("kitchen", 0.10, 0.28),
    "engineer": ("construction site", 0.10, 0.12),
    "farmer": ("field", 0.07, 0.20),
    "mechanic": ("garage", 0.06, 0.07),
    "firefighter": ("fire station", 0.05, 0.07),
}
OUTDOOR = ("construction site", "field")
WALLS = ("cream", "blue", "green", "pink", "grey")
SKIES = ("clear", "cloudy", "sunset")
ACCENTS = ("red", "orange", "teal", "navy", "purple", "green")

AGE_SHARES = (0.48, 0.40, 0.12)
MONK_SHARES = (0.16, 0.21, 0.20, 0.13, 0.10, 0.07, 0.04, 0.04, 0.03, 0.02)  # Monk 1 to 10

HAIR_STYLES = {
    "woman": ("long", "bob", "bun", "ponytail", "curls", "pixie", "headscarf"),
    "man": ("short", "side parting", "buzz cut", "short curls", "bald"),
}
HAIR_STYLE_SHARES = {
    "woman": (0.27, 0.19, 0.15, 0.15, 0.12, 0.07, 0.05),
    "man": (0.32, 0.28, 0.16, 0.14, 0.10),
}


@dataclass(frozen=True)
class Person:
    """A drawn adult: a perceived presentation, not anyone's identity."""

    gender: str
    age: str
    monk: int  # 1 (lightest) to 10 (darkest) of the Monk Skin Tone scale
    hair_style: str
    hair_colour: str
    beard: bool
    glasses: bool

    @property
    def skin_tone(self) -> str:
        """Group of the Monk tone: 1 to 4 light, 5 to 7 medium, 8 to 10 dark."""
        return SKIN_TONES[0 if self.monk <= 4 else 1 if self.monk <= 7 else 2]


@dataclass(frozen=True)
class Scene:
    """A full description of one picture. Equal scenes give equal pixels."""

    place: str  # a workplace of OCCUPATIONS, or "studio"
    backdrop: str  # a wall colour, or the sky outdoors
    layout: int  # seed of the furniture
    occupation: str  # "none" in a picture without a person
    accent: str  # colour of the outfit
    framing: str
    light: str
    person: Person | None
    x: float = 0.0  # camera shift, in pixels of the 128
    y: float = 0.0
    zoom: float = 1.0
    lean: float = 0.0  # shift of the head against the body, in head radii
    arm: float = 0.0  # 0 lowered to 1 raised
    mirrored: bool = False

    def facts(self) -> dict[str, str]:
        """Return what the picture shows: attribute -> value."""
        facts = {"place": self.place, "backdrop": self.backdrop, "framing": self.framing, "light": self.light}
        if self.person is None:
            return facts | {"people": "nobody"}
        person = self.person
        return facts | {
            "people": "somebody",
            "occupation": self.occupation,
            "accent": self.accent,
            "gender": person.gender,
            "age": person.age,
            "skin tone": person.skin_tone,
            "hair style": person.hair_style,
            "hair colour": person.hair_colour,
            "beard": "yes" if person.beard else "no",
            "glasses": "yes" if person.glasses else "no",
        }


def pick(rng: np.random.Generator, options: tuple[str, ...], shares: tuple[float, ...] | None = None) -> str:
    """Return one of some options at random.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    options : tuple of str
        What to choose from.
    shares : tuple of float, optional
        Probability of each option  [default: equal ones].
    """
    return options[int(rng.choice(len(options), p=shares))]


def make_person(
    rng: np.random.Generator,
    women: float,
    ages: tuple[float, ...] = AGE_SHARES,
    monk: tuple[float, ...] = MONK_SHARES,
) -> Person:
    """Return a random person.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    women : float
        Probability of a woman.
    ages : tuple of float
        Probability of each of AGES.
    monk : tuple of float
        Probability of each of the ten tones of the Monk Skin Tone scale, lightest first.
    """
    gender = "woman" if rng.random() < women else "man"
    age = pick(rng, AGES, ages)
    tone = 1 + int(rng.choice(10, p=monk))
    style = pick(rng, HAIR_STYLES[gender], HAIR_STYLE_SHARES[gender])
    if age == "older":
        colour = pick(rng, ("grey", "white"))
    elif age == "young" and rng.random() < 0.15:
        colour = "dyed"
    else:
        natural = ("black", "brown", "blond", "red")
        colour = pick(rng, natural, (0.8, 0.2, 0.0, 0.0) if tone >= 6 else (0.28, 0.34, 0.23, 0.15))
    beard = gender == "man" and bool(rng.random() < 0.4)
    glasses = bool(rng.random() < {"young": 0.12, "middle-aged": 0.25, "older": 0.6}[age])
    return Person(gender, age, tone, style, colour, beard, glasses)


def make_setting(rng: np.random.Generator, somebody: bool = True) -> Scene:
    """Return a scene with a random workplace, outfit, framing and light, and without a person.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    somebody : bool
        Whether a person will be added. False gives an empty room without an occupation.
    """
    names = tuple(OCCUPATIONS)
    occupation = pick(rng, names, tuple(OCCUPATIONS[name][1] for name in names))
    place = OCCUPATIONS[occupation][0]
    if somebody and rng.random() < 0.12:
        place = "studio"
    return Scene(
        place=place,
        backdrop=pick(rng, SKIES if place in OUTDOOR else WALLS),
        layout=int(rng.integers(1 << 30)),
        occupation=occupation if somebody else "none",
        accent=pick(rng, ACCENTS),
        framing=pick(rng, FRAMINGS, (0.42, 0.38, 0.20) if somebody else (0.0, 0.3, 0.7)),
        light=pick(rng, LIGHTS, (0.6, 0.22, 0.18)),
        person=None,
        lean=float(rng.uniform(-0.12, 0.12)),
        arm=float(rng.random()),
        mirrored=bool(rng.random() < 0.5),
    )


def another_shot(rng: np.random.Generator, scene: Scene) -> Scene:
    """Return the same scene a moment later, with camera, head and arm moved a little.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    scene : Scene
        The scene of the first shot.
    """
    return replace(
        scene,
        x=float(rng.uniform(-7, 7)),
        y=float(rng.uniform(-4, 4)),
        zoom=float(rng.uniform(0.94, 1.1)),
        lean=float(np.clip(scene.lean + rng.uniform(-0.1, 0.1), -0.2, 0.2)),
        arm=float(np.clip(scene.arm + rng.uniform(-0.4, 0.4), 0.0, 1.0)),
    )


def make_scenes(rng: np.random.Generator, n: int) -> list[Scene]:
    """Return scenes in series: single ones, several shots of a person, teams in one setting, empty rooms.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    n : int
        Number of scenes.
    """
    scenes: list[Scene] = []
    while len(scenes) < n:
        kind = pick(rng, ("one-off", "shots", "team", "empty"), (0.72, 0.1, 0.11, 0.07))
        setting = make_setting(rng, somebody=kind != "empty")
        shots = int(rng.integers(2, 5)) if kind == "shots" else 1
        people = int(rng.integers(6, 15)) if kind == "team" else 1
        for _ in range(people):
            person = None if kind == "empty" else make_person(rng, OCCUPATIONS[setting.occupation][2])
            scenes.extend(another_shot(rng, replace(setting, person=person)) for _ in range(shots))
    return scenes[:n]
