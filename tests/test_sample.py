"""The sample data set has the same bytes for the same seed, true tables, a visible skew, and broken files."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fairdedup.errors import UserError
from fairdedup.sample import SampleSummary, write_sample
from fairdedup.sample.captions import write_caption
from fairdedup.sample.draw import draw_scene
from fairdedup.sample.people import AGES, GENDERS, OCCUPATIONS, SKIN_TONES, make_scenes

N = 600


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> SampleSummary:
    return write_sample(tmp_path_factory.mktemp("sample") / "new" / "folder", seed=3, n=N)


@pytest.fixture(scope="module")
def members(sample: SampleSummary) -> dict[str, dict[str, bytes]]:
    found: dict[str, dict[str, bytes]] = {}
    for shard in sample.shards:
        with tarfile.open(shard) as tar:
            for entry in tar:
                key, suffix = entry.name.split(".")
                stream = tar.extractfile(entry)
                assert stream is not None
                found.setdefault(key, {})[suffix] = stream.read()
    return found


@pytest.fixture(scope="module")
def labels(sample: SampleSummary) -> pd.DataFrame:
    return pd.read_parquet(sample.directory / "labels.parquet").set_index("id")


@pytest.fixture(scope="module")
def truth(sample: SampleSummary) -> pd.DataFrame:
    return pd.read_parquet(sample.directory / "truth.parquet")


def decoded(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image.convert("RGB")


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_sample(tmp_path / name, seed=7, n=60)
    one = {path.name: path.read_bytes() for path in (tmp_path / "one").iterdir()}
    two = {path.name: path.read_bytes() for path in (tmp_path / "two").iterdir()}
    assert one == two


def test_another_seed_writes_other_pictures(tmp_path: Path) -> None:
    for seed in (7, 8):
        write_sample(tmp_path / str(seed), seed=seed, n=60)
    assert (tmp_path / "7" / "shard-00000.tar").read_bytes() != (tmp_path / "8" / "shard-00000.tar").read_bytes()


def test_every_member_has_picture_caption_and_record(members: dict[str, dict[str, bytes]]) -> None:
    assert len(members) == N + 5
    for key, parts in members.items():
        assert set(parts) == {"jpg", "txt", "json"}
        record = json.loads(parts["json"])
        assert record["key"] == key
        assert record["caption"] == parts["txt"].decode() != ""


def test_shards_hold_500_samples_and_no_owner_or_time(sample: SampleSummary) -> None:
    assert [path.name for path in sample.shards] == ["shard-00000.tar", "shard-00001.tar"]
    for shard, count in zip(sample.shards, (500, N + 5 - 500), strict=True):
        with tarfile.open(shard) as tar:
            entries = tar.getmembers()
        assert len(entries) == 3 * count
        assert {(entry.mtime, entry.uid, entry.uname) for entry in entries} == {(0, 0, "")}


def test_labels_name_every_readable_picture_and_no_broken_one(
    sample: SampleSummary, members: dict[str, dict[str, bytes]], labels: pd.DataFrame
) -> None:
    assert labels.index.is_unique
    assert set(labels.index) == set(members) - set(sample.broken)
    assert sample.pictures == len(labels) == N
    for key in labels.index[:200]:
        assert max(decoded(members[key]["jpg"]).size) <= 128


def test_broken_files_cannot_be_decoded(sample: SampleSummary, members: dict[str, dict[str, bytes]]) -> None:
    assert len(sample.broken) == 5
    assert b"" in [members[key]["jpg"] for key in sample.broken]
    for key in sample.broken:
        with pytest.raises(OSError):
            decoded(members[key]["jpg"])


def test_labels_use_the_words_of_the_prototypes(labels: pd.DataFrame) -> None:
    assert set(labels.perceived_gender) == {*GENDERS, "none"}
    assert set(labels.age) == {*AGES, "none"}
    assert set(labels.skin_tone) == {*SKIN_TONES, "none"}
    assert set(labels.occupation) == {*OCCUPATIONS, "none"}
    nobody = labels.perceived_gender == "none"
    assert nobody.any()
    assert (labels[nobody][["age", "skin_tone", "occupation"]] == "none").all(axis=None)
    assert labels[nobody].monk.isna().all()
    grouped = labels[~nobody].monk.map(lambda tone: "light" if tone <= 4 else "medium" if tone <= 7 else "dark")
    assert (grouped == labels[~nobody].skin_tone).all()


def test_truth_names_originals_of_all_kinds(sample: SampleSummary, labels: pd.DataFrame, truth: pd.DataFrame) -> None:
    assert len(truth) == sample.copies == round(0.12 * N)
    kinds = Counter(truth.kind)
    assert set(kinds) == {"exact", "jpeg", "resize", "crop", "recaption"}
    assert max(kinds.values()) - min(kinds.values()) <= 1
    assert truth.id.is_unique
    assert not set(truth.copy_of) & set(truth.id)
    same = labels.loc[truth.id].reset_index(drop=True).fillna(0) == labels.loc[truth.copy_of].reset_index(
        drop=True
    ).fillna(0)
    assert same.all(axis=None)


def test_copies_are_of_their_kind(members: dict[str, dict[str, bytes]], truth: pd.DataFrame) -> None:
    for row in truth.itertuples():
        copy, original = members[str(row.id)], members[str(row.copy_of)]
        if row.kind in ("exact", "recaption"):
            assert copy["jpg"] == original["jpg"]
            assert (copy["txt"] == original["txt"]) == (row.kind == "exact")
            continue
        assert copy["jpg"] != original["jpg"]
        assert copy["txt"] == original["txt"]
        wide, tall = decoded(copy["jpg"]).size
        if row.kind == "jpeg":
            assert (wide, tall) == (128, 128)
            apart = np.asarray(decoded(copy["jpg"]), float) - np.asarray(decoded(original["jpg"]), float)
            assert np.abs(apart).mean() < 6
        elif row.kind == "resize":
            assert wide == tall < 110
        else:
            assert 118 <= wide < 128 and 118 <= tall < 128


def test_the_skew_is_worth_noticing() -> None:
    people = [scene for scene in make_scenes(np.random.default_rng(0), 12_000) if scene.person is not None]
    women = Counter(s.occupation for s in people if s.person and s.person.gender == "woman")
    everyone = Counter(s.occupation for s in people)
    share = {job: women[job] / everyone[job] for job in everyone}
    assert all(share[job] < 0.2 for job in ("engineer", "mechanic", "firefighter"))
    assert all(share[job] > 0.65 for job in ("nurse", "teacher"))
    assert 0.35 < sum(women.values()) / len(people) < 0.5
    tones = Counter(s.person.skin_tone for s in people if s.person)
    assert tones["light"] / len(people) > 0.6
    assert 0.06 < tones["dark"] / len(people) < 0.12
    ages = Counter(s.person.age for s in people if s.person)
    assert 0.09 < ages["older"] / len(people) < 0.16


def test_captions_say_only_what_is_true() -> None:
    rng = np.random.default_rng(1)
    for scene in make_scenes(rng, 400):
        caption = write_caption(scene, rng)
        facts = scene.facts()
        assert caption.said.items() <= facts.items()
        words = caption.text.replace(",", "").split()
        if facts["people"] == "somebody":
            assert not ({"woman", "lady", "female"} & set(words) and facts["gender"] == "man")
            assert not ({"man", "gentleman", "male"} & set(words) and facts["gender"] == "woman")


def test_equal_scenes_give_equal_pixels_and_shots_differ() -> None:
    scenes = make_scenes(np.random.default_rng(2), 40)
    first = [np.asarray(draw_scene(scene)) for scene in scenes]
    again = [np.asarray(draw_scene(scene)) for scene in scenes]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert len({picture.tobytes() for picture in first}) == len(scenes)


@pytest.mark.parametrize(
    ("seed", "n", "said"),
    [(0, 10, "`n` must be at least 50 pictures; got 10"), (-1, 100, "`seed` must be 0 or more; got -1")],
)
def test_a_bad_number_is_named(tmp_path: Path, seed: int, n: int, said: str) -> None:
    with pytest.raises(UserError, match=said):
        write_sample(tmp_path, seed=seed, n=n)


def test_a_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("x")
    with pytest.raises(UserError, match="taken"):
        write_sample(tmp_path / "taken", n=60)


def test_the_sample_needs_no_torch() -> None:
    code = "import fairdedup.sample, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
