"""The table of hostile and odd inputs, each with its expected result."""

from __future__ import annotations

import tarfile
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from inputs import (
    GOOD,
    HOSTILE,
    HTML,
    OTHER,
    Maker,
    arrow_uuids,
    broken_page,
    broken_text,
    clip_retrieval,
    downloaded,
    encoded,
    folder_of,
    hugging_face,
    image,
    link,
    npy,
    parquet,
    parquets,
    pipe,
    plain,
    png_claiming,
    rotated,
    special,
    tar,
    uuids,
    vectors,
    write,
)


@dataclass(frozen=True)
class Case:
    """An input and its expected result: valid rows and reasons for rejections, or the words of an error."""

    make: Maker
    valid: int = 0
    rejected: dict[str, int] = field(default_factory=dict)  # part of the reason -> how many
    error: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)


def fails(make: Maker, *error: str, **options: Any) -> Case:
    return Case(make, error=error, options=options)


OUT = "leads out of the data set's folder"
TWO = {"a.png": GOOD, "b.png": OTHER}
BOTH = [GOOD, OTHER]
FLOATS = np.array([[1, 2], [np.nan, 1], [0, 0], [2, 1], [np.inf, 1], [-np.inf, 1]])
DRIFT = (
    {"key": ["a", "b"], "n": pa.array([1, 2], pa.int32()), "x": [1, 2], "s": ["t", "u"], "only": [True, None]},
    {"key": ["c", "d"], "n": pa.array([3, 4], pa.int64()), "x": [1.5, 2.5], "s": [[1], [2]], "new": ["v", "w"]},
)  # fmt: skip

TABLE: dict[str, Case] = {
    # Images, each in a folder with a good one
    "jpg": Case(image(encoded(plain(), "JPEG"), "odd.jpg"), 2),
    "png": Case(image(encoded(plain(), "PNG")), 2),
    "webp": Case(image(encoded(plain(), "WEBP"), "odd.webp"), 2),
    "gif of several frames": Case(
        image(encoded(plain(), "GIF", save_all=True, append_images=[plain("L")] * 3), "odd.gif"), 2
    ),
    "bmp": Case(image(encoded(plain(), "BMP"), "odd.bmp"), 2),
    "tiff": Case(image(encoded(plain(), "TIFF"), "odd.tiff"), 2),
    "avif": Case(image(encoded(plain(), "AVIF"), "odd.avif"), 2),
    "alpha": Case(image(encoded(plain("RGBA"), "PNG")), 2),
    "grey with alpha": Case(image(encoded(plain("LA"), "PNG")), 2),
    "palette": Case(image(encoded(plain("P"), "PNG", transparency=0)), 2),
    "one bit": Case(image(encoded(plain("1"), "PNG")), 2),
    "16 bits": Case(image(encoded(plain("I;16"), "PNG")), 2),
    "floats": Case(image(encoded(plain("F"), "TIFF"), "odd.tif"), 2),
    "CMYK": Case(image(encoded(plain("CMYK"), "JPEG"), "odd.jpg"), 2),
    "EXIF rotation": Case(image(rotated(), "odd.jpg"), 2),
    "1 x 1": Case(image(encoded(plain(size=(1, 1)), "PNG")), 2),
    "20,000 x 1": Case(image(encoded(plain(size=(20_000, 1)), "PNG")), 2),
    "wrong extension": Case(image(encoded(plain(), "PNG"), "odd.jpg"), 2),
    "a cut JPEG": Case(image(encoded(plain(size=(99, 99)), "JPEG")[:-200], "odd.jpg"), 1, {"truncated JPEG image": 1}),
    "a cut PNG": Case(image(GOOD[: len(GOOD) // 2]), 1, {"truncated PNG image": 1}),
    "a cut WebP": Case(image(encoded(plain(), "WEBP")[:30], "odd.webp"), 1, {"": 1}),
    "zero bytes": Case(image(b""), 1, {"empty file": 1}),
    "HTML saved as .jpg": Case(image(HTML, "odd.jpg"), 1, {"HTML, XML or SVG, not an image": 1}),
    "SVG": Case(image(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), 1, {"HTML, XML or SVG": 1}),
    "PDF": Case(image(b"%PDF-1.7\n"), 1, {"not a known image format": 1}),
    "PostScript, which Pillow would run": Case(image(b"%!PS-Adobe-3.0 EPSF-3.0\n"), 1, {"not a known": 1}),
    "noise": Case(image(np.random.default_rng(0).bytes(3_000)), 1, {"not a known image format": 1}),
    "a decompression bomb": Case(image(png_claiming(50_000, 50_000)), 1, {"more than 100 million pixels": 1}),
    "a PNG without data": Case(image(png_claiming(9, 9)), 1, {"PNG image": 1}),
    "a PNG of no width": Case(image(png_claiming(0, 9)), 1, {"": 1}),
    # Folders
    "a broken link": Case(link("odd.png", "nowhere.png"), 1, {"missing or a broken link": 1}),
    "a link to itself": Case(link("odd.png", "odd.png"), 1, {"link": 1}),
    "a link to its own folder": Case(link("round", "."), 1),
    "a named pipe": Case(pipe, 1, {"not a plain file": 1}),
    "a folder named as an image": Case(folder_of({"odd.png/good.png": GOOD}), 1),
    "a name of 255 bytes": Case(image(OTHER, "n" * 251 + ".png"), 2),
    "a name in many scripts": Case(image(OTHER, "日本 ñ \U0001f600 א.png"), 2),
    "a hostile name": Case(image(OTHER, HOSTILE.replace("/", "") + ".png"), 2),
    "a caption that is no UTF-8": Case(folder_of({"a.png": GOOD, "a.txt": b"\xff\xfe\x00"}), 1),
    "JSON beside an image": Case(folder_of({"a.png": GOOD, "a.json": '{"id": 7, "path": "x", "n": 1}'}), 1),
    "broken JSON beside an image": Case(folder_of({"a.png": GOOD, "a.json": "[" * 100_000}), 1),
    "class folders": Case(folder_of({"cat/1.png": GOOD, "dog/1.png": OTHER}), 2),
    "no images": fails(folder_of({"a.pdf": b""}), "holds no images, but 1 '.pdf'"),
    "nothing": fails(folder_of({}), "holds no files"),
    "only images that are none": fails(folder_of({"a.png": b"", "b.png": b""}), "all 2 samples are rejected", "empty"),
    "Parquet and images": fails(lambda f: parquet({"image": BOTH}, TWO)(f).parent, "1 Parquet file and 2 images"),
    "Parquet further down": Case(lambda f: parquet({"image": BOTH})(write(f, {"data/x": b""}) / "data").parents[1], 2),
    # Tars
    "path traversal": Case(tar(("../../x.png", GOOD), ("/etc/y.png", OTHER)), 2),
    "links in a tar": Case(
        tar(
            ("a.png", GOOD),
            special("b.png", tarfile.SYMTYPE, "/etc/passwd"),
            special("c.png", tarfile.LNKTYPE, "a.png"),
        ),
        2,
        {"symbolic link to /etc/passwd, which is not a file in the tar": 1},
    ),
    "device nodes": Case(tar(("a.png", GOOD), special("z.png", tarfile.CHRTYPE), special("p", tarfile.FIFOTYPE)), 1),
    "a member twice": Case(tar(("a.png", GOOD), ("a.png", OTHER), ("b.png", OTHER)), 1, {"two members named a.png": 1}),
    "a key again later": fails(
        tar(("a.png", GOOD), ("b.png", OTHER), ("a.png", GOOD)), "members of key 'a' in", "tar --sort=name"
    ),
    "no image member": Case(tar(("a.png", GOOD), ("b.txt", b"alone")), 1, {"no image member for key b": 1}),
    "a key of 4 KiB": Case(tar((f"{'k' * 4096}.png", GOOD), ("b.png", OTHER)), 2),
    "a hostile key and caption": Case(
        tar(("a\x1b[2J\u202e.png", GOOD), ("a\x1b[2J\u202e.txt", HOSTILE.encode()), ("b.png", OTHER)), 2
    ),
    "a tar cut off": Case(
        tar(("a.png", GOOD), ("b.png", OTHER), change=lambda b: b[: 1024 + len(GOOD)]),
        1,
        {"damaged tar, in or after member a.png": 1},
        options={"skip_damaged": True},
    ),
    "a tar cut in its first image": fails(
        tar(("a.png", GOOD), change=lambda b: b[:700]), "the only sample is", "damaged", skip_damaged=True
    ),
    "two tars in one": Case(
        tar(("a.png", GOOD), change=lambda b: b + b),
        1,
        {"data after the end-of-archive marker": 1},
        options={"skip_damaged": True},
    ),
    "a tar that is none": fails(
        tar(change=lambda _: HTML), "the only sample is rejected", "not a tar", skip_damaged=True
    ),
    "a tar of no members": fails(tar(), "the input has no samples"),
    "JSON that is nested too deep": Case(tar(("a.png", GOOD), ("a.json", b'{"a":' * 50_000), ("b.png", OTHER)), 2),
    "columns that disagree": Case(
        tar(("a.png", GOOD), ("a.json", b'{"n": 1}'), ("b.png", OTHER), ("b.json", b'{"n": "x"}')), 2
    ),
    # img2dataset
    "img2dataset": Case(downloaded(), 2, {"img2dataset: \x1b[31mred": 1, "xxx...": 1}),
    "img2dataset, a success that is not there": Case(downloaded(("000",)), 1, {"the tar does not hold it": 1, "": 2}),
    "img2dataset, more in the tar": Case(downloaded(("000", "002", "9")), 3, {"img2dataset: ": 2}),
    "img2dataset, its table cut": Case(
        downloaded(table=b"PAR1 cut"), 2, {"the Parquet file beside it is damaged": 1}, options={"skip_damaged": True}
    ),
    "img2dataset, another table": Case(downloaded(table={"label": [1]}), 2),
    "img2dataset as files": Case(downloaded(form="files"), 2, {"img2dataset: ": 2}),
    "img2dataset as Parquet": Case(downloaded(form="parquet"), 2, {"img2dataset: ": 2}),
    # Parquet of images
    "bytes": Case(parquet({"image": BOTH, "text": ["x", None]}), 2),
    "Hugging Face's images": Case(
        parquet({"image": hugging_face(GOOD, None, OTHER), "label": [0, 1, 0]}), 2, {"nothing": 1}
    ),
    "bytes that are none": Case(
        parquet({"jpg": [GOOD, b"", None, HTML]}), 1, {"empty file": 1, "nothing in column 'jpg'": 1, "HTML": 1}
    ),
    "a column of another name": Case(parquet({"blob": BOTH, "n": [1, 2]}), 2),
    "an image in a dictionary": Case(parquet({"image": pa.array([GOOD, OTHER, GOOD]).dictionary_encode()}), 3),
    "several columns": fails(
        parquet({"image": BOTH, "embedding": vectors(2)}), "'image', 'embedding'", "for example --column image"
    ),
    "several columns, and a choice": Case(
        parquet({"image": BOTH, "embedding": vectors(2)}), 2, options={"column": "embedding"}
    ),
    "a choice that is not there": fails(parquet({"image": BOTH}), "no column 'jpeg', but 'image'", column="jpeg"),
    "a choice that cannot be": fails(parquet({"image": BOTH, "n": [1, 2]}), "column 'n'", "is int64", column="n"),
    "a choice for a tar": fails(
        tar(("a.png", GOOD)), "--column 'x' fits nothing in the first key of t.tar", "but .png", column="x"
    ),
    "no column to be read": fails(parquet({"url": ["http://h/x.png"], "n": [1]}), "but 'url', 'n'", "img2dataset"),
    "one column twice": fails(
        lambda f: pq.write_table(pa.table([BOTH, BOTH], ["jpg", "jpg"]), f / "t.parquet") or f,
        "two columns named 'jpg'",
    ),
    "a page of it broken": Case(
        parquet({"image": [GOOD] * 3 + [OTHER]}, row_group_size=3, change=broken_page),
        1,
        {"damaged Parquet": 3},
        options={"skip_damaged": True},
    ),
    "a Parquet file cut off": fails(parquet({"image": BOTH}, change=lambda b: b[:-30]), "not a readable Parquet file"),
    "a Parquet file of zero bytes": fails(parquet({"image": BOTH}, change=lambda _: b""), "not a readable Parquet"),
    "a Parquet file that is a tar": fails(
        lambda f: tar(("a.png", GOOD))(f).rename(f / "t.parquet"), "not a readable Parquet file"
    ),
    "no rows": fails(parquet({"image": pa.array([], pa.binary())}), "has no rows"),
    "a file without rows among others": Case(parquets({"image": pa.array([], pa.binary())}, {"image": BOTH}), 2),
    "columns whose files disagree": fails(parquets({"jpg": BOTH}, {"jpg": ["a", "b"]}), "give them as separate inputs"),
    "text that is no UTF-8": Case(
        parquet({"image": BOTH, "text": broken_text(b"\xff", b"ok"), "s": broken_text(b"\xc3", b"x")}), 2
    ),
    # Paths
    "paths": Case(parquet({"path": ["a.png", "sub/b.png", "./a.png"]}, {"a.png": GOOD, "sub/b.png": OTHER}), 3),
    "paths that are not there": Case(
        parquet({"path": ["a.png", "c.png", None, "", "n" * 300]}, TWO), 1, {"missing": 1, "no id": 2, "no file can": 1}
    ),
    "paths that lead out": Case(
        parquet({"path": ["a.png", "../a.png", "/etc/passwd", "x/../../b.png", "..\\b.png"]}, TWO), 1, {OUT: 4}
    ),
    "URLs elsewhere": Case(
        parquet({"path": ["a.png", "http://127.0.0.1:1/x.png", "file:///etc/passwd", "s3://b/x.png"]}, TWO), 1, {OUT: 3}
    ),
    "paths chained, or with a zero byte": Case(
        parquet({"path": ["a.png", "zip://x::/etc/x.zip", "a\0.png", "simplecache::a.png"]}, TWO),
        1,
        {OUT: 1, "zero byte": 1, "missing": 1},
    ),
    # IDs
    "IDs that are whole numbers": Case(parquet({"uid": [2**62, -1], "image": BOTH}), 2),
    "IDs that are UUIDs": Case(parquet({"uid": uuids(2), "image": BOTH}), 2),
    "IDs that are UUIDs by their type": Case(
        parquet({"uid": arrow_uuids(2), "image": BOTH, "also": arrow_uuids(2)}), 2
    ),
    "vectors that are tensors by their type": Case(
        parquet({"id": arrow_uuids(2), "embedding": pa.FixedShapeTensorArray.from_numpy_ndarray(np.eye(2, 4))}), 2
    ),
    "IDs of 4 KiB": Case(parquet({"id": ["k" * 4096, "l" * 4096], "image": BOTH}), 2),
    "IDs in many scripts": Case(parquet({"id": ["日本\U0001f600", HOSTILE], "image": BOTH}), 2),
    "IDs that are missing": Case(
        parquet({"id": ["a", None, ""], "image": [GOOD, OTHER, OTHER]}), 1, {"no id in column 'id'": 2}
    ),
    "one ID twice": fails(
        parquet({"id": ["a", "a"], "image": BOTH}), "duplicate id 'a' in t.parquet, where two", "make ids unique there"
    ),
    "one ID in two files": fails(
        parquets({"id": ["a"], "jpg": [GOOD]}, {"id": ["a"], "jpg": [OTHER]}), "0.parquet and 1.parquet"
    ),
    "one ID in two files, told apart": Case(
        parquets({"id": ["a"], "jpg": [GOOD]}, {"id": ["a"], "jpg": [OTHER]}), 2, options={"id": "shard/key"}
    ),
    "IDs in one file only": fails(
        parquets({"id": ["a"], "jpg": [GOOD]}, {"jpg": [OTHER]}), "give the column the same name"
    ),
    # Vectors
    "a column of vectors": Case(parquet({"embedding": vectors(5), "key": list("abcde")}), 5),
    "vectors of fixed size": Case(parquet({"embedding": pa.array(vectors(5), pa.list_(pa.float16(), 4))}), 5),
    "vectors that are none": Case(
        parquet(
            {
                "embedding": [
                    [1.0, 2],
                    None,
                    [0.0, 0],
                    [np.nan, 1],
                    [np.inf, 1],
                    [2.0, None],
                    [1.0],
                    [],
                    [1.0, 2, 3],
                    [2.0, 1],
                ]
            }
        ),
        2,
        {"no vector": 1, "zero": 1, "finite": 3, "vector of 1 value, not 2": 1, "vector of 0": 1, "vector of 3": 1},
    ),
    "files of other dimensions": Case(parquets({"emb": vectors(3)}, {"emb": vectors(2, 3)}), 3, {"3 values, not 4": 2}),
    "files of other fixed dimensions": fails(
        parquets(*({"emb": pa.array(vectors(2, d), pa.list_(pa.float32(), d))} for d in (4, 3))),
        "has 3 dimensions but",
        "has 4: give them as separate inputs",
    ),
    "no vectors at all": fails(
        parquet({"embedding": pa.array([None, []], pa.list_(pa.float32()))}), "holds no vectors"
    ),
    "a broken page among vectors": Case(
        parquet({"embedding": vectors(6)}, row_group_size=4, change=broken_page),
        2,
        {"damaged Parquet": 4},
        options={"skip_damaged": True},
    ),
    "vectors without an ID": Case(parquet({"id": ["a", None, "c"], "vector": vectors(3)}), 2, {"no id": 1}),
    "NaN, inf and zero in .npy": Case(npy(FLOATS), 2, {"finite": 3, "zero": 1}),
    "an .npy of objects": fails(npy(np.array([[{}, 1]], object)), "would need pickle"),
    "an .npy of one dimension": fails(npy(np.ones(4)), "2-d"),
    "an .npy of whole numbers": fails(npy(np.ones((2, 2), int)), "float16, float32 or float64"),
    "an .npy cut off": fails(npy(FLOATS, change=lambda b: b[:-8]), "is cut off"),
    "an .npy with fewer ids": fails(npy(FLOATS, {"e.ids.txt": "a\nb\n"}), "6 rows", "2: they must be rows"),
    "img_emb of other dimensions": fails(clip_retrieval((np.eye(3), None), (np.eye(2), None)), "2 dimensions but"),
    "img_emb with tables that drift": Case(clip_retrieval(*((np.eye(2), columns) for columns in DRIFT)), 4),
    "Parquet whose columns drift": Case(parquets(*({**columns, "jpg": BOTH} for columns in DRIFT)), 4),
    # Hugging Face's image folders
    "metadata.csv": Case(folder_of({**TWO, "metadata.csv": 'file_name,text\na.png,"x, y"\nb.png,z\n'}), 2),
    "metadata.jsonl": Case(
        folder_of({**TWO, "metadata.jsonl": '{"file_name": "a.png", "text": "x", "o": {"b": [1]}}\n'}), 2
    ),
    "metadata.parquet": Case(
        lambda f: (
            parquet({"file_name": ["a.png", "b.png"], "text": ["x", "y"]}, TWO)(f).rename(f / "metadata.parquet").parent
        ),
        2,
    ),
    "metadata for what is not there": Case(
        folder_of({**TWO, "metadata.csv": 'file_name\na.png\na.png\nc.png\n../b.png\n/etc/x.png\n""\nsub/\n'}),
        2,
        {"listed twice in metadata.csv": 1, "missing": 1, OUT: 2, "no file_name": 1, "not a plain file": 0, "": 2},
    ),
    "metadata with broken lines": Case(
        folder_of({**TWO, "metadata.jsonl": '{"file_name": "a.png"}\n{oops\n[1]\n{"file_name": 5}\n'}),
        2,
        {"not JSON": 1, "not a JSON object": 1, "no file_name": 1},
    ),
    "metadata.csv with too many fields": Case(folder_of({**TWO, "metadata.csv": "file_name,x\na.png,1,2\nb.png\n"}), 2),
    "metadata without file_name": Case(folder_of({**TWO, "metadata.csv": "name,x\na.png,1\n"}), 2),
    "metadata.parquet whose file_name is a list": Case(
        lambda f: parquet({"file_name": [["a.png"]]}, TWO)(f).rename(f / "metadata.parquet").parent, 2
    ),
    "img2dataset, a table of other types": Case(
        downloaded(table={"key": [["000"]], "status": [{"a": 1}], "error_message": [1.5]}), 2
    ),
    "IDs that are lists": Case(parquet({"id": [["a"], ["b"]], "image": BOTH}), 2),
    "metadata.parquet cut": Case(folder_of({**TWO, "metadata.parquet": b"PAR1"}), 2),
}
