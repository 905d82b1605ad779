"""A picture that kills its worker is a rejected row; an id that two pictures share is found before any forward pass.

The workers are real processes of a local cluster. The decoder that dies is in a module that they import at their start.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inputs import GOOD, encoded
from open_clip.transform import image_transform
from PIL import Image
from runs import command, contents, done, manifest, picture, table, write_tar

from fairdedup.datasets.decoders import IsolatedDecoder, open_decoder
from fairdedup.datasets.images import BadImage
from fairdedup.encoders import bounded_transform
from fairdedup.encoders.bounded_transform import BoundedTransform
from fairdedup.storage.attempts import note_attempt

# Every Python process of the test imports it at its start; the import of the decoder is what it waits for.
PLUGIN = """
import os, signal, sys, time

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name != "fairdedup.datasets.decoders":
            return None
        sys.meta_path.remove(self)
        from fairdedup.datasets import images
        original = images.decode_picture
        def decode_picture(data, *options):
            if data.endswith(b"kill this process"):
                os.kill(os.getpid(), signal.SIGKILL)
            if data.endswith(b"crash this process"):
                os.kill(os.getpid(), signal.SIGSEGV)
            if data.endswith(b"take all memory"):
                hog = [b"x" * (1 << 26 | k) for k in range(1 << 12)]
            return original(data, *options)
        images.decode_picture = decode_picture
        return None

sys.meta_path.insert(0, Finder())
"""


@pytest.fixture
def plugged(tmp_path: Path) -> dict[str, str]:
    """Return the environment in which certain pictures kill the process that decodes them."""
    (tmp_path / "plugin").mkdir()
    (tmp_path / "plugin" / "sitecustomize.py").write_text(PLUGIN)
    path = os.pathsep.join([str(tmp_path / "plugin"), str(Path(__file__).parents[2])])
    return {**os.environ, "PYTHONPATH": path}


def run(environment: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fairdedup", *map(str, arguments)], env=environment, capture_output=True, text=True
    )


def options(weights: Path) -> tuple[object, ...]:
    return ("--keep", 1, "--rule", "semdedup", "--model", "fairdedup-small", "--pretrained", weights, "--batch-size", 4,
            "--clusters", 1, "--max-rejected", 0.9)  # fmt: skip


def test_pictures_that_kill_a_worker_are_rejected_and_the_run_goes_on(plugged, weights, tmp_path, scheduler):
    good = {"b": picture(20), "d": picture(40), "g": picture(60), "h": picture(20), "i": picture(80)}
    deadly = {
        "a": picture(0) + b"kill this process",  # the worker that embeds what the two shards share dies of it first
        "c": picture(10) + b"crash this process",
        "e": picture(30) + b"take all memory",
        "f": picture(0) + b"kill this process",
    }
    pictures = {f"{name}.png": data for name, data in (good | deadly).items()}
    for number, names in enumerate(("abcde", "fghi")):
        write_tar(tmp_path / "bad" / f"{number}.tar", {f"{name}.png": pictures[f"{name}.png"] for name in names})
        usable = {f"{name}.png": good[name] for name in names if name in good}
        write_tar(tmp_path / "good" / f"{number}.tar", usable)
    ended = run(plugged, "run", tmp_path / "bad", *options(weights), "--out", tmp_path / "run", "--workers", 1,
                "--memory-limit", "4GiB")  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    rejected = table(tmp_path / "run" / "rejected")
    assert dict(zip(rejected["id"], rejected["reason"], strict=True)) == {
        "a": "its decoder was killed by SIGKILL",
        "c": "its decoder was killed by SIGSEGV",
        "e": "it needs more than 2 GiB of memory to decode",
        "f": "its decoder was killed by SIGKILL",
    }
    assert manifest(tmp_path / "run")["counts"]["kept"] == len(good)
    assert not list((tmp_path / "run" / "embeddings" / "copies").glob("trying_*"))
    # The other pictures have the vectors that they have in a run without these.
    done("run", tmp_path / "good", *options(weights), "--out", tmp_path / "other", "--scheduler", scheduler)
    for folder in ("embeddings/img_emb", "kept"):
        assert contents(tmp_path / "run" / folder) == contents(tmp_path / "other" / folder)


def test_long_pictures_are_embedded(weights, scheduler, tmp_path):
    long = {"a.png": (20_000, 1), "b.png": (1, 20_000), "c.png": (3_000_000, 2), "d.png": (1, 30_000_000)}
    write_tar(
        tmp_path / "x.tar", {n: encoded(Image.new("1", size, k % 2), "PNG") for k, (n, size) in enumerate(long.items())}
    )
    done("run", tmp_path / "x.tar", *options(weights), "--out", tmp_path / "run", "--scheduler", scheduler, "--quiet")
    assert table(tmp_path / "run" / "kept")["id"].tolist() == ["a", "b", "c", "d"]
    assert not len(table(tmp_path / "run" / "rejected"))


# The transform


@pytest.mark.parametrize("size", [64, 224, (224, 160)])
@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
def test_ordinary_pictures_have_the_pixels_of_the_model_s_own_transform(mode: str, size: Any) -> None:
    own = image_transform(size, is_train=False, resize_mode=mode)
    rng = np.random.default_rng(0)
    for width, height in ((1, 1), (24, 24), (300, 200), (200, 300), (1000, 10), (10, 1000), (3000, 5), (640, 480)):
        drawn = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        try:
            expected = own(drawn)
        except ValueError:  # a side of no pixels
            assert BoundedTransform(own)(drawn).shape[-2:] == ((size, size) if isinstance(size, int) else size)
            continue
        assert BoundedTransform(own)(drawn).numpy().tobytes() == expected.numpy().tobytes()


@pytest.mark.parametrize("size", [64, 224])
def test_long_pictures_have_nearly_the_pixels_of_the_whole_picture_scaled(size: int, monkeypatch) -> None:
    own = image_transform(size, is_train=False)
    monkeypatch.setattr(bounded_transform, "LARGEST", 0)  # so that all of them are cropped first
    rng = np.random.default_rng(1)
    step = 1 / 255 / min(own.transforms[-1].std)
    for width, height in (
        (2000, 5),
        (5, 2000),
        (3000, 19),
        (19, 3000),
        (400, 30),
        (900, 899),
        (9000, 300),
        (300, 9000),
    ):
        drawn = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        difference = (BoundedTransform(own)(drawn) - own(drawn)).abs()
        assert difference.max() < 2.5 * step and (difference > 0).float().mean() < 0.01


# The child process


def test_a_child_that_takes_too_long_is_ended(plugged, monkeypatch):
    from fairdedup.datasets import decoders

    monkeypatch.setattr(decoders, "TIME_LIMIT", 0.5)
    with IsolatedDecoder(None, 65535) as decoder:
        child = decoder._start()
        os.kill(child.pid, signal.SIGSTOP)
        with pytest.raises(BadImage, match=r"^its decoder took longer than 0.5 seconds$"):
            decoder.load(GOOD)
        monkeypatch.setattr(decoders, "TIME_LIMIT", 60)
        assert decoder.load(GOOD).facts.width == 24  # by a new child


def test_a_child_ends_with_its_decoder():
    with open_decoder(None, 65535, isolated=True) as decoder:
        assert isinstance(decoder, IsolatedDecoder)
        decoder.load(GOOD)
        child = decoder._child
        assert child is not None and child.poll() is None
    assert child.returncode == 0


@pytest.mark.parametrize(
    ("error", "stays"), [(None, False), (ValueError, False), (KeyboardInterrupt, False), (MemoryError, True)]
)
def test_a_mark_stays_only_if_the_process_dies_or_memory_runs_out(error, stays, tmp_path):
    mark = tmp_path / "a" / "trying"
    try:
        with note_attempt(mark) as has_died:
            assert not has_died and mark.exists()
            if error:
                raise error
    except (ValueError, KeyboardInterrupt, MemoryError):
        pass
    assert mark.exists() == stays
    with note_attempt(mark) as has_died:
        assert has_died == stays
    assert not mark.exists()


# Duplicate ids: what is wrong, the message, what applies its remedy, and the rows that come out

TWO_TARS = "duplicate id 'a' in 1.tar and 2.tar: make ids unique, or add --id shard/key"
ONE_FILE = (
    "duplicate id 'a' in t.parquet, where two samples have it: make ids unique there, by renaming or removing one"
)


def tars(folder: Path, *shards: list[str]) -> Path:
    for number, names in enumerate(shards):
        pictures = {f"{name}.png": picture(10 * k + 50 * number) for k, name in enumerate(names)}
        write_tar(folder / f"{number + 1}.tar", pictures)
    return folder


def parquet(folder: Path, *ids: str) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"id": ids, "image": [picture(10 * k) for k in range(len(ids))]}), folder / "t.parquet")
    return folder / "t.parquet"


IN_TWO, IN_ONE = (["a", "b"], ["c", "a"]), ("a", "b", "a")
REMEDIES: dict[str, tuple[Any, str, Any, tuple[object, ...], int]] = {
    "two tars": (lambda f: tars(f, *IN_TWO), TWO_TARS, lambda f: f, ("--id", "shard/key"), 4),
    "two tars, renamed": (lambda f: tars(f, *IN_TWO), TWO_TARS, lambda f: tars(f, ["a", "b"], ["c", "d"]), (), 4),
    "one Parquet file": (lambda f: parquet(f, *IN_ONE), ONE_FILE, lambda f: parquet(f, "a", "b", "c"), (), 3),
    "one Parquet file, a row less": (lambda f: parquet(f, *IN_ONE), ONE_FILE, lambda f: parquet(f, "a", "b"), (), 2),
}


@pytest.mark.parametrize("name", REMEDIES)
def test_a_duplicate_id_is_found_before_forward_passes_and_its_remedy_works(name, weights, scheduler, tmp_path):
    make, message, repair, more, rows = REMEDIES[name]
    (tmp_path / "in").mkdir()
    asked = (*options(weights), "--scheduler", scheduler)
    failed = command("run", make(tmp_path / "in"), *asked, "--out", tmp_path / "run")
    assert failed.code == 2 and message in failed.err
    assert failed.err.count("error") == 1 and not re.search(r"embed", failed.err.partition("find copies")[2])
    assert not list((tmp_path / "run" / "embeddings").glob("img_emb/*.npy"))
    assert not list((tmp_path / "run" / "embeddings").glob("copies/trying_*"))
    done("run", repair(tmp_path / "in"), *asked, *more, "--out", tmp_path / "again")
    assert len(table(tmp_path / "again" / "kept")) == rows


def test_a_command_that_fails_leaves_no_mark(weights, tmp_path, scheduler):
    write_tar(tmp_path / "x.tar", {f"{k}.png": b"no picture" for k in range(4)})
    failed = command("run", tmp_path / "x.tar", *options(weights), "--out", tmp_path / "run", "--scheduler", scheduler)
    assert failed.code == 2 and "all 4 samples are rejected (4 x not a known image format)" in failed.err
    assert not list((tmp_path / "run" / "embeddings" / "copies").glob("trying_*"))
