"""What the tests of inputs share: a folder for the input, and every stage over it in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from in_process import Colours, Here

from fairdedup import pipeline
from fairdedup.config import RunConfig
from fairdedup.encoders import EncoderSpec, batch_encoder
from fairdedup.storage.layout import RunDirectory


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Callable[..., dict[str, Any]]:
    """Run every stage over an input and return the manifest."""
    monkeypatch.setattr(batch_encoder, "load_encoder", lambda _: Colours())
    spec = EncoderSpec("colours", None, 4, "cpu", "float32", 1)
    monkeypatch.setattr(pipeline, "image_encoder", lambda *_: spec)
    monkeypatch.setattr(pipeline, "prototypes_for", lambda *_: None)  # it has no text tower

    def whole(source: Path | str, **options: Any) -> dict[str, Any]:
        config = RunConfig(input=str(source), out=tmp_path / "run", rule="semdedup", clusters=1,
                           **{"keep": 1.0, "max_rejected": 1, **options})  # fmt: skip
        directory, here = RunDirectory(config.out), Here()
        dataset = pipeline._open(config, directory, here.progress)
        pipeline.embed_stage(config, directory, dataset, here)  # type: ignore[arg-type]
        pipeline.cluster_stage(config, directory, here)  # type: ignore[arg-type]
        return pipeline.prune_stage(config, directory, here)  # type: ignore[arg-type]

    return whole


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"
