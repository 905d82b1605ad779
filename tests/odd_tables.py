"""Odd tables, arrays and saved data sets, each with its expected result."""

from __future__ import annotations

import base64
import datetime
import io
import json
import zipfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from inputs import (
    GOOD,
    OTHER,
    Maker,
    broken_page,
    broken_text,
    clip_retrieval,
    npy,
    parquet,
    parquets,
    vectors,
    write,
)
from odd_inputs import BOTH, TWO, Case, fails

BOXES = [[0.5, 1.0, 2.0, 3.0], [1.5, 1.0, 2.0, 2.5]]
NAMES = ["a.png", "b.png"]
WEB = [f"https://example.org/{k}.png" for k in range(2)]
TEXTS = [base64.b64encode(data).decode() for data in BOTH]
MIME = [base64.encodebytes(data).decode() for data in BOTH]
URIS = [f"data:image/png;base64,{text}" for text in TEXTS]
SKIP = {"skip_damaged": True}
MATRIX = np.array(vectors(6))


def header_of(shape: str) -> bytes:
    """Return an .npy file whose header claims a shape."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\0" + len(text).to_bytes(2, "little") + text.encode() + bytes(64)


def claims(shape: str) -> Maker:
    return lambda folder: write(folder, {"e.npy": header_of(shape)}) / "e.npy"


def npys(arrays: dict[str, np.ndarray], beside: dict[str, bytes | str] | None = None, given: str = "") -> Maker:
    """Make a folder of .npy files; INPUT is the folder or a pattern in it."""

    def make(folder: Path) -> str:
        for name, array in arrays.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            np.save(folder / name, array, allow_pickle=True)
        write(folder, beside or {})
        return f"{folder}{given}"

    return make


def npz(
    arrays: dict[str, Any], table: dict[str, Any] | None = None, save: Callable[..., None] = np.savez,
    change: Callable[[bytes], bytes] = bytes, name: str = "e",
) -> Maker:  # fmt: skip
    """Make one .npz file, with a table beside it."""

    def make(folder: Path) -> Path:
        buffer = io.BytesIO()
        save(buffer, **arrays)
        if table is not None:
            pq.write_table(pa.table(table), folder / f"{name}.parquet")
        return write(folder, {f"{name}.npz": change(buffer.getvalue())}) / f"{name}.npz"

    return make


def both(*makers: Maker) -> Maker:
    """Make several inputs in one folder; INPUT is the folder."""

    def make(folder: Path) -> Path:
        for maker in makers:
            maker(folder)
        return folder

    return make


DATACOMP = {f"{model}_{kind}": MATRIX.astype(np.float16) for model in ("b32", "l14") for kind in ("img", "txt")}


def bent(data: bytes) -> bytes:
    """Set the flag of encryption in the directory and the header of the only member."""
    place = data.rindex(b"PK\x01\x02") + 8
    data = data[:place] + b"\x01" + data[place + 1 :]
    return data[:6] + b"\x01" + data[7:]


def member(content: bytes) -> Maker:
    """Make an .npz file with one member of any content."""

    def make(folder: Path) -> Path:
        with zipfile.ZipFile(folder / "e.npz", "w") as archive:
            archive.writestr("a.npy", content)
        return folder / "e.npz"

    return make


def saved(
    *splits: str, columns: dict[str, Any] | None = None, shards: int = 2, change: Callable[[Path], Any] | None = None
) -> Maker:
    """Save a data set of four pictures with the real library: a Dataset, or a DatasetDict of some splits."""

    def make(folder: Path) -> Path:
        import datasets

        pictures = [{"bytes": data, "path": None} for data in [*BOTH, *BOTH]]
        given = columns or {"image": pictures, "text": ["w", "x", "y", "z"]}
        whole = datasets.Dataset.from_dict(given)
        if "image" in given:
            whole = whole.cast_column("image", datasets.Image())
        target = folder / "saved"
        if splits:
            parts = {name: whole.select(range(k, 4, len(splits))) for k, name in enumerate(splits)}
            datasets.DatasetDict(parts).save_to_disk(str(target))
        else:
            whole.save_to_disk(str(target), num_shards=shards)
        if change is not None:
            change(target)
        return target

    return make


def cut_last(target: Path) -> None:
    path = sorted(target.glob("data-*.arrow"))[-1]
    path.write_bytes(path.read_bytes()[:-500])


def arrow(columns: dict[str, Any], form: str = "stream", rows: int | None = None, **options: Any) -> Maker:
    """Make one Arrow file: a stream, or the form with a footer."""

    def make(folder: Path) -> Path:
        table = pa.table(columns)
        new = pa.ipc.new_stream if form == "stream" else pa.ipc.new_file
        with new(str(folder / "t.arrow"), table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
            writer.write_table(table, rows)
        return folder / "t.arrow"

    return make


def arrow_bytes(change: Callable[[bytes], bytes]) -> Maker:
    def make(folder: Path) -> Path:
        path = arrow({"image": [*BOTH, *BOTH]}, rows=2)(folder)
        path.write_bytes(change(path.read_bytes()))
        return path

    return make


def one_cut(folder: Path) -> Path:
    parquets({"image": BOTH}, {"image": [OTHER]})(folder)
    (folder / "1.parquet").write_bytes((folder / "1.parquet").read_bytes()[:-9])
    return folder


BROKEN = {"row_group_size": 3, "change": broken_page}
FLOAT_IDS = [1.58e12, 1.0]
DAY = datetime.date(2024, 2, 29)

TABLES: dict[str, Case] = {
    # Which column is meant
    "boxes beside file names": fails(
        parquet({"file_name": NAMES, "bbox": BOXES}, TWO), "'file_name', 'bbox'", "for example --column file_name"
    ),
    "boxes beside file names, and a choice": Case(
        parquet({"file_name": NAMES, "bbox": BOXES}, TWO), 2, options={"column": "file_name"}
    ),
    "bytes of any name beside paths": fails(parquet({"path": NAMES, "blob": BOTH}, TWO), "'path', 'blob'"),
    "bytes of any name twice": fails(parquet({"blob": BOTH, "a mask": BOTH}), "'blob', 'a mask'", "--column blob"),
    "a name that the shell would split": fails(parquet({"a mask": BOTH, "blob": BOTH}), "--column 'a mask'"),
    "vectors of a known name beside boxes and paths": Case(
        parquet({"embedding": vectors(2), "bbox": BOXES, "file_name": NAMES}), 2
    ),
    "images of a known name beside a mask": Case(parquet({"image": BOTH, "mask": [b"1", b"2"]}), 2),
    "a column that a later file lacks": fails(
        parquets({"jpg": BOTH}, {"png": BOTH}), "has no column 'jpg', but", "has: give the column the same name"
    ),
    # Text that is no path
    "web addresses": fails(parquet({"image": WEB, "n": [1, 2]}), "'image'", "holds web addresses", "img2dataset"),
    "web addresses in a column that is chosen": fails(
        parquet({"url": WEB}), "column 'url'", "holds web addresses", column="url"
    ),
    "addresses of a store": fails(parquet({"path": ["s3://b/a.png", "s3://b/c.png"]}), "holds addresses, not paths"),
    "data URIs": fails(parquet({"image": URIS}), "holds data URIs", "base64.b64decode(value.partition"),
    "base64": fails(parquet({"image": TEXTS}), "holds base64", "base64.b64decode(value)"),
    "base64 in lines": fails(parquet({"img": MIME}), "holds base64"),
    "base64 for URLs": fails(parquet({"img": [t.replace("/", "_").replace("+", "-") for t in TEXTS]}), "holds base64"),
    "a few web addresses among paths": Case(
        parquet({"path": [*NAMES, WEB[0]]}, TWO), 2, {"leads out of the data set's folder": 1}
    ),
    # IDs
    "ids of floats": Case(parquet({"id": FLOAT_IDS, "image": BOTH}), 2),
    "ids of floats with a gap": Case(parquet({"id": [2.0, None, np.nan], "image": [*BOTH, GOOD]}), 1, {"no id": 2}),
    "ids of decimals": Case(parquet({"id": [Decimal("5.00"), Decimal("5.50")], "image": BOTH}), 2),
    "ids of dates": Case(parquet({"id": [DAY, DAY.replace(day=1)], "image": BOTH}), 2),
    "ids of times in no known zone": Case(
        parquet({"id": pa.array([1, 2], pa.timestamp("s", "Nowhere/None")), "image": BOTH}), 2
    ),
    "ids that are truth values": Case(parquet({"id": [True, False], "image": BOTH}), 2),
    "ids that are always missing": Case(parquet({"id": pa.nulls(2), "image": BOTH}), 2),
    # Damage
    "a broken page": fails(
        parquet({"image": [GOOD] * 3 + [OTHER]}, **BROKEN), "t.parquet' is damaged", "rows 0 to 2 of 0 to 3 cannot be",
        "--skip-damaged",
    ),
    "a broken page among vectors": fails(parquet({"emb": vectors(6)}, **BROKEN), "rows 0 to 2 of 0 to 5 cannot be"),
    "a broken page before any vector": fails(
        parquet({"emb": vectors(2)}, change=broken_page), "rows 0 to 1 of 0 to 1 cannot be read", "--skip-damaged"
    ),
    "one file of two cut off": fails(one_cut, "1.parquet' is not a readable Parquet file: write it again or remove"),
    "one file of two cut off, and left out": Case(one_cut, 2, options=SKIP),
    "an .npy cut off": fails(npy(MATRIX, change=lambda b: b[:-8]), "bytes, after 5 of 6 rows", "--skip-damaged"),
    "an .npy cut off, what is left": Case(
        npy(MATRIX, {"e.ids.txt": "a\nb\nc\nd\ne\nf"}, change=lambda b: b[:-40]), 4, {"damaged .npy data": 2},
        options=SKIP,
    ),
    "an .npy cut off in its header": fails(npy(MATRIX, change=lambda b: b[:60]), "is not an .npy file", **SKIP),
    "an .npy cut off before its first row": fails(npy(MATRIX, change=lambda b: b[:130]), "is cut off at 130", **SKIP),
    "an .npy by columns cut off": fails(
        npy(np.asfortranarray(MATRIX), change=lambda b: b[:-8]), "is cut off at", "copy or write it again", **SKIP
    ),
    "img_emb cut off": fails(
        lambda f: cut_off(clip_retrieval((np.eye(3), {"key": list("abc")}))(f)), "after 2 of 3 rows", "--skip-damaged"
    ),
    "img_emb cut off, what is left": Case(
        lambda f: cut_off(clip_retrieval((np.eye(3), {"key": list("abc")}))(f)), 2, {"damaged .npy data": 1},
        options=SKIP,
    ),
    # Headers of .npy files
    "a negative dimension": fails(claims("(-1, 4)"), "its shape (-1, 4) makes no sense"),
    "a dimension that is a truth value": fails(claims("(True, 4)"), "its shape (True, 4) makes no sense"),
    "a dimension beyond 64 bits": fails(claims(f"({1 << 70}, 4)"), "makes no sense"),
    "a dimension that is huge": fails(claims("(1000000000000, 4)"), "is cut off at"),
    "dimensions that are no numbers": fails(claims("('a', 4)"), "is not an .npy file"),
    "ids of a negative dimension": fails(npy(MATRIX, {"e.ids.npy": header_of("(-6,)")}), "makes no sense"),
    # Several .npy
    "a folder of .npy": Case(npys({"a.npy": MATRIX, "b.npy": MATRIX[:3]}), 9),
    "sub-folders of .npy": Case(npys({"a/e.npy": MATRIX, "b/c/e.npy": MATRIX[:3]}), 9),
    "a glob of .npy": Case(npys({"a-0.npy": MATRIX, "a-1.npy": MATRIX[:3], "b.npy": np.eye(2)}, given="/a-*.npy"), 9),
    "braces of .npy": Case(npys({"a0.npy": MATRIX, "a1.npy": MATRIX[:3]}, given="/a{0..1}.npy"), 9),
    "a folder of .npy with ids": Case(
        npys({"a.npy": MATRIX[:2], "b.npy": MATRIX[:2], "a.ids.npy": np.array([4, 5])}, {"b.ids.txt": "x\ny"}), 4
    ),
    "a glob of .npy that matches ids, too": Case(
        npys({"a.npy": MATRIX[:2], "a.ids.npy": np.array([4, 5])}, given="/*.npy"), 2
    ),
    "a folder of .npy of other dimensions": fails(
        npys({"a.npy": MATRIX, "b.npy": np.eye(3)}), "b.npy' has 3 dimensions but", "has 4: give them as separate"
    ),
    "a folder of .npy with one id twice": fails(
        npys({"a.npy": MATRIX[:2], "b.npy": MATRIX[:2]}, {"a.ids.txt": "x\ny", "b.ids.txt": "y\nz"}), "duplicate id 'y'"
    ),
    # .npz
    "an .npz of one array": Case(npz({"emb": MATRIX}), 6),
    "an .npz, compressed": Case(npz({"emb": MATRIX}, save=np.savez_compressed), 6),
    "an .npz by columns": Case(npz({"emb": np.asfortranarray(MATRIX)}), 6),
    "an .npz with its ids": Case(npz({"emb": MATRIX, "ids": np.arange(6) * 10}), 6),
    "DataComp": fails(npz(DATACOMP, {"uid": list("abcdef")}), "'b32_img', 'b32_txt', 'l14_img'", "--column b32_img"),
    "DataComp, and a choice": Case(npz(DATACOMP, {"uid": list("abcdef")}), 6, options={"column": "l14_img"}),
    "a folder of DataComp's files": Case(
        both(*(npz(DATACOMP, {"uid": [f"{n}{k}" for k in range(6)]}, name=n) for n in "xy")), 12,
        options={"column": "l14_img"},
    ),
    "DataComp, another number of rows": fails(
        npz(DATACOMP, {"uid": list("abc")}), "6 rows but", "has 3: they must be", column="l14_img"
    ),
    "an array that is not there": fails(npz({"a": MATRIX}), "no array 'b', but 'a' float64 (6, 4)", column="b"),
    "an array of whole numbers that is chosen": fails(npz({"a": MATRIX, "n": np.eye(2, dtype=int)}), "holds int64",
                                                      column="n"),
    "an array that another file lacks": fails(
        both(npz({"a": MATRIX}, name="x"), npz({"b": MATRIX}, name="y")), "y.npz' has no array 'a'", "the same name"
    ),
    "an .npz without embeddings": fails(npz({"n": np.arange(4), "o": np.array([{}])}), "has no array of embeddings"),
    "an .npz that is none": fails(npz({"a": MATRIX}, change=lambda _: b"PK\x03\x04"), "is damaged, or no .npz file"),
    "an .npz cut off": fails(npz({"a": MATRIX}, change=lambda b: b[:-30]), "is damaged, or no .npz file"),
    "an .npz with a broken array": fails(
        npz({"a": MATRIX}, change=lambda b: b.replace(MATRIX.tobytes()[:8], bytes(8))), "is damaged, or no .npz"
    ),
    "an .npz that is encrypted": fails(npz({"a": MATRIX}, change=bent), "is encrypted"),
    "an .npz whose array is short": fails(member(header_of("(99, 4)")), "array 'a' of", "has 192 of 1,712 bytes"),
    "an .npz whose array has no header": fails(member(b"\x93NUMPY\x02\0\xff\xff\xff\xff"), "array 'a' of", "damaged"),
    "an .npz with a negative dimension": fails(member(header_of("(-4, 4)")), "makes no sense"),
    # What datasets.save_to_disk wrote
    "a saved data set": Case(saved(), 4),
    "a saved DatasetDict": Case(saved("train", "test"), 4),
    "a split of a DatasetDict": Case(lambda f: Path(saved("train", "test")(f)) / "test", 2),
    "a saved data set of vectors": Case(saved(columns={"embedding": vectors(5), "id": [5, 6, 7, 8, 9]}), 5),
    "a saved data set with a cache": Case(
        saved(change=lambda t: (t / "cache-0.arrow").write_bytes((t / "data-00000-of-00002.arrow").read_bytes())), 4
    ),
    "a saved data set, a file missing": fails(
        saved(change=lambda t: (t / "data-00001-of-00002.arrow").unlink()), "data-00001-of-00002.arrow' is missing",
    ),
    "a saved data set, its state broken": fails(
        saved(change=lambda t: (t / "state.json").write_text("[")), "does not list '_data_files'"
    ),
    "a saved DatasetDict whose split leads out": fails(
        saved("a", "b", change=lambda t: (t / "dataset_dict.json").write_text(json.dumps({"splits": ["../x"]}))),
        "does not list 'splits'",
    ),
    "a saved data set cut off": fails(
        saved(change=cut_last), "it ends after", "the 0 rows before it can be read", "--skip-damaged"
    ),
    "a saved data set cut off, what is left": Case(saved(change=cut_last), 2, options=SKIP),
    "an Arrow file": Case(arrow({"image": BOTH, "id": FLOAT_IDS}), 2),
    "an Arrow file with a footer": Case(arrow({"image": BOTH}, "file"), 2),
    "an Arrow file, compressed": Case(arrow({"image": BOTH}, compression="lz4"), 2),
    "an Arrow file of dictionaries": Case(arrow({"image": pa.array([*BOTH, GOOD]).dictionary_encode()}, rows=1), 3),
    "a folder of Arrow files": Case(both(arrow({"image": BOTH})), 2),
    "an Arrow file cut off": fails(arrow_bytes(lambda b: b[:-60]), "in record batch 1; the 2 rows before it can"),
    "an Arrow file cut off, what is left": Case(arrow_bytes(lambda b: b[:-60]), 2, options=SKIP),
    "an Arrow file without its end": fails(arrow_bytes(lambda b: b[:-8]), "the 4 rows before it can be read"),
    "an Arrow file with a union": fails(
        arrow({"image": BOTH, "u": pa.UnionArray.from_dense(pa.array([0, 0], pa.int8()), pa.array([0, 1], pa.int32()), [
            pa.array([1, 2])])}), "column 'u' of", "which Parquet cannot hold: remove it"
    ),
    "an Arrow file of views": Case(
        arrow({"image": pa.array(BOTH, pa.binary_view()), "text": pa.array(["x", None], pa.string_view())}), 2
    ),
    "an Arrow file of text that is no UTF-8": Case(
        arrow({"image": BOTH, "text": broken_text(b"\xff", b"ok"), "id": broken_text(b"\xff", b"x")}), 2
    ),
    "an Arrow file that is none": fails(arrow_bytes(lambda _: b"Feather"), "is not an Arrow file"),
    # Folders
    "Parquet in sub-folders": Case(
        lambda f: write(f, {"x/y": b""}) and parquet({"image": BOTH})(f / "x") and parquet({"image": BOTH})(f) and f, 4
    ),
    "img_emb with other files": Case(
        lambda f: write(clip_retrieval((np.eye(2), None))(f), {"text_emb/text_emb_0.npy": b"", "notes.txt": b""}), 2
    ),
}  # fmt: skip


def cut_off(folder: Path | str) -> Path:
    path = Path(folder) / "img_emb/img_emb_0.npy"
    path.write_bytes(path.read_bytes()[:-8])
    return Path(folder)
