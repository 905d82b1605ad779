"""Odd folders, patterns and zip archives: every file is a row or is counted, and every remedy works when applied."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from folder_remedies import REMEDIES
from inputs import GOOD, OTHER, folder_of, write
from odd_folders import JPEG, NUMBERS, TABLE, FolderCase, zipped
from odd_inputs import TWO
from runs import table

from fairdedup.datasets import folder as image_folder
from fairdedup.datasets import image_search, open_input, zip_images
from fairdedup.datasets.listing import to_numbers
from fairdedup.datasets.originals import find_clashing_stems, read_originals
from fairdedup.errors import UserError


@pytest.mark.parametrize("name", TABLE)
def test_what_must_come_out_comes_out(name: str, run: Any, folder: Path) -> None:
    case = TABLE[name]
    source = case.make(folder)
    if case.error:
        with pytest.raises(UserError) as caught:
            run(source, **case.options)
        message = str(caught.value)
        assert "\n" not in message and all(part in message for part in case.error), message
        return
    assert isinstance(case, FolderCase)
    counts = run(source, **case.options)
    counts, described = counts["counts"], counts["input"]
    rejected = table(folder.parent / "run" / "rejected")
    reasons = rejected["reason"].tolist()
    assert counts["kept"] + counts["removed"] + counts["rejected"] == counts["input"]
    assert (counts["valid"], counts["rejected"]) == (case.valid, len(reasons)), reasons
    for part, number in case.rejected.items():
        assert sum(part in reason for reason in reasons) == number, reasons
    assert sum(case.rejected.values()) == len(reasons), reasons
    assert described["unused"] == case.unused
    assert (case.remark or "") in " ".join(described["remarks"])
    assert bool(described["remarks"]) == (case.remark is not None), described["remarks"]
    if case.ids is not None:
        assert table(folder.parent / "run" / "decisions")["id"].tolist() == case.ids


def test_the_table_is_long_enough() -> None:
    assert len(TABLE) + len(REMEDIES) >= 60


@pytest.mark.parametrize("name", REMEDIES)
def test_a_remedy_works_when_it_is_applied(name: str, folder: Path) -> None:
    remedy = REMEDIES[name]
    with pytest.raises(UserError) as caught:
        open_input(str(remedy.make(folder)))
    message = str(caught.value)
    assert remedy.error in message and "\n" not in message, message
    advised = message.rpartition(": give ")[2]
    inputs = remedy.apply(folder, message) if remedy.apply else re.findall(r"'([^']*)'", advised)
    counts = []
    for given in inputs:
        shards = open_input(str(given)).shards
        counts.append(sum(sample.error is None for shard in shards for sample in shard.read()))  # type: ignore[union-attr]
    assert tuple(counts) == remedy.valid, (message, inputs)


def read(source: Path | str, **options: Any) -> list[Any]:
    return [sample for shard in open_input(str(source), **options).shards for sample in shard.read()]  # type: ignore


def test_the_remedy_of_a_foreign_metadata_file_works(folder: Path) -> None:
    write(folder, {**TWO, "metadata.csv": "image,n\na.png,1\nb.png,2\n"})
    dataset = open_input(folder)
    assert "to use it, name the column of image files 'file_name'" in dataset.remarks[0]
    write(folder, {"metadata.csv": "file_name,n\na.png,1\nb.png,2\n"})
    assert (open_input(folder).remarks, open_input(folder).unused) == ((), {})
    assert [sample.metadata["n"] for sample in read(folder)] == [1, 2]


def test_captions_and_classes_of_every_form(folder: Path) -> None:
    TABLE["captions and classes"].make(folder)
    found = {sample.id: (sample.caption, sample.metadata) for sample in read(folder)}
    assert found == {
        "a.jpg": ("of a", {"path": "a.jpg", "cls": 3}),
        "b.jpg": ("of b", {"path": "b.jpg", "n": 1}),
        "c.jpg": ("one", {"path": "c.jpg", "captions": ["two"]}),
        "d": ("of d", {"path": "d"}),
    }


def test_no_column_is_overwritten(folder: Path) -> None:
    write(folder, {"a.png": GOOD, "a.txt": "t", "a.cls": "7"})
    write(folder, {"a.json": '{"id": 1, "path": "p", "caption": "c", "n": 1, "input_path": "q", "cls": 8}'})
    write(folder, {"metadata.csv": "file_name,id,path,caption,n,cls,input_id\na.png,2,r,d,5,9,x\n"})
    (sample,) = read(folder)
    assert sample.caption == "t"
    assert sample.metadata == {
        "path": "a.png", "json_id": 1, "json_caption": "c", "json_n": 1, "json_input_path": "q", "json_cls": 8,
        "input_path_": "p", "cls": 7, "input_id_": 2, "input_path": "r", "input_caption": "d", "n": 5,
        "input_cls": 9, "input_id": "x",
    }  # fmt: skip


def test_numbers_of_a_csv_are_numbers_in_the_run_and_choose_what_is_kept(run: Any, folder: Path) -> None:
    write(folder, {"a.png": GOOD, "b.png": GOOD, "metadata.csv": NUMBERS.replace("b.png,,", "b.png,10,")})
    run(folder, where="x < 1", rule="prefer", prefer="n", keep=None, eps=0.1)
    kept = pq.read_table(folder.parent / "run" / "kept")
    kinds = [kept.schema.field(name).type for name in ("n", "x", "code", "input_id", "input_path")]
    assert kinds == [pa.int64(), pa.float64(), pa.string(), pa.int64(), pa.string()]
    assert kept["id"].to_pylist() == ["b.png"]


@pytest.mark.parametrize(
    ("texts", "numbers"),
    [
        (["1", "-2", "0"], [1, -2, 0]),
        (["1", "", None, "nan", " 3 "], [1, None, None, None, 3]),
        (["1.5", "2", ".5", "-1e3", "2."], [1.5, 2.0, 0.5, -1000.0, 2.0]),
        (["9223372036854775807"], [2**63 - 1]),
        (["9223372036854775808"], None),
        (["9007199254740993", "0.5"], None),
        (["99999999999999999999999", "0.5"], None),
        (["007"], None),
        (["00.5"], None),
        (["+1"], None),
        (["1_000"], None),
        (["١"], None),
        (["1e999"], None),
        (["inf"], None),
        (["", None], None),
        (["1", "x"], None),
        (["-"], None),
        (["."], None),
        (["e5"], None),
    ],
)
def test_which_texts_are_numbers(texts: list[str | None], numbers: list[float | None] | None) -> None:
    found = to_numbers(texts)
    assert found == numbers
    assert found is None or len({type(value) for value in found if value is not None}) == 1


@pytest.fixture
def memory(folder: Path) -> Any:
    yield fsspec.filesystem("memory")
    fsspec.filesystem("memory").rm("odd", recursive=True)


def test_on_a_store_few_files_of_an_ending_are_looked_into(
    memory: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_search, "LOOKS_PER_ENDING", 3)
    monkeypatch.setattr(image_search, "LOOKS", 7)
    looked: list[str] = []
    original = type(memory).cat_ranges

    def cat_ranges(fs: Any, paths: list[str], *rest: Any, **more: Any) -> Any:
        looked.extend(paths)
        return original(fs, paths, *rest, **more)

    monkeypatch.setattr(type(memory), "cat_ranges", cat_ranges)
    for ending, data in (("", JPEG), (".dat", b"x"), (".png", GOOD), (".zz", JPEG)):
        memory.pipe({f"/odd/{number}{ending}": data for number in range(5)})
    dataset = open_input("memory://odd")
    assert [Path(path).name for path in looked] == ["0", "1", "2", "0.dat", "1.dat", "2.dat", "0.zz"]
    assert dataset.unused == {".dat": 5} and sum(shard.rows or 0 for shard in dataset.shards) == 15
    assert list(dataset.remarks) == [
        "2 files without extension were judged by the 3 before them, of which 3 are images: they are read as images",
        "2 files that end in .dat were judged by the 3 before them, of which 0 are images: they are not read",
        "4 files that end in .zz were judged by the 1 before them, of which 1 is an image: they are read as images",
    ]


@pytest.mark.parametrize("name", ["a glob of images", "a glob with braces", "images in braces", "a folder of zips",
                                  "a glob of zips", "a zip with metadata", "tars in sub-folders",
                                  "JPEGs without extension"])  # fmt: skip
def test_a_store_gives_the_same_rows(name: str, memory: Any, folder: Path) -> None:
    made = str(TABLE[name].make(folder))
    memory.put(str(folder), "odd", recursive=True)
    local, remote = open_input(made), open_input(made.replace(str(folder), "memory://odd"))
    assert (remote.unused, remote.remarks) == (local.unused, local.remarks)
    rows = [
        [(s.position, s.id, s.image, s.caption, s.metadata, s.error) for shard in dataset.shards for s in shard.read()]  # type: ignore
        for dataset in (local, remote)
    ]
    assert rows[0] == rows[1]


def test_each_folder_is_listed_once(memory: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, {"a/1.png": GOOD, "a/b/2.png": OTHER, "c/x.md": "", "c/3": JPEG})
    memory.put(str(folder), "odd", recursive=True)
    listed: list[str] = []
    original = type(memory).ls

    def ls(fs: Any, path: str, *rest: Any, **more: Any) -> Any:
        listed.append(path.strip("/"))
        return original(fs, path, *rest, **more)

    monkeypatch.setattr(type(memory), "ls", ls)
    for source in ("memory://odd", "memory://odd/**/*.{png,md}"):
        listed.clear()
        open_input(source)
        assert sorted(listed) == ["odd", "odd/a", "odd/a/b", "odd/c"], source


def exported(source: Path | str) -> dict[str, Any]:
    shards = open_input(str(source)).shards
    clashing = find_clashing_stems(shards)
    found = [m for s in shards for m in read_originals(s, list(range(s.rows or 0)), clashing)]  # type: ignore[arg-type]
    return {member.name: member.data for member in found}


def test_export_copies_the_companions_of_a_folder_and_of_a_zip(folder: Path) -> None:
    files: dict[str, bytes | str] = {
        "a.png": GOOD, "a.caption": "of a", "a.cls": "3", "b": JPEG, "b.json": '["x", "y"]', "c.1": JPEG, "c.2": GOOD,
    }  # fmt: skip
    from_folder = exported(folder_of(files)(folder))
    assert {name: data for name, data in from_folder.items() if "id" not in name and not name.startswith("c")} == {
        "a.png": GOOD, "a.caption": b"of a", "a.cls": b"3", "b.jpg": JPEG, "b.txt": b"x", "b.json": b'["x", "y"]',
    }  # fmt: skip
    assert from_folder["c%2E1.jpg"] == JPEG and from_folder["c%2E2.png"] == GOOD
    assert exported(zipped(files)(folder.parent)) == from_folder


def test_a_zip_is_cut_into_shards_and_its_fingerprint_follows_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_folder, "SHARD_FILES", 2)
    archive = zipped({f"{number}.png": GOOD for number in range(5)})(folder)
    shards = open_input(archive).shards
    named = [("z.zip-00000", 2), ("z.zip-00001", 2), ("z.zip-00002", 1)]
    assert [(shard.name, shard.rows) for shard in shards] == named
    assert [sample.id for sample in read(archive)] == [f"{number}.png" for number in range(5)]
    before = shards[0].fingerprint()
    assert before == open_input(archive).shards[0].fingerprint() != shards[1].fingerprint()
    zipped({f"{number}.png": OTHER for number in range(5)})(folder)
    assert before != open_input(archive).shards[0].fingerprint()
    monkeypatch.setattr(zip_images, "MOST_SHARDS", 2)
    assert [shard.rows for shard in open_input(archive).shards] == [3, 2]


def test_ids_of_a_folder_and_of_a_glob_of_it_are_the_same(folder: Path) -> None:
    write(folder, {"10.png": GOOD, "9.png": OTHER, "in/1.png": GOOD, "in/metadata.csv": "file_name,n\n1.png,3\n"})
    as_folder, as_glob = read(folder), read(f"{folder}/**/*.png")
    assert as_folder == as_glob and [sample.id for sample in as_folder] == ["9.png", "10.png", "in/1.png"]
