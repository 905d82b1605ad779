"""Shared by the tests that apply what messages advise: a wrong use, what the message says, and what it leads to.

The words of the remedy are taken from the message itself, by the groups of a pattern, so a message that changes is
tested again. Commands run in this process, without Dask.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from runs import Finished, command, raw_vectors, sample, write_tar

from fairdedup import workers
from fairdedup.encoders import batch_encoder
from fairdedup.progress import StageProgress
from fairdedup.tasks import Task

QUIET = ("run", "refit", "embed", "cluster", "prune", "replace", "sweep", "audit", "calibrate", "export")
ROWS = 60


@dataclass(frozen=True)
class Advice:
    """A wrong use and its remedies.

    Attributes
    ----------
    wrong : str
        The command, or several after each other by " && ", of which the last must fail.
    says : str
        Pattern of the message. Its groups are what it advises.
    then : sequence of str
        For each remedy the commands that must succeed, with the groups' names in braces; tried one after the other.
    change : callable, optional
        Changes the folder before the last wrong command.
    fix : callable, optional
        Changes the folder before the remedy.
    code : int
        Exit code of the wrong use.
    """

    wrong: str
    says: str
    then: Sequence[str] = ()
    change: Callable[[Path], None] | None = None
    fix: Callable[[Path], None] | None = None
    code: int = 2


class InProcess:
    """Runs each task in this process, in place of Dask workers."""

    scheduler, number = None, 1

    def __init__(self, progress: StageProgress, *_: object) -> None:
        self.progress = progress

    def __enter__(self) -> InProcess:
        return self

    def __exit__(self, *_: object) -> None: ...

    def require_memory(self, data: int, what: str, *, encoder: bool = False) -> None: ...

    def expect_input(self) -> None: ...

    def submit(self, stage: str, function: Callable[..., Any], tasks: Sequence[Task]) -> list[Any]:
        with self.progress.stage(stage, len(tasks)):
            return [function(*task.arguments) for task in tasks]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Path:
    """Go to a folder with small inputs, where commands run in this process."""
    monkeypatch.setattr(workers, "Workers", InProcess)
    monkeypatch.chdir(tmp_path)
    write_inputs(tmp_path)
    return tmp_path


def write_inputs(folder: Path) -> None:
    """Write vectors with a table, other vectors, prototypes and lists of ids."""
    x = raw_vectors(ROWS)
    x[50:55] = x[10:15]
    np.save(folder / "x.npy", x)
    ids = [f"k{row}" for row in range(ROWS)]
    columns = {"id": ids, "width": [10 * row for row in range(ROWS)], "Width": ids, "word": ["7"] * 59 + ["x"]}
    pq.write_table(pa.table({**columns, "language": ["en"] * ROWS, "vector": list(x)}), folder / "t.parquet")
    np.save(folder / "wide.npy", raw_vectors(ROWS)[:, :5])
    np.save(folder / "y.npy", raw_vectors(30, seed=3))
    (folder / "y.ids.txt").write_text("".join(f"y{row}\n" for row in range(30)))
    (folder / "some.txt").write_text("k1\nk2\n")
    (folder / "more.txt").write_text("k3\n")
    near = {"a/p": x[0], "a/q": x[1], "b/r": x[2], "b/s": x[3]}
    np.savez(folder / "p.npz", **near)  # type: ignore[arg-type]
    np.savez(folder / "one.npz", **{name: v for name, v in near.items() if name != "a/q"})  # type: ignore[arg-type]
    np.savez(folder / "other.npz", **{name: v + 1 for name, v in near.items()})  # type: ignore[arg-type]
    groups = "".join(f"{name},{'pq'[k % 2]},{'rs'[k % 3 % 2]}\n" for k, name in enumerate(ids))
    (folder / "labels.csv").write_text(f"id,a,b\n{groups}")


class Colours:
    """An encoder of images that averages the colours of each quarter."""

    def encode_images(self, images: list[Any]) -> np.ndarray:
        return np.stack([np.asarray(i.resize((2, 2)), np.float32).reshape(-1) + 1 for i in images])


@pytest.fixture
def write_pictures(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Return a function that writes a tar of twelve pictures; any model encodes them by their colours."""
    monkeypatch.setattr(batch_encoder, "load_encoder", lambda _: Colours())

    def write(folder: Path) -> None:
        members: dict[str, bytes] = {}
        for k in range(12):
            members |= sample(f"{k:03d}", 7 * k)
        write_tar(folder / "s.tar", members)

    return write


def call(words: str, **groups: str) -> Finished:
    """Run commands after each other, all but the last of which must succeed, and return how the last one ended."""
    shown = Finished(0, "", "")
    for one in words.split(" && "):
        assert shown.code == 0, shown.err
        arguments = shlex.split(one.format(**groups))
        shown = command(*arguments, *(["--quiet"] if arguments[0] in QUIET else []))
    return shown


def check(advice: Advice, place: Path) -> None:
    """Do what is wrong, read the message, and apply each remedy that it names."""
    before, _, last = advice.wrong.rpartition(" && ")
    if before:
        done = call(before)
        assert done.code == 0, done.err
    if advice.change is not None:
        advice.change(place)
    shown = call(last)
    assert shown.code == advice.code and shown.err.count("\n") == 1, shown
    found = re.search(advice.says, shown.err)
    assert found, f"{advice.says!r} is not in {shown.err!r}"
    if advice.fix is not None:
        advice.fix(place)
    for then in advice.then:
        done = call(then, **found.groupdict())
        assert done.code == 0, (then, found.groupdict(), done.err)


def manifest_of(run: Path) -> dict[str, Any]:
    """Return run.json."""
    return json.loads((run / "run.json").read_text())
