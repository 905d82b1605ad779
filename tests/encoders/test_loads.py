"""A worker loads a model once in a run: for the check, the pictures and the captions, and for each number format."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fairdedup.encoders import BUILTIN_MODEL, EncoderSpec, loading
from fairdedup.encoders.loading import forget_encoders, keep_encoders, load_encoder
from fairdedup.encoders.spec import BUILTIN_WEIGHTS
from fairdedup.sample.draw import draw_scene
from fairdedup.sample.people import make_scenes

# Python runs this in every process. It writes a line for each encoder that is made.
COUNT = """
import os, sys
from importlib.abc import MetaPathFinder
from importlib.util import find_spec

class Counting(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "fairdedup.encoders.openclip":
            return None
        sys.meta_path.remove(self)
        found = find_spec(name)
        execute = found.loader.exec_module
        def exec_module(module):
            execute(module)
            make = module.OpenClipEncoder.__init__
            def count(self, spec, **options):
                with open(os.environ["LOADS"], "a") as file:
                    file.write(f"{os.getpid()} {spec.model} {spec.dtype}\\n")
                make(self, spec, **options)
            module.OpenClipEncoder.__init__ = count
        found.loader.exec_module = exec_module
        return found

sys.meta_path.insert(0, Counting())
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with pictures, and with the code that counts loads."""
    (tmp_path / "pictures").mkdir()
    for number, scene in enumerate(make_scenes(np.random.default_rng(0), 24)):
        draw_scene(scene).save(tmp_path / "pictures" / f"{number}.png")
    (tmp_path / "counting").mkdir()
    (tmp_path / "counting" / "sitecustomize.py").write_text(COUNT)
    return tmp_path


def count_loads(folder: Path, *flags: str) -> Counter[tuple[str, str]]:
    """Run pictures with captions as prototypes, and return how often each process has loaded each number format."""
    paths = [str(folder / "counting"), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "LOADS": str(folder / "loads")}
    words = ["run", "pictures", "--keep", "0.5", "--rule", "balanced", "--prototypes", "people", "--no-report",
             "--quiet", "--clusters", "2", "--device", "cpu"]  # fmt: skip
    named = ["--model", BUILTIN_MODEL, "--pretrained", str(BUILTIN_WEIGHTS)]
    subprocess.run([sys.executable, "-m", "fairdedup", *words, *named, *flags], cwd=folder, env=environment, check=True)
    lines = [line.split() for line in (folder / "loads").read_text().splitlines()]
    assert lines and all(model == BUILTIN_MODEL for _, model, _ in lines)
    return Counter((process, dtype) for process, _, dtype in lines)


def test_a_worker_loads_the_model_once_for_check_pictures_and_captions(folder):
    assert list(count_loads(folder).values()) == [1], "of this size there is one worker"


def test_dtype_auto_loads_each_number_format_once(folder):
    found = count_loads(folder, "--dtype", "auto")
    assert sorted(dtype for _, dtype in found) == ["bfloat16", "float32"]
    assert set(found.values()) == {1}


def test_only_the_last_encoder_is_kept_but_where_two_are_compared(monkeypatch):
    made = []
    monkeypatch.setattr(loading, "_load", lambda spec: made.append(spec.dtype) or object())
    forget_encoders()
    one, two = (EncoderSpec(BUILTIN_MODEL, None, 1, "cpu", dtype, 1) for dtype in ("float32", "bfloat16"))
    first = load_encoder(one)
    assert load_encoder(one) is first and made == ["float32"]
    with keep_encoders():
        load_encoder(two)
        assert load_encoder(one) is first
    assert made == ["float32", "bfloat16"]
    assert load_encoder(one) is first, "the choice drops neither"
    load_encoder(two)
    assert made == ["float32", "bfloat16", "bfloat16"], "another load has dropped it"
    forget_encoders()
