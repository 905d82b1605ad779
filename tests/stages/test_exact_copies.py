"""Exact copies of image files share one forward pass, within and across shards; a resumed run has the same bytes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import xxhash
from runs import command, contents, done, manifest, picture, table, write_tar

from fairdedup.stages.exact_copies import find_copies
from fairdedup.storage.layout import RunDirectory
from fairdedup.storage.made_of import mark_up_to_date
from fairdedup.storage.run_files import write_array

# shard -> seeds of its pictures; equal seeds give equal files. -1 cannot be decoded.
PICTURES = [[0, 10, 20, 10, -1], [30, 0, 40, 0, -1], [40, 50, 20, 60, 50]]


def bytes_of(seed: int) -> bytes:
    return picture(seed) if seed >= 0 else b"no picture at all"


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copied")
    for number, seeds in enumerate(PICTURES):
        write_tar(folder / f"{number}.tar", {f"{number}{k}.png": bytes_of(s) for k, s in enumerate(seeds)})
    return folder


@pytest.fixture(scope="module")
def run(copied: Path, weights: Path, scheduler: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return a run over the pictures, and what it printed."""
    out = tmp_path_factory.mktemp("run") / "run"
    ended = done(*asked(copied, weights, scheduler), "--out", out)
    return out, ended.err


def asked(copied: Path, weights: Path, scheduler: str) -> tuple[object, ...]:
    return ("run", copied, "--eps", 0.01, "--model", "fairdedup-small", "--pretrained", weights, "--rule", "semdedup",
            "--max-rejected", 0.2, "--batch-size", 2, "--scheduler", scheduler)  # fmt: skip


def test_the_saving_is_reported(run):
    # 10 and 50 occur twice in a shard, 0 twice more in another, 20 and 40 once more, and one of the broken files.
    told = re.search(r"^(\d+) exact copies; each is embedded once\.$", run[1], re.M)
    assert told and int(told[1]) == 7


def test_copies_have_one_vector_and_other_pictures_others(run):
    vectors = np.concatenate([np.load(run[0] / f"embeddings/img_emb/img_emb_{k}.npy") for k in range(3)])
    seeds = [s for own in PICTURES for s in own if s >= 0]
    assert len(vectors) == len(seeds)
    same = (vectors[:, None] == vectors[None]).all(axis=2)
    assert np.array_equal(same, np.equal.outer(seeds, seeds))


def test_every_copy_of_a_broken_file_is_rejected_with_its_reason(run):
    rejected = table(run[0] / "rejected")
    assert rejected["id"].tolist() == ["04", "14"] and rejected["reason"].nunique() == 1
    counts = manifest(run[0])["counts"]
    assert counts["kept"] + counts["removed"] + counts["rejected"] == counts["input"] == 15
    assert counts["kept"] == 7


@pytest.mark.parametrize("lost", [(0,), (1,), (2,), (0, 2)])
def test_a_shard_that_is_made_again_has_the_same_bytes(lost, run, copied, weights, scheduler, tmp_path):
    import shutil

    again = Path(shutil.copytree(run[0], tmp_path / "again"))
    (again / "run.json").unlink()
    for number in lost:
        (again / "embeddings" / "img_emb" / f"img_emb_{number}.npy").write_bytes(b"")
    done(*asked(copied, weights, scheduler), "--out", again)
    for folder in ("embeddings/img_emb", "embeddings/metadata", "kept", "decisions"):
        assert contents(again / folder) == contents(run[0] / folder)
    assert not list((again / "embeddings" / "copies").glob("lent_*"))


def test_no_copies_no_line(weights, scheduler, tmp_path):
    write_tar(tmp_path / "x.tar", {f"{k}.png": picture(10 * k) for k in range(4)})
    ended = command(*asked(tmp_path / "x.tar", weights, scheduler), "--out", tmp_path / "run")
    assert ended.code == 0 and "copies of others" not in ended.err


@pytest.mark.parametrize("seed", range(30))
def test_shared_vectors_are_those_that_loops_find(seed, tmp_path):
    rng = np.random.default_rng(seed)
    files = [rng.integers(-1, rng.integers(2, 12), rng.integers(0, 9)).tolist() for _ in range(rng.integers(1, 6))]
    run = RunDirectory(tmp_path)
    for number, own in enumerate(files):
        digests = b"".join(xxhash.xxh3_128_digest(str(f).encode()) if f >= 0 else bytes(16) for f in own)
        write_array(run.image_hashes(number), np.frombuffer(digests, np.uint64).reshape(-1, 2))
        mark_up_to_date(run.image_hashes(number), "a test")
    found, saved = find_copies(run, len(files))
    first: dict[int, tuple[int, int]] = {}
    borrowers: dict[int, set[int]] = {}
    for number, own in enumerate(files):
        for position, file in enumerate(own):
            if file >= 0:
                first.setdefault(file, (number, position))
                borrowers.setdefault(file, set()).add(number)
    assert saved == sum(len([f for f in own if f >= 0]) for own in files) - len(first)
    for number, own in enumerate(files):
        shares = found[number]
        assert shares.shared == tuple(
            p for f, (n, p) in sorted(first.items(), key=lambda item: item[1]) if n == number and len(borrowers[f]) > 1
        )
        for position, file in enumerate(own):
            home, origin = first.get(file, (number, position))
            if file >= 0 and len(borrowers[file]) > 1:
                assert shares.elsewhere[position] == (home, found[home].shared.index(origin))
                assert position not in shares.here
            elif origin != position:
                assert shares.here[position] == origin and position not in shares.elsewhere
            else:
                assert position not in shares.here and position not in shares.elsewhere
