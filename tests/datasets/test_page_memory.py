"""Parquet files with large pages need memory that is known before they are read; other files never count."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from fairdedup.datasets import open_input, page_memory
from fairdedup.datasets.dataset import find_reading_memory
from fairdedup.datasets.page_memory import COMPRESSED, PLAIN, estimate_page_memory, read_page_size
from fairdedup.datasets.rows import open_parquet_file
from fairdedup.errors import UserError
from fairdedup.progress import StageProgress
from fairdedup.tasks import Task
from fairdedup.worker_memory import ENDS_AT, MIB, SMALL, least_memory
from fairdedup.workers import Workers

VALUE = 30_000
LARGE = 1 << 20
ROWS = 100


@pytest.fixture(autouse=True)
def lower_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_memory, "LARGE", LARGE)


def write(path: Path, rows: int = ROWS, **options: Any) -> Path:
    images = [k.to_bytes(2, "big") + bytes(range(250)) * (VALUE // 250) for k in range(rows)]
    pq.write_table(pa.table({"key": list(map(str, range(rows))), "jpg": images}), path, **options)
    return path


def estimate(path: Path) -> int:
    fs = LocalFileSystem()
    with open_parquet_file(fs, str(path)) as parquet:
        return estimate_page_memory(fs, str(path), parquet)


def page(factor: float) -> Iterator[float]:
    """Yield bounds of the memory for a page of all rows, each with its length and perhaps a few levels."""
    yield factor * ROWS * (VALUE + 2)
    yield factor * (ROWS * (VALUE + 2 + 4) + 200)


@pytest.mark.parametrize("use_dictionary", [False, True])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize(("compression", "factor"), [("none", PLAIN), ("snappy", COMPRESSED), ("zstd", COMPRESSED)])
def test_the_memory_is_that_of_the_page(
    use_dictionary: bool, version: str, compression: str, factor: float, tmp_path: Path
) -> None:
    file = write(
        tmp_path / "a.parquet", compression=compression, use_dictionary=use_dictionary, data_page_version=version
    )
    low, high = page(factor)
    assert low <= estimate(file) <= high


def test_only_the_largest_row_group_counts_and_small_pages_do_not(tmp_path: Path) -> None:
    assert estimate(write(tmp_path / "groups.parquet", row_group_size=10)) == 0
    assert (
        estimate(write(tmp_path / "pages.parquet", write_batch_size=10, data_page_size=1000, use_dictionary=False)) == 0
    )
    two = write(tmp_path / "two.parquet", 2 * ROWS, row_group_size=ROWS, compression="none")
    low, high = page(PLAIN)
    assert low <= estimate(two) <= high
    assert estimate(write(tmp_path / "empty.parquet", 0)) == 0


def test_a_store_is_asked_for_the_footer_and_the_header_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "a.parquet", compression="none")
    fs = MemoryFileSystem()
    fs.pipe_file("/pages/a.parquet", file.read_bytes())
    asked = []
    own = MemoryFileSystem.cat_file

    def cat_file(self: Any, path: str, start: Any = None, end: Any = None, **more: Any) -> bytes:
        asked.append(end - start)
        return own(self, path, start, end, **more)

    with open_parquet_file(fs, "/pages/a.parquet") as parquet:
        monkeypatch.setattr(MemoryFileSystem, "cat_file", cat_file)
        assert estimate_page_memory(fs, "/pages/a.parquet", parquet) == estimate(file)
        assert asked == [parquet.metadata.serialized_size, 32]


@pytest.mark.parametrize(
    ("header", "size"),
    [
        (b"\x15\x04\x15\xf0\xcc\xef\xff\x07", 0x3FFDF338),
        (b"\x15\x00\x15\xd2\x03\x15\xd2\x03", 233),
        (b"\x15\x00\x15\x01", 0),  # negative
        (b"", 0),
        (b"\x15", 0),
        (b"\x15\x00\x15\xff\xff", 0),
        (b"\x15\x00\x15" + b"\xff" * 20, 0),
        (b"PAR1" * 8, 0),
    ],
)
def test_the_size_is_read_from_the_header(header: bytes, size: int) -> None:
    assert read_page_size(header) == size


@pytest.mark.parametrize("damage", [b"\0" * 32, b"\xff" * 32, b"\x15\x00\x15\xfe\xff\xff\xff\x0f" + bytes(24)])
def test_a_damaged_header_refuses_nothing(damage: bytes, tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet", compression="none")
    column = pq.ParquetFile(file).metadata.row_group(0).column(1)
    data = bytearray(file.read_bytes())
    start = column.dictionary_page_offset
    data[start : start + 32] = damage
    file.write_bytes(data)
    assert estimate(file) == 0


def test_shards_of_images_know_what_they_need(tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet", compression="none")
    (shard,) = open_input(str(file)).shards
    assert find_reading_memory(shard) == estimate(file) > 0
    assert sum(1 for _ in shard.read()) == ROWS  # type: ignore[union-attr]


def test_a_worker_that_is_too_small_is_refused_with_the_amount() -> None:
    pages = 1000 * MIB
    task = Task((1,), name="0.parquet", peak=pages)
    needed = (least_memory(encoder=True).resident - SMALL + pages) / ENDS_AT / MIB
    with (
        Workers(StageProgress(quiet=True, log_json=False), workers=1, memory_limit=f"{int(needed) - 1}MiB") as workers,
        pytest.raises(UserError, match=r"but find copies of 0.parquet, .* needs at least (\d+)MiB") as caught,
    ):
        workers._client = object()  # so that no cluster starts
        try:
            workers.submit("find copies", abs, [Task((1,)), task])
        finally:
            workers._client = None
    amount = int(str(caught.value).partition("at least ")[2].partition("MiB")[0])
    assert needed <= amount < needed + 10
    Workers(StageProgress(quiet=True, log_json=False), workers=1, memory_limit=f"{amount}MiB").require_memory(
        pages, "it", encoder=True, share=ENDS_AT
    )
