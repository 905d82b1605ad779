"""Shared by the tests of inputs: a folder for the input, and a run of every stage over it in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from in_process import Colours, Here

from fairdedup.commands import embed
from fairdedup.commands import run as run_command
from fairdedup.commands.cluster import cluster
from fairdedup.config import RunConfig
from fairdedup.encoders import EncoderSpec, batch_encoder
from fairdedup.preparation.request import read_request
from fairdedup.preparation.run_input import open_run_input


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Callable[..., dict[str, Any]]:
    """Run every stage over an input and return the manifest."""
    monkeypatch.setattr(batch_encoder, "load_encoder", lambda _: Colours())
    spec = EncoderSpec("colours", None, 4, "cpu", "float32", 1)
    monkeypatch.setattr(embed, "choose_image_encoder", lambda *_: spec)
    monkeypatch.setattr(run_command, "choose_prototypes", lambda *_: None)  # it has no text tower

    def whole(source: Path | str, **options: Any) -> dict[str, Any]:
        defaults = {"rule": "semdedup", "clusters": 1, "keep": 1.0, "max_rejected": 1}
        config = RunConfig(input=str(source), out=tmp_path / "run", **{**defaults, **options})
        request, here = read_request(config), Here()
        dataset = open_run_input(config, request.directory, here)
        embedded = embed.embed(request, dataset, here)  # type: ignore[arg-type]
        clustered = cluster(request, embedded, here)  # type: ignore[arg-type]
        return run_command.decide(request, clustered, here).to_json()  # type: ignore[arg-type]

    return whole


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"
