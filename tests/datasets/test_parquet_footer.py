"""What a footer says of the columns is read without their statistics, which end the process where they are damaged."""

from __future__ import annotations

import random
import signal
import struct
import subprocess
import sys
from pathlib import Path

import footers
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from fairdedup.datasets import open_input, parquet_footer
from fairdedup.datasets.page_memory import LARGE, estimate_page_memory
from fairdedup.datasets.parquet_footer import DamagedFooter, parse_footer, read_bytes, read_footer
from fairdedup.datasets.rows import DAMAGED, open_parquet_file
from fairdedup.errors import UserError

TYPE = b"\x15\x0c"  # of a column of bytes or text, as a field of a struct
FATAL = b"Unencoded byte array data bytes"  # what pyarrow says of the statistics before it ends the process


def table(rows: int = 100) -> pa.Table:
    return pa.table({
        "id": [f"k{k}" for k in range(rows)],
        "n": range(rows),
        "x": [0.5] * rows,
        "vector": [[1.0, 2.0]] * rows,
        "struct": [{"a": 1, "b": None}] * rows,
        "map": pa.array([[("k", 1)]] * rows, pa.map_(pa.string(), pa.int64())),
        "jpg": [b"x" * 10] * rows,
    })  # fmt: skip


def footer_of(path: Path) -> bytes:
    data = path.read_bytes()
    return data[-8 - struct.unpack("<I", data[-8:-4])[0] : -8]


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
@pytest.mark.parametrize("options", [{}, {"use_dictionary": False}, {"write_page_index": True}, {"version": "1.0"}])
def test_columns_are_what_pyarrow_says(compression: str, options: dict[str, bool], tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(table(), path, row_group_size=30, compression=compression, **options)
    metadata = pq.ParquetFile(path).metadata
    found = parse_footer(footer_of(path))
    assert [len(group) for group in found] == [metadata.num_columns] * metadata.num_row_groups == [9] * 4
    for k, group in enumerate(found):
        for j, column in enumerate(group):
            known = metadata.row_group(k).column(j)
            assert column.values == known.num_values
            assert column.uncompressed == known.total_uncompressed_size
            assert column.start == (known.dictionary_page_offset or known.data_page_offset)
            assert (column.codec == parquet_footer.UNCOMPRESSED) == (known.compression == "UNCOMPRESSED")


def test_a_damaged_footer_ends_soon_with_its_own_error(tmp_path: Path) -> None:
    pq.write_table(table(), tmp_path / "a.parquet")
    whole, rng, refused = footer_of(tmp_path / "a.parquet"), random.Random(0), 0
    for _ in range(2000):
        work = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            work[rng.randrange(len(work))] = rng.randrange(256)
        try:
            parse_footer(bytes(work[: rng.randrange(len(work)) if rng.random() < 0.2 else None]))
        except DamagedFooter:
            refused += 1
    assert 200 < refused < 2000


@pytest.mark.parametrize(
    ("footer", "why"),
    [
        (b"", "ends too early"),
        (b"\x1c" * 100, "nested too deeply"),
        (b"\x19" * 100, "nested too deeply"),
        (b"\x19\xfc\xff\xff\xff\xff\x07", "longer than the footer"),
        (b"\x1b\xff\xff\xff\xff\x07\x5c", "longer than the footer"),
        (b"\x16" + b"\xff" * 20, "more than 64 bits"),
        (b"\x18\xff\xff\x03abc", "ends too early"),
        (b"\x1f\x00", "no type 15"),
    ],
)
def test_hostile_footers_are_refused(footer: bytes, why: str) -> None:
    with pytest.raises(DamagedFooter, match=why):
        parse_footer(footer)


def test_a_footer_that_is_too_large_is_not_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(table(), tmp_path / "a.parquet")
    monkeypatch.setattr(parquet_footer, "MOST_BYTES", 100)
    fs, path = LocalFileSystem(), str(tmp_path / "a.parquet")
    with open_parquet_file(fs, path) as parquet, pytest.raises(DamagedFooter, match=r"it has \d,\d+ bytes"):
        read_footer(fs, path, parquet)


@pytest.mark.parametrize(("start", "found"), [(-1, b""), (0, b"01"), (9, b"9"), (10, b""), (1 << 62, b"")])
def test_bytes_that_are_not_in_a_file_are_none(start: int, found: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")
    store = MemoryFileSystem()
    store.pipe_file("/footers/a", b"0123456789")
    assert read_bytes(LocalFileSystem(), str(tmp_path / "a"), start, 2) == found
    assert read_bytes(store, "/footers/a", start, 2) == found


def in_a_process(*arguments: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, timeout=300)


def test_damaged_footers_end_no_process_at_any_place_that_opens_a_file(tmp_path: Path) -> None:
    ended = in_a_process(footers.__file__, tmp_path, 60, 1)
    assert ended.returncode == 0, ended.stderr.decode()[-2000:]
    assert b"refused" in ended.stdout


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(4))
def test_many_damaged_footers(seed: int, tmp_path: Path) -> None:
    ended = in_a_process(footers.__file__, tmp_path, 2000, seed)
    assert ended.returncode == 0, ended.stderr.decode()[-2000:]


def test_a_large_file_with_damaged_statistics_ends_no_process(tmp_path: Path) -> None:
    """A page of 256 MiB makes the reader look at the columns; pyarrow ends the process that asks it for one."""
    path, rows = tmp_path / "a.parquet", 64
    jpg = [bytes(LARGE // rows)] * (rows - 1) + [np.random.default_rng(0).bytes(LARGE // rows)]
    columns = {"key": [f"k{k}" for k in range(rows)], "jpg": jpg}
    pq.write_table(pa.table(columns), path, compression="zstd", use_dictionary=False)
    fs = LocalFileSystem()
    with open_parquet_file(fs, str(path)) as parquet:
        assert estimate_page_memory(fs, str(path), parquet) >= LARGE
    data = bytearray(path.read_bytes())
    at = len(data) - 8 - len(footer_of(path)) + footer_of(path).index(TYPE)
    data[at + 1] ^= 8  # of the column key, which is no text then, but has the statistics of one
    path.write_bytes(data)
    ended = in_a_process("-c", "import sys, pyarrow.parquet as pq; f = pq.ParquetFile(sys.argv[1]).metadata; "
                         "[f.row_group(0).column(k) for k in range(2)]", path)  # fmt: skip
    assert ended.returncode == -signal.SIGABRT and FATAL in ended.stderr
    (shard,) = open_input(path, skip_damaged=True).shards
    assert [sample.error for sample in shard.read()] == [DAMAGED] * rows  # type: ignore[union-attr]
    (shard,) = open_input(path).shards
    with pytest.raises(UserError) as caught:
        list(shard.read())  # type: ignore[union-attr]
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
