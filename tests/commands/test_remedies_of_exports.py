"""What the messages of the export of shards advise works: it is read from the message and applied."""

from __future__ import annotations

import os
import re
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from remedies import Advice, call, check
from runs import sample, write_tar

from fairdedup import sample as drawn

RUN = ("run in --rule semdedup --keep 0.5 --clusters 1 --model ViT-B-32 --pretrained openai --device cpu "
       "--prototypes i.npz --out r")  # fmt: skip
EXPORT = f"{RUN} && export r --to webdataset"


def move(old: str, new: str):
    return lambda here: shutil.move(here / old, here / new)


def copy_away(here: Path) -> None:
    """Copy the input and touch the original."""
    shutil.copytree(here / "in", here / "copy")  # with its times
    os.utime(here / "in" / "s.tar", ns=(1, 1))


def change(*seeds: int):
    """Return a change of the input to other pictures, which its size and time do not show."""

    def write(here: Path) -> None:
        tar = here / "in" / "s.tar"
        shutil.copytree(here / "in", here / "copy")
        stat = tar.stat()
        members: dict[str, bytes] = {}
        for k in seeds:
            members |= sample(f"{k:03d}", 7 * k)
        write_tar(tar, members)
        data = tar.read_bytes()[: stat.st_size]
        tar.write_bytes(data + bytes(stat.st_size - len(data)))
        os.utime(tar, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    return write


def bring_back(here: Path) -> None:
    shutil.rmtree(here / "in")
    shutil.move(here / "copy", here / "in")


TABLE = {
    "the input has moved": Advice(
        EXPORT, r"cannot be opened .*; name its new place with (?P<flag>--input)",
        ["export r --to webdataset {flag} new"], move("in", "new"),
    ),
    "the input has changed": Advice(
        EXPORT, r"name it with (?P<flag>--input); a copy must have the same file names, sizes and times \(cp -a\)",
        ["export r --to webdataset {flag} copy"], copy_away,
    ),
    "other samples in the input": Advice(
        EXPORT, r"bring the input back as it was", ["export r --to webdataset"], change(*range(20, 32)), bring_back,
    ),
    "fewer samples in the input": Advice(
        EXPORT, r"bring the input back as it was", ["export r --to webdataset"], change(0), bring_back,
    ),
    "a place in the input": Advice(
        f"{EXPORT} --dest in/out", r"choose another place", ["export r --to webdataset --dest out"],
    ),
    "links to members of tars": Advice(
        f"{RUN} && export r --to folder", r"no link can lead to them: add (?P<flag>--copy)",
        ["export r --to folder {flag}"],
    ),
    "a file": Advice(f"{EXPORT} --dest y.npy", r"choose a folder", ["export r --to webdataset --dest out"]),
    "a folder of others": Advice(
        f"{EXPORT} --dest in2", r"choose a new or empty folder",
        ["export r --to webdataset --dest new", "export r --to webdataset --dest empty"],
        lambda here: [(here / "in2").mkdir(), (here / "in2/x").write_text("x"), (here / "empty").mkdir()],
    ),
    "another export": Advice(
        f"{EXPORT} --dest out && export r --to webdataset --dest out --what removed",
        r"choose a new folder, or remove this one",
        ["export r --to webdataset --what removed --dest new", "export r --to webdataset --what removed --dest out"],
        None, lambda here: shutil.rmtree(here / "out"),
    ),
    "an export with a damaged record": Advice(
        f"{EXPORT} --dest out && export r --to webdataset --dest out", r"choose a new folder, or remove this one",
        ["export r --to webdataset --dest new", "export r --to webdataset --dest out"],
        lambda here: [f.write_text("{") for f in (here / "out" / ".fairdedup").glob("begun*")],
        lambda here: shutil.rmtree(here / "out"),
    ),
}  # fmt: skip


@pytest.fixture
def pictures(place, write_pictures):
    write_pictures(place / "in")
    x = np.random.default_rng(0).normal(size=(2, 12))
    np.savez(place / "i.npz", **{"a/p": x[0], "a/q": x[1]})


@pytest.mark.parametrize("case", TABLE)
def test_what_a_message_advises_works(case, place, pictures):
    check(TABLE[case], place)


def test_a_drawn_sample_that_was_changed_is_drawn_again_by_restart(place, pictures, monkeypatch):
    """It is in the run, so there is no other place to name."""
    monkeypatch.setattr(drawn, "write_sample", partial(drawn.write_sample, n=130))
    assert call(RUN.replace("run in", "run")).code == 0
    part = sorted((place / "r" / "sample").glob("*.tar"))[0]
    os.utime(part, ns=(1, 1))
    for damage in (lambda: None, lambda: shutil.rmtree(place / "r" / "sample")):
        damage()
        shown = call("export r --to webdataset")
        found = re.search(r"make the whole run again: `fairdedup (run)` with (--restart)", shown.err)
        assert found and "--input" not in shown.err, shown.err
    assert call(f"{RUN.replace('run in', found[1])} {found[2]} && export r --to webdataset").code == 0
