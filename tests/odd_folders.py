"""The table of odd folders, patterns and zip archives with their expected results, and of remedies that must work."""

from __future__ import annotations

import io
import os
import re
import socket
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from inputs import GOOD, HTML, OTHER, Maker, downloaded, encoded, folder_of, parquet, plain, write
from odd_inputs import OUT, TWO, Case, fails

JPEG = encoded(plain(), "JPEG")
TIFF = encoded(plain(), "TIFF")
NUMBERS = "file_name,n,x,code,id,path,text\na.png,1,0.5,007,9,p,12\nb.png,,-2e3,12,10,q,\n"


@dataclass(frozen=True)
class FolderCase(Case):
    """A case with the files that are counted as not read, a part of a remark, and the ids of all valid rows."""

    unused: dict[str, int] = field(default_factory=dict)
    remark: str | None = None
    ids: list[str] | None = None


def zipped(
    members: dict[str, bytes | str], name: str = "z.zip", change: Callable[[bytes], bytes] = bytes, method: int = 0
) -> Maker:
    def make(folder: Path) -> Path:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", method) as archive:
            for member, data in members.items():
                archive.writestr(member, data)
        write(folder, {name: change(buffer.getvalue())})
        return folder / name

    return make


def both(*makers: Maker, source: str = "") -> Maker:
    """Make several inputs in one folder; INPUT is the folder, or a pattern in it."""

    def make(folder: Path) -> Path | str:
        for maker in makers:
            maker(folder)
        return f"{folder}/{source}" if source else folder

    return make


def tar_of(name: str, *keys: str) -> Maker:
    def make(folder: Path) -> Path:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(folder / name, "w") as archive:
            for seed, key in enumerate(keys):
                header = tarfile.TarInfo(f"{key}.png")
                data = (GOOD, OTHER)[seed % 2]
                header.size = len(data)
                archive.addfile(header, io.BytesIO(data))
        return folder

    return make


def fifo(name: str) -> Maker:
    return lambda folder: os.mkfifo(folder / name) or folder  # type: ignore[func-returns-value]


def listening(folder: Path) -> Path:
    here = os.getcwd()
    os.chdir(folder)  # the path of a socket may only be short
    try:
        with socket.socket(socket.AF_UNIX) as door:
            door.bind("door")
    finally:
        os.chdir(here)
    return folder


def linked(name: str, target: str) -> Maker:
    return lambda folder: os.symlink(target, folder / name) or folder  # type: ignore[func-returns-value]


def table(name: str, columns: dict[str, object]) -> Maker:
    def make(folder: Path) -> Path:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), folder / name)
        return folder

    return make


def flagged(data: bytes) -> bytes:
    """Return a zip archive whose members claim to be encrypted."""
    changed = bytearray(data)
    for mark, offset in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
        for found in re.finditer(re.escape(mark), data):
            changed[found.start() + offset] |= 1
    return bytes(changed)


def of_method(number: int) -> Callable[[bytes], bytes]:
    """Return a change of a zip archive: all members claim another method of compression."""

    def change(data: bytes) -> bytes:
        changed = bytearray(data)
        for mark, offset in ((b"PK\1\2", 10), (b"PK\3\4", 8)):
            for found in re.finditer(re.escape(mark), data):
                changed[found.start() + offset] = number
        return bytes(changed)

    return change


def twice(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "z.zip", "w") as archive:
        archive.writestr("a.png", GOOD)
        archive.writestr("b.png", OTHER)
        archive.namelist().clear()
        archive.NameToInfo.clear()  # or else zipfile warns
        archive.writestr("a.png", OTHER)
    return folder / "z.zip"


TABLE: dict[str, Case] = {
    # Recognised by content
    "endings that are rare": FolderCase(
        folder_of({"a.jpg": JPEG, "b.jfif": JPEG, "c.JPE": JPEG, "d.dib": encoded(plain(), "BMP"), "e.apng": GOOD}), 5
    ),
    "JPEGs without extension": FolderCase(
        folder_of({"a.jpg": JPEG, "b": JPEG, "in/IMG.001": JPEG, "in/c.jpg_large": JPEG, "d": b"no image"}),
        4,
        unused={"without extension": 1},
        ids=["a.jpg", "b", "in/IMG.001", "in/c.jpg_large"],
    ),
    "only files without extension": FolderCase(folder_of({"a": JPEG, "b": GOOD, "b.txt": "caption of b"}), 2),
    "raw photographs, videos and texts": FolderCase(
        folder_of({**TWO, "a.nef": TIFF, "b.mp4": b"", "c.mp4": b"", "README": "x", "a.pdf": b"%PDF", "s.svg": HTML}),
        2,
        unused={".nef": 1, ".mp4": 2, "without extension": 1, ".pdf": 1, ".svg": 1},
    ),
    "hidden files and folders": FolderCase(
        folder_of({**TWO, ".c.png": GOOD, "._a.png": b"", ".DS_Store": b"", ".git/d.png": GOOD, "x/.d/e.png": GOOD}), 2
    ),
    # What is no input of its own
    "labels beside tars": FolderCase(
        both(tar_of("a.tar", "a", "b"), parquet({"id": ["a"], "race": ["x"]})),
        2, unused={".parquet": 1}, ids=["a", "b"],
    ),
    "labels beside images": FolderCase(
        both(folder_of(TWO), parquet({"id": ["a.png"], "race": ["x"]})),
        2, unused={".parquet": 1},
    ),
    "the directory of a run": FolderCase(
        folder_of({**TWO, "run/config.json": "{}", "run/embeddings/img_emb/img_emb_0.npy": b"", "run/kept/a.pq": b""}),
        2, unused={}, remark="directories of runs in the folder are not part of the input: 'run'",
    ),
    # Companions
    "captions and classes": FolderCase(
        folder_of({"a.jpg": JPEG, "a.caption": "of a", "a.cls": "3", "b.jpg": JPEG, "b.jpg.txt": "of b",
                   "b.jpg.json": '{"n": 1}', "c.jpg": JPEG, "c.json": '["one", "two"]', "d": JPEG, "d.txt": "of d"}),
        4,
    ),  # fmt: skip
    "texts of no image": FolderCase(
        folder_of({**TWO, "a.txt": "x", "a.png.txt": "y", "classes.txt": "z", "b.caption": "c", "info.json": "{}"}),
        2,
        unused={".txt": 2, ".json": 1},
    ),
    "a JSON file that names our columns": FolderCase(
        folder_of({"a.png": GOOD, "a.txt": "t", "a.json": '{"id": 1, "path": "p", "caption": "c", "input_path": "q"}'}),
        1,
    ),
    # Metadata files
    "metadata.csv of something else": FolderCase(
        folder_of({**TWO, "metadata.csv": "name;n\na;1\n"}), 2, unused={".csv": 1}, remark="no column 'file_name' of"
    ),
    "metadata.jsonl of something else": FolderCase(
        folder_of({**TWO, "metadata.jsonl": '{"image": "a.png"}\n{"image": "b.png"}\n'}),
        2,
        unused={".jsonl": 1},
        remark="'metadata.jsonl' is not used: no column 'file_name' of text, but 'image'",
    ),
    "metadata.parquet that is damaged": FolderCase(
        folder_of({**TWO, "metadata.parquet": b"PAR1"}), 2, unused={".parquet": 1}, remark="not a readable Parquet"
    ),
    "metadata.csv that is empty": FolderCase(
        folder_of({**TWO, "metadata.csv": ""}), 2, unused={".csv": 1}, remark="but nothing"
    ),
    "the second metadata file fits": FolderCase(
        folder_of({**TWO, "metadata.csv": "x\n1\n", "metadata.jsonl": '{"file_name": "a.png", "n": 1}\n'}),
        2,
        unused={".csv": 1},
        remark="'metadata.csv' is not used",
    ),
    "many foreign metadata files": FolderCase(
        folder_of({"a/1.png": GOOD, "b/1.png": OTHER, "a/metadata.csv": "x\n", "b/metadata.csv": "x\n"}),
        2,
        unused={".csv": 2},
        remark="and 1 other metadata file is",
    ),
    "two metadata files that fit": FolderCase(
        folder_of({**TWO, "metadata.csv": "file_name\na.png\n", "metadata.jsonl": '{"file_name": "a.png"}\n'}),
        2,
        unused={".jsonl": 1},
    ),
    "numbers in metadata.csv": FolderCase(folder_of({**TWO, "metadata.csv": NUMBERS}), 2),
    "one column twice in metadata.csv": FolderCase(
        folder_of({**TWO, "metadata.csv": "file_name,n,n,file_name\na.png,1,2,x\n"}), 2
    ),
    # Special files
    "a pipe without extension": FolderCase(both(folder_of(TWO), fifo("pipe")), 2, unused={"without extension": 1}),
    "a socket": FolderCase(both(folder_of(TWO), listening), 2, unused={"without extension": 1}),
    "a link to a device": FolderCase(
        both(folder_of(TWO), linked("zero", "/dev/zero"), linked("zero.png", "/dev/zero")),
        2,
        {"not a plain file": 1},
        unused={"without extension": 1},
    ),
    "links that lead nowhere": FolderCase(
        both(folder_of(TWO), linked("c.png", "none"), linked("d", "none"), linked("e", "e")),
        2,
        {"missing or a broken link": 1},
        unused={"without extension": 2},
    ),
    "a pipe as metadata.csv, and one as caption": FolderCase(
        both(folder_of(TWO), fifo("metadata.csv"), fifo("a.txt")), 2, unused={".csv": 1}
    ),
    "a pipe that is named as a tar": fails(both(tar_of("a.tar", "a"), fifo("b.tar")), "b.tar' is not a plain file"),
    "a broken link that is named as a tar": fails(
        both(tar_of("a.tar", "a"), linked("b.tar", "none"), source="*.tar"), "b.tar' is not a plain file"
    ),
    "a pipe that is named as a Parquet file, among images": fails(
        both(folder_of(TWO), fifo("b.parquet")), "b.parquet' is not a plain file"
    ),
    "a pipe that is named as img2dataset's table": FolderCase(
        both(folder_of({"00000/a.png": GOOD}), fifo("00000.parquet")), 1, unused={".parquet": 1}
    ),
    "a pipe as INPUT": fails(lambda f: fifo("p.tar")(f) / "p.tar", "p.tar' is not a plain file but a pipe"),
    "a pipe in a glob": FolderCase(both(folder_of(TWO), fifo("p.png"), source="*.png"), 2, {"not a plain file": 1}),
    "links in circles": FolderCase(
        both(folder_of({"in/a.png": GOOD}), linked("in/up", ".."), linked("out", "in")), 2,
        ids=["in/a.png", "out/a.png"],
    ),
    # Sub-folders and mixes
    "tars in sub-folders": FolderCase(
        both(tar_of("a.tar", "a"), tar_of("x/b.tar", "b"), tar_of("x/y/c.tar", "c"), folder_of({"x/readme.md": "x"})),
        3,
        unused={".md": 1},
        ids=["a", "b", "c"],
    ),
    "tars of one key in two sub-folders": FolderCase(
        both(tar_of("x/a.tar", "0"), tar_of("y/a.tar", "0")),
        2,
        options={"id": "shard/key"},
        ids=["x/a/0", "y/a/0"],
    ),
    "img2dataset's tars and what is beside them": FolderCase(
        both(
            tar_of("0.tar", "x"),
            table("0.parquet", {"key": ["x"], "status": ["success"], "error_message": [""]}),
            tar_of("1.tar", "y"),
            table("1.parquet", {"n": [1]}),
            folder_of({"0_stats.json": "{}", "sizes.json": "{}"}),
        ),
        2,
        unused={".json": 1, ".parquet": 1},
    ),
    "Parquet in sub-folders": FolderCase(
        both(table("a.parquet", {"id": ["a"], "jpg": [GOOD]}), table("x/b.parquet", {"id": ["b"], "jpg": [OTHER]})), 2
    ),
    "a Parquet of paths, its images below": FolderCase(
        lambda f: parquet({"path": ["in/a.png", "in/b.png"]}, {"in/a.png": GOOD, "in/b.png": OTHER})(f).parent, 2
    ),
    "a Parquet of paths, with more images": FolderCase(
        lambda f: parquet({"path": ["in/a.png"]}, {"in/a.png": GOOD, "in/b.png": OTHER, "in/x.mp4": b""})(f).parent,
        1,
        unused={".mp4": 1},
        remark="the folder has 2 images for 1 row of",
    ),
    "img2dataset as files, further down": FolderCase(
        lambda f: downloaded(form="files")(write(f, {"out/00000_stats.json": "{}"}) / "out").parents[0], 2, {"img2": 2}
    ),
    # Patterns
    "a glob of images": FolderCase(
        both(folder_of({"a.jpg": JPEG, "in/b.jpg": JPEG, "in/b.txt": "of b", "in/c.png": GOOD}), source="**/*.jpg"),
        2,
        ids=["a.jpg", "in/b.jpg"],
    ),
    "a glob of one folder": FolderCase(both(folder_of({**TWO, "in/c.png": GOOD}), source="*.png"), 2),
    "a glob with braces": FolderCase(
        both(folder_of({"x/a.jpg": JPEG, "y/b.png": GOOD, "z/c.png": OTHER}), source="{x,y}/*.{jpg,png}"),
        2,
        ids=["x/a.jpg", "y/b.png"],
    ),
    "images in braces": FolderCase(both(folder_of({**TWO, "a.txt": "x"}), source="{a,b}.png"), 2),
    "images in braces without extension": FolderCase(both(folder_of({"a": JPEG, "b": GOOD}), source="{a,b}"), 2),
    "an image in braces that is missing": fails(
        both(folder_of(TWO), source="{a,c}.png"), "image '", "is missing (1 of 2 are there)"
    ),
    "a glob of everything": FolderCase(
        both(folder_of({**TWO, "a.txt": "x", "IMG": JPEG, "v.mp4": b""}), source="**"), 3, unused={".mp4": 1}
    ),
    "a glob of images and the lines about them": FolderCase(
        both(
            folder_of(
                {**TWO, "c.jpg": JPEG, "metadata.csv": "file_name,n\na.png,1\nc.jpg,2\nd.png,3\nd.jpg,4\n../e,5\n"}
            ),
            source="*.png",
        ),
        2,
        {"missing": 1},
    ),
    "a glob of files without extension": FolderCase(both(folder_of({"x/1": JPEG, "x/2": GOOD}), source="x/*"), 2),
    "a glob below a folder with brackets": FolderCase(
        both(folder_of({"9 [x], {y}/a.png": GOOD, "9 [x], {y}/in/b.png": OTHER}), source="9 [x], {y}/**/*.png"),
        2,
        ids=["a.png", "in/b.png"],
    ),
    "a glob of tars and images": fails(
        both(tar_of("a.tar", "x"), folder_of(TWO), source="a.*"), "end it in .tar or in .png"
    ),
    "a glob of tars and a text": FolderCase(
        both(tar_of("x/a.tar", "x"), folder_of({"x/a.md": "x"}), source="x/*"), 1, unused={".md": 1}
    ),
    # Zip archives
    "a zip": FolderCase(
        zipped({"a.png": GOOD, "in/b.jpg": JPEG, "in/b.txt": "of b", "c.mp4": b"", "__MACOSX/._a.png": b"x"}),
        2,
        unused={".mp4": 1},
        ids=["a.png", "in/b.jpg"],
    ),
    "a zip that is compressed": FolderCase(zipped({"a": JPEG, "b.png": GOOD}, method=zipfile.ZIP_DEFLATED), 2),
    "a zip with metadata": FolderCase(
        zipped({**TWO, "metadata.csv": NUMBERS.replace("b.png", "c.png")}), 2, {"missing in the zip": 1}
    ),
    "a folder of zips": FolderCase(
        both(zipped(TWO), zipped({"a.png": GOOD}, "in/y.zip"), folder_of({"x.md": ""})),
        3,
        unused={".md": 1},
        ids=["in/y/a.png", "z/a.png", "z/b.png"],
    ),
    "a glob of zips": FolderCase(
        both(zipped(TWO, "0.zip"), zipped(TWO, "1.zip"), zipped({"x.md": ""}, "2.zip"), source="*.zip"),
        4,
        unused={".md": 1},
    ),
    "a zip with the shard in its ids": FolderCase(
        zipped({"a.png": GOOD}), 1, options={"id": "shard/key"}, ids=["z/a.png"]
    ),
    "a zip with hostile names": FolderCase(zipped({"../../a.png": GOOD, "/etc/b.png": OTHER, "c\n.png": GOOD}), 3),
    "a zip with a damaged member": FolderCase(
        zipped(TWO, change=lambda data: data.replace(GOOD, GOOD[:-40] + bytes(40), 1)), 1, {"damaged in the zip": 1}
    ),
    "a zip of an unknown method": fails(zipped(TWO, change=of_method(77)), "all 2 samples", "method 77 of zip"),
    "a zip with one name twice": FolderCase(twice, 1, {"two members named a.png": 1}),
    "a zip that is encrypted": fails(zipped(TWO, change=flagged), "z.zip' is encrypted, as its member 'a.png'"),
    "a zip that is cut off": fails(zipped(TWO, change=lambda data: data[:-60]), "not a readable zip archive", "again"),
    "a zip that is none": fails(zipped(TWO, change=lambda _: HTML), "not a readable zip archive"),
    "a zip without images": fails(zipped({"a.tar": b"", "b.txt": ""}), "holds no images, but 2 files: 1 .tar, 1 .txt"),
    "an empty zip": fails(zipped({}), "z.zip' is empty: give a zip of images"),
    "a path out of a zip": FolderCase(
        zipped({**TWO, "metadata.csv": "file_name\na.png\n../b.png\n/etc/x.png\n"}), 2, {OUT: 2}
    ),
}  # fmt: skip
