"""`--dtype auto` on a CPU: bfloat16 where a batch was measured 1.5 times as fast, settled once and recorded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from in_process import Here

from fairdedup.config import RunConfig
from fairdedup.encoders import EncoderSpec, dtype_choice
from fairdedup.preparation import encoder_choice
from fairdedup.preparation.encoder_choice import choose_image_encoder
from fairdedup.storage.config_record import read_config_record
from fairdedup.storage.layout import RunDirectory


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Here:
    runner = Here()
    monkeypatch.setattr(encoder_choice, "require_encoder_memory", lambda *_: None)
    monkeypatch.setattr(encoder_choice, "check_encoder", lambda *_: None)
    return runner


def choose(out: Path, here: Here, **options: object) -> EncoderSpec:
    config = RunConfig(input="in", out=out, **{"device": "cpu", **options})  # type: ignore[arg-type]
    return choose_image_encoder(config, RunDirectory(out), here)  # type: ignore[arg-type]


@pytest.mark.parametrize(("seconds", "chosen"), [(0.66, "bfloat16"), (0.67, "float32"), (2.0, "float32")])
def test_bfloat16_must_be_faster_by_half(seconds, chosen, monkeypatch):
    measured = {"bfloat16": seconds, "float32": 1.0}
    monkeypatch.setattr(dtype_choice, "_measure", lambda spec: measured[spec.dtype])
    spec = EncoderSpec("m", None, 4, "cpu", "float32", 1)
    assert dtype_choice.choose_dtype(spec) == chosen


def test_the_choice_is_made_once_and_recorded(here, tmp_path, monkeypatch):
    monkeypatch.setattr(encoder_choice, "choose_dtype", lambda spec: "bfloat16")
    assert choose(tmp_path / "run", here, dtype="auto").dtype == "bfloat16"
    assert read_config_record(RunDirectory(tmp_path / "run")).dtype == "bfloat16"
    monkeypatch.setattr(encoder_choice, "choose_dtype", lambda spec: "float32")
    assert choose(tmp_path / "run", here, dtype="auto").dtype == "bfloat16"
    assert choose(tmp_path / "new", here, dtype="auto").dtype == "float32"


@pytest.mark.parametrize(("options", "dtype"), [({}, "float32"), ({"dtype": "bfloat16"}, "bfloat16"),
                                                ({"dtype": "auto", "device": "cuda"}, "float16")])  # fmt: skip
def test_a_named_format_and_a_gpu_need_no_measurement(options, dtype, here, tmp_path, monkeypatch):
    monkeypatch.setattr(encoder_choice, "choose_dtype", lambda spec: pytest.fail("measured"))
    assert choose(tmp_path, here, **options).dtype == dtype


def test_a_batch_is_encoded_to_measure_it(monkeypatch):
    seen = []

    class Encoder:
        def encode_images(self, images: list) -> np.ndarray:
            seen.append(len(images))
            return np.zeros((len(images), 2))

    monkeypatch.setattr(dtype_choice, "load_encoder", lambda spec: Encoder())
    assert dtype_choice.choose_dtype(EncoderSpec("m", None, 4, "cpu", "float32", 1)) in ("float32", "bfloat16")
    assert seen == [4] * 2 * dtype_choice.REPEATS
