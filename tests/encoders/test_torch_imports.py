"""The stand-ins for torch's compiler change no vector, and a library that needs the compiler itself gets it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fairdedup.sample.draw import draw_scene
from fairdedup.sample.people import make_scenes

ENCODE = """
import io, sys
from pathlib import Path
if "compiler" in sys.argv:
    import torch._dynamo
import numpy as np
from PIL import Image
from fairdedup.encoders import builtin_spec, load_encoder
from fairdedup.encoders.torch_imports import torch
encoder = load_encoder(builtin_spec(batch_size=4, device="cpu", dtype="float32", threads=1))
pictures = [Image.open(file).convert("RGB") for file in sorted(Path("pictures").iterdir())]
vectors = np.concatenate([encoder.encode_images(pictures), encoder.encode_texts(["a red circle", "an older person"])])
np.save(sys.argv[1], vectors)
loaded = sys.modules.get("torch._dynamo")
print("whole" if loaded is not None and hasattr(loaded, "optimize") else "none" if loaded is None else "stand-in")
"""

# In place of open_clip: a library that needs more of the compiler than the stand-ins have.
NEEDY = """
import builtins
import torch._dynamo
builtins.tries = getattr(builtins, "tries", 0) + 1
{needs}
"""

IMPORT = """
import builtins, sys
from fairdedup.encoders.torch_imports import open_clip, torch
print(builtins.tries, hasattr(sys.modules["torch._dynamo"], "optimize"), torch._dynamo is sys.modules["torch._dynamo"],
      sys.modules["open_clip"] is open_clip)
"""


def run_python(code: str, folder: Path, *arguments: str, first: Path | None = None) -> str:
    """Run code in a new process, with a folder of modules in front of all others; return what it prints."""
    paths = [*([str(first)] if first else []), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    words = [sys.executable, "-c", code, *arguments]
    ended = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def test_vectors_are_the_same_with_and_without_the_stand_ins(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for number, scene in enumerate(make_scenes(np.random.default_rng(0), 6)):
        draw_scene(scene).save(tmp_path / "pictures" / f"{number}.png")
    assert run_python(ENCODE, tmp_path, "without.npy") == "none", "the compiler is not imported, and no stand-in stays"
    assert run_python(ENCODE, tmp_path, "with.npy", "compiler") == "whole"
    without, own = np.load(tmp_path / "without.npy"), np.load(tmp_path / "with.npy")
    assert without.shape == own.shape and len(own) == 8 and np.isfinite(own).all()
    assert np.array_equal(without, own)
    assert len(np.unique(own.round(3), axis=0)) == 8, "the vectors differ from each other"


@pytest.mark.parametrize(
    "needs", ["from torch._dynamo import optimize", "torch._dynamo.optimize"], ids=["ImportError", "AttributeError"]
)
def test_a_library_that_needs_more_of_the_compiler_is_imported_with_it(needs: str, tmp_path: Path) -> None:
    (tmp_path / "open_clip").mkdir()
    (tmp_path / "open_clip" / "__init__.py").write_text(NEEDY.format(needs=needs))
    assert run_python(IMPORT, tmp_path, first=tmp_path) == "2 True True True"
