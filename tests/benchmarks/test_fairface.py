"""The FairFace benchmark on drawn pictures with made-up labels: labels are repaired or refused, counts are equal."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fairdedup.core.prototypes import Prototypes
from fairdedup.encoders import BUILTIN_MODEL, BUILTIN_WEIGHTS
from fairdedup.errors import UserError
from fairdedup.sample.draw import draw_scene
from fairdedup.sample.people import make_setting

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import faces as ff  # noqa: E402
from face_comparison import BASE, RULES, calibrate_on_faces, measure_kept, paired_difference  # noqa: E402
from fairface import main  # noqa: E402
from tables import BRIEF  # noqa: E402

FAIRFACE = ROOT.parent / "shared" / "data" / "fairface"
CODE = f"{BUILTIN_MODEL}:{BUILTIN_WEIGHTS}"


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in FairFace's layout with 90 drawn pictures; two ages went through a spreadsheet."""
    root = tmp_path_factory.mktemp("fairface")
    (root / "val").mkdir()
    rng = np.random.default_rng(0)
    lines = []
    for k in range(90):
        draw_scene(make_setting(rng, somebody=True)).save(root / "val" / f"{k + 1}.jpg", quality=80)
        values = {a: v[int(rng.integers(len(v)))] for a, v in ff.VALUES.items()}
        lines.append({"file": f"val/{k + 1}.jpg", **values, "service_test": "False"})
    lines[0]["age"], lines[1]["age"] = "03-Sep", "Oct-19"
    pd.DataFrame(lines).to_csv(root / "fairface_label_val.csv", index=False)
    return root


def test_a_mistake_is_one_line():
    words = [sys.executable, BENCHMARKS / "fairface.py", "x", "--encoder", CODE, "--rules", "random,best"]
    refused = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False)
    assert refused.returncode == 1
    assert refused.stderr.startswith("--rules 'best' is unknown: choose among ") and refused.stderr.count("\n") == 1


@pytest.mark.parametrize("written", ["03-Sep", "3-Sep", "9-Mar", "09-Mar"])
def test_ages_that_a_spreadsheet_took_for_dates_are_repaired(written):
    known = {"race": "White", "gender": "Male"}
    assert ff.check_labels({**known, "age": written}, "x")["age"] == "3-9"
    assert ff.check_labels({**known, "age": "19-Oct"}, "x")["age"] == "10-19"


@pytest.mark.parametrize("written", ["01-Feb", "", "20-30", "nan"])
def test_any_other_unknown_label_is_refused(written):
    with pytest.raises(UserError, match="is not a label of FairFace"):
        ff.check_labels({"race": "White", "gender": "Male", "age": written}, "x")


def test_a_label_file_that_names_a_face_twice_or_lacks_a_column_is_refused(official, tmp_path):
    table = pd.read_csv(official / "fairface_label_val.csv")
    pd.concat([table, table[:1]]).to_csv(tmp_path / "twice.csv")
    table.drop(columns="race").to_csv(tmp_path / "less.csv")
    with pytest.raises(UserError, match="'val/1.jpg' twice"):
        ff.read_label_file(tmp_path / "twice.csv")
    with pytest.raises(UserError, match="has columns"):
        ff.read_label_file(tmp_path / "less.csv")


def test_faces_come_with_their_labels(official):
    found = {face.name: face for face in ff.read_faces(str(official / "val"))}
    table = pd.read_csv(official / "fairface_label_val.csv").set_index("file")
    assert len(found) == 90
    assert found["1.jpg"].labels["age"] == "3-9"
    assert found["2.jpg"].labels["age"] == "10-19"
    assert found["7.jpg"].labels == table.loc["val/7.jpg", list(ff.VALUES)].to_dict()
    assert found["7.jpg"].digest == hashlib.sha256((official / "val" / "7.jpg").read_bytes()).hexdigest()


def test_a_skewed_draw_has_the_documented_shares():
    rng = np.random.default_rng(0)
    lines = [{a: v[int(rng.integers(len(v)))] for a, v in ff.VALUES.items()} for _ in range(40_000)]
    labels = ff.make_label_table(lines)
    drawn = labels.iloc[ff.choose_skewed(labels, "White", "Male", rng)]
    assert abs((drawn["race"] == "White").mean() - 0.6) < 0.03
    assert abs((drawn["gender"] == "Male").mean() - 0.7) < 0.03
    assert abs((drawn["age"] == "0-2").mean() - 1 / 9) < 0.02


def test_what_is_measured_by_hand():
    labels = ff.make_label_table([
        {"race": race, "gender": gender, "age": "0-2"}
        for race, gender in (("White", "Male"), ("White", "Female"), ("White", "Male"), ("Black", "Male"))
    ])  # fmt: skip
    vectors = np.array([[1, 0], [0, 2], [3, 4], [-1, 0]], np.float32)
    known = ff.Faces(vectors, labels, [""] * 4, list("abcd"))
    found = measure_kept(known, np.array([True, False, False, True]))
    assert found["share race"] == 50  # one of the two that were kept is not White
    assert found["share gender"] == 0
    assert found["distance gender"] == pytest.approx(50)
    assert found["distance race"] == pytest.approx(100 * (1 / 2 - 1 / 7 + 1 / 2 - 1 / 7))
    assert found["coverage mean"] == pytest.approx(100 * (1 + 0 + 0.6 + 1) / 4)
    assert found["coverage first percentile"] == pytest.approx(100 * np.percentile([1, 0, 0.6, 1], 1))


def test_short_tables_show_the_base_and_rules_that_exist():
    assert BASE in BRIEF
    assert set(BRIEF) <= set(RULES)


def test_calibrated_prototypes_have_the_concepts_and_a_temperature():
    rng = np.random.default_rng(0)
    labels = ff.make_label_table([{a: v[int(rng.integers(len(v)))] for a, v in ff.VALUES.items()} for _ in range(60)])
    faces = ff.Faces(rng.standard_normal((60, 8)), labels, [""] * 60, [str(k) for k in range(60)])
    given = {f"perceived {a}": {c: rng.standard_normal(8) for c in v} for a, v in ff.VALUES.items()}
    found = calibrate_on_faces(Prototypes.of(given), faces).attributes
    assert [(a.name, a.concepts) for a in found] == [(f"perceived {a}", v) for a, v in ff.VALUES.items()]
    assert all(a.temperature > 0 for a in found)


def test_a_paired_difference_is_that_of_a_t_test_by_hand():
    gain = paired_difference(np.array([3.0, 5.0, 4.0]), np.array([1.0, 2.0, 3.0]))
    assert gain["mean"] == pytest.approx(2)
    assert gain["high"] - gain["mean"] == pytest.approx(4.302653 / 3**0.5)  # t of 2 degrees of freedom, s = 1
    assert gain["p"] == pytest.approx(0.0742, abs=1e-4)


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return the benchmark, loaded in this process: a separate one would spend its time on loading torch."""

    def run(*words: object) -> None:
        monkeypatch.setattr(sys, "argv", ["fairface.py", *map(str, words)])
        main()

    return run


@pytest.mark.filterwarnings("ignore:Precision loss occurred")  # of two repeats that differ by the same
def test_one_command_writes_table_and_plot_and_compares_at_one_count(official, tmp_path, benchmark):
    benchmark(official / "val", "--encoder", CODE, "--repeats", 2, "--rows", 80, "--clusters", 2,
              "--save-embeddings", tmp_path / "emb", "--out", tmp_path / "f.json",
              "--plot", tmp_path / "f.svg")  # fmt: skip
    report = json.loads((tmp_path / "f.json").read_text())
    assert report["rules"]["semdedup --published"]["share race"]["over base"]["mean"] == 0
    assert {"full", "random", "semdedup-chain", "fairdedup --published", "fairdedup"} <= set(report["rules"])
    assert "duplicates left" not in report["rules"]["random"]
    assert report["rules"]["semdedup"]["duplicates left"]["mean"] == 0
    assert report["rules"]["full"]["coverage first percentile"]["mean"] == pytest.approx(100, abs=1e-3)
    assert "perceived age" in (tmp_path / "f.svg").read_text()
    for place in (str(tmp_path), str(official), str(ROOT)):
        assert place not in (tmp_path / "f.json").read_text()
    benchmark("--embeddings", tmp_path / "emb", "--encoder", CODE, "--repeats", 2, "--rows", 80, "--clusters", 2,
              "--out", tmp_path / "g.json")  # fmt: skip
    assert json.loads((tmp_path / "g.json").read_text())["rules"] == report["rules"]


def test_an_encoder_that_was_trained_on_these_faces_is_refused_unless_allowed(official, tmp_path, benchmark):
    weights = tmp_path / "own.safetensors"
    weights.write_bytes(BUILTIN_WEIGHTS.read_bytes())
    seen = hashlib.sha256((official / "val" / "9.jpg").read_bytes()).hexdigest()
    weights.with_suffix(".faces.txt").write_text(f"{'0' * 64}\n{seen}\n")
    words = (official / "val", "--encoder", f"{BUILTIN_MODEL}:{weights}", "--repeats", 1,
             "--clusters", 2, "--rules", "random", "--out", tmp_path / "f.json")  # fmt: skip
    with pytest.raises(UserError, match=r"was trained on 1 of these faces \(9.jpg is one\)"):
        benchmark(*words)
    assert not (tmp_path / "f.json").exists()
    benchmark(*words, "--without-known-faces")
    assert json.loads((tmp_path / "f.json").read_text())["faces"] == [89]
    benchmark(*words, "--same-faces")
    assert json.loads((tmp_path / "f.json").read_text())["encoder trained on"] == "1 of these faces"


@pytest.mark.skipif(not FAIRFACE.is_dir(), reason="no FairFace here")
def test_fairface_itself_is_read():
    table = ff.read_label_file(FAIRFACE / "fairface_label_val.csv")
    assert set(table["age"]) == set(ff.VALUES["age"])
    some = next(ff.read_faces(str(FAIRFACE / "train96-00014.tar")))
    assert set(some.labels) == set(ff.VALUES)
