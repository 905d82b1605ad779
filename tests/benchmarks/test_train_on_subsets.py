"""The study of models end to end, on a few noisy pictures and two steps: it goes on after a kill, and nothing hangs."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
from PIL import Image

from fairdedup.encoders import BUILTIN_MODEL, BUILTIN_WEIGHTS
from fairdedup.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from face_subsets import Study, prepare_faces, read_decoded  # noqa: E402
from faces import VALUES  # noqa: E402
from subset_jobs import Job, run_jobs  # noqa: E402
from train_on_subsets import main  # noqa: E402

FACES = 180
NAMES = "random,true labels"
SLEEPERS = """
import pathlib, sys, time
sys.path.insert(0, sys.argv[1])
from subset_jobs import Job, run_jobs

def sleep(file):
    pathlib.Path(file).touch()
    time.sleep(1000)

if __name__ == "__main__":
    run_jobs([Job(name, "", sleep, (name,)) for name in sys.argv[2:]], 2)
"""


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return two folders in FairFace's layout, of noise with made-up labels."""
    root = tmp_path_factory.mktemp("faces")
    rng = np.random.default_rng(0)
    for name, number in (("train", FACES), ("val", 140)):
        (root / name).mkdir()
        lines = []
        for k in range(number):
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(root / name / f"{k}.png")
            labels = {a: v[k % len(v)] for a, v in VALUES.items()}  # every group has enough for a ranking
            lines.append({"file": f"{name}/{k}.png", **labels, "gender": VALUES["gender"][k // 70 % 2]})
        pd.DataFrame(lines).to_csv(root / f"fairface_label_{name}.csv", index=False)
    return root


def words(faces: Path, work: Path, out: Path, *more: str) -> list[str]:
    """Return the options of a small study."""
    return [
        *("--faces", str(faces / "train"), "--held-out", str(faces / "val"), "--work", str(work), "--out", str(out)),
        *("--encoder", f"{BUILTIN_MODEL}:{BUILTIN_WEIGHTS}", "--seeds", "1", "--steps", "2", "--batch", "4"),
        *("--subsets", NAMES, "--processes", "1", *more),
    ]


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], None]:
    def run(options: list[str]) -> None:
        monkeypatch.setattr(sys, "argv", ["train_on_subsets.py", *options])
        main()

    return run


def read_figures(file: Path) -> dict[str, Any]:
    """Return the results without what differs between runs: the time they took, and the command."""
    known: dict[str, Any] = json.loads(file.read_text())
    return {key: value for key, value in known.items() if key not in ("seconds", "command")}


def test_a_killed_study_goes_on_and_ends_in_the_same_figures(
    faces: Path, tmp_path: Path, study: Callable[[list[str]], None]
) -> None:
    study(words(faces, tmp_path / "whole", tmp_path / "whole.json"))
    whole = read_figures(tmp_path / "whole.json")
    assert list(whole["subsets"]) == NAMES.split(",")
    kept = [own["subset"]["rows"] for own in whole["subsets"].values()]
    assert kept[0] == kept[1] == int(whole["sets"][0]["rows"] / 2 + 0.5)
    for place in (str(tmp_path), str(faces), str(ROOT)):
        assert place not in (tmp_path / "whole.json").read_text()

    options = words(faces, tmp_path / "cut", tmp_path / "cut.json")
    first = tmp_path / "cut" / "models" / "0" / "random.json"
    command = [sys.executable, str(BENCHMARKS / "train_on_subsets.py"), *options]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    while not first.is_file() and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert first.is_file()
    assert not (tmp_path / "cut.json").exists()
    written = first.stat().st_mtime_ns
    study(options)
    assert first.stat().st_mtime_ns == written  # it was not trained again
    assert read_figures(tmp_path / "cut.json") == whole

    with pytest.raises(UserError, match=r"settings.json has recipe .* name another folder by --work"):
        study(words(faces, tmp_path / "cut", tmp_path / "cut.json", "--rate", "0.5"))


def test_faces_that_the_encoder_was_trained_on_are_left_out(
    faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = sorted((faces / "train").iterdir())
    digests = {hashlib.sha256(picture.read_bytes()).hexdigest() for picture in pictures[:3]}
    (tmp_path / "weights.safetensors").touch()
    (tmp_path / "weights.faces.txt").write_text("\n".join(digests))
    sources = str(faces / "train"), str(faces / "val")
    study = Study(tmp_path / "w", sources[:1], sources[1], f"{BUILTIN_MODEL}:{tmp_path / 'weights.safetensors'}")
    prepare_faces(study)
    pixels, labels, left = read_decoded(tmp_path / "w" / "faces")
    assert len(pixels) == len(labels) == FACES - 3
    assert not digests & set(left)
    assert "3 faces that the encoder was trained on are left out" in capsys.readouterr().err


def test_a_process_that_has_made_no_model_reads_captions_as_the_model_does() -> None:
    command = [sys.executable, "-c", "from small_clip import *; print(tokenize(Recipe(), ['a photo']).shape)"]
    shown = subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True, check=True).stdout
    context = json.loads((BENCHMARKS / "models" / "subset-clip.json").read_text())["text_cfg"]["context_length"]
    assert shown.strip() == f"torch.Size([1, {context}])"


def test_mistakes_are_one_line(faces: Path, tmp_path: Path, study: Callable[[list[str]], None]) -> None:
    options = words(faces, tmp_path / "w", tmp_path / "o.json")
    with pytest.raises(UserError, match="--subsets 'best' is unknown: choose among full, random"):
        study([*options, "--subsets", "best"])
    with pytest.raises(UserError, match="--seeds 0 is too small: give 1 or more"):
        study([*options, "--seeds", "0"])
    with pytest.raises(UserError, match="--keep 2 is not a fraction"):
        study([*options, "--keep", "2"])
    with pytest.raises(UserError, match="--work is missing"):
        study(["--faces", "x", "--held-out", "y", "--encoder", "z"])
    assert not (tmp_path / "w").exists()


def test_an_estimate_trains_nothing_and_names_the_gpu_s_rate(
    study: Callable[[list[str]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    study(["--estimate", "--seeds", "2", "--subsets", "full,random", "--batch", "2", "--gpu-tflops", "100"])
    shown = capsys.readouterr().out
    assert shown.startswith("4 models of 4.6 million weights, 300 steps of 2 pictures of 64 pixels")
    assert "on a GPU of 100 sustained Tflop/s" in shown
    assert "4 of RN50 at 128 pixels" in shown


def test_jobs_in_two_processes_wait_for_what_they_need(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    jobs = [Job("make", "", Path.mkdir, (folder,), counts=False)]
    jobs += [Job(str(k), "make", Path.touch, (folder / str(k),)) for k in range(3)]
    run_jobs(jobs, 2)
    assert sorted(file.name for file in folder.iterdir()) == ["0", "1", "2"]
    with pytest.raises(FileNotFoundError):
        run_jobs([Job("remove", "", Path.unlink, (folder / "9",))], 2)


def test_processes_end_when_the_command_is_killed(tmp_path: Path) -> None:
    script, files = tmp_path / "sleepers.py", [tmp_path / "first", tmp_path / "second"]
    script.write_text(SLEEPERS)
    process = subprocess.Popen([sys.executable, str(script), str(BENCHMARKS), *map(str, files)], cwd=ROOT)
    try:
        while not all(file.exists() for file in files) and process.poll() is None:
            time.sleep(0.05)
        children = psutil.Process(process.pid).children(recursive=True)
    finally:
        process.kill()
        process.wait()
    assert len(children) >= 2
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive
