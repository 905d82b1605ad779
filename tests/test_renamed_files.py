"""A single file that was renamed is the same input: of a finished run, of one that is resumed, and of exports."""

from __future__ import annotations

import gzip
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from remedies import ROWS, call
from runs import command, product, raw_vectors, table

IMAGES = " --device cpu --prototypes i.npz"
VECTORS = list(raw_vectors(ROWS))


def ends_well(words: str) -> str:
    shown = call(words)
    assert shown.code == 0, (words, shown.err)
    return shown.err


def finished_already(words: str) -> bool:
    shown = command(*words.split())
    assert shown.code == 0, shown.err
    return "finished already" in shown.err


def write_npy(folder: Path, _: dict[str, bytes]) -> list[str]:
    np.save(folder / "s.npy", raw_vectors(ROWS))
    return ["s.npy"]


def write_npy_with_ids(folder: Path, _: dict[str, bytes]) -> list[str]:
    write_npy(folder, _)
    (folder / "s.ids.txt").write_text("".join(f"k{row}\n" for row in range(ROWS)))
    pq.write_table(pa.table({"width": range(ROWS)}), folder / "s.parquet")
    return ["s.npy", "s.ids.txt", "s.parquet"]


def write_npz(folder: Path, _: dict[str, bytes]) -> list[str]:
    np.savez(folder / "s.npz", vectors=raw_vectors(ROWS), uid=np.array([f"u{row}" for row in range(ROWS)]))
    return ["s.npz"]


def write_vectors(folder: Path, _: dict[str, bytes]) -> list[str]:
    pq.write_table(pa.table({"vector": VECTORS}), folder / "s.parquet")
    return ["s.parquet"]


def write_arrow(folder: Path, _: dict[str, bytes]) -> list[str]:
    rows = pa.table({"vector": VECTORS})
    with pa.OSFile(str(folder / "s.arrow"), "wb") as file, pa.ipc.new_stream(file, rows.schema) as writer:
        writer.write_table(rows, 20)
    return ["s.arrow"]


def write_tar(folder: Path, _: dict[str, bytes]) -> list[str]:
    return ["s.tar"]


def write_tar_with_table(folder: Path, members: dict[str, bytes]) -> list[str]:
    (folder / "s.tar.gz").write_bytes(gzip.compress((folder / "s.tar").read_bytes()))
    keys = [name[:-4] for name in members if name.endswith(".png")]
    failed = pa.table({"key": [*keys, "lost"], "status": ["success"] * len(keys) + ["failed_to_download"],
                       "error_message": [None] * len(keys) + ["gone"]})  # fmt: skip
    pq.write_table(failed, folder / "s.parquet")
    return ["s.tar.gz", "s.parquet"]


def write_zip(folder: Path, members: dict[str, bytes]) -> list[str]:
    with zipfile.ZipFile(folder / "s.zip", "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return ["s.zip"]


def write_images(folder: Path, members: dict[str, bytes]) -> list[str]:
    pq.write_table(
        pa.table({"image": [data for name, data in members.items() if name.endswith(".png")]}), folder / "s.parquet"
    )
    return ["s.parquet"]


ARRAYS = (write_npy, write_npy_with_ids, write_npz, write_vectors, write_arrow)
PICTURES = (write_tar, write_tar_with_table, write_zip, write_images)


@pytest.mark.parametrize("options", ["", " --id shard/key"])
@pytest.mark.parametrize("write", [*ARRAYS, *PICTURES])
def test_a_run_over_one_file_goes_on_after_the_file_was_renamed(
    write: Callable[[Path, dict[str, bytes]], list[str]],
    options: str,
    place: Path,
    write_pictures: Callable[[Path], None],
) -> None:
    names = write_input(write, place, write_pictures)
    words = " --rule semdedup --eps 0.01 --clusters 1 --max-rejected 0.5" + options
    words += IMAGES if write in PICTURES else ""
    ends_well(f"run in/{names[0]}{words} --out whole && run in/{names[0]}{words} --out old")
    rename(place, names, "in/s", "r")
    new = names[0].replace("s.", "r.", 1)
    shutil.rmtree(place / "old" / "embeddings" / "img_emb")  # it is embedded again, under the new name
    (place / "old" / "run.json").unlink()
    for again in (new, f"./{new}"):
        ends_well(f"run {again}{words} --out old")
        assert product(place / "old") == product(place / "whole")
        assert finished_already(f"run {new}{words} --out old")
    rename(place, names, "r", "q")  # once more: the name that counts is the first
    assert finished_already(f"run {new.replace('r.', 'q.', 1)}{words} --out old")
    rename(place, names, "q", "in/s")
    assert finished_already(f"run in/{names[0]}{words} --out old")
    os.utime(place / "in" / names[0], (1, 1))
    shown = call(f"run in/{names[0]}{words} --out old")
    assert shown.code == 2 and "another input" in shown.err and "(cp -a)" in shown.err


@pytest.mark.parametrize("options", ["", " --id shard/key"])
@pytest.mark.parametrize("write", PICTURES)
@pytest.mark.parametrize("how", ["moved", "copied"])
def test_the_samples_of_one_file_are_exported_from_the_file_with_another_name(
    write: Callable[[Path, dict[str, bytes]], list[str]],
    how: str,
    options: str,
    place: Path,
    write_pictures: Callable[[Path], None],
) -> None:
    names = write_input(write, place, write_pictures)
    words = f" --rule semdedup --eps 0.01 --clusters 1 --max-rejected 0.5{options}{IMAGES}"
    ends_well(f"run in/{names[0]}{words} --out old && export old --to webdataset --dest a")
    rename(place, names, "in/s", "r", shutil.move if how == "moved" else shutil.copy2)
    (place / "old").rename(place / "new")
    new = names[0].replace("s.", "r.", 1)
    ends_well(f"export new --to webdataset --dest b --input {new}")
    shards = [(place / name / "shard-00000.tar").read_bytes() for name in "ab"]
    assert shards[0] == shards[1]
    os.utime(new, (1, 1))
    shown = call(f"export new --to webdataset --dest c --input {new}")
    assert shown.code == 2 and "is not the input of new" in shown.err
    assert "--to txt, csv and uids need no input" in shown.err


def test_a_file_of_a_folder_is_known_after_it_was_renamed(place: Path) -> None:
    (place / "in").mkdir()
    write_npy(place / "in", {})
    words = "--rule semdedup --eps 0.01 --clusters 1 --out run"
    ends_well(f"run in {words}")
    ids = sorted(table(place / "run" / "kept")["id"])
    assert ids[0].startswith("s-")
    (place / "in" / "s.npy").rename(place / "in" / "r.npy")
    (place / "run" / "run.json").unlink()
    shutil.rmtree(place / "run" / "embeddings" / "img_emb")
    ends_well(f"run in {words}")
    assert sorted(table(place / "run" / "kept")["id"]) == ids


def write_input(
    write: Callable[[Path, dict[str, bytes]], list[str]], place: Path, write_pictures: Callable[[Path], None]
) -> list[str]:
    """Write one file to in/, with what belongs to it, and return the names."""
    np.savez(place / "i.npz", **{"a/p": np.eye(12)[0], "a/q": np.eye(12)[1]})
    (place / "in").mkdir()
    write_pictures(place / "in")
    with tarfile.open(place / "in" / "s.tar") as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    names = write(place / "in", members)
    for path in (place / "in").iterdir():
        if path.name not in names:
            path.unlink()
    return names


def rename(
    place: Path, names: list[str], before: str, after: str, move: Callable[[Path, Path], object] = os.rename
) -> None:
    for name in names:
        rest = name.removeprefix("s")
        move(place / f"{before}{rest}", place / f"{after}{rest}")
