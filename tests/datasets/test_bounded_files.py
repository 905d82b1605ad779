"""Prototypes whose headers claim terabytes, or that unpack to them, are one line; nothing of that size is allocated."""

from __future__ import annotations

import io
import resource
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fairdedup import prototype_files
from fairdedup.datasets.bounded_files import check_array_headers, read_bounded_table
from fairdedup.errors import UserError
from fairdedup.prototype_files import check_vectors, read_vectors


def npy(shape: str, dtype: str = "<f8", data: bytes = b"\0" * 64, version: int = 1) -> bytes:
    """Return an .npy file with any text as its shape."""
    header = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    size = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + size + header + data


def npz(name: str, data: bytes, size: int | None = None) -> bytes:
    """Return an .npz file; `size` is what its directory claims of the member."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    packed = bytearray(file.getvalue())
    if size is not None:
        for mark, offset in ((b"PK\1\2", 24), (b"PK\3\4", 22)):
            at = packed.index(mark) + offset
            packed[at : at + 4] = struct.pack("<I", size)
    return bytes(packed)


def zeros(numbers: int) -> Callable[[Path], None]:
    return lambda path: np.savez_compressed(path, **{"a/x": np.zeros(numbers, "<f8")})  # type: ignore[arg-type]


def repeated(path: Path) -> None:
    """Write a Parquet file of a few kilobytes whose rows need ten times the bound."""
    long, rows = "x" * 100_000, 9_900
    one = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, "i4")), pa.array([long]))
    columns = {"attribute": one, "concept": one, "id": one}
    pq.write_table(pa.table(columns), path, compression="zstd", store_schema="dictionary" in path.name)


def many(path: Path) -> None:
    """Write a Parquet file with more numbers than prototypes may have."""
    values = pa.array(np.zeros(prototype_files.MOST_BYTES // 4, "f4"))
    vector = pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)
    pq.write_table(pa.table({"attribute": ["a"], "concept": ["x"], "vector": vector}), path, compression="zstd")


HUGE: dict[str, tuple[str, bytes | Callable[[Path], None], str]] = {
    "6 TB in .npy": ("p.npy", npy("(1000000, 750000)"), "it is cut off at 192 of 6,000,000,000,128 bytes"),
    "6 TB in .npy, version 2": ("p.npy", npy("(1000000, 750000)", version=2), "it is cut off at"),
    "more than 64 bits": ("p.npy", npy(f"({10**30}, 4)"), "makes no sense"),
    "a negative dimension": ("p.npy", npy("(-1, 4)"), "its shape (-1, 4) makes no sense"),
    "a boolean dimension": ("p.npy", npy("(True, 4)"), "makes no sense"),
    "huge texts": ("p.npy", npy("(4,)", "<U500000000"), "it is cut off at"),
    "6 TB in .npz": ("p.npz", npz("a/x.npy", npy("(1000000, 750000)")), "has 192 of 6,000,000,000,128 bytes"),
    "a negative dimension in .npz": ("p.npz", npz("a/x.npy", npy("(-4,)")), "its shape (-4,) makes no sense"),
    "an .npz bomb": ("p.npz", zeros((1 << 25) + 1), "it holds 268,435,464 bytes, and such a file has at most 268,435"),
    "a member that claims 4 GB": ("p.npz", npz("a/x.npy", npy("(8,)"), 0xFFFFFFF0), "cannot be read ("),
    "a Parquet bomb": ("p.parquet", repeated, "bytes, and such a file has at most 268,435,456"),
    "a Parquet bomb of dictionaries": (
        "dictionary.parquet",
        repeated,
        "bytes, and such a file has at most 268,435,456",
    ),
    "many numbers in Parquet": ("p.parquet", many, "bytes, and such a file has at most 268,435,456"),
}


@pytest.mark.parametrize("case", HUGE)
def test_prototypes_that_claim_to_be_huge_are_one_line(case, tmp_path):
    name, content, says = HUGE[case]
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        content(tmp_path / name)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for read in (check_vectors, read_vectors):
        with pytest.raises(UserError) as caught:
            read(tmp_path / name)
        message = str(caught.value)
        assert message.startswith(f"prototypes {str(tmp_path / name)!r} cannot be read (") and says in message, message
        assert message.endswith("): write the file again") and "\n" not in message
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KiB


@pytest.mark.parametrize("name", ["p.npy", "p.npz", "p.parquet"])
def test_the_remedy_works(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(npy("(1000000, 750000)"))
    with pytest.raises(UserError, match="write the file again"):
        check_vectors(path)
    if name == "p.npy":
        np.save(path, np.eye(3))
    elif name == "p.npz":
        np.savez(path, **{"a/x": [1.0, 0, 0], "a/y": [0, 1.0, 0]})  # type: ignore[arg-type]
    else:
        table = {"attribute": ["a", "a"], "concept": ["x", "y"], "vector": [[1.0, 0, 0], [0, 1.0, 0]]}
        pq.write_table(pa.table(table), path)
    assert read_vectors(path).dimension == 3


def test_a_file_at_the_bound_is_read_and_one_byte_more_is_not(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros(16, "u1"))
    check_array_headers(str(tmp_path / "x.npy"), 16)
    with pytest.raises(ValueError, match="it holds 16 bytes, and such a file has at most 15"):
        check_array_headers(str(tmp_path / "x.npy"), 15)
    table = pa.table({"a": np.arange(600)})
    pq.write_table(table, tmp_path / "x.parquet")
    assert read_bounded_table(str(tmp_path / "x.parquet"), 6_000).equals(table)
    with pytest.raises(ValueError, match="at most 4,700"):
        read_bounded_table(str(tmp_path / "x.parquet"), 4_700)
