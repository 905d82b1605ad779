"""Files of a run are opened by one module, each against its seal; damage is one line with the file and its repair."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import fairdedup
from fairdedup.errors import FairdedupError, UserError
from fairdedup.storage import sealed_files
from fairdedup.storage.checked_json import read_json, write_json
from fairdedup.storage.object_stores import as_path
from fairdedup.storage.plain_files import NotPlainFile
from fairdedup.storage.run_files import write_array, write_table
from fairdedup.storage.sealed_files import (
    DamagedFileError,
    Seal,
    Unsealed,
    load_array,
    load_table,
    open_array,
    open_arrow,
    read_schema,
)
from fairdedup.storage.seals import seal

PACKAGE = Path(fairdedup.__file__).parent
OPENS = {
    *("open", "os.open", "os.fdopen", "io.open", "np.load", "np.memmap", "np.fromfile", "np.loadtxt", "np.genfromtxt"),
    *("pq.read_table", "pq.read_schema", "pq.read_metadata", "pq.ParquetFile", "pq.ParquetDataset", "pa.memory_map"),
    *("pa.OSFile", "pa.ipc.open_file", "pa.ipc.open_stream", "pd.read_parquet", "pd.read_csv", "pd.read_json"),
    *("mmap.mmap", "json.load", "open_plain_file", "read_plain_text", "read_small_file", "read_many", "RemoteArray"),
}
METHODS = {"read_bytes", "read_text", "open", "read_ranges", "blocks"}
OF_A_RUN = {"storage/sealed_files.py"}  # the module
READS_NO_RUN = {  # folders that read what users name, or that draw the sample
    *("datasets/", "encoders/", "sample/"),
}
OTHERS = {  # module and call -> what it opens instead
    ("process_age.py", "read_text"): "a file of the system",
    ("streams.py", "os.open"): "a file of the system",
    ("worker_memory.py", "read_text"): "a file of the system",
    ("config.py", "read_plain_text"): "a file that the user names",
    ("stages/caption_embedding.py", "read_plain_text"): "a file that the user names",
    ("commands/search.py", "open_plain_file"): "a file that the user names",
    ("prototype_files.py", "np.load"): "a file that the user names",
    ("prototype_files.py", "open_plain_file"): "a file that the user names",
    ("preparation/prototype_choice.py", "read_bytes"): "captions that the user names",
    ("audit/suggestions.py", "open"): "writes",
    ("report/html_templates.py", "read_text"): "templates of the package",
    ("stages/id_export.py", "open"): "writes",
    ("cli/look_commands.py", "open"): "makes a session",
    ("stages/sample_export/folder_export.py", "open"): "writes",
    ("stages/sample_export/folder_export.py", "open_plain_file"): "pictures of the input",
    ("commands/starter_files.py", "read_bytes"): "files of the package, and what is in their place",
    ("cli/result_commands.py", "open"): "makes a session",
    ("cli/setup_commands.py", "open"): "makes a session",
    ("cli/stage_commands.py", "open"): "makes a session",
    ("storage/checked_json.py", "read_small_file"): "JSON, which carries its checksum",
    ("storage/stored_model.py", "read_small_file"): "JSON, which carries its checksum",
    ("storage/stored_model.py", "read_many"): "JSON, which carries its checksum",
    ("storage/object_stores.py", "open_plain_file"): "JSON, for `stored_model`",
    ("storage/plain_files.py", "open"): "the guard",
    ("storage/plain_files.py", "os.open"): "the guard",
    ("storage/plain_files.py", "open_plain_file"): "the guard",
    ("storage/seals.py", "open_plain_file"): "computes a checksum",
    ("storage/seals.py", "blocks"): "computes a checksum",
    ("storage/fence.py", "read_small_file"): "a token, which is compared",
    ("storage/file_errors.py", "open"): "copies a file, which is verified where it is read",
    ("storage/file_errors.py", "os.open"): "copies a file, which is verified where it is read",
    ("storage/run_files.py", "pa.OSFile"): "writes",
    ("storage/run_files.py", "open"): "writes, or hashes a file that the user names",
    ("storage/remote_array.py", "read_bytes"): "an object that `sealed_files` gives it",
    ("storage/remote_array.py", "read_ranges"): "an object that `sealed_files` gives it",
    ("storage/remote_path.py", "open"): "the methods of a path",
    ("storage/remote_path.py", "read_bytes"): "the methods of a path",
    ("storage/lock.py", "os.open"): "a folder",
    ("storage/tar_writer.py", "open"): "writes",
    ("storage/tar_writer.py", "os.open"): "pictures of the input",
    ("storage/condition.py", "pa.ipc.open_stream"): "bytes from a process",
    ("storage/memory_limit.py", "open"): "a file of the system",
    ("storage/condition_process.py", "os.open"): "a file of the system",
    ("storage/condition_process.py", "os.fdopen"): "a pipe to a process",
}


def openings(path: Path) -> Iterator[str]:
    """Yield the calls of a module that open a file, or give the bytes of one."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in OPENS:
                yield name
            elif isinstance(node.func, ast.Attribute) and node.func.attr in METHODS:
                yield node.func.attr


def test_no_other_module_opens_a_file_of_a_run():
    found = {
        (name, call)
        for path in PACKAGE.rglob("*.py")
        if (name := str(path.relative_to(PACKAGE))) not in OF_A_RUN and not name.startswith(tuple(READS_NO_RUN))
        for call in openings(path)
    }
    assert found == set(OTHERS), found ^ set(OTHERS)


def test_the_test_sees_what_opens_files(tmp_path):
    (tmp_path / "x.py").write_text("open('a')\nnp.load(p)\np.read_text()\nfile.read()\npq.read_table(p)\n")
    assert sorted(openings(tmp_path / "x.py")) == ["np.load", "open", "pq.read_table", "read_text"]


def test_every_reading_without_a_seal_says_why():
    """The reason is text of at least five words, at the call or in a constant of its module."""
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        texts = {
            target.id: node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Unsealed":
                reason = node.args[1]
                text = reason.value if isinstance(reason, ast.Constant) else texts.get(ast.unparse(reason), "WRITTEN")
                assert text == "WRITTEN" or len(str(text).split()) >= 5, f"{path}: {ast.unparse(node)}"


# The readers

WRITERS = {
    "array": lambda path: write_array(path, np.arange(4000, dtype=np.float32).reshape(-1, 4)),
    "table": lambda path: write_table(path, pa.table({"id": [f"k{k}" for k in range(900)]})),
    "arrow": lambda path: write_arrow(path),
}


def write_arrow(path: Path) -> None:
    table = pa.table({"id": [f"k{k}" for k in range(900)]})
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)


def read_arrow(source: sealed_files.Source) -> pa.Table:
    with open_arrow(source) as table:
        return table.combine_chunks()


READERS = {
    "open_array": ("array", open_array), "load_array": ("array", load_array), "load_table": ("table", load_table),
    "columns": ("table", lambda source: load_table(source, ["id"])), "read_schema": ("table", read_schema),
    "open_arrow": ("arrow", read_arrow),
}  # fmt: skip
DAMAGE = {
    "a bit": lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 4]) + data[len(data) // 2 + 1 :],
    "the first bit": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "the last bit": lambda data: data[:-1] + bytes([data[-1] ^ 128]),
    "cut": lambda data: data[:-9],
    "longer": lambda data: data + b"x",
    "empty": lambda data: b"",
}


@pytest.mark.parametrize("damage", [*DAMAGE, "missing"])
@pytest.mark.parametrize("reader", READERS)
def test_a_damaged_file_is_never_read(tmp_path, reader, damage):
    kind, read = READERS[reader]
    path = tmp_path / "x"
    WRITERS[kind](path)
    source = Seal(path, seal(path), "do this")
    first = read(source)
    assert (np.array_equal(first, read(source)) if kind == "array" else first.equals(read(source)))  # fmt: skip
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(DAMAGE[damage](path.read_bytes()))
    with pytest.raises(DamagedFileError) as caught:
        read(source)
    assert str(caught.value) == f"{path} is missing or damaged: do this"
    assert not source.holds()


@pytest.mark.parametrize("reader", READERS)
def test_a_file_without_its_seal_is_not_believed_and_a_pipe_is_not_waited_for(tmp_path, reader):
    kind, read = READERS[reader]
    WRITERS[kind](tmp_path / "x")
    with pytest.raises(DamagedFileError):
        read(Seal(tmp_path / "x", None, "do this"))
    os.mkfifo(tmp_path / "pipe")
    for source in (Seal(tmp_path / "pipe", "1-a", "do this"), Unsealed(tmp_path / "pipe", "a test")):
        with pytest.raises(NotPlainFile):
            read(source)


def test_damage_that_keeps_size_and_times_is_seen_by_another_process(tmp_path):
    """Within one process the time of the last change of the file's entry, which no program can set, tells it."""
    write_array(tmp_path / "x.npy", np.arange(999))
    source = Seal(tmp_path / "x.npy", seal(tmp_path / "x.npy"), "do this")
    open_array(source)
    state = source.path.stat()
    source.path.write_bytes(DAMAGE["a bit"](source.path.read_bytes()))
    os.utime(source.path, ns=(state.st_atime_ns, state.st_mtime_ns))
    with pytest.raises(DamagedFileError):
        open_array(source)


def test_a_file_is_verified_once_by_a_process_that_opens_it_often(tmp_path, monkeypatch):
    write_array(tmp_path / "x.npy", np.arange(999))
    source = Seal(tmp_path / "x.npy", seal(tmp_path / "x.npy"), "do this")
    hashed = []
    check = sealed_files.has_sealed_bytes
    monkeypatch.setattr(sealed_files, "has_sealed_bytes", lambda *words: hashed.append(1) or check(*words))
    for _ in range(5):
        assert open_array(source)[998] == 998
    assert len(hashed) == 1


@pytest.mark.parametrize("rows", [10, 100_000])
def test_an_array_in_a_store_is_verified_before_its_rows_are_read(rows, monkeypatch):
    monkeypatch.setattr(sealed_files, "WHOLE", 1 << 16)
    path = as_path("memory://bucket/sealed.npy")
    write_array(path, np.arange(rows))
    source = Seal(path, seal(path), "do this")
    assert open_array(source)[rows - 1] == rows - 1
    path.fs.pipe_file(str(path), DAMAGE["the last bit"](path.read_bytes()))
    with pytest.raises(DamagedFileError, match="sealed.npy is missing or damaged: do this"):
        open_array(source)


# JSON


def test_json_carries_a_checksum_of_its_values(tmp_path):
    write_json(tmp_path / "x.json", {"a": 1, "b": [0.1, "é"]})
    text = (tmp_path / "x.json").read_text()
    assert '"checksum": "' in text and read_json(tmp_path / "x.json") == {"a": 1, "b": [0.1, "é"]}
    (tmp_path / "x.json").write_text(text.replace("\n", "").replace("  ", " "))  # formatted anew
    assert read_json(tmp_path / "x.json") == {"a": 1, "b": [0.1, "é"]}
    for old, new in (('"a": 1', '"a": 3'), ('"b"', '"c"'), ("0.1", "0.3"), ("é", "è")):
        (tmp_path / "x.json").write_text(text.replace(old, new))
        with pytest.raises(FairdedupError, match=r"x\.json is damaged \(its checksum is another\)"):
            read_json(tmp_path / "x.json")


def test_json_of_an_earlier_version_has_no_checksum_and_is_read(tmp_path):
    (tmp_path / "x.json").write_text('{"a": 1}')
    assert read_json(tmp_path / "x.json") == {"a": 1}


def test_every_flip_of_a_bit_of_json_is_noticed_or_changes_nothing(tmp_path):
    known = {"version": 1, "name": "a.tar", "rejected": [[2, "x", "y", "z"]], "valid": 6}
    write_json(tmp_path / "x.json", known)
    data = (tmp_path / "x.json").read_bytes()
    noticed = 0
    for k in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[k // 8] ^= 1 << k % 8
        (tmp_path / "x.json").write_bytes(flipped)
        try:
            found = read_json(tmp_path / "x.json")
        except (FairdedupError, UserError):
            noticed += 1
            continue
        assert {name: found[name] for name in known} == known, bytes(flipped)
    assert noticed > 0.9 * 8 * len(data)
