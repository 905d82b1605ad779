"""Exported shards have the files of the kept samples byte for byte, for every input format."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from exports import all_members, by_webdataset, hashed, ids, members, shards_of
from PIL import Image
from runs import (
    done,
    picture,
    sample,
    table,
    write_tar,
)

from fairdedup.datasets.keys import make_key


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
    """Write a folder of pictures with and without texts; return the shards' expected content if all are kept."""
    made: dict[str, bytes] = {}

    def put(path: str, data: bytes, name: str | None = None) -> None:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
        made[name or path] = data

    for k in range(12):
        put(f"cats/{k:02d}.png", picture(10 * k))
        put(f"cats/{k:02d}.txt", f"  a cat, \xe9 {k}\r\n".encode("latin-1"))  # its bytes must stay as they are
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
    made |= {"listed/x.txt": b"a star", "listed/x.json": b'{"path": "listed/x.png", "stars": 5}'}
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
    assert [n[: -len(".json")] for n in found[0] if n.endswith(".json")] == [make_key(i) for i in ids(run, True)]


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
    run = run_of(path, "--max-rejected", 0.5, "--skip-damaged")
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


def test_keys_of_two_shards_differ_by_the_shard(tmp_path, run_of, export):
    for shard in ("a.v1", "b"):
        write_tar(tmp_path / "in" / f"{shard}.tar", {n: d for k in range(6) for n, d in sample(f"{k}", 10 * k).items()})
    run = run_of(tmp_path / "in", "--id", "shard/key")
    found = by_webdataset(export(run, "webdataset", "--shard-size", 4))
    assert [keyed(one) for one in found] == ids(run, True)
    assert {keyed(one).split("/")[0] for one in found} <= {"a.v1", "b"}


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
