"""Wrong tables, arrays and saved data sets: what each message advises, and the same input after this advice."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from inputs import GOOD, OTHER, Maker, clip_retrieval, downloaded, npy, parquet, parquets, vectors
from odd_folders import zipped
from odd_inputs import BOTH, TWO
from odd_tables import (
    BOXES,
    BROKEN,
    DATACOMP,
    MATRIX,
    NAMES,
    SKIP,
    TABLES,
    TEXTS,
    URIS,
    WEB,
    arrow,
    arrow_bytes,
    claims,
    cut_last,
    header_of,
    npys,
    npz,
    one_cut,
    saved,
)


class Remedy(NamedTuple):
    """A wrong input, what its message says, and the input or the option that it advises."""

    wrong: Maker
    message: str
    right: Maker
    valid: int
    options: dict[str, Any] = {}
    wrong_options: dict[str, Any] = {}


def without(name: str, maker: Maker) -> Maker:
    """Make an input, and remove a file of it."""

    def make(folder: Path) -> Path | str:
        source = maker(folder)
        (folder / name).unlink()
        return source

    return make


def lie_about_rows(data: bytes) -> bytes:
    """Change the 77 rows of the last row group in the footer of a Parquet file to 78."""
    at = data.rfind(b"\x9a\x01")
    return data[:at] + b"\x9c\x01" + data[at + 2 :]


def decoded(values: list[str]) -> list[bytes]:
    return [base64.b64decode(value.partition(",")[2] or value) for value in values]


REMEDIES: dict[str, Remedy] = {
    "ids beside some arrays only": Remedy(
        npys({"a.npy": MATRIX[:2], "b.npy": MATRIX[:2]}, {"a.ids.txt": "x\ny"}), "b.ids.txt', one a line",
        npys({"a.npy": MATRIX[:2], "b.npy": MATRIX[:2]}, {"a.ids.txt": "x\ny", "b.ids.txt": "v\nw"}), 4,
    ),
    "a table of ids beside some .npz only": Remedy(
        npys({"a.npy": MATRIX[:2], "b.npy": MATRIX[:2], "a.ids.npy": np.array([4, 5])}), "give the files as separate",
        npys({"a.npy": MATRIX[:2], "a.ids.npy": np.array([4, 5])}), 2,
    ),
    "ids of floats beside an array": Remedy(
        npys({"e.npy": MATRIX[:2], "e.ids.npy": np.array([1.0, 2.0])}), "ids.astype('int64')",
        npys({"e.npy": MATRIX[:2], "e.ids.npy": np.array([1, 2])}), 2,
    ),
    "the other half of img_emb": Remedy(
        without("img_emb/img_emb_1.npy", clip_retrieval((MATRIX[:2], {"id": ["a", "b"]}), (MATRIX[:1], {"id": ["c"]}))),
        "add it, or remove that file",
        clip_retrieval((MATRIX[:2], {"id": ["a", "b"]}), (MATRIX[:1], {"id": ["c"]})), 3,
    ),
    "the output folder of clip-retrieval": Remedy(
        without("img_emb/img_emb_0.npy", clip_retrieval((MATRIX[:2], None))), "give clip-retrieval's output folder",
        clip_retrieval((MATRIX[:2], None)), 2,
    ),
    "a column of fewer dimensions": Remedy(
        parquet({"emb": [[0.5] * 70_000], "other": [[1.0, 0.0]]}), "name another with --column",
        parquet({"emb": [[0.5] * 70_000], "other": [[1.0, 0.0]]}), 1, {"column": "other"},
    ),
    "write a footer again": Remedy(
        parquet({"emb": np.eye(77, 4).tolist()}, change=lie_about_rows), "impossible numbers of rows: write it again",
        parquet({"emb": (np.eye(77, 4) + 1).tolist()}), 77,
    ),
    "write an Arrow file of nothing again": Remedy(
        arrow({"emb": pa.nulls(100_000)}), "impossible numbers of rows: write it again", arrow({"emb": [[1.0, 0.0]]}), 1
    ),
    "write vectors of values": Remedy(
        parquet({"emb": pa.array([[], []], pa.list_(pa.float32(), 0))}), "of no values: write the file again",
        parquet({"emb": pa.array([[1.0]], pa.list_(pa.float32(), 1))}), 1,
    ),
    "copy an array again": Remedy(
        zipped({"a.npy": header_of("(6, 4)") + b"1234"}, "e.npz"), "bytes: copy or write it again",
        npz({"a": MATRIX}), 6,
    ),
    "fewer arrays": Remedy(
        npz({f"a{k}": np.zeros(1, np.int8) for k in range(10_001)}), "save fewer with numpy.savez",
        npz({"a": MATRIX}), 6,
    ),
    "choose a column": Remedy(
        parquet({"file_name": NAMES, "bbox": BOXES}, TWO), "--column file_name",
        parquet({"file_name": NAMES, "bbox": BOXES}, TWO), 2, {"column": "file_name"},
    ),
    "choose a column whose name has a space": Remedy(
        parquet({"a mask": BOTH, "blob": BOTH}), "--column 'a mask'", parquet({"a mask": BOTH, "blob": BOTH}), 2,
        {"column": "a mask"},
    ),
    "name a column that is there": Remedy(
        parquet({"image": BOTH}), "but 'image': name one with --column", parquet({"image": BOTH}), 2,
        {"column": "image"}, {"column": "jpeg"},
    ),
    "name a column that can be": Remedy(
        parquet({"image": BOTH, "n": [1, 2]}), "name a column of image bytes", parquet({"image": BOTH, "n": [1, 2]}), 2,
        {"column": "image"}, {"column": "n"},
    ),
    "name a column of paths": Remedy(
        parquet({"where": NAMES}, TWO), "name it with --column", parquet({"where": NAMES}, TWO), 2, {"column": "where"}
    ),
    "download web addresses": Remedy(
        parquet({"url": WEB}), "download URLs first, as img2dataset does", downloaded(form="parquet"), 2
    ),
    "download the images": Remedy(
        parquet({"image": WEB}), "for example with img2dataset, and give its output folder", downloaded(), 2
    ),
    "copy what is in a store": Remedy(
        parquet({"path": ["s3://b/a.png"]}), "copy the images into the folder of this file",
        parquet({"path": NAMES}, TWO), 2,
    ),
    "decode data URIs": Remedy(
        parquet({"image": URIS}), "base64.b64decode(value.partition(',')[2])", parquet({"image": decoded(URIS)}), 2
    ),
    "decode base64": Remedy(
        parquet({"image": TEXTS}), "base64.b64decode(value)", parquet({"image": decoded(TEXTS)}), 2
    ),
    "one name in every file": Remedy(
        parquets({"jpg": BOTH}, {"png": BOTH}), "give the column the same name in every file",
        parquets({"jpg": BOTH}, {"jpg": BOTH}), 4,
    ),
    "separate inputs": Remedy(
        parquets({"jpg": BOTH}, {"jpg": ["a", "b"]}), "give them as separate inputs", parquets({"jpg": BOTH}), 2
    ),
    "one name for ids": Remedy(
        parquets({"id": ["a"], "jpg": [GOOD]}, {"uid": ["b"], "jpg": [OTHER]}), "give the column the same name",
        parquets({"id": ["a"], "jpg": [GOOD]}, {"id": ["b"], "jpg": [OTHER]}), 2,
    ),
    "skip a broken page": Remedy(
        parquet({"image": [GOOD] * 3 + [OTHER]}, **BROKEN), "add --skip-damaged",
        parquet({"image": [GOOD] * 3 + [OTHER]}, **BROKEN), 1, SKIP,
    ),
    "remove a file that is cut off": Remedy(
        one_cut, "write it again or remove it", lambda f: (one_cut(f) / "1.parquet").unlink() or f, 2
    ),
    "skip what an .npy lacks": Remedy(
        npy(MATRIX, change=lambda b: b[:-8]), "add --skip-damaged", npy(MATRIX, change=lambda b: b[:-8]), 5, SKIP
    ),
    "save with numpy.save": Remedy(claims("(-1, 4)"), "save it with numpy.save", npy(MATRIX), 6),
    "save as floats": Remedy(
        npy(np.array([[1, 2]], object)), "save it as a float array", npy(np.array([[1, 2]], object).astype(float)), 1
    ),
    "ids of text": Remedy(
        npys({"e.npy": MATRIX[:2], "e.ids.npy": np.array([1, "x"], object)}, given="/e.npy"),
        "numpy.array(ids, dtype=str)",
        npys({"e.npy": MATRIX[:2], "e.ids.npy": np.array([1, "x"], dtype=str)}, given="/e.npy"), 2,
    ),
    "every row an id": Remedy(
        npy(MATRIX[:2], {"e.ids.txt": "a\n\n"}), "give every row an id", npy(MATRIX[:2], {"e.ids.txt": "a\nb\n"}), 2
    ),
    "separate .npy files": Remedy(
        npys({"a.npy": MATRIX, "b.npy": np.eye(3)}), "give them as separate inputs", npys({"b.npy": np.eye(3)}), 3
    ),
    "choose an array": Remedy(npz(DATACOMP), "--column b32_img", npz(DATACOMP), 6, {"column": "b32_img"}),
    "an array that is there": Remedy(
        npz({"a": MATRIX}), "name one with --column", npz({"a": MATRIX}), 6, {"column": "a"}, {"column": "b"}
    ),
    "save with numpy.savez": Remedy(npz({}), "save one with numpy.savez", npz({"a": MATRIX}), 6),
    "copy a whole data set": Remedy(
        saved(change=lambda t: (t / "data-00001-of-00002.arrow").unlink()), "copy the whole folder", saved(), 4
    ),
    "save a data set again": Remedy(
        saved(change=lambda t: (t / "state.json").unlink() or (t / "state.json").write_text("{}")),
        "save the data set again with datasets.save_to_disk", saved(), 4,
    ),
    "skip what a data set lacks": Remedy(
        saved(change=cut_last), "add --skip-damaged", saved(change=cut_last), 2, SKIP
    ),
    "rename a column": Remedy(
        clip_retrieval((np.eye(2), {"uid": [[1], [2]], "n": [1, 2]})), "rename or convert it",
        clip_retrieval((np.eye(2), {"boxes": [[1], [2]], "n": [1, 2]})), 2,
    ),
    "another file": Remedy(
        parquet({"n": [1, 2]}), "but 'n': give another file", parquet({"n": [1, 2], "image": BOTH}), 2
    ),
    "another column of vectors": Remedy(
        parquet({"embedding": pa.array([None, []], pa.list_(pa.float32())), "other": vectors(2)}),
        "name another with --column",
        parquet({"embedding": pa.array([None, []], pa.list_(pa.float32())), "other": vectors(2)}), 2,
        {"column": "other"},
    ),
    "separate files of vectors": Remedy(
        parquets(*({"emb": pa.array(vectors(2, d), pa.list_(pa.float32(), d))} for d in (4, 3))),
        "give them as separate inputs", parquet({"emb": pa.array(vectors(2, 3), pa.list_(pa.float32(), 3))}), 2,
    ),
    "a column twice": Remedy(
        lambda f: pq.write_table(pa.table([BOTH, BOTH], ["jpg", "jpg"]), f / "t.parquet") or f, "rename one",
        parquet({"jpg": BOTH, "jpg2": BOTH}), 2,
    ),
    "floats for whole numbers": Remedy(
        npy(np.eye(2, dtype=int)), "array.astype('float32')", npy(np.eye(2, dtype=int).astype("float32")), 2
    ),
    "as many ids as rows": Remedy(
        npy(MATRIX[:2], {"e.ids.txt": "a"}), "they must be rows of the same samples",
        npy(MATRIX[:1], {"e.ids.txt": "a"}), 1,
    ),
    "write metadata again": Remedy(
        clip_retrieval((np.eye(2), {"key": ["a"]})), "write both again",
        clip_retrieval((np.eye(2), {"key": list("ab")})), 2,
    ),
    "separate folders of img_emb": Remedy(
        clip_retrieval((np.eye(3), None), (np.eye(2), None)), "put them into separate folders",
        clip_retrieval((np.eye(2), None)), 2,
    ),
    "metadata for all of img_emb": Remedy(
        clip_retrieval((np.eye(2), {"key": list("ab")}), (np.eye(2), None)), "add it, or remove metadata/",
        clip_retrieval((np.eye(2), None), (np.eye(2), None)), 4,
    ),
    "one name for ids beside vectors": Remedy(
        clip_retrieval((np.eye(2), {"key": list("ab")}), (np.eye(2), {"uid": list("cd")})),
        "give the column the same name", clip_retrieval(*((np.eye(2), {"uid": list(ids)}) for ids in ("ab", "cd"))), 4,
    ),
    "save an .npz again": Remedy(
        npz({"a": MATRIX}, change=lambda b: b[:-30]), "save it with numpy.savez", npz({"a": MATRIX}), 6
    ),
    "remove a column": Remedy(
        TABLES["an Arrow file with a union"].make, "remove it", TABLES["an Arrow file"].make, 2
    ),
    "write an Arrow file again": Remedy(
        arrow_bytes(lambda _: b"Feather"), "write it again with datasets.save_to_disk", saved(), 4
    ),
    "fill empty ids": Remedy(
        clip_retrieval((np.eye(2), {"uid": ["a", None]})), "has 1 empty row: fill it",
        clip_retrieval((np.eye(2), {"uid": ["a", "b"]})), 2,
    ),
}  # fmt: skip
