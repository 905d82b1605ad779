"""The built wheel alone, in a new environment, does the first run of the README's `make run`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.soak
def test_the_wheel_alone_deduplicates_the_sample(tmp_path: Path) -> None:
    def call(*words: object) -> str:
        shown = subprocess.run([str(word) for word in words], cwd=tmp_path, capture_output=True, text=True)
        assert shown.returncode == 0, shown.stderr
        return shown.stdout

    call(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path / "dist", ROOT)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    call(sys.executable, "-m", "uv", "venv", "--python", sys.executable, tmp_path / "new")
    python = tmp_path / "new" / "bin" / "python"
    call(sys.executable, "-m", "uv", "pip", "install", "--python", python, "-c", ROOT / "constraints.txt", wheel)
    fairdedup = tmp_path / "new" / "bin" / "fairdedup"
    assert "stop" not in call(fairdedup, "doctor")
    call(fairdedup, "run", "--keep", 0.5, "--quiet")
    counts = json.loads((tmp_path / "fairdedup-run" / "run.json").read_text())["counts"]
    assert (counts["input"], counts["kept"], counts["rejected"]) == (2405, 1200, 5)
    assert (tmp_path / "fairdedup-run" / "report" / "index.html").is_file()
    assert call(python, "-c", "import importlib.util; print(importlib.util.find_spec('faiss'))") == "None\n"
