"""What a finished run hands over: shards of its samples, byte for byte, and files of IDs, read back."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from runs import (
    CLUSTERS,
    command,
    contents,
    done,
    files,
    manifest,
    picture,
    raw_vectors,
    sample,
    started,
    table,
    write_tar,
)

from fairdedup.datasets.originals import image_kind, key_of
from fairdedup.datasets.tar import DamagedTar, is_plain_tar, ranges
from fairdedup.datasets.tar import members as members_of_tar
from fairdedup.storage.run_files import seal
from fairdedup.storage.tar_writer import ShardWriter, header

Exported = Callable[..., Path]


def members(path: Path) -> dict[str, bytes]:
    """Return the members of a tar, which must have every name once."""
    with tarfile.open(path) as archive:
        headers = archive.getmembers()
        found = {h.name: archive.extractfile(h).read() for h in headers}  # type: ignore[union-attr]
    assert len(found) == len(headers)
    return found


def shards_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.tar"))


def all_members(folder: Path) -> dict[str, bytes]:
    """Return the members of all shards of a folder, in order; no name may be in two."""
    found: dict[str, bytes] = {}
    for path in shards_of(folder):
        own = members(path)
        assert not found.keys() & own.keys()
        found |= own
    return found


READ = """
import hashlib, json, sys, webdataset
for found in webdataset.WebDataset(sys.argv[1:], shardshuffle=False):
    print(json.dumps({k: v if k == "__key__" else hashlib.sha256(v).hexdigest()
                      for k, v in found.items() if k[:2] != "__" or k == "__key__"}))
"""


def by_webdataset(folder: Path) -> list[dict[str, str]]:
    """Return the samples as the webdataset package reads them: the key, and the SHA-256 of each file by its suffix."""
    done = subprocess.run(
        [sys.executable, "-c", READ, *map(str, shards_of(folder))], check=True, capture_output=True, text=True
    )  # in a process of its own: it leaves files open
    return [json.loads(line) for line in done.stdout.splitlines()]


def hashed(members: dict[str, bytes]) -> list[dict[str, str]]:
    """Return members as `by_webdataset` does, by WebDataset's own rule for names."""
    found: dict[str, dict[str, str]] = {}
    for name, data in members.items():
        key, suffix = re.fullmatch(r"((?:.*/|)[^.]+)[.]([^/]*)", name).groups()  # type: ignore[union-attr]
        found.setdefault(key, {"__key__": key})[suffix.lower()] = hashlib.sha256(data).hexdigest()
    return list(found.values())


def ids(run: Path, kept: bool) -> list[str]:
    decisions = table(run / "decisions")
    return decisions.loc[decisions["kept"] == kept, "id"].tolist()


@pytest.fixture
def run_of(tmp_path: Path, scheduler: str, weights: Path) -> Callable[..., Path]:
    """Return a maker of finished runs over images."""

    def make(source: Path, *flags: object, name: str = "run") -> Path:
        out = tmp_path / name
        done("run", source, "--keep", 0.5, "--model", "fairdedup-small", "--pretrained", weights, "--out", out,
             "--batch-size", 4, "--clusters", 2, "--scheduler", scheduler, "--quiet", *flags)  # fmt: skip
        return out

    return make


@pytest.fixture
def export(tmp_path: Path, scheduler: str) -> Exported:
    """Return a function that exports a run and gives what was written."""

    def write(run: Path, form: str, *flags: object, what: str = "kept", name: str = "out") -> Path:
        done("export", run, "--to", form, "--what", what, "--dest", tmp_path / name, "--scheduler", scheduler,
             "--quiet", *flags)  # fmt: skip
        return tmp_path / name

    return write


# Shards of shards


def test_every_file_of_a_kept_sample_is_in_the_new_shards_byte_for_byte(shards, images_run, export):
    before = all_members(shards)
    out = export(images_run, "webdataset", "--shard-size", 7)
    kept = ids(images_run, True)
    assert all_members(out) == {name: data for name, data in before.items() if name.split(".")[0] in kept}
    read = by_webdataset(out)
    assert read == hashed(all_members(out))
    assert [found["__key__"] for found in read] == kept
    assert [len(hashed(members(path))) for path in shards_of(out)] == [7, 7, len(kept) - 14]
    assert [p.name for p in shards_of(out)] == ["shard-00000.tar", "shard-00001.tar", "shard-00002.tar"]


def test_kept_and_removed_shards_share_out_the_valid_rows(shards, images_run, export):
    kept = all_members(export(images_run, "webdataset", name="kept"))
    removed = all_members(export(images_run, "webdataset", what="removed", name="removed"))
    assert not kept.keys() & removed.keys()
    rejected = set(table(images_run / "rejected")["id"])
    assert len(rejected) == 1
    assert kept | removed == {n: d for n, d in all_members(shards).items() if n.split(".")[0] not in rejected}


def test_rows_that_take_no_part_are_neither_kept_nor_removed(shards, images_run, export, tmp_path, scheduler):
    run = shutil.copytree(images_run, tmp_path / "run")
    done("prune", run, "--keep", 0.5, "--where", "half >= 5", "--scheduler", scheduler, "--quiet")
    both = [
        line for what in ("kept", "removed") for line in export(run, "txt", what=what, name=what).read_text().split()
    ]
    assert sorted(both) == [f"{k:04d}" for k in range(10, 39) if k != 30]


def lay_folder(folder: Path) -> dict[str, bytes]:
    """Write a folder of pictures with and without texts; return what is to be in the shards, were all kept."""
    made: dict[str, bytes] = {}

    def put(path: str, data: bytes, name: str | None = None) -> None:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
        made[name or path] = data

    for k in range(12):
        put(f"cats/{k:02d}.png", picture(10 * k))
        put(f"cats/{k:02d}.txt", f"  a cat, \xe9 {k}\r\n".encode("latin-1"))  # no byte of it is mended
    put("cats/01.json", b'{"b":1,  "a": 2}')
    for k in range(12, 18):  # two pictures of one stem are two samples
        put(f"twins/{k}.png", picture(10 * k), f"twins/{k}%2Epng.png")
        put(f"twins/{k}.JPG", jpeg(10 * k + 300), f"twins/{k}%2EJPG.JPG")
        made |= {f"twins/{k}%2E{end}.json": json.dumps({"id": f"twins/{k}.{end}"}).encode() for end in ("png", "JPG")}
    put("v1.0/a.b.png", picture(500), "v1%2E0/a%2Eb%2Epng.png")
    put("v1.0/a.b.json", b"{}", "v1%2E0/a%2Eb%2Epng.json")
    made["v1%2E0/a%2Eb%2Epng.id.txt"] = b"v1.0/a.b.png"
    put("v1.0/plain.png", picture(510))
    put("50%.png", picture(520), "50%25%2Epng.png")
    made["50%25%2Epng.json"] = b'{"id": "50%.png"}'
    put("listed/x.png", picture(530))
    (folder / "listed" / "metadata.csv").write_text("file_name,text,stars\nx.png,a star,5\n")
    made |= {"listed/x.txt": b"a star", "listed/x.json": b'{"path": "listed/x.png", "stars": "5"}'}
    return made


def jpeg(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(picture(seed))).save(buffer, "JPEG")
    return buffer.getvalue()


def test_a_folder_of_images_becomes_shards_of_the_same_files(tmp_path, run_of, export):
    expected = lay_folder(tmp_path / "photos")
    run = run_of(tmp_path / "photos")
    out = {what: export(run, "webdataset", what=what, name=what) for what in ("kept", "removed")}
    both = all_members(out["kept"]) | all_members(out["removed"])
    assert both == expected
    for what, folder in out.items():
        read = by_webdataset(folder)
        assert read == hashed(all_members(folder))
        assert [keyed(found) for found in read] == [in_folder(id_) for id_ in ids(run, what == "kept")]


def keyed(found: dict[str, str]) -> str:
    return found["__key__"]


def in_folder(id_: str) -> str:
    stem, _, ending = id_.rpartition(".")
    if stem.startswith("twins/") or "." in stem.rpartition("/")[2] or "%" in stem:
        return id_.replace("%", "%25").replace(".", "%2E")
    return stem


def test_parquet_with_images_becomes_shards_with_captions_and_columns(tmp_path, run_of, export):
    pictures = [picture(10 * k) if k % 2 else jpeg(10 * k) for k in range(20)]
    columns = {
        "uid": [f"u.{k}" if k > 14 else f"u{k}" for k in range(20)],
        "image": [{"bytes": data, "path": "x.PNG" if k == 3 else None} for k, data in enumerate(pictures)],
        "text": [f" caption {k} \u00e9" if k % 3 else None for k in range(20)],
        "stars": pa.array([k / 2 if k % 4 else float("nan") for k in range(20)]),
        "tags": [[f"t{k}", None] for k in range(20)],
    }
    pq.write_table(pa.table(columns), tmp_path / "p.parquet", row_group_size=6)
    run = run_of(tmp_path / "p.parquet")
    found = [all_members(export(run, "webdataset", what=what, name=what)) for what in ("kept", "removed")]
    expected: dict[str, bytes] = {}
    for k, data in enumerate(pictures):
        key = f"u%2E{k}" if k > 14 else f"u{k}"
        expected[f"{key}.{'png' if k % 2 else 'jpg'}"] = data
        if k % 3:
            expected[f"{key}.txt"] = f"caption {k} \u00e9".encode()
        more = {"id": f"u.{k}"} if k > 14 else {}
        expected[f"{key}.json"] = {  # type: ignore[assignment]
            **more, "stars": k / 2 if k % 4 else None, "tags": [f"t{k}", None],
            "image_file": "x.PNG" if k == 3 else None,
        }  # fmt: skip
    both = found[0] | found[1]
    assert {n: json.loads(d) if n.endswith(".json") else d for n, d in both.items()} == expected
    assert [n[: -len(".json")] for n in found[0] if n.endswith(".json")] == [key_of(i) for i in ids(run, True)]


def test_parquet_with_paths_becomes_shards_of_the_files_they_name(tmp_path, run_of, export):
    (tmp_path / "in" / "img").mkdir(parents=True)
    for k in range(8):
        (tmp_path / "in" / "img" / f"{k}.PNG").write_bytes(picture(10 * k))
    pq.write_table(pa.table({"key": [f"k{k}" for k in range(8)], "image_path": [f"img/{k}.PNG" for k in range(8)]}),
                   tmp_path / "in" / "p.parquet")  # fmt: skip
    run = run_of(tmp_path / "in" / "p.parquet")
    found = all_members(export(run, "webdataset", "--shard-size", 3))
    assert {n: d for n, d in found.items() if n.endswith(".png")} == {
        f"{id_}.png": picture(10 * int(id_[1:])) for id_ in ids(run, True)
    }
    assert {json.loads(d)["image_path"] for n, d in found.items() if n.endswith(".json")} == {
        f"img/{id_[1:]}.PNG" for id_ in ids(run, True)
    }


@pytest.mark.parametrize("packed", [False, True])
def test_odd_tars_become_shards_of_the_same_files(packed, tmp_path, run_of, export):
    before: dict[str, bytes] = {"nothing": b"of a sample", ".hidden.png": b"no"}
    for k in range(10):
        before |= sample(f"./a/{k}", 10 * k) | {f"./a/{k}.seg.npy": bytes(range(k)), f"./a/{k}.CLS": b""}
    before |= {f"../../{k}.png": picture(10 * k + 200) for k in range(3)}  # leads out of where it is unpacked
    long = "x" * 300
    before |= sample(f"deep/{'e' * 170}", 400) | sample(f"y{long}", 410) | sample(long, 420)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for number, (name, data) in enumerate(before.items()):
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.uid, info.mode = len(data), number / 3, 1000, 0o600  # of each a header of pax
            archive.addfile(info, io.BytesIO(data))
    buffer.seek(0)
    with tarfile.open(fileobj=buffer) as archive:
        cut = archive.getmember(f"{long}.json").offset_data + 3  # costs the last sample this file, not its picture
    data = buffer.getvalue()[:cut]
    path = tmp_path / ("t.tar.gz" if packed else "t.tar")
    path.write_bytes(gzip.compress(data) if packed else data)
    run = run_of(path, "--max-rejected", 0.5)
    assert "cut off" in table(run / "rejected")["reason"][0] or "unexpected end" in table(run / "rejected")["reason"][0]

    keys = {id_: f"%sha256-{hashlib.sha256(id_.encode()).hexdigest()}" for id_ in (long, f"y{long}")}
    keys |= {f"../../{k}": f"%2E%2E/%2E%2E/{k}" for k in range(3)}
    expected: dict[str, bytes] = {}
    for name, data in before.items():
        id_, _, suffix = name.rpartition(".") if not name.endswith(".seg.npy") else name.partition(".seg")
        suffix = "seg.npy" if name.endswith(".seg.npy") else suffix
        if name not in ("nothing", ".hidden.png", f"{long}.json"):
            expected[f"{keys.get(id_, id_)}.{suffix}"] = data
    expected |= {f"{keys[id_]}.json": json.dumps({"id": id_}).encode() for id_ in keys if id_ != f"y{long}"}
    expected[f"{keys['y' + long]}.id.txt"] = f"y{long}".encode()
    found = {what: export(run, "webdataset", what=what, name=what) for what in ("kept", "removed")}
    assert all_members(found["kept"]) | all_members(found["removed"]) == expected
    for what, folder in found.items():
        read = by_webdataset(folder)
        assert read == hashed(all_members(folder))
        assert [found["__key__"] for found in read] == [keys.get(id_, id_) for id_ in ids(run, what == "kept")]


def test_keys_of_two_shards_are_told_apart_by_the_shard(tmp_path, run_of, export):
    for shard in ("a.v1", "b"):
        write_tar(tmp_path / "in" / f"{shard}.tar", {n: d for k in range(6) for n, d in sample(f"{k}", 10 * k).items()})
    run = run_of(tmp_path / "in", "--id", "shard/key")
    found = by_webdataset(export(run, "webdataset", "--shard-size", 4))
    assert [keyed(one) for one in found] == ids(run, True)
    assert {keyed(one).split("/")[0] for one in found} <= {"a.v1", "b"}


# Keys and headers


@given(st.lists(st.text(max_size=12) | st.text("a./%2E\\\n", max_size=12), unique=True, min_size=1))
@example(["a.b", "a%2Eb", "a%2eb", "a%252Eb", "", "/", "//", "..", ".", "a/..", "x" * 200, "x" * 201, "x/" * 40])
def test_no_two_ids_have_one_key_and_webdataset_reads_it_back(names):
    names = [name for name in names if name.isprintable() or name.isascii()]
    keys = [key_of(name) for name in names]
    assert len(set(keys)) == len(names)
    for name, key in zip(names, keys, strict=True):
        found = re.match(r"^((?:.*/|)[^.]+)[.]([^/]*)$", f"{key}.jpg")
        assert found is not None and found.groups() == (key, "jpg")
        assert not key.startswith("/") and ".." not in key.split("/") and "\\" not in key
        assert all(0 < len(part.encode()) <= 180 for part in key.split("/"))
        assert key.startswith("%sha256-") or unquote(key) == name
        if re.fullmatch(r"[\w-]{1,40}(/[\w-]{1,40}){0,3}", name):
            assert key == name


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=120),
       st.integers(0, 2**36))  # fmt: skip
@example("a" * 100, 0)
@example("a" * 101, 8**11 - 1)
@example("\u00e9" * 50, 8**11)
@example("\u00e9" * 51, 1)
def test_a_header_is_the_one_that_tarfile_makes(name, size):
    info = tarfile.TarInfo(name)
    info.size = size
    assert header(name, size) == info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def test_a_shard_is_the_file_that_tarfile_makes(tmp_path):
    parts = {"a.txt": b"", "b.jpg": b"x" * 511, "c.jpg": b"y" * 512, f"{'d' * 150}.bin": bytes(range(256)) * 40_000}
    (tmp_path / "source").write_bytes(b"..." + b"".join(parts.values()))
    with tarfile.open(tmp_path / "theirs.tar", "w", format=tarfile.GNU_FORMAT) as archive:
        for name, data in [*parts.items(), *((f"again-{n}", d) for n, d in parts.items())]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    with ShardWriter(tmp_path / "ours.tar") as shard:
        for name, data in parts.items():
            shard.add(name, data)
        at = 3
        for name, data in parts.items():
            shard.copy(f"again-{name}", str(tmp_path / "source"), at, len(data))
            at += len(data)
        sealed = shard.seal()
    assert (tmp_path / "ours.tar").read_bytes() == (tmp_path / "theirs.tar").read_bytes()
    assert sealed == seal(tmp_path / "ours.tar") and shard.members == 8


@pytest.mark.parametrize("kind", ["jpg", "png", "gif", "webp", "bmp", "tif", "avif"])
def test_the_kind_of_an_image_is_told_by_its_bytes(kind):
    buffer = io.BytesIO()
    Image.open(io.BytesIO(picture(0))).save(buffer, {"jpg": "JPEG", "tif": "TIFF"}.get(kind, kind))
    assert image_kind(buffer.getvalue()) == kind
    assert image_kind(b"no image") == "img"


@given(st.data())
def test_a_tar_read_in_places_is_the_tar_read_from_end_to_end(data):
    buffer = io.BytesIO()
    form = data.draw(st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT]))
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for k in range(data.draw(st.integers(0, 5))):
            info = tarfile.TarInfo(
                f"{k}" * data.draw(st.sampled_from([1, 97, 98])) + data.draw(st.sampled_from(["", "/", ".a"]))
            )
            info.size = data.draw(st.sampled_from([0, 1, 511, 512, 513]))
            info.type = data.draw(
                st.sampled_from([tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE])
            )
            info.mtime = data.draw(st.sampled_from([0, 0.5]))
            if form == tarfile.USTAR_FORMAT:
                info.mtime = 0
            archive.addfile(info, io.BytesIO(bytes([k]) * info.size) if info.isreg() else None)
    whole = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(0, 2))):
        whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    tar = bytes(whole[: data.draw(st.sampled_from([len(whole), data.draw(st.integers(0, len(whole)))]))])

    def by_place() -> Iterator[tuple[str, bytes | None]]:
        for name, place in ranges(io.BytesIO(tar), len(tar), lambda _: True):
            yield name, None if place is None else tar[place[0] : sum(place)]

    def all_of(found: Iterator[tuple[str, bytes | None]]) -> tuple[list[tuple[str, bytes]], bool]:
        read = []
        try:
            for name, own in found:
                if own is not None:
                    read.append((name, own))
        except DamagedTar:
            return read, True
        return read, False

    (one, _), (other, damaged) = all_of(by_place()), all_of(members_of_tar(io.BytesIO(tar), lambda _: 1 << 40))
    assert one == other or (damaged and not is_plain_tar(io.BytesIO(tar)))


# Stopped, asked again, asked otherwise


def test_an_export_that_was_killed_ends_with_the_same_bytes(images_run, export, tmp_path):
    expected = contents(export(images_run, "webdataset", "--shard-size", 1, name="undisturbed"))
    out = tmp_path / "killed"
    asked = ("export", images_run, "--to", "webdataset", "--shard-size", 1, "--dest", out, "--workers", 2)
    for _ in range(10):  # the export is quick, and may end before it is killed
        process = started(tmp_path, *asked)
        while process.poll() is None and len(shards_of(out)) < 2:
            time.sleep(0.001)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        _, err = process.communicate()
        assert len(shards_of(out)) >= 2, err
        if not (out / "manifest.json").exists():
            break
        shutil.rmtree(out)
    assert not (out / "manifest.json").exists(), "it was killed too late to show anything"
    (out / ".shard-00000.tar.0123.tmp").write_bytes(b"half")  # as a killed worker may leave it
    finished, cut = (shard.name for shard in shards_of(out)[:2])  # which they are is up to the two workers
    (out / cut).write_bytes(b"cut")
    before = files(out)
    again = started(tmp_path, *asked)
    _, err = again.communicate()
    assert again.returncode == 0, err
    assert contents(out) == expected
    assert files(out)[finished] == before[finished], "a finished shard was written again"


def test_the_same_export_again_writes_no_shard_again(images_run, export):
    out = export(images_run, "webdataset")
    before = {name: known for name, known in files(out).items() if name.endswith(".tar")}
    export(images_run, "webdataset")
    assert {name: known for name, known in files(out).items() if name.endswith(".tar")} == before


def test_the_manifest_counts_and_seals_every_shard(images_run, export):
    out = export(images_run, "webdataset", "--shard-size", 8)
    told = json.loads((out / "manifest.json").read_text())
    assert told["samples"] == manifest(images_run)["counts"]["kept"] == sum(one["samples"] for one in told["shards"])
    assert [(one["name"], one["seal"]) for one in told["shards"]] == [(p.name, seal(p)) for p in shards_of(out)]
    assert [one["members"] for one in told["shards"]] == [len(members(p)) for p in shards_of(out)]


def test_shards_of_a_size_have_no_more_bytes_than_that(images_run, export):
    whole = export(images_run, "webdataset", name="whole")
    sizes = [3 * 512 + sum(-(-len(whole_of[f"{i}.{s}"]) // 512) * 512 for s in ("png", "txt", "json"))
             for whole_of in [all_members(whole)] for i in ids(images_run, True)]  # fmt: skip
    most = 21_000
    out = export(images_run, "webdataset", "--shard-bytes", "21kB", name="cut")
    assert list(all_members(out).items()) == list(all_members(whole).items())
    filled, expected = 0, [0]
    for size in sizes:
        if filled and filled + size > most // 10240 * 10240 - 1024:  # what ends a tar
            filled = 0
            expected.append(0)
        filled += size
        expected[-1] += 1
    assert [len(hashed(members(path))) for path in shards_of(out)] == expected and len(expected) > 2
    assert max(path.stat().st_size for path in shards_of(out)) <= most


MISTAKES: dict[str, tuple[str, tuple[str, ...]]] = {
    "no form": ("export $IMAGES", ("Missing option '--to'",)),
    "a form of nobody": ("export $IMAGES --to zip", ("'--to'", "'zip' is not one of 'webdataset', 'uids', 'txt'")),
    "no run": ("export nowhere --to txt", ("nowhere holds no finished run", "fairdedup prune")),
    "an unfinished run": ("export $STOPPED --to txt", ("holds no finished run",)),
    "a damaged run": ("export $DAMAGED --to txt", ("part-00000.parquet is missing or damaged", "fairdedup prune")),
    "images of embeddings": ("export $RUN --to webdataset", ("has no images to write", "--to txt")),
    "uids that are none": ("export $RUN --to uids --dest x.npy", ("is not of 32 hex digits", "id 'k", "--to txt")),
    "a URL": ("export $IMAGES --to webdataset --dest s3://bucket/kept", ("'s3://bucket/kept' is a URL", "local path")),
    "into the run": ("export $IMAGES --to webdataset --dest $IMAGES/out", ("lies in the run directory",)),
    "into the input": ("export $IMAGES --to webdataset --dest $SHARDS/out", ("lies in the input",)),
    "into other files": ("export $IMAGES --to webdataset --dest full", ("'full' holds other files ('a')",)),
    "into a file": ("export $IMAGES --to webdataset --dest full/a", ("'full/a' is a file", "choose a folder")),
    "below a file": ("export $IMAGES --to webdataset --dest full/a/b", ("lies below a file",)),
    "ids into a folder": ("export $IMAGES --to txt --dest full", ("'full' is a folder", "--dest kept.txt")),
    "over another file": ("export $IMAGES --to txt --dest full/a", ("'full/a' already exists and is another file",)),
    "no samples in a shard": ("export $IMAGES --to webdataset --shard-size 0", ("'--shard-size'", "x>=1")),
    "a size of a text": ("export $IMAGES --to txt --shard-size 5", ("--shard-size is for --to webdataset", "leave it")),
    "no size": ("export $IMAGES --to webdataset --shard-bytes big", ("--shard-bytes 'big' is no amount", "1GB")),
    "size and samples": ("export $IMAGES --to webdataset --shard-bytes 1GB --shard-size 5", ("exclude each other",)),
    "an input that has gone": ("export $IMAGES --to webdataset --input gone/", ("'gone/'", "with --input")),
    "another input": ("export $IMAGES --to webdataset --input other", ("'other' is not the input that", "cp -a")),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line_and_writes_nothing(case, images_run, finished, shards, tmp_path, scheduler, monkeypatch):
    words, fragments = MISTAKES[case]
    here = tmp_path / "here"
    (here / "full").mkdir(parents=True)
    (here / "full" / "a").write_text("mine")
    write_tar(here / "other" / "data-00000.tar", sample("0000", 0))
    if "$STOPPED" in words or "$DAMAGED" in words:
        shutil.copytree(finished, here / "run")
        part = here / "run" / ("run.json" if "$STOPPED" in words else "decisions/part-00000.parquet")
        part.write_bytes(part.read_bytes()[:-9])
    places = {
        "$IMAGES": images_run,
        "$RUN": finished,
        "$SHARDS": shards,
        "$STOPPED": here / "run",
        "$DAMAGED": here / "run",
    }
    for name, place in places.items():
        words = words.replace(name, str(place))
    monkeypatch.chdir(here)
    before = [files(folder) for folder in (here, images_run, finished, shards)]
    shown = command(*words.split(), "--quiet", *(() if "Missing" in fragments[0] else ("--scheduler", scheduler)))
    assert shown.code == 2, shown
    assert shown.err.startswith("fairdedup: error: ") and shown.err.count("\n") == 1 and shown.out == ""
    for fragment in fragments:
        assert fragment in shown.err, shown.err
    assert [files(folder) for folder in (here, images_run, finished, shards)] == before


def test_another_export_into_the_same_folder_is_refused(images_run, export, scheduler):
    out = export(images_run, "webdataset")
    before = files(out)
    for flags in (("--shard-size", 3), ("--what", "removed")):
        shown = command("export", images_run, "--to", "webdataset", "--dest", out, *flags, "--scheduler", scheduler)
        assert shown.code == 2 and "holds another export" in shown.err
    assert files(out) == before


def test_an_input_that_has_moved_is_named_and_one_that_has_changed_is_refused(
    shards, images_run, export, tmp_path, scheduler
):
    moved = tmp_path / "moved"
    shutil.copytree(shards, moved)  # with the times of the files
    here = export(images_run, "webdataset")
    assert contents(export(images_run, "webdataset", "--input", moved, name="from there")) == contents(here)
    os.utime(moved / "data-00001.tar", (0, 0))
    shown = command("export", images_run, "--to", "webdataset", "--input", moved, "--dest", tmp_path / "new",
                    "--scheduler", scheduler, "--quiet")  # fmt: skip
    assert shown.code == 2 and "('data-00001.tar' has changed)" in shown.err
    assert not (tmp_path / "new").exists()


def test_a_sample_that_is_another_one_now_is_named(shards, images_run, tmp_path, scheduler):
    """Names, sizes and times are those of before, and the keys are not."""
    moved = tmp_path / "moved"
    shutil.copytree(shards, moved)
    tar = moved / "data-00000.tar"
    stat = tar.stat()
    kept = next(i for i in ids(images_run, True) if int(i) < 13)
    with tarfile.open(tar) as archive:
        renamed = {f"9{n[1:]}" if n.startswith(kept) else n: archive.extractfile(n).read() for n in archive.getnames()}  # type: ignore[union-attr]
    write_tar(tar, renamed)
    os.utime(tar, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert tar.stat().st_size == stat.st_size
    shown = command("export", images_run, "--to", "webdataset", "--input", moved, "--dest", tmp_path / "new",
                    "--scheduler", scheduler, "--quiet")  # fmt: skip
    assert shown.code == 2 and f"is '9{kept[1:]}', and was '{kept}'" in shown.err
    assert not (tmp_path / "new" / "manifest.json").exists() and not list((tmp_path / "new").glob("**/*.tmp"))


# Files of IDs


@pytest.fixture(scope="module")
def uids(tmp_path_factory: pytest.TempPathFactory, scheduler: str) -> Path:
    """Return a finished run whose ids are DataComp's."""
    folder = tmp_path_factory.mktemp("uids")
    np.save(folder / "x.npy", raw_vectors())
    names = [hashlib.md5(str(k).encode()).hexdigest() for k in range(240)]
    names[3], names[4] = "0" * 32, "F" * 32
    (folder / "x.ids.txt").write_text("\n".join(names) + "\n")
    done("run", folder / "x.npy", "--keep", 0.5, "--rule", "semdedup", "--clusters", CLUSTERS, "--out", folder / "run",
         "--scheduler", scheduler, "--quiet")  # fmt: skip
    return folder / "run"


@pytest.mark.parametrize("what", ["kept", "removed"])
def test_uids_are_the_sorted_pairs_that_datacomp_reads(what, uids, export):
    found = np.load(export(uids, "uids", what=what, name="u.npy"))
    wanted = [(int(uid[:16], 16), int(uid[16:32], 16)) for uid in ids(uids, what == "kept")]
    expected = np.sort(np.array(wanted, np.dtype("u8,u8")))
    assert found.dtype == expected.dtype == np.dtype("u8,u8") and len(found) > 100
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("what", "gone"), [("removed", False), ("kept", True)])
def test_uids_of_nobody_are_an_empty_array(what, gone, uids, export, scheduler, tmp_path):
    run = shutil.copytree(uids, tmp_path / "run")
    done("prune", run, "--keep", 1, "--rule", "semdedup", "--scheduler", scheduler, "--quiet")
    if gone:
        (tmp_path / "gone.txt").write_text("".join(f"{uid}\n" for uid in ids(run, True)))
        done("replace", run, "--gone", tmp_path / "gone.txt", "--scheduler", scheduler, "--quiet")
    found = np.load(export(run, "uids", what=what, name="u.npy"))
    assert found.dtype == np.dtype("u8,u8") and found.shape == (0,)
    assert export(run, "txt", what=what, name="u.txt").read_bytes() == b""


def test_the_first_id_that_is_no_uid_is_named(finished, export, scheduler, tmp_path):
    first = ids(finished, True)[0]
    shown = command("export", finished, "--to", "uids", "--dest", tmp_path / "u.npy", "--scheduler", scheduler)
    assert shown.code == 2 and f"id {first!r} is not of 32 hex digits" in shown.err
    assert os.listdir(tmp_path) == []


def test_removed_ids_as_text_are_what_another_prune_can_drop(again, export, scheduler, prototypes):
    removed, kept = ids(again, False), ids(again, True)
    file = export(again, "txt", what="removed", name="removed.txt")
    assert file.read_text(encoding="utf-8") == "".join(f"{i}\n" for i in removed)
    assert export(again, "txt", name="kept.txt").read_text().splitlines() == kept
    done("prune", again, "--keep", 1, "--rule", "semdedup", "--drop", file, "--scheduler", scheduler, "--quiet")
    assert manifest(again)["warnings"] == [] and manifest(again)["counts"]["excluded"] == len(removed)
    assert ids(again, True) == kept


def test_ids_that_no_line_holds_are_refused_and_all_others_read_back(tmp_path, scheduler, export):
    odd = ["a b ", " \u00e9", "x\x0by\x85z\u2028", "\x1b[31m", "'\"", "tab\t", "a\ufeff", "%"]
    x = raw_vectors(40)
    pq.write_table(pa.table({"id": odd + [f"{k}" for k in range(32)], "embedding": list(x)}), tmp_path / "x.parquet")
    asked = ("--keep", 1, "--rule", "semdedup", "--scheduler", scheduler, "--quiet")
    done("run", tmp_path / "x.parquet", *asked, "--out", tmp_path / "run")
    file = export(tmp_path / "run", "txt", name="kept.txt")
    from fairdedup.datasets.ids import read_ids

    assert read_ids(file, "--drop").to_pylist() == ids(tmp_path / "run", True)
    for bad in ("a\nb", "a\rb", "\ufeffa"):
        table_ = pa.table({"id": [bad, *(f"{k}" for k in range(39))], "embedding": list(x)})
        pq.write_table(table_, tmp_path / "bad.parquet")
        done("run", tmp_path / "bad.parquet", *asked, "--out", tmp_path / "bad", "--restart")
        shown = command("export", tmp_path / "bad", "--to", "txt", "--dest", tmp_path / "bad.txt", "--quiet")
        assert shown.code == 2 and "cannot be a line of a text file" in shown.err and shown.err.count("\n") == 1
        assert not (tmp_path / "bad.txt").exists()


def test_without_a_place_it_is_written_beside_the_run(again, scheduler):
    shown = done("export", again, "--to", "txt")
    place = again.with_name("run-kept.txt")
    assert f"kept samples: {len(ids(again, True))}, in {place}" in shown.out
    before = files(place.parent)
    done("export", again, "--to", "txt")
    assert place.read_text().splitlines() == ids(again, True) and files(place.parent) == before
    logged = command("export", again, "--to", "txt", "--log-json")
    event = json.loads(logged.err.splitlines()[-1])
    assert (event["event"], event["samples"], event["path"]) == ("finished", len(ids(again, True)), str(place))


# Read by others

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str) -> list[str]:
    """Return the Python blocks of a page of the documentation."""
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)


def test_kept_loads_as_a_hugging_face_dataset(finished, tmp_path):
    (tmp_path / "fairdedup-run").symlink_to(finished)
    (code,) = blocks("export.md")
    code += "\nimport json; print(json.dumps([kept.column_names, list(kept['id']), list(kept['width'])]))"
    away = {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    read = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | away, capture_output=True, text=True
    )
    assert read.returncode == 0, read.stderr
    kept = table(finished / "kept")
    assert json.loads(read.stdout) == [list(kept), kept["id"].tolist(), kept["width"].tolist()]


def test_every_question_of_the_documentation_has_the_answer_that_loops_find(images_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("fairdedup-run").symlink_to(images_run)
    rows = table(images_run / "decisions").to_dict("records")
    by_row = {r["row"]: r for r in rows}
    gone = next(r for r in rows if not r["kept"])
    known: dict[str, Any] = {}
    code = blocks("questions.md")
    assert len(code) == len(set(re.findall(r"^(\w+) = ", block, re.M)[-1] for block in code)) == 8
    exec(code[0].replace("'0001'", f"'{gone['id']}'"), known)
    representative = by_row[gone["representative"]]
    assert known["who"].values.tolist() == [[gone["id"], representative["id"], gone["similarity"]]]
    exec(code[1].replace('"0001"', f"{representative['id']!r}"), known)
    assert gone["id"] in known["stands_for"]["id"].tolist()
    assert known["stands_for"]["id"].tolist() == [
        r["id"] for r in rows if r["representative"] == representative["row"] != r["row"]
    ]
    limit = max(r["similarity"] for r in rows if not r["kept"])
    for block in code[2:]:
        exec(block.replace("similarity < 0.95", f"similarity < {limit!r}::DOUBLE"), known)

    sizes = Counter((r["cluster"], r["neighbourhood"]) for r in rows)
    largest = known["largest"]
    assert largest["samples"].tolist() == sorted(sizes.values(), reverse=True)[:20] and largest["samples"][0] > 1
    for line in largest.to_dict("records"):
        own = [r for r in rows if (r["cluster"], r["neighbourhood"]) == (line["cluster"], line["neighbourhood"])]
        assert line["samples"] == len(own) and line["kept"] == sum(r["kept"] for r in own)
        assert line["one_of_them"] in [r["id"] for r in own if r["kept"]]

    doubtful = sorted((r["similarity"], r["row"], r["id"]) for r in rows if not r["kept"] and r["similarity"] < limit)
    assert known["doubtful"]["id"].tolist() == [name for _, _, name in doubtful] and doubtful

    for cluster, line in known["clusters"].iterrows():
        own = [r["kept"] for r in rows if r["cluster"] == cluster]
        assert (line["samples"], line["kept"], line["share"]) == (len(own), sum(own), sum(own) / len(own))
    assert len(known["clusters"]) == len({r["cluster"] for r in rows})

    stands_for = Counter(by_row[r["representative"]]["id"] for r in rows if not r["kept"])
    assert (
        known["popular"].values.tolist()
        == [
            [name, f"caption of {name}", count]
            for name, count in sorted(stands_for.items(), key=lambda x: (-x[1], x[0]))
        ][:20]
    )

    assert set(known["readmitted"]["id"]) == {r["id"] for r in rows if r["readmitted"]}
    assert known["reasons"].values.tolist() == [["truncated PNG image", 1, "data-00002.tar/0030.png"]]
