"""Each odd tar gives kept, removed and rejected rows, or an error of one line; every remedy works when applied."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from inputs import GOOD, OTHER, special, tar
from odd_tars import (
    CUT,
    DEPTH,
    FRAMES,
    PAIR,
    REMEDIES,
    SYM,
    TABLE,
    THIRD,
    TWO_PLAIN,
    named,
    pictures,
    shards,
    tar_bytes,
    zstd,
)
from runs import table
from test_odd_inputs import test_what_must_come_out_comes_out as check

from fairdedup.datasets import Sample, open_input, tar_contents, tar_links
from fairdedup.datasets.findings import Findings
from fairdedup.datasets.originals import FileRange, Member, read_originals
from fairdedup.errors import UserError


@pytest.mark.parametrize("name", TABLE)
def test_what_must_come_out_of_a_tar_comes_out(name: str, run: Any, folder: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("test_odd_inputs.TABLE", TABLE)
    check(name, run, folder)


@pytest.mark.parametrize("name", REMEDIES)
def test_every_remedy_works(name: str, run: Any, folder: Path) -> None:
    remedy = REMEDIES[name]
    source = remedy.wrong(folder)
    with pytest.raises(UserError) as caught:
        run(source, **remedy.first)
    message = str(caught.value)
    assert "\n" not in message and all(part in message for part in remedy.message), message
    if remedy.make is not None:  # for a changed input a run is made anew
        shutil.rmtree(folder.parent / "run", ignore_errors=True)
        source = remedy.make(folder)
    counts = run(source, **remedy.options)["counts"]
    assert (counts["valid"], counts["rejected"]) == (remedy.valid, remedy.rejected)
    assert counts["kept"] + counts["removed"] + counts["rejected"] == counts["input"]


def read(source: Path | str, findings: Findings | None = None, **options: Any) -> list[Sample]:
    return [s for shard in open_input(str(source), **options).shards for s in shard.read(findings)]  # type: ignore


def told(samples: list[Sample]) -> list[tuple[str, bytes | None, str | None]]:
    return [(s.id, s.image, s.caption) for s in samples]


def export(source: Path | str, *positions: int, **options: Any) -> list[Member]:
    shard: Any = open_input(str(source), **options).shards[0]
    return list(read_originals(shard, list(positions), frozenset()))


def written(members: list[Member]) -> dict[str, bytes]:
    """Return the exported files by name, which must be unique."""
    found = {}
    for member in members:
        assert member.name not in found
        data = member.data
        found[member.name] = (
            Path(data.path).read_bytes()[data.offset : data.offset + data.size] if isinstance(data, FileRange) else data
        )
    return found


def test_frames_of_one_key_are_samples_of_their_own(folder: Path) -> None:
    samples = read(tar(*FRAMES)(folder))
    assert told(samples) == [("frame_0.1", GOOD, "one"), ("frame_0.2", OTHER, "two"), ("frame_1", THIRD, None)]
    assert [s.metadata for s in samples] == [{"video": 7}, {"video": 7}, {}]
    assert [s.position for s in samples] == [0, 1, 2]


@pytest.mark.parametrize("packed", [False, True])
def test_the_export_of_one_frame_has_no_other_frame(folder: Path, packed: bool) -> None:
    source = named("t.tar.zst", zstd, *FRAMES)(folder) if packed else tar(*FRAMES)(folder)
    assert written(export(source, 1)) == {
        "frame_0%2E2.jpg": OTHER,
        "frame_0%2E2.txt": b"two",
        "frame_0%2E2.json": b'{"video": 7}',
        "frame_0%2E2.id.txt": b"frame_0.2",
    }
    every = written(export(source, 0, 1, 2))
    assert sorted(name.partition(".")[2] for name in every) == sorted(["jpg", "txt", "json", "id.txt"] * 2 + ["1.jpg"])
    assert written(export(source, 2)) == {"frame_1.1.jpg": THIRD}


def test_a_chosen_member_is_the_image_and_the_key_keeps_all_its_files(folder: Path) -> None:
    source = tar(*DEPTH)(folder)
    dataset = open_input(source, column=".RGB.png")
    assert dataset.column == "rgb.png"
    findings = Findings()
    assert told(read(source, findings, column="rgb.png")) == [("a", OTHER, None), ("b", GOOD, None)]
    assert findings.unused == {".png": 2}
    assert written(export(source, 1, column="rgb.png")) == {"b.depth.png": THIRD, "b.rgb.png": GOOD}
    assert dataset.shards[0].fingerprint() != open_input(source, column="*").shards[0].fingerprint()


def test_every_image_is_a_sample_with_an_id_of_its_own(folder: Path) -> None:
    source = tar(*TWO_PLAIN)(folder)
    assert told(read(source, column="*")) == [("k.jpg", GOOD, "both"), ("k.png", OTHER, "both")]
    assert written(export(source, 1, column="*")) == {
        "k%2Epng.png": OTHER, "k%2Epng.txt": b"both", "k%2Epng.json": b'{"id": "k.png"}',
    }  # fmt: skip
    (folder / "t.tar").unlink()
    assert [s.id for s in read(tar(*DEPTH)(folder), column="*")] == ["a.depth", "a.rgb", "b.depth", "b.rgb"]


def test_a_plain_image_comes_before_a_mask_which_is_counted(folder: Path) -> None:
    findings = Findings()
    source = tar(("a.mask.png", GOOD), ("a.png", OTHER), ("a.mask.txt", b"m"), ("a.npy", b""), ("b.jpg", THIRD))(folder)
    assert told(read(source, findings)) == [("a", OTHER, None), ("b", THIRD, None)]
    assert findings.unused == {".png": 1, ".txt": 1, ".npy": 1}
    assert list(written(export(source, 0))) == ["a.mask.png", "a.png", "a.mask.txt", "a.npy"]


def test_images_without_a_known_ending_are_read_and_exported(folder: Path) -> None:
    findings = Findings()
    source = tar(("a", GOOD), ("a.txt", b"x"), ("README", b"text"), ("b.photo", OTHER), ("c.png", THIRD),
                 ("c.copy", GOOD))(folder)  # fmt: skip
    assert told(read(source, findings)) == [("a", GOOD, "x"), ("b", OTHER, None), ("c", THIRD, None)]
    assert findings.unused == {"without extension": 1, ".copy": 1}
    assert list(written(export(source, 0, 1))) == ["a.png", "a.txt", "b.photo"]


@pytest.mark.parametrize("name", ["t.tar", "t.tar.zst"])
def test_links_are_read_and_exported_as_files(folder: Path, name: str) -> None:
    members = (("a.png", GOOD), ("a.txt", b"one"), special("b.png", SYM, "a.png"), special("b.txt", SYM, "none"))
    source = named(name, zstd if name.endswith("zst") else bytes, *members)(folder)
    samples = read(source)
    assert told(samples) == [("a", GOOD, "one"), ("b", GOOD, None)]
    assert samples[1].metadata == {"caption_error": "symbolic link to none, which is not a file in the tar"}
    assert written(export(source, 1)) == {"b.png": GOOD}


def test_links_in_a_compressed_tar_that_is_too_large_are_rejected(folder: Path, monkeypatch: Any, run: Any) -> None:
    monkeypatch.setattr(tar_links, "MAX_TEMPORARY_BYTES", 1 << 10)
    members = (("a.png", GOOD), special("b.png", SYM, "a.png"))
    samples = read(named("t.tar.zst", zstd, *members)(folder))
    assert told(samples) == [("a", GOOD, None), ("b", None, None)]
    assert "write it again as a plain local .tar" in str(samples[1].error)
    (folder / "t.tar.zst").unlink()
    assert run(tar(*members)(folder))["counts"]["valid"] == 2  # the remedy


def test_many_large_frames_wait_in_a_file_and_not_in_memory(folder: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(tar_contents, "MEMORY_BYTES", 1)
    frames = [(f"f.{k}.png", picture) for k, picture in enumerate([GOOD, OTHER, THIRD])] + [("g.png", OTHER)]
    source = named("t.tar.zst", zstd, *frames)(folder)
    assert [s.image for s in read(source)] == [GOOD, OTHER, THIRD, OTHER]
    assert list(written(export(source, 1)).values())[:1] == [OTHER]
    monkeypatch.setattr(tar_contents, "MAX_TEMPORARY_BYTES", len(OTHER))
    assert [s.error for s in read(source)] == [None, None, "the key has more than 0 GiB", None]


def test_a_stream_is_read_once_and_in_order(folder: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put(str(tar(*PAIR, *FRAMES)(folder)), "/odd-tars/t.tar")
    shard: Any = open_input("memory://odd-tars/t.tar").shards[0]
    places: list[int] = []

    class Once(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            places.append(self.tell())
            return super().read(size)

        def seek(self, *where: int) -> int:
            raise AssertionError("a stream is not sought")

    class Store(type(memory)):  # type: ignore[misc]
        cachable = False

        def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
            return Once(memory.cat_file(path))

    try:
        found = told(list(replace(shard, fs=Store()).read()))
        assert found == told(read(folder / "t.tar"))
        assert places == sorted(places)
    finally:
        memory.rm("/odd-tars", recursive=True)


def test_captions_and_classes(folder: Path) -> None:
    findings = Findings()
    source = tar(
        ("a.png", GOOD), ("a.caption", b" from caption "), ("a.cls", b"7"), ("a.json", b'{"cls": 3, "caption": "c"}'),
        ("b.png", GOOD), ("b.txt", b"first"), ("b.caption", b"second"), ("b.cls", b"007"),
        ("c.png", GOOD), ("c.json", b'["one", "two", "three"]'),
        ("d.png", GOOD), ("d.json", b'{"caption": ["x", "y"], "id": 1, "json_id": 2, "path": "p", "captions": "z"}'),
        ("e.png", GOOD), ("e.png.txt", b"beside"), ("e.png.json", b'{"n": 1}'), ("e.json", b'{"n": 2, "m": 3}'),
        ("f.png", GOOD), ("f.txt", b"two"), ("f.json", b'["one", "two"]'), ("f.cls", b""),
        ("g.png", GOOD), ("g.cls", b"caf\xe9"),
    )(folder)  # fmt: skip
    samples = {s.id: s for s in read(source, findings)}
    assert {key: s.caption for key, s in samples.items()} == {
        "a": "from caption", "b": "first", "c": "one", "d": "x", "e": "beside", "f": "two", "g": None,
    }  # fmt: skip
    assert {key: s.metadata for key, s in samples.items()} == {
        "a": {"json_cls": 3, "json_caption": "c", "cls": 7},
        "b": {"cls": "007"},
        "c": {"captions": ["two", "three"]},
        "d": {"json_id_": 1, "json_id": 2, "path": "p", "json_captions": "z", "captions": ["y"]},
        "e": {"n": 2, "m": 3, "key_n": 1},
        "f": {"captions": ["one"]},
        "g": {"cls": "caf\ufffd", "cls_error": "bytes that are not text were replaced"},
    }
    assert findings.unused == {".caption": 1}


def test_columns_of_the_input_reach_the_files_of_a_run(run: Any, folder: Path) -> None:
    run(tar(("a.png", GOOD), ("a.json", b'{"id": 1, "json_id": 2, "caption": ["x", "y"]}'), ("a.cls", b"4"))(folder))
    kept = table(folder.parent / "run" / "kept").iloc[0]
    assert (kept["id"], kept["caption"], kept["json_id_"], kept["json_id"], kept["cls"]) == ("a", "x", 1, 2, 4)
    assert list(kept["captions"]) == ["y"]


def test_what_was_chosen_and_what_is_not_used_is_recorded(run: Any, folder: Path) -> None:
    manifest = run(tar(*DEPTH, ("c.rgb.png", THIRD), ("c.npy", b""))(folder), column="rgb.png")
    told = json.dumps(manifest)
    assert '"rgb.png"' in told and "not read: 3 files: 2 .png, 1 .npy" in told


def test_a_damaged_shard_that_is_skipped_is_a_warning_with_the_lost_rows(run: Any, folder: Path) -> None:
    whole = [tar_bytes(*pictures(first, 6)) for first in (10, 20)]
    manifest = run(shards(*whole, CUT)(folder), skip_damaged=True)
    assert (manifest["counts"]["valid"], manifest["counts"]["rejected"]) == (16, 1)
    told = json.dumps(manifest)
    assert "2.tar is damaged: in or after member 004.png, at byte" in told and "about 1 row is lost" in told


def test_a_key_that_returns_stops_before_any_caption_is_lost(folder: Path) -> None:
    source = tar(("a.png", GOOD), ("b.png", OTHER), ("a.txt", b"x"))(folder)
    with pytest.raises(UserError, match="do not follow each other"):
        read(source)
    assert [s.id for s in read(tar(("x/a.png", GOOD), ("x/b.png", OTHER), ("y/a.txt", b""))(folder))][:2] == [
        "x/a", "x/b",
    ]  # fmt: skip


def test_gnu_tar_and_the_message_agree_on_the_remedy(folder: Path) -> None:
    if shutil.which("tar") is None:
        pytest.skip("no tar")
    source = tar(("b.png", OTHER), ("a.png", GOOD), ("b.txt", b"two"), ("a.txt", b"one"))(folder)
    (folder / "out").mkdir()
    with tarfile.open(source) as archive:
        archive.extractall(folder / "out", filter="data")
    subprocess.run(["tar", "--sort=name", "-cf", str(source), "-C", str(folder / "out"), "."], check=True)
    assert told(read(source)) == [("./a", GOOD, "one"), ("./b", OTHER, "two")]


def test_the_table_is_long_enough() -> None:
    assert len(TABLE) >= 50 and len(REMEDIES) >= 12
