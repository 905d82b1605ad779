"""The built wheel alone, in a new environment, does what README says first: "Your own data", and `make run`."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from runs import picture

ROOT = Path(__file__).parent.parent
PICTURES = 24
MODEL = " --model ViT-B-16 --pretrained openai"  # would be downloaded; without it the model is the built-in one


def call(folder: Path, *words: object) -> str:
    """Run a command in a folder, and return what it printed."""
    shown = subprocess.run([str(word) for word in words], cwd=folder, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    return shown.stdout


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the programs of an environment that has the wheel and what it requires, and nothing else."""
    folder = tmp_path_factory.mktemp("wheel")
    call(folder, sys.executable, "-m", "build", "--wheel", "--outdir", folder / "dist", ROOT)
    (wheel,) = (folder / "dist").glob("*.whl")
    call(folder, sys.executable, "-m", "uv", "venv", "--python", sys.executable, folder / "new")
    programs = folder / "new" / "bin"
    pins = ("-c", ROOT / "constraints.txt")
    call(folder, sys.executable, "-m", "uv", "pip", "install", "--python", programs / "python", *pins, wheel)
    return programs


@pytest.mark.soak
def test_the_wheel_alone_does_the_first_lines_of_the_readme(new: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for seed in range(PICTURES):
        (tmp_path / "photos" / f"{seed}.png").write_bytes(picture(4 * seed))
    block = re.search(r"```sh\n(pip install \.\n.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    installed, *lines = block[1].splitlines()
    assert installed == "pip install ." and [line.split()[1] for line in lines] == ["doctor", "run", "export"]
    assert sum(MODEL in line for line in lines) == 1
    for line in lines:
        program, *words = shlex.split(line.replace(MODEL, ""))
        assert "stop" not in call(tmp_path, new / program, *words)
    kept = (tmp_path / "kept.txt").read_text().splitlines()
    assert len(set(kept)) == PICTURES / 2 and set(kept) <= {f"{seed}.png" for seed in range(PICTURES)}
    assert (tmp_path / "fairdedup-run" / "report" / "index.html").is_file()


@pytest.mark.soak
def test_the_wheel_alone_deduplicates_the_sample(new: Path, tmp_path: Path) -> None:
    call(tmp_path, new / "fairdedup", "run", "--keep", 0.5, "--quiet")
    counts = json.loads((tmp_path / "fairdedup-run" / "run.json").read_text())["counts"]
    assert (counts["input"], counts["kept"], counts["rejected"]) == (2405, 1200, 5)
    assert call(tmp_path, new / "python", "-c", "import importlib.util; print(importlib.util.find_spec('faiss'))") == (
        "None\n"
    )
