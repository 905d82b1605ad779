"""FACET's recall disparities on a small file in the official format, computed by hand, and with a real checkpoint."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from fairdedup.encoders import BUILTIN_MODEL, BUILTIN_WEIGHTS
from fairdedup.errors import UserError
from fairdedup.sample.draw import draw_scene
from fairdedup.sample.people import make_setting

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import facet  # noqa: E402

CODE = f"{BUILTIN_MODEL}:{BUILTIN_WEIGHTS}"
OTHERS = ("gender_presentation_non_binary", "gender_presentation_na", "skin_tone_na", "age_presentation_na")
BOX = '{"x": 10.0, "y": 20.0, "width": 30.0, "height": 40.0, "dict_attributes": {}}'


def person(name: str, first: str, second: str = "none", **votes: int) -> dict[str, object]:
    """Return a line of annotations.csv: gender, age and skin tones by their short names."""
    line: dict[str, object] = {
        "person_id": len(name), "filename": name, "class1": first, "class2": second, "bounding_box": BOX,
        **dict.fromkeys((*facet.GENDERS, *facet.TONES, *facet.AGES, *OTHERS), 0),
    }  # fmt: skip
    for short, value in votes.items():
        column = next(key for key in line if key.endswith(f"_{short}") or key == short)
        line[column] = value
    return line


def write(file: Path, lines: list[dict[str, object]]) -> Path:
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    return file


def make_lines() -> list[dict[str, object]]:
    """Return 12 people alone in their pictures, and two who share one."""
    dark, light = {"skin_tone_8": 3}, {"skin_tone_2": 2, "skin_tone_6": 1}
    return [
        *(person(f"d{k}.jpg", "doctor", masc=1, young=1, **light) for k in range(4)),
        *(person(f"d{k}.jpg", "doctor", fem=1, middle=1, **dark) for k in range(4, 6)),
        *(person(f"g{k}.jpg", "guitarist", "singer", masc=1, older=1, **dark) for k in range(2)),
        *(person(f"g{k}.jpg", "guitarist", fem=1, young=1, **light) for k in range(2, 6)),
        person("both.jpg", "doctor", masc=1, young=1, **light),
        person("both.jpg", "singer", fem=1, young=1, **light),
    ]


GUESSES = [
    *("doctor", "doctor", "doctor", "singer"),  # doctors, masc, young, lighter: 3 of 4
    *("doctor", "guitarist"),  # doctors, fem, middle, darker: 1 of 2
    *("singer", "guitarist"),  # guitarists who also sing, masc, older, darker: 2 of 2
    *("doctor", "doctor", "guitarist", "singer"),  # guitarists, fem, young, lighter: 1 of 4
]


@pytest.fixture
def people(tmp_path):
    return facet.read_annotations(write(tmp_path / "annotations.csv", make_lines()))


def test_only_people_alone_in_their_picture_count(people):
    assert len(people) == 12
    assert "both.jpg" not in set(people["filename"])
    assert facet.list_classes(people) == ["doctor", "guitarist", "singer"]


def test_disparities_by_hand(people):
    found = facet.measure_disparities(people, GUESSES, min_count=2)
    gender = found["gender presentation"]
    assert gender["classes"]["doctor"]["disparity"] == pytest.approx(3 / 4 - 1 / 2)
    assert gender["classes"]["guitarist"]["disparity"] == pytest.approx(1 - 1 / 4)
    assert (gender["classes"]["doctor"]["highest"], gender["classes"]["guitarist"]["highest"]) == ("masc", "masc")
    assert gender["worst class"] == {"class": "guitarist", "disparity": pytest.approx(0.75)}
    assert gender["mean disparity"] == pytest.approx((0.25 + 0.75) / 2)
    tone = found["skin tone"]["classes"]
    assert tone["doctor"]["groups"]["darker"] == {"people": 2, "recall": 0.5}
    assert (tone["guitarist"]["lowest"], tone["guitarist"]["highest"]) == ("lighter", "darker")
    assert found["age presentation"]["worst class"] == {"class": "guitarist", "disparity": pytest.approx(0.75)}
    json.dumps(found, allow_nan=False)


def test_the_disparity_of_three_ages_is_between_the_best_and_the_worst(tmp_path):
    lines = [person(f"{age}{k}.jpg", "nurse", **{age: 1}) for age in ("young", "middle", "older") for k in range(4)]
    known = facet.read_annotations(write(tmp_path / "a.csv", lines))
    guesses = ["nurse"] * 4 + ["nurse", "x", "nurse", "x"] + ["x", "x", "x", "nurse"]  # 1, 1/2 and 1/4
    own = facet.measure_disparities(known, guesses, min_count=4)["age presentation"]["classes"]["nurse"]
    assert own["disparity"] == pytest.approx(0.75)
    assert (own["lowest"], own["highest"]) == ("older", "young")


def test_a_group_of_few_people_and_a_class_with_one_group_are_insufficient(people):
    found = facet.measure_disparities(people, GUESSES, min_count=3)
    own = found["gender presentation"]
    assert own["classes"]["doctor"]["why"] == "insufficient"
    assert own["classes"]["doctor"]["groups"]["fem"] == {"people": 2, "why": "insufficient"}
    assert own["worst class"] is None and own["classes compared"] == 0
    assert any("insufficient in every class" in line for line in facet.list_lines({"a": {"disparities": found}}))


def test_ties_of_votes_and_double_presentations_have_no_group(tmp_path):
    lines = [
        person("1.jpg", "nurse", masc=1, fem=1, skin_tone_5=1, skin_tone_6=1),
        person("2.jpg", "nurse", young=1, middle=1, skin_tone_10=1),
        person("3.jpg", "nurse", non_binary=1, skin_tone_5=2, skin_tone_6=1),
        person("4.jpg", "nurse"),
    ]
    known = facet.read_annotations(write(tmp_path / "a.csv", lines))
    assert known["gender presentation"].isna().all() and known["age presentation"].isna().all()
    assert (
        known["skin tone"].tolist()[1:3] == ["darker", "lighter"]
        and known["skin tone"].isna().tolist()[::3] == [True] * 2
    )
    assert facet.measure_disparities(known, ["nurse"] * 4)["skin tone"]["people without a group"] == 2


def test_guesses_are_the_most_similar_caption_with_its_article():
    seen: list[str] = []

    def text(captions: list[str]) -> np.ndarray:
        seen.extend(captions)
        return np.eye(3, dtype=np.float32)

    images = np.array([[0, 1, 0.5], [2, 0, 1], [1, 1, 0]], np.float32)
    assert facet.guess_classes(images, text, ["artist", "disk_jockey", "nurse"]) == ["disk_jockey", "artist", "artist"]
    assert seen == ["a photo of an artist", "a photo of a disk jockey", "a photo of a nurse"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda lines: [{k: v for k, v in line.items() if k != "skin_tone_7"} for line in lines],
         "has no column 'skin_tone_7': give FACET's annotations.csv"),
        (lambda lines: [{**line, "skin_tone_7": "many"} for line in lines], "d0.jpg: skin_tone_7 'many' must be"),
        (lambda lines: [{**line, "filename": "one.jpg"} for line in lines], "names every image more than once"),
    ],
)  # fmt: skip
def test_a_file_in_another_format_is_refused(change, says, tmp_path):
    with pytest.raises(UserError, match=says):
        facet.read_annotations(write(tmp_path / "a.csv", change(make_lines())))


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["facet.py", *map(str, words)])
    facet.main()


def test_one_command_measures_a_checkpoint_on_images_in_sub_folders(tmp_path, monkeypatch, capsys):
    file = write(tmp_path / "annotations.csv", make_lines())
    rng = np.random.default_rng(0)
    for k, line in enumerate(make_lines()):
        folder = tmp_path / "images" / f"imgs_{k % 3 + 1}"
        folder.mkdir(parents=True, exist_ok=True)
        draw_scene(make_setting(rng, somebody=True)).save(folder / str(line["filename"]))
    words = ("--annotations", file, "--images", tmp_path / "images", "--min-count", 2, "--out", tmp_path / "f.json")
    run(monkeypatch, *words, "--checkpoint", f"small={CODE}")
    report = json.loads((tmp_path / "f.json").read_text())
    assert (report["people"], report["classes"]) == (12, 3)
    own = report["checkpoints"]["small"]["disparities"]["gender presentation"]
    assert 0 <= own["worst class"]["disparity"] <= 1
    shown = capsys.readouterr().out
    assert "annotations.csv has 3 classes in images of one person; FACET has 52" in shown
    assert "small  perceived gender presentation: worst disparity " in shown
    assert "evaluation only" in report["data"] and str(tmp_path) not in (tmp_path / "f.json").read_text()


def test_images_that_are_missing_or_damaged_are_named(tmp_path):
    with pytest.raises(UserError, match="lacks 2 of 2 images, such as .a.jpg."):
        facet.find_images(tmp_path, ["a.jpg", "b.jpg"])
    (tmp_path / "a.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match="a.jpg: .*; download it again"):
        facet.embed_images([tmp_path / "a.jpg"], None)  # type: ignore[arg-type] # it ends before an encoder is called
