"""A pipe, a socket or a device in place of a file is refused in one line, in every option and kind of input."""

from __future__ import annotations

import ast
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reading import PNG, write_tar
from remedies import InProcess, write_inputs
from runs import command, done

import fairdedup
from fairdedup import workers
from fairdedup.datasets import open_input
from fairdedup.errors import UserError
from fairdedup.storage.plain_files import open_plain_file

LIMIT = 20  # seconds


class Hung(BaseException):
    """A command waits."""


@contextmanager
def limited(seconds: int = LIMIT) -> Iterator[None]:
    """End the block if it waits, also within a call of the system."""

    def end(*_: object) -> None:
        raise Hung

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def make_socket(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the path of a socket may only be short
    try:
        with socket.socket(socket.AF_UNIX) as door:
            door.bind(path.name)
    finally:
        os.chdir(here)


def link_to_pipe(path: Path) -> None:
    target = path.with_name("target of the link")
    os.mkfifo(target)
    path.symlink_to(target)


SPECIAL: dict[str, Callable[[Path], None]] = {
    "pipe": os.mkfifo,
    "socket": make_socket,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "linked pipe": link_to_pipe,
}
ONE_LINE = r"\Afairdedup: error: [^\n]+\n\Z"


# Options


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder with inputs and a finished run, in which commands run in this process."""
    place = tmp_path_factory.mktemp("place")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(workers, "Workers", InProcess)
        patched.setattr(os, "cpu_count", lambda: 1)
        patched.chdir(place)
        write_inputs(place)
        done("run", "x.npy", "--keep", 0.5, "--rule", "semdedup", "--clusters", 2, "--out", "run", "--quiet")
        yield place


RUN = "run x.npy --rule semdedup --clusters 2 --keep 0.5 --out new"
PLAIN = "is not a plain file but a (pipe|socket|device): put a plain file in its place"
OPTIONS = {  # name -> (the name of the file, the command, its message)
    "INPUT": ("s.tar", "run {} --keep 0.5 --out new", "s.tar' is not a plain file"),
    "INPUT, a chain of URLs": ("z.zip", "run zip://*.png::{} --keep 0.5 --out new", PLAIN),
    "--config": ("c.yaml", f"{RUN} --config {{}}", PLAIN),
    "--out": ("new", "run x.npy --rule semdedup --keep 0.5 --out {}", "new"),
    "RUN of prune": ("other", "prune {} --keep 0.5 --rule semdedup", "other"),
    "RUN of export": ("other", "export {} --to txt --dest e.txt", "other"),
    "RUN of gate": ("other", "gate {} --max-rejected 0.1", "other"),
    "--against": ("other", "run x.npy --against {} --out new", "other"),
    "--exclude-near": ("e.npy", f"{RUN} --exclude-near {{}}", "not a plain file"),
    "--pretrained": ("w.safetensors", "run x.npy --keep 0.5 --model ViT-B-16 --pretrained {} --out new", PLAIN),
    "--pretrained, without ending": ("w", "run x.npy --keep 0.5 --model ViT-B-16 --pretrained {} --out new", PLAIN),
    "--model": ("m", "run x.npy --keep 0.5 --model local-dir:{} --out new", "no open_clip_config.json in that folder"),
    "--gone": ("g.txt", "replace run --gone {}", PLAIN),
    "--labels of audit": ("l.csv", "audit run --labels {}", PLAIN),
    "--labels of audit, Parquet": ("l.parquet", "audit run --labels {}", PLAIN),
    "--labels of compare": ("l.csv", "compare run --rules semdedup --labels {}", PLAIN),
    "--image": ("i.png", "search run --image {} --model ViT-B-16 --pretrained openai", PLAIN),
    "--html": ("p.html", "explain run --id 1 --html {}", "is not a plain file: name a file"),
    "--csv": ("c.csv", "compare run --rules semdedup --csv {}", "is not a plain file: name a file"),
    "--svg": ("c.svg", "compare run --rules semdedup --svg {}", "is not a plain file: name a file"),
    "--labels of calibrate": ("l.csv", "calibrate run --labels {} --prototypes p.npz --out o.parquet", PLAIN),
    "--dest": ("d.txt", "export run --to txt --dest {}", "already exists with other content"),
    "--dest, a folder": ("d", "export run --to webdataset --dest {}", "is a file: choose a folder"),
    "--input": ("s.tar", "export run --to webdataset --dest d --input {}", "no images to write"),
    "DIR": ("d", "sample {}", "is a file: name a folder"),
    "--dest of init": ("d", "init slurm --dest {}", "is (a file|not a plain file)"),
    **{
        f"--prototypes, {ending}": (
            f"q{ending}", "prune run --keep 0.5 --rule fairdedup --quiet --prototypes {}", PLAIN,
        )
        for ending in (".yaml", ".npy", ".npz", ".parquet")
    },
    **{
        f"{option}, {ending}": (f"ids{ending}", f"prune run --keep 0.5 --rule semdedup --quiet {option} {{}}", PLAIN)
        for option in ("--drop", "--always-keep")
        for ending in (".txt", ".csv", ".parquet")
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("option", OPTIONS)
def test_no_option_waits_for_a_pipe_a_socket_or_a_device(option, kind, folder, tmp_path):
    name, words, says = OPTIONS[option]
    path = tmp_path / name
    SPECIAL[kind](path)
    before = {entry.name for entry in (folder / "run").iterdir()}
    with limited():
        shown = command(*(word.replace("{}", str(path)) for word in words.split()))
    shutil.rmtree(folder / "new", ignore_errors=True)
    assert shown.code in (1, 2) and re.match(ONE_LINE, shown.err), shown
    assert re.search(says, shown.err), shown.err
    assert {entry.name for entry in (folder / "run").iterdir()} == before


@pytest.mark.parametrize("key", ["prototypes", "drop", "always_keep"])
def test_no_key_of_the_yaml_file_waits(key, folder, tmp_path):
    os.mkfifo(tmp_path / "p.npz")
    os.mkfifo(tmp_path / "p.txt")
    path = tmp_path / ("p.npz" if key == "prototypes" else "p.txt")
    rule = "fairdedup" if key == "prototypes" else "semdedup"
    (tmp_path / "c.yaml").write_text(f"{key}: {path}\nkeep: 0.5\nrule: {rule}\n")
    with limited():
        shown = command("prune", "run", "--quiet", "--config", tmp_path / "c.yaml")
    assert shown.code == 2 and re.match(ONE_LINE, shown.err) and "not a plain file but a pipe" in shown.err, shown


def test_standard_input_that_nobody_closes_is_a_pipe_and_a_redirected_file_is_a_file(folder, tmp_path):
    (tmp_path / "c.yaml").write_text("keep: 0.5\nrule: semdedup\n")
    code = "import sys; from fairdedup import cli; sys.exit(cli.call(sys.argv[1:]))"
    words = [sys.executable, "-c", code, "export", "run", "--to", "txt", "--dest", str(tmp_path / "e.txt")]
    words += ["--config", "/dev/stdin"]
    reading, writing = os.pipe()
    try:
        waiting = subprocess.run(words, stdin=reading, capture_output=True, text=True, timeout=LIMIT)
    finally:
        os.close(reading)
        os.close(writing)
    assert waiting.returncode == 2 and "--config /dev/stdin is not a plain file but a pipe" in waiting.stderr
    with open(tmp_path / "c.yaml") as file:
        read = subprocess.run(words, stdin=file, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert read.returncode == 0, read.stderr


def test_the_remedy_of_a_pipe_works(folder, tmp_path):
    os.mkfifo(tmp_path / "ids.txt")
    words = ("prune", "run", "--keep", 0.5, "--rule", "semdedup", "--drop", tmp_path / "ids.txt", "--quiet")
    with limited():
        assert "write what it holds into a file and give that" in command(*words).err
    (tmp_path / "ids.txt").unlink()
    (tmp_path / "ids.txt").write_text("1\n")
    before = shutil.copytree(folder / "run", tmp_path / "run")
    done(*words)
    assert json.loads((folder / "run" / "run.json").read_text())["counts"]["excluded"] == 1
    shutil.rmtree(folder / "run")
    shutil.copytree(before, folder / "run")


# Inputs


def pictures(folder: Path) -> Path:
    (folder / "a.png").write_bytes(PNG)
    return folder


def vectors(folder: Path) -> Path:
    np.save(folder / "x.npy", np.eye(4, dtype=np.float32))
    return folder


def embeddings(folder: Path) -> Path:
    (folder / "img_emb").mkdir()
    (folder / "metadata").mkdir()
    np.save(folder / "img_emb" / "img_emb_0.npy", np.eye(4, dtype=np.float32))
    return folder


def saved(folder: Path) -> Path:
    (folder / "dataset_info.json").write_text("{}")
    files = [{"filename": "data-00000-of-00001.arrow"}]
    (folder / "state.json").write_text(json.dumps({"_data_files": files}))
    return folder


def table_of_paths(folder: Path) -> Path:
    pq.write_table(pa.table({"id": ["x"], "path": ["p.png"]}), folder / "t.parquet")
    return folder / "t.parquet"


def listed(folder: Path) -> Path:
    (folder / "metadata.csv").write_text("file_name,text\na.png,x\np.png,y\n")
    return pictures(folder)


def with_zip(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr("a.png", PNG)
    return folder


INPUTS = {  # name -> (what else there is, returning INPUT; the name of the special file)
    "tar": (lambda f: write_tar(f / "a.tar", [("a.png", PNG)]).parent, "b.tar"),
    "tar, one": (lambda f: f / "b.tar", "b.tar"),
    "tar.gz": (lambda f: f / "b.tar.gz", "b.tar.gz"),
    "tar, braces": (lambda f: str(write_tar(f / "a.tar", [("a.png", PNG)]).parent / "{a,b}.tar"), "b.tar"),
    "tar, glob": (lambda f: str(write_tar(f / "a.tar", [("a.png", PNG)]).parent / "*.tar"), "b.tar"),
    "zip": (with_zip, "b.zip"),
    "zip, one": (lambda f: f / "b.zip", "b.zip"),
    "npy": (lambda f: f / "b.npy", "b.npy"),
    "npy, folder": (vectors, "y.npy"),
    "npz": (lambda f: f / "b.npz", "b.npz"),
    "ids of npy": (lambda f: vectors(f) / "x.npy", "x.ids.txt"),
    "table of npy": (lambda f: vectors(f) / "x.npy", "x.parquet"),
    "Parquet": (lambda f: f / "b.parquet", "b.parquet"),
    "Parquet, folder": (lambda f: table_of_paths(f).parent, "b.parquet"),
    "clip-retrieval's vectors": (embeddings, "img_emb/img_emb_1.npy"),
    "clip-retrieval's table": (embeddings, "metadata/metadata_0.parquet"),
    "save_to_disk": (saved, "data-00000-of-00001.arrow"),
    "save_to_disk, state": (lambda f: (saved(f) / "state.json").unlink() or f, "state.json"),
    "save_to_disk, splits": (lambda f: (f / "dataset_info.json").touch() or f, "dataset_dict.json"),
    "metadata.csv": (pictures, "metadata.csv"),
    "metadata.jsonl": (pictures, "metadata.jsonl"),
    "metadata.parquet": (pictures, "metadata.parquet"),
    "caption": (pictures, "a.txt"),
    "caption of the whole name": (pictures, "a.png.txt"),
    "class": (pictures, "a.cls"),
    "JSON": (pictures, "a.json"),
    "image": (pictures, "b.png"),
    "image, glob": (lambda f: f"{pictures(f)}/*.png", "b.png"),
    "image, braces": (lambda f: f"{pictures(f)}/{{a,b}}.png", "b.png"),
    "image without extension": (pictures, "b"),
    "image that metadata.csv names": (listed, "p.png"),
    "image that a table names": (table_of_paths, "p.png"),
    "table of img2dataset": (lambda f: (f / "00000").mkdir() or pictures(f / "00000").parent, "00000.parquet"),
    "statistics of img2dataset": (lambda f: write_tar(f / "00000.tar", [("a.png", PNG)]).parent, "00000_stats.json"),
    "table beside a tar": (lambda f: write_tar(f / "00000.tar", [("a.png", PNG)]).parent, "00000.parquet"),
}


def read(source: Path | str) -> int:
    """Read everything in an input and return the number of rows."""
    rows = 0
    for shard in open_input(str(source)).shards:
        if hasattr(shard, "read"):
            rows += len(list(shard.read()))
        else:
            rows += len(shard.vectors()) + 0 * shard.metadata().num_rows
    return rows


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("name", INPUTS)
def test_no_input_waits_for_a_pipe_a_socket_or_a_device(name, kind, tmp_path):
    make, special = INPUTS[name]
    source = make(tmp_path)
    SPECIAL[kind](tmp_path / special)
    with limited():
        try:
            rows = read(source)
        except UserError as error:
            assert "\n" not in str(error)
            return
    assert rows >= 1  # the file is not needed, or is one rejected row among others
    assert name.startswith(
        ("caption", "class", "JSON", "image", "metadata", "table of img", "table beside", "statistics")
    ), rows


# Files of a run

COMMANDS = (
    "run x.npy --keep 0.5 --rule semdedup --clusters 2 --out run",
    "prune run --keep 0.4 --rule semdedup",
    "sweep run --keep 0.4",
    "audit run --prototypes p.npz",
    "export run --to txt --dest e.txt",
    "gate run --max-rejected 0.1",
    "replace run --gone gone.txt",
    "run y.npy --against run --out next",
    "compare run --rules semdedup,random",
    "search run --id 3",
    "explain run --id 3",
)


def test_no_command_waits_for_a_pipe_in_place_of_any_file_of_a_run(folder, tmp_path):
    """Each file by turns, with commands by turns, so that every command meets several kinds of files."""
    whole = shutil.copytree(folder / "run", tmp_path / "whole")
    (folder / "gone.txt").write_text("3\n")
    files = sorted(str(path.relative_to(whole)) for path in whole.rglob("*") if path.is_file())
    assert len(files) > 20
    pairs = {(name, words) for k, name in enumerate(files) for words in (COMMANDS[k % 11], COMMANDS[(3 * k + 1) % 11])}
    pairs |= {(name, words) for name in ("run.json", "config.json", "state/state.json") for words in COMMANDS}
    for name, words in sorted(pairs):
        shutil.rmtree(folder / "run")
        shutil.copytree(whole, folder / "run")
        (folder / "run" / name).unlink()
        os.mkfifo(folder / "run" / name)
        for other in ("e.txt", "next"):
            shutil.rmtree(folder / other, ignore_errors=True) if (folder / other).is_dir() else None
            (folder / other).unlink(missing_ok=True)
        with limited():
            shown = command(*words.split(), *(["--quiet"] if words.split()[0] != "sweep" else []))
        assert shown.code in (0, 1, 2) and "Traceback" not in shown.err, (name, words, shown)
        assert shown.code == 0 or shown.err.splitlines()[-1].startswith("fairdedup: error: "), (name, words, shown)
        assert "FAIRDEDUP_DEBUG" not in shown.err, (name, words, shown)
    shutil.rmtree(folder / "run")
    shutil.copytree(whole, folder / "run")


# The guard itself


def test_a_pipe_that_takes_the_place_of_a_file_is_refused_when_it_is_opened(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "x")
    monkeypatch.setattr("fairdedup.storage.plain_files.expect_plain_file", lambda *_: None)  # it came too early
    with limited(), pytest.raises(UserError, match="x' is not a plain file but a pipe"):
        open_plain_file(tmp_path / "x")


def test_a_plain_file_and_a_link_to_one_are_opened_and_a_missing_one_is_missing(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("x")
    for name in ("x", "link"):
        with open_plain_file(tmp_path / name) as file:
            assert file.read() == b"abc"
    with pytest.raises(FileNotFoundError):
        open_plain_file(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        open_plain_file(tmp_path)


PACKAGE = Path(fairdedup.__file__).parent
OWN = {  # modules that open only what this program has written or the system provides, and the guard
    *("storage", "core/fast_arithmetic.py", "datasets/decoders.py", "datasets/library_output.py", "streams.py"),
    *(
        "sample/write.py",
        "worker_memory.py",
        "process_age.py",
        "report/html_templates.py",
        "encoders",
        "audit/suggestions.py",
        "stages/id_export.py",
        "stages/sample_export/folder_export.py",
        "commands/calibrate.py",
        "commands/starter_files.py",
    ),
    *("cli/result_commands.py", "stages/sample_shares.py"),
}
CHECKED = {  # what reads a path after `expect_plain_file`
    ("datasets/npy_arrays.py", "np.load"),
    ("datasets/arrow_stream.py", "pa.memory_map"),
    ("preparation/prototype_choice.py", "read_bytes"),  # after `read_captions`
    ("prototype_files.py", "np.load"),  # of an open file
}
OPENING = ("read_text", "read_bytes", "memory_map", "OSFile", "fromfile")
READING = (
    "np.load",
    "pq.read_table",
    "pq.read_schema",
    "pq.ParquetFile",
    "pa.memory_map",
    "pd.read_csv",
    "csv.read_csv",
)


def openings(path: Path) -> Iterator[str]:
    """Yield the calls of a module that open a file by its path."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        if name == "open" or name in READING:
            yield name
        elif isinstance(node.func, ast.Attribute) and node.func.attr in OPENING:
            yield node.func.attr


def test_every_reader_of_inputs_and_of_files_of_users_opens_them_through_the_guard():
    found = set()
    for path in PACKAGE.rglob("*.py"):
        name = str(path.relative_to(PACKAGE))
        if not any(name == own or name.startswith(f"{own}/") for own in OWN):
            found |= {(name, call) for call in openings(path)}
    allowed = CHECKED | {  # these are given open files
        ("datasets/ids.py", "pq.ParquetFile"),
        ("datasets/labels.py", "pq.ParquetFile"),
        ("datasets/rows.py", "pq.ParquetFile"),
    }
    assert {(n, c) for n, c in found if (n, c.removeprefix("pa.")) not in allowed and (n, c) not in allowed} == set()


def test_the_test_of_openings_sees_what_opens_files(tmp_path):
    (tmp_path / "x.py").write_text("open('a')\nnp.load(p)\np.read_text()\nfile.read()\n")
    assert sorted(openings(tmp_path / "x.py")) == ["np.load", "open", "read_text"]
    assert io.BytesIO  # what is in memory is no file
