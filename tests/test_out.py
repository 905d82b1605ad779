"""What a finished run hands over: shards of its samples, byte for byte, and files of IDs; read back by who reads them."""

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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from runs import CLUSTERS, command, contents, done, files, manifest, picture, raw_vectors, sample, started, table, write_tar

from fairdedup.datasets.originals import image_kind, key_of
from fairdedup.datasets.tar import DamagedTar, is_plain_tar, ranges
from fairdedup.datasets.tar import members as members_of_tar
from fairdedup.storage.files import seal
from fairdedup.storage.shards import ShardWriter, header

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
        done("run", source, "--keep", 0.5, "--model", "fairdedup-small", "--pretrained", weights, "--out",
             tmp_path / name, "--batch-size", 4, "--clusters", 2, "--scheduler", scheduler, "--quiet", *flags)  # fmt: skip
        return tmp_path / name

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
    assert by_webdataset(out) == hashed(all_members(out))
    assert [found["__key__"] for found in by_webdataset(out)] == kept
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
    both = [line for what in ("kept", "removed") for line in export(run, "txt", what=what, name=what).read_text().split()]
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
    if stem.startswith("twins/") or "." in stem or "%" in stem:
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
        assert by_webdataset(folder) == hashed(all_members(folder))
        assert [found["__key__"] for found in by_webdataset(folder)] == [
            keys.get(id_, id_) for id_ in ids(run, what == "kept")
        ]


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
            info = tarfile.TarInfo(f"{k}" * data.draw(st.sampled_from([1, 97, 98])) + data.draw(st.sampled_from(["", "/", ".a"])))
            info.size = data.draw(st.sampled_from([0, 1, 511, 512, 513]))
            info.type = data.draw(st.sampled_from([tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE]))
            info.mtime = data.draw(st.sampled_from([0, 0.5]))
            if form == tarfile.USTAR_FORMAT: info.mtime = 0
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
