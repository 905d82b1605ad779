"""Wrong folders, tars and zips: what each message advises, and the same input after this advice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from inputs import GOOD, OTHER, Maker, folder_of, write
from odd_folders import JPEG, both, fifo, flagged, table, tar_of, zipped
from odd_inputs import TWO


@dataclass(frozen=True)
class Remedy:
    """A wrong input, words of its message, and the inputs that the message advises with the valid rows of each.

    `apply` makes these inputs from the folder and the message; None takes what is in quotes after "give".
    """

    make: Maker
    error: str
    valid: tuple[int, ...]
    apply: Callable[[Path, str], list[Path | str]] | None = None


def renamed(old: str, new: str) -> Callable[[Path, str], list[Path | str]]:
    return lambda folder, _: [(folder / old).rename(folder / new).parent]


def changed(name: str, old: str, new: str) -> Callable[[Path, str], list[Path | str]]:
    def apply(folder: Path, _: str) -> list[Path | str]:
        (folder / name).write_text((folder / name).read_text().replace(old, new))
        return [folder]

    return apply


def without(name: str) -> Callable[[Path, str], list[Path | str]]:
    return lambda folder, _: (folder / name).unlink() or [folder]  # type: ignore[func-returns-value]


def ending_in(*endings: str) -> Callable[[Path, str], list[Path | str]]:
    return lambda folder, _: [f"{folder}/{ending}" for ending in endings]


REMEDIES: dict[str, Remedy] = {
    "a tar among images": Remedy(both(tar_of("a.tar", "x"), folder_of(TWO)), "1 tar shard and 2 images", (1, 2)),
    "a tar among images of several endings": Remedy(
        both(tar_of("x/a.tar", "x", "y"), folder_of({"a.jpg": JPEG, "in/b.JPG": JPEG, "c.png": GOOD})),
        "3 images",
        (2, 3),
    ),
    "a tar among images without extension": Remedy(
        both(tar_of("a.tar", "x", "y"), folder_of({"b": JPEG, "in/c": JPEG})), "1 tar shard and 2 images", (2, 2)
    ),
    "Parquet beside tars": Remedy(
        both(tar_of("a.tar", "x"), table("b.parquet", {"jpg": [GOOD, OTHER]})), "1 tar shard and 1 Parquet", (1, 2)
    ),
    "Parquet beside tars, some of it img2dataset's": Remedy(
        both(
            tar_of("a.tar", "x"),
            table("a.parquet", {"key": ["x"], "status": ["success"], "error_message": [""]}),
            table("b.parquet", {"jpg": [GOOD, OTHER]}),
        ),
        "1 tar shard and 1 Parquet",
        (1, 2),
    ),
    "Parquet of bytes beside images": Remedy(
        both(table("b.parquet", {"jpg": [GOOD]}), folder_of(TWO)), "1 Parquet file and 2 images", (1, 2)
    ),
    "labels and a table of images beside images": Remedy(
        both(table("labels.parquet", {"id": ["a"]}), table("x.parquet", {"id": ["c"], "jpg": [GOOD]}), folder_of(TWO)),
        "1 Parquet file and 2 images",
        (1, 2),
    ),
    "a table of images beside images": Remedy(
        both(table("more.parquet", {"id": ["c", "d"], "jpg": [GOOD, OTHER]}), folder_of(TWO)),
        "1 Parquet file and 2 images",
        (2, 2),
    ),
    "a zip among images": Remedy(both(zipped({"c.png": GOOD}), folder_of(TWO)), "1 zip archive and 2 images", (1, 2)),
    "a mix below a folder with brackets": Remedy(
        lambda f: both(tar_of("d [0]/a.tar", "x"), folder_of({"d [0]/b.png": GOOD}))(f) / "d [0]", "1 image:", (1, 1)
    ),
    "a glob of tars and images": Remedy(
        both(tar_of("a.tar", "x"), folder_of(TWO), source="a*"), "end it in .tar or in .png", (1, 1),
        ending_in("a*.tar", "a*.png"),
    ),
    "a single image": Remedy(
        lambda f: write(f, TWO) / "a.png", "single image: give the folder", (2,), lambda folder, _: [folder]
    ),
    "a pattern of folders in braces": Remedy(
        both(folder_of({"x/a.png": GOOD, "y/in/b.png": OTHER}), source="{x,y}"), "end it in '/**/*'", (2,),
        ending_in("{x,y}/**/*"),
    ),
    "a glob of folders": Remedy(
        both(folder_of({"x1/a.png": GOOD, "x2/in/b.png": OTHER}), source="x*"), "end it in '/**/*'", (2,),
        ending_in("x*/**/*"),
    ),
    "two stars within a name": Remedy(
        both(folder_of({"x1/a.png": GOOD, "x2/b.png": OTHER}), source="**.png"), "between slashes", (2,),
        ending_in("**/*.png"),
    ),
    "a glob of no images": Remedy(
        both(folder_of({**TWO, "a.pdf": b""}), source="*.pdf"), "names no image or shard, but 1 file: 1 .pdf", (2,),
        ending_in("*.png"),
    ),
    "a glob that names nothing": Remedy(
        both(folder_of(TWO), source="*.jpg"), "it must name images, or files that end in", (2,), ending_in("*.png")
    ),
    "a pipe as a shard": Remedy(both(tar_of("a.tar", "x"), fifo("b.tar")), "remove it", (1,), without("b.tar")),
    "an image that is missing from braces": Remedy(
        both(folder_of(TWO), source="{a,c}.png"), "correct the pattern", (2,), ending_in("{a,b}.png")
    ),
    "archives that are not read": Remedy(
        folder_of({"a.7z": b"", "b.txt": ""}), "unpack the .7z files", (2,), lambda folder, _: [write(folder, TWO)]
    ),
    "a zip of tars": Remedy(
        zipped({"a.tar": b""}), "unpack it and give the folder", (1,),
        lambda folder, _: [tar_of("d/a.tar", "x")(folder) / "d"],
    ),
    "an encrypted zip": Remedy(
        zipped(TWO, change=flagged), "unpack it with the password", (2,), lambda folder, _: [write(folder / "d", TWO)]
    ),
    "metadata.csv that breaks off": Remedy(
        folder_of({**TWO, "metadata.csv": f"file_name,x\na.png,1\nb.png,{'x' * 140_000}\n"}), "write it again", (2,),
        changed("metadata.csv", "x" * 140_000, "2"),
    ),
}  # fmt: skip
"""Remedies of errors; that of a remark, to name the column 'file_name', is tested in test_odd_folders."""
