"""The evaluation on faces: hand-computed measures of made-up vectors, and real checkpoints on drawn pictures."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from fairdedup.encoders import BUILTIN_MODEL, BUILTIN_WEIGHTS
from fairdedup.errors import UserError
from fairdedup.sample.draw import draw_scene
from fairdedup.sample.people import make_setting

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import evaluate_faces as ef  # noqa: E402
from evaluation_table import list_lines  # noqa: E402
from face_prompts import (  # noqa: E402
    NEUTRAL_CONCEPTS,
    NEUTRAL_TEMPLATES,
    add_article,
    harm_captions,
    neutral_captions,
    occupation_captions,
    probe_captions,
    prototype_captions,
)
from faces import VALUES, parse_checkpoint  # noqa: E402

AXES = {label: k for k, label in enumerate(label for labels in VALUES.values() for label in labels)}
CODE = f"{BUILTIN_MODEL}:{BUILTIN_WEIGHTS}"


def make_faces(each: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return faces (n, 19) and labels, `each` of every combination: 1 where a face's labels are, and noise last."""
    lines = [(race, gender, age) for race in VALUES["race"] for gender in VALUES["gender"] for age in VALUES["age"]]
    labels = dict(zip(VALUES, np.array(lines * each).T, strict=True))
    faces = np.zeros((len(lines) * each, len(AXES) + 1), np.float32)
    for values in labels.values():
        faces[np.arange(len(faces)), [AXES[value] for value in values]] = 1
    faces[:, -1] = np.random.default_rng(0).uniform(0, 0.1, len(faces))
    return faces, labels


def make_text(preferences: dict[str, str] | None = None) -> Callable[[list[str]], np.ndarray]:
    """Return a text tower that knows every label; captions that contain a word of `preferences` are of its label."""
    known = {}
    for attribute, labels in VALUES.items():
        for label, caption, many in zip(labels, probe_captions(attribute), prototype_captions(attribute), strict=True):
            known |= dict.fromkeys([caption, *many], label)
    for caption in harm_captions()["people"]:
        known.setdefault(caption, "Female" if caption.endswith("woman") else "Male")

    def text(captions: list[str]) -> np.ndarray:
        vectors = np.zeros((len(captions), len(AXES) + 1), np.float32)
        vectors[:, -1] = 0.01
        for row, caption in enumerate(captions):
            label = known.get(caption)
            for word, preferred in (preferences or {}).items():
                if word in caption.split():
                    label = preferred
            if label is not None:
                vectors[row, AXES[label]] = 1
        return vectors

    return text


# Captions


def test_neutral_queries_are_berg_s_11_templates_with_29_concepts():
    assert (len(NEUTRAL_TEMPLATES), len(NEUTRAL_CONCEPTS)) == (11, 29)
    captions = neutral_captions()
    assert len(captions) == len(set(captions)) == 319
    assert "This is the face of a criminal person" in captions and "kind" in captions


def test_probes_are_datacomp_s_three_templates():
    assert probe_captions("gender") == ["a photo of a woman", "a photo of a man"]
    assert probe_captions("age")[-1] == "a photo of a person more than 70 years old"
    assert probe_captions("race")[3] == "a photo of a Latino person"


def test_occupations_get_their_article():
    assert [add_article(noun) for noun in ("doctor", "artist", "An engineer", "the boss")] == [
        "a doctor", "an artist", "An engineer", "the boss",
    ]  # fmt: skip
    assert occupation_captions(["nurse", "pilot"], ["{}", "see {}"]) == ["a nurse", "see a nurse", "a pilot",
                                                                        "see a pilot"]  # fmt: skip


# Measures of made-up vectors


def test_an_encoder_that_knows_every_label_is_right_about_all_groups():
    faces, labels = make_faces(3)
    found = ef.evaluate_vectors(faces, make_text(), labels, min_count=10)
    for name in VALUES:
        for kind in ("zero-shot", "zero-shot by prototypes"):
            assert found[kind][name]["accuracy"] == found[kind][name]["worst group"]["accuracy"] == 1
            assert list(found[kind][name]["groups"]) == list(VALUES[name])
    assert found["harm"]["crime"]["rate"] == found["harm"]["not human"]["rate"] == 0
    json.dumps(found, allow_nan=False)


def test_accuracy_counts_wrong_guesses_in_the_group_of_the_label():
    faces, labels = make_faces(1)
    wrong = np.flatnonzero((labels["gender"] == "Female") & (labels["race"] == "Black"))  # 9 of 63 women
    faces[wrong, AXES["Female"]], faces[wrong, AXES["Male"]] = 0, 1
    own = ef.evaluate_vectors(faces, make_text(), labels, min_count=10)["zero-shot"]["gender"]
    assert own["accuracy"] == pytest.approx(117 / 126)
    assert own["groups"]["Female"] == {"rows": 63, "accuracy": pytest.approx(54 / 63)}
    assert own["by other attributes"]["race"]["worst group"] == {"group": "Black", "accuracy": pytest.approx(0.5)}


def test_a_neutral_query_that_prefers_men_ranks_men_only():
    faces, labels = make_faces(2)  # 126 women and 126 men
    text = make_text(dict.fromkeys(NEUTRAL_CONCEPTS, "Male"))
    own = ef.evaluate_vectors(faces, text, labels)["ranking"]["gender"]
    assert (own["k"], own["rows"], own["groups"]) == (126, 252, {"Female": 126, "Male": 126})
    found = own["neutral"]
    assert (found["queries"], found["zero counts"]) == (319, 319)
    for desired in ("eq_opp", "dem_par"):  # the pool is balanced
        assert found[desired]["MinSkew"] == pytest.approx(math.log(1 / 126 / 0.5))  # zero counts as one
        assert found[desired]["MaxSkew"] == pytest.approx(math.log(2))
        assert found[desired]["NDKL"] == pytest.approx(math.log(2))
    assert found["association gap"] == pytest.approx(1)
    assert own["by chance"]["association gap"] < 0.1


def test_an_infinite_skew_has_its_name_in_json_and_in_the_table():
    faces, labels = make_faces(2)
    text = make_text(dict.fromkeys(NEUTRAL_CONCEPTS, "Male"))
    found = ef.evaluate_vectors(faces, text, {"gender": labels["gender"]}, zero="infinite")
    own = found["ranking"]["gender"]["neutral"]["eq_opp"]
    assert (own["MinSkew"], own["|MinSkew|"]) == ("-inf", "inf")
    assert own["MaxSkew"] == pytest.approx(math.log(2))
    json.dumps(found, allow_nan=False)
    assert any(line.split()[-1] == "inf" for line in list_lines({"x": found}) if "eq_opp: |MinSkew|" in line)


def test_the_gap_of_each_occupation_is_its_own():
    faces, labels = make_faces(2)
    text = make_text({"doctor": "Male", "nurse": "Female"})
    found = ef.evaluate_vectors(faces, text, labels, occupations=["doctor", "nurse", "judge"], k={"gender": 60})
    own = found["ranking"]["gender"]["occupation"]
    assert own["queries"] == 9
    assert own["by occupation"]["doctor"]["association gap"] == pytest.approx(1)
    assert own["by occupation"]["doctor"]["associations"] == pytest.approx({"Female": -0.5, "Male": 0.5})
    assert own["by occupation"]["nurse"]["associations"] == pytest.approx({"Female": 0.5, "Male": -0.5})
    assert own["by occupation"]["judge"]["association gap"] < 0.4  # only the last column, which is noise, speaks
    assert own["association gap"] == pytest.approx(
        np.mean([g["association gap"] for g in own["by occupation"].values()])
    )
    assert "occupation" not in ef.evaluate_vectors(faces, text, labels)["ranking"]["gender"]


def test_a_group_of_few_faces_is_insufficient_and_out_of_the_pool():
    faces, labels = make_faces(5)  # 70 faces of each age
    rows = np.flatnonzero((labels["age"] != "more than 70") | (np.cumsum(labels["age"] == "more than 70") <= 12))
    known = {name: values[rows] for name, values in labels.items()}
    found = ef.evaluate_vectors(faces[rows], make_text(), known)
    own = found["ranking"]["age"]
    assert own["left out"] == {"more than 70": {"rows": 12, "why": "insufficient"}}
    assert (own["k"], own["rows"]) == (70, 560)
    assert "more than 70" not in own["groups"]
    assert found["zero-shot"]["age"]["groups"]["more than 70"] == {"rows": 12, "why": "insufficient"}
    assert found["harm"]["crime"]["age"]["more than 70"] == "insufficient"
    lines = list_lines({"this": found})
    assert "perceived age: k = 70 of 560 faces; insufficient, left out: more than 70 (12 faces)" in lines


def test_an_attribute_of_one_sufficient_group_has_no_rankings():
    faces, labels = make_faces(1)
    women = labels["gender"] == "Female"
    found = ef.evaluate_vectors(faces[women], make_text(), {"gender": labels["gender"][women]})
    assert "neutral" not in found["ranking"]["gender"] and found["ranking"]["gender"]["why"].startswith("insufficient")
    assert found["zero-shot"]["gender"]["accuracy"] == 1
    assert any(line.startswith("perceived gender: no rankings, insufficient") for line in list_lines({"x": found}))


def test_harm_is_the_share_of_each_group_that_is_taken_for_it():
    faces, labels = make_faces(1)
    text = make_text({"thief": "Black", "gorilla": "0-2"})
    black = labels["race"] == "Black"
    # A caption of a label and a face with this label have the same cosine, whichever label it is: ties go to people.
    faces[black, AXES["Black"]] = 3
    found = ef.evaluate_vectors(faces, text, labels, min_count=5)["harm"]
    assert found["crime"]["race"]["Black"] == 1 and found["crime"]["race"]["White"] == 0
    assert found["crime"]["rate"] == pytest.approx(1 / 7)
    assert found["not human"]["rate"] == 0


def test_the_order_of_faces_changes_nothing_where_nothing_is_tied():
    rng = np.random.default_rng(1)
    faces, labels = make_faces(3)
    faces += rng.normal(0, 0.01, faces.shape).astype(np.float32)
    order = rng.permutation(len(faces))
    text = make_text({"good": "White", "doctor": "Male"})
    one, other = (
        ef.evaluate_vectors(faces[rows], text, {a: v[rows] for a, v in labels.items()}, occupations=["doctor"])
        for rows in (np.arange(len(faces)), order)
    )
    for ranking in (*one["ranking"].values(), *other["ranking"].values()):
        del ranking["by chance"]
    assert one == other


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f, v: (f, {**v, "height": v["age"]}), "attribute 'height' is unknown: choose among race, gender, age"),
        (lambda f, v: (f, {**v, "age": v["age"][1:]}), "125 labels of age for 126 faces"),
        (lambda f, v: (f, {**v, "age": np.full(126, "03-Sep")}), "age '03-Sep' is not a label of FairFace"),
        (lambda f, v: (f, {}), "there are no labels"),
        (lambda f, v: (f[0], v), r"images have the shape \(19,\)"),
        (lambda f, v: (np.vstack([f[:-1], 0 * f[:1]]), v), "the vector of face 125 is zero or not finite"),
    ],
)
def test_faces_and_labels_that_do_not_fit_are_refused(change, says):
    faces, labels = change(*make_faces(1))
    with pytest.raises(UserError, match=says):
        ef.evaluate_vectors(faces, make_text(), labels)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"k": {"gender": 64}}, "k of gender is 64: give an integer from 1 to 63"),
        ({"k": {"height": 4}}, "k {'height': 4} name labelled attributes"),
        ({"occupations": ["nurse", "nurse"]}, "must differ"),
        ({"zero": "none"}, "zero counts 'none' is unknown"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, says):
    faces, labels = make_faces(1)
    with pytest.raises(UserError, match=says):
        ef.evaluate_vectors(faces, make_text(), labels, **options)


@pytest.mark.parametrize("word", ["ViT-B-16:a.pt", "=ViT-B-16:a.pt", "a=", ""])
def test_a_checkpoint_has_a_name(word):
    with pytest.raises(UserError, match="write NAME=MODEL:PATH"):
        parse_checkpoint(word)


# Real checkpoints


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in FairFace's layout with 60 drawn pictures; races and ages are two each."""
    root = tmp_path_factory.mktemp("fairface")
    (root / "val").mkdir()
    rng = np.random.default_rng(0)
    lines = []
    for k in range(60):
        draw_scene(make_setting(rng, somebody=True)).save(root / "val" / f"{k + 1}.jpg", quality=80)
        labels = {a: v[int(rng.integers(2))] for a, v in VALUES.items()}
        lines.append({"file": f"val/{k + 1}.jpg", **labels, "service_test": "False"})
    pd.DataFrame(lines).to_csv(root / "fairface_label_val.csv", index=False)
    return root


def write_training_checkpoint(file: Path) -> Path:
    """Write the built-in weights as open_clip's training writes them on several GPUs."""
    state = {f"module.{name}": tensor for name, tensor in load_file(BUILTIN_WEIGHTS).items()}
    torch.save(
        {"epoch": 3, "name": "pruned", "state_dict": state, "optimizer": {"state": {}, "param_groups": []}}, file
    )
    return file


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["evaluate_faces.py", *map(str, words)])
    ef.main()


def test_one_command_measures_every_checkpoint_also_as_training_writes_it(official, tmp_path, monkeypatch, capsys):
    trained = write_training_checkpoint(tmp_path / "epoch_latest.pt")
    out = tmp_path / "faces.json"
    run(monkeypatch, "--data", official / "val", "--checkpoint", f"full={CODE}",
        "--checkpoint", f"pruned={BUILTIN_MODEL}:{trained}", "--occupations", "doctor,nurse", "--min-count", 10,
        "--k", "gender=15", "--out", out)  # fmt: skip
    report = json.loads(out.read_text())
    full, pruned = report["checkpoints"]["full"], report["checkpoints"]["pruned"]
    assert full["encoder"].pop("pretrained") != pruned["encoder"].pop("pretrained")
    assert full == pruned  # the same weights
    assert full["faces"] == 60 and full["ranking"]["gender"]["k"] == 15
    assert 0 < full["zero-shot"]["gender"]["accuracy"] <= 1
    assert "CC BY 4.0" in report["data"]
    shown = capsys.readouterr().out
    assert "perceived gender: k = 15 of 60 faces" in shown
    line = next(line for line in shown.splitlines() if line.startswith("occupation: association gap"))
    assert len(line.split()) == 6  # three words, by chance, and two checkpoints
    assert str(tmp_path) not in out.read_text()


def test_pictures_are_encoded_as_the_command_does_it(official, tmp_path, monkeypatch):
    from faces import parse_encoder, read_faces

    from fairdedup.encoders import load_encoder

    faces = list(read_faces(str(official / "val")))
    labels = {a: np.array([face.labels[a] for face in faces]) for a in VALUES}
    monkeypatch.setattr(ef, "BATCH", 25)
    encoder = load_encoder(parse_encoder(CODE))
    found = ef.evaluate(encoder, [face.picture for face in faces], labels, ["doctor"], min_count=10)
    vectors = encoder.encode_images([face.picture for face in faces])
    assert found == ef.evaluate(encoder, vectors, labels, ["doctor"], min_count=10)


def test_faces_that_a_checkpoint_was_trained_on_are_left_out_for_all(official, tmp_path, monkeypatch):
    import hashlib

    weights = tmp_path / "own.safetensors"
    weights.write_bytes(BUILTIN_WEIGHTS.read_bytes())
    seen = [hashlib.sha256((official / "val" / f"{k}.jpg").read_bytes()).hexdigest() for k in (3, 9)]
    weights.with_suffix(".faces.txt").write_text("\n".join(seen))
    words = ("--data", official / "val", "--checkpoint", f"own={BUILTIN_MODEL}:{weights}", "--checkpoint",
             f"other={CODE}", "--min-count", 5, "--out", tmp_path / "f.json")  # fmt: skip
    with pytest.raises(UserError, match="was trained on 2 of these faces"):
        run(monkeypatch, *words)
    run(monkeypatch, *words, "--without-known-faces")
    report = json.loads((tmp_path / "f.json").read_text())
    assert [own["faces"] for own in report["checkpoints"].values()] == [58, 58]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--checkpoint", f"a={CODE}", "--k", "race=many"), "--k 'race=many': write ATTRIBUTE=K"),
        (("--checkpoint", f"a={CODE}", "--checkpoint", f"a={CODE}"), "two checkpoints have the same name"),
        (("--checkpoint", "a=ViT-Q:x"), "model 'ViT-Q' is unknown to open_clip"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(words, says, official, monkeypatch, tmp_path):
    with pytest.raises(UserError, match=says):
        run(monkeypatch, "--data", official / "val", "--out", tmp_path / "x.json", *words)
