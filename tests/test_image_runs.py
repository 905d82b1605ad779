"""Whole runs over images: shards, folders, captions, encoders, ids and rejected rows."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import oracles
import pandas as pd
import pytest
from runs import (
    PRODUCT,
    Decided,
    command,
    contents,
    done,
    files,
    manifest,
    picture,
    raw_vectors,
    sample,
    table,
    write_tar,
)
from slow_twin import assert_same, units

SHARED = Path(__file__).parents[2] / "shared"


# Images


def test_keys_captions_and_columns_of_tars_survive(images_run):
    kept, decisions = table(images_run / "kept"), table(images_run / "decisions")
    assert kept["id"].tolist() == decisions.loc[decisions["kept"], "id"].tolist()
    assert set(kept.columns) == {
        *("id", "caption", "seed", "url", "half", "licence"),
        *("width", "height", "format", "bytes", "stands_for"),
    }
    assert 0 < len(kept) == manifest(images_run)["counts"]["kept"] == 19
    for line in kept.itertuples():
        k = int(line.id)
        assert (line.caption, line.seed, line.url, line.half) == (f"caption of {k:04d}", 3 * k, f"u/{k}", k / 2)
        assert line.licence == "CC0" if 13 <= k < 26 else pd.isna(line.licence)


def test_a_bad_image_is_rejected_with_its_reason_and_its_place(images_run):
    rejected = table(images_run / "rejected")
    assert rejected[["row", "id", "source"]].values.tolist() == [[30, "0030", "data-00002.tar/0030.png"]]
    assert rejected["reason"].tolist() == ["truncated PNG image"]
    assert manifest(images_run)["counts"] | {"readmitted": 0} == {
        "input": 39, "valid": 38, "kept": 19, "removed": 19, "rejected": 1, "readmitted": 0, "excluded": 0
    }  # fmt: skip
    assert manifest(images_run)["stages"]["embed"]["rows"] == 39
    assert 30 not in table(images_run / "decisions")["row"].tolist()


@pytest.mark.parametrize("pattern", ["data-{00000..00002}.tar", "data-*.tar"])
def test_braces_and_globs_name_the_same_shards(pattern, images_run, shards, weights, tmp_path, scheduler):
    done("run", shards / pattern, "--keep", 0.5, "--model", "fairdedup-small", "--pretrained", weights,
         "--batch-size", 4, "--out", tmp_path / "run", "--scheduler", scheduler, "--quiet")  # fmt: skip
    for folder in (*PRODUCT, "embeddings/img_emb"):
        assert contents(tmp_path / "run" / folder) == contents(images_run / folder)


def test_a_folder_of_images_with_captions(tmp_path, weights, scheduler):
    names = ["a/one.png", "a/two.png", "b.png", "\x1b[31mred\nname.png"]
    for k, name in enumerate(names):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(picture(10 * k))
    (tmp_path / "in" / "a" / "one.txt").write_text("first\n")
    (tmp_path / "in" / "broken\x1b]0;title\x07.png").write_bytes(b"no picture")
    shown = done("run", tmp_path / "in", "--keep", 1, "--rule", "semdedup", "--model", "fairdedup-small",
                 "--pretrained", weights, "--batch-size", 4, "--max-rejected", 0.2, "--out", tmp_path / "run",
                 "--scheduler", scheduler)  # fmt: skip
    kept = table(tmp_path / "run" / "kept")
    assert sorted(kept["id"]) == sorted(kept["path"]) == sorted(names)
    assert kept.set_index("id")["caption"].dropna().to_dict() == {"a/one.png": "first"}
    assert table(tmp_path / "run" / "rejected")["id"].tolist() == ["broken\x1b]0;title\x07.png"]
    assert "\x1b" not in shown.out + shown.err and "\x07" not in shown.out + shown.err


def test_captions_are_embedded_once_whatever_their_names(images_run, tmp_path, scheduler):
    shutil.copytree(images_run, tmp_path / "run")
    file = tmp_path / "mine.yaml"
    file.write_text(
        'attributes: {"race/ethnicity": {concepts: {"Hispanic/Latino": [red], other: [blue]}, absent: [none]}}'
    )
    asked = ("prune", tmp_path / "run", "--keep", 0.5, "--prototypes", file, "--scheduler", scheduler, "--quiet")
    done(*asked)
    first, vectors = contents(tmp_path / "run" / "kept"), files(tmp_path / "run")["prototypes.parquet"]
    shares = manifest(tmp_path / "run")["shares"]
    assert [(s["attribute"], s["group"]) for s in shares] == [
        ("race/ethnicity", "Hispanic/Latino"), ("race/ethnicity", "other")
    ]  # fmt: skip
    done(*asked)
    assert contents(tmp_path / "run" / "kept") == first and manifest(tmp_path / "run")["shares"] == shares
    assert files(tmp_path / "run")["prototypes.parquet"] == vectors
    file.write_text(file.read_text().replace("red", "green"))
    done(*asked)
    assert files(tmp_path / "run")["prototypes.parquet"][0] != vectors[0]


def test_ready_embeddings_of_a_named_model_use_its_text_tower(images_run, weights, tmp_path, scheduler):
    model = ("--model", "fairdedup-small", "--pretrained", weights, "--batch-size", 4, "--device", "cpu")
    done("run", images_run / "embeddings", "--keep", 0.5, *model, "--out", tmp_path / "run",
         "--scheduler", scheduler, "--quiet")  # fmt: skip
    assert contents(tmp_path / "run")["prototypes.parquet"] == contents(images_run)["prototypes.parquet"]


def test_weights_of_another_content_are_another_encoder(tmp_path, weights, scheduler, monkeypatch):
    monkeypatch.chdir(tmp_path)  # and a worker finds a file that is named from here
    write_tar(Path("x.tar"), sample("a", 0) | sample("b", 10))
    shutil.copy(weights, "w.safetensors")
    asked = ("embed", "x.tar", "--model", "fairdedup-small", "--pretrained", "w.safetensors", "--out", "run",
             "--scheduler", scheduler, "--quiet")  # fmt: skip
    done(*asked)
    before = files(tmp_path / "run" / "embeddings")
    done(*asked)
    assert files(tmp_path / "run" / "embeddings") == before
    from safetensors.numpy import load_file, save_file

    tensors = load_file("w.safetensors")
    tensors["visual.attnpool.c_proj.bias"] = tensors["visual.attnpool.c_proj.bias"] + 1
    save_file(tensors, "w.safetensors")
    done(*asked)
    after = files(tmp_path / "run" / "embeddings")
    assert after["img_emb/img_emb_0.npy"][0] != before["img_emb/img_emb_0.npy"][0]


# IDs and rejected rows


def test_a_duplicate_id_is_named_with_its_places_and_a_remedy(tmp_path, weights, scheduler):
    name = "same\x1b[31m"
    for shard in "ab":
        write_tar(tmp_path / f"{shard}.tar", sample(name, ord(shard)) | sample(f"own-{shard}", ord(shard) + 20))
    asked = ("run", tmp_path, "--keep", 1, "--rule", "semdedup", "--model", "fairdedup-small", "--pretrained", weights,
             "--scheduler", scheduler, "--quiet")  # fmt: skip
    failed = command(*asked, "--out", tmp_path / "one")
    assert failed.code == 2 and failed.err.count("\n") == 1 and "\x1b" not in failed.err
    assert "duplicate id 'same\\x1b[31m' in a.tar and b.tar: make ids unique, or add --id shard/key" in failed.err
    assert not (tmp_path / "one" / "kept").exists()
    done(*asked, "--out", tmp_path / "two", "--id", "shard/key")
    assert table(tmp_path / "two" / "kept")["id"].tolist() == [f"a/{name}", "a/own-a", f"b/{name}", "b/own-b"]


def test_too_much_rejected_stops_with_the_commonest_reasons_and_costs_nothing(tmp_path, scheduler):
    x = raw_vectors(40)
    x[:3], x[5] = 0, np.nan
    np.save(tmp_path / "x.npy", x)
    asked = ("run", tmp_path / "x.npy", "--keep", 0.5, "--rule", "semdedup", "--out", tmp_path / "run",
             "--scheduler", scheduler, "--quiet")  # fmt: skip
    failed = command(*asked)
    assert failed.code == 2
    assert failed.err == (
        "fairdedup: error: 4 of 40 samples are rejected, more than --max-rejected 0.05 (3 x vector is zero; 1 x vector "
        "has a value that is not finite): fix the input or raise --max-rejected\n"
    )
    before = files(tmp_path / "run" / "embeddings")
    done(*asked, "--max-rejected", 0.1)
    after = files(tmp_path / "run" / "embeddings")
    after.pop("records/input.json")  # only now is it settled what the input of the run is
    assert after == before
    assert manifest(tmp_path / "run")["counts"]["rejected"] == 4


def test_exact_copies_are_warned_of_where_they_must_be_readmitted(tmp_path, scheduler):
    np.save(tmp_path / "x.npy", np.repeat(raw_vectors(12), 20, axis=0))
    shown = done("run", tmp_path / "x.npy", "--keep", 0.9, "--rule", "semdedup", "--out", tmp_path / "run",
                 "--scheduler", scheduler)  # fmt: skip
    known = manifest(tmp_path / "run")
    assert known["counts"]["kept"] == 216 and known["counts"]["readmitted"] > 200
    assert "exact copies" in known["warnings"][0] and "warning:" in shown.out
    assert table(tmp_path / "run" / "decisions")["readmitted"].sum() == known["counts"]["readmitted"]


def test_exemplars_of_the_run_can_be_prototypes(again, scheduler, tmp_path):
    decided = Decided(again)
    ids = decided.decisions["id"]
    groups = {"light": [3, 50, 120], "dark": [9, 200]}
    lines = pd.DataFrame(
        [("tone", concept, ids[k]) for concept, places in groups.items() for k in places],
        columns=["attribute", "concept", "id"],
    )
    lines.to_parquet(tmp_path / "exemplars.parquet")
    done(
        "prune",
        again,
        "--keep",
        0.5,
        "--prototypes",
        tmp_path / "exemplars.parquet",
        "--published",
        "--scheduler",
        scheduler,
        "--quiet",
    )
    unit = decided.unit.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    means = {"tone": {concept: unit[places].mean(axis=0) for concept, places in groups.items()}}
    problem = oracles.Problem(decided.unit, decided.decisions["cluster"], "fairdedup", prototypes=means,
                              centroids16=decided.centroids)  # fmt: skip
    assert_same(Decided(again), problem.decide(units(again), 0.5))


@pytest.mark.skipif(
    not (SHARED / "data" / "fairface").is_dir(), reason="needs real faces, which are not in the repository"
)
def test_real_faces(tmp_path, weights, scheduler):
    shard = sorted((SHARED / "data" / "fairface").glob("train96-*.tar"))[0]
    (tmp_path / "in").mkdir()
    faces = sorted((SHARED / "data" / "fairface" / "val").iterdir())[:60]
    for face in faces:
        os.symlink(face, tmp_path / "in" / face.name)
    assert shard.is_file()
    done("run", tmp_path / "in", "--keep", 0.5, "--rule", "balanced", "--model", "fairdedup-small",
         "--pretrained", weights, "--out", tmp_path / "run", "--scheduler", scheduler, "--quiet")  # fmt: skip
    counts = manifest(tmp_path / "run")["counts"]
    assert counts["input"] == len(faces) and counts["rejected"] == 0 and counts["kept"] == len(faces) // 2
