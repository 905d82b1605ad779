"""Fixtures of the tests of the report: a run over pictures with hostile names and captions."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_pages import HOSTILE, HOSTILE_NAME, draw_picture
from runs import done


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of pictures, near copies by tens, some with hostile names and captions."""
    folder = tmp_path_factory.mktemp("pictures") / "in"
    folder.mkdir()
    for seed in range(60):
        name = HOSTILE_NAME if seed == 11 else f"picture {seed}.png"
        (folder / name).write_bytes(draw_picture(seed))
        caption = HOSTILE[seed % 3] if seed % 10 == 0 else f"caption of {seed}"
        (folder / name).with_suffix(".txt").write_text(caption, encoding="utf-8")
    (folder / "broken <b>.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="session")
def pictures_run(tmp_path_factory: pytest.TempPathFactory, pictures: Path, scheduler: str) -> Path:
    """Return a finished run over these pictures, with its page."""
    run = tmp_path_factory.mktemp("report") / "run <i>"
    done("run", pictures, "--eps", 0.1, "--max-rejected", 0.2, "--out", run, "--scheduler", scheduler,
         "--quiet", "--report")  # fmt: skip
    return run
