"""The built-in encoder is small, loads with open_clip alone, recognises the drawn people, and finds planted copies."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import open_clip
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from safetensors import safe_open

from fairdedup import deduplicate
from fairdedup.sample import write_sample
from fairdedup.sample.draw import draw_scene
from fairdedup.sample.people import GENDERS, OCCUPATIONS, another_shot, make_person, make_setting, pick

ROOT = Path(__file__).resolve().parents[2]
BUILTIN = ROOT / "fairdedup" / "encoders" / "builtin"
WEIGHTS = BUILTIN / "fairdedup-small.safetensors"
LABEL_OF = {
    "perceived gender presentation": "gender",
    "perceived age": "age",
    "perceived skin tone": "skin tone",
}


class Encoder:
    """Return the built-in model, loaded as `--model NAME --pretrained PATH` loads it."""

    def __init__(self) -> None:
        open_clip.add_model_config(BUILTIN)
        loaded = open_clip.create_model_and_transforms("fairdedup-small", pretrained=str(WEIGHTS))
        self.model, self.preprocess = loaded[0].eval(), loaded[2]
        self.tokenizer = open_clip.get_tokenizer("fairdedup-small")

    @torch.no_grad()
    def images(self, images: list[Image.Image]) -> np.ndarray:
        batch = torch.stack([self.preprocess(image) for image in images])
        return unit(torch.cat([self.model.encode_image(part) for part in batch.split(128)]).numpy())

    @torch.no_grad()
    def texts(self, texts: list[str]) -> np.ndarray:
        return unit(self.model.encode_text(self.tokenizer(texts)).numpy())


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder()


@pytest.fixture(scope="module")
def prototypes(encoder: Encoder) -> dict[str, dict[str, np.ndarray]]:
    config = yaml.safe_load((ROOT / "configs" / "prototypes" / "people.yaml").read_text(encoding="utf-8"))
    vectors: dict[str, dict[str, np.ndarray]] = {}
    for attribute, entry in config["attributes"].items():
        vectors[attribute] = {"absent": encoder.texts(entry["absent"])}
        for concept, phrases in entry["concepts"].items():
            captions = [template.format(phrase) for template in config["templates"] for phrase in phrases]
            vectors[attribute][concept] = unit(encoder.texts(captions).mean(0))
    return vectors


def test_weights_are_safetensors_of_at_most_12_megabytes() -> None:
    assert WEIGHTS.stat().st_size <= 12_000_000
    with safe_open(WEIGHTS, framework="np") as weights:
        assert "visual.conv1.weight" in weights.keys()  # noqa: SIM118
    assert [path.name for path in sorted(BUILTIN.iterdir()) if path.suffix not in (".json", ".py")] == [WEIGHTS.name]


def test_preprocessing_is_open_clips_own_at_64_pixels(encoder: Encoder) -> None:
    assert encoder.model.visual.preprocess_cfg["size"] == 64
    assert encoder.model.visual.preprocess_cfg["mean"] == open_clip.OPENAI_DATASET_MEAN
    assert encoder.preprocess(Image.new("RGB", (200, 100))).shape == (3, 64, 64)
    assert encoder.tokenizer(["a photo of a woman"]).shape == (1, encoder.model.context_length)


@pytest.fixture(scope="module")
def held_out(encoder: Encoder) -> tuple[np.ndarray, list[dict[str, str]]]:
    rng = np.random.default_rng(987_654_321)
    scenes = []
    for _ in range(500):
        scene = make_setting(rng, somebody=rng.random() < 0.9)
        if scene.occupation != "none":
            scene = type(scene)(**{**vars(scene), "person": make_person(rng, OCCUPATIONS[scene.occupation][2])})
        scenes.append(another_shot(rng, scene))
    return encoder.images([draw_scene(scene) for scene in scenes]), [scene.facts() for scene in scenes]


@pytest.mark.parametrize(
    ("attribute", "floor"),
    [("perceived gender presentation", 0.9), ("perceived age", 0.48), ("perceived skin tone", 0.85)],
)
def test_zero_shot_accuracy_on_fresh_pictures(
    held_out: tuple[np.ndarray, list[dict[str, str]]],
    prototypes: dict[str, dict[str, np.ndarray]],
    attribute: str,
    floor: float,
) -> None:
    embeddings, facts = held_out
    concepts = [name for name in prototypes[attribute] if name != "absent"]
    similar = embeddings @ np.stack([prototypes[attribute][name] for name in concepts]).T  # (n, concepts)
    pairs = [
        (concepts[best], fact[LABEL_OF[attribute]])
        for best, fact in zip(similar.argmax(1), facts, strict=True)
        if fact["people"] == "somebody"
    ]
    assert np.mean([seen == drawn for seen, drawn in pairs]) >= floor


def test_empty_rooms_look_absent(
    held_out: tuple[np.ndarray, list[dict[str, str]]], prototypes: dict[str, dict[str, np.ndarray]]
) -> None:
    embeddings, facts = held_out
    concepts = prototypes["perceived gender presentation"]
    people = np.max([embeddings @ concepts[name] for name in GENDERS], axis=0)
    absent = (embeddings @ concepts["absent"].T).max(1)
    nobody = np.array([fact["people"] == "nobody" for fact in facts])
    assert nobody.sum() > 20
    assert ((absent > people) == nobody).mean() >= 0.98


@pytest.fixture(scope="module")
def drawn(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], np.ndarray]:
    """Return a sample, the ids of its readable pictures, and their embeddings."""
    folder = tmp_path_factory.mktemp("drawn") / "sample"
    summary = write_sample(folder)
    ids, images = [], []
    for shard in summary.shards:
        with tarfile.open(shard) as tar:
            for entry in tar:
                key, suffix = entry.name.split(".")
                if suffix == "jpg" and key not in summary.broken:
                    stream = tar.extractfile(entry)
                    assert stream is not None
                    ids.append(key)
                    images.append(Image.open(io.BytesIO(stream.read())).convert("RGB"))
    return folder, ids, encoder.images(images)


@pytest.mark.parametrize("rule", ["fairdedup", "balanced"])
def test_the_rules_keep_more_of_the_rare_than_semdedup_at_the_same_count(rule, drawn, prototypes) -> None:
    folder, ids, embeddings = drawn
    labels = pd.read_parquet(folder / "labels.parquet").set_index("id").loc[ids]
    people = (labels["skin_tone"] != "none").to_numpy()
    gains = {"dark": 0.0, "older": 0.0}
    for seed in range(4):
        shares = {}
        for each in ("semdedup", rule):
            result = deduplicate(
                embeddings, keep=0.5, rule=each, prototypes=prototypes, seed=seed, clusters=2, published=True
            )
            kept = labels[result.decisions["kept"].to_numpy() & people]
            shares[each] = {"dark": (kept["skin_tone"] == "dark").mean(), "older": (kept["age"] == "older").mean()}
        for group in gains:
            gains[group] += shares[rule][group] - shares["semdedup"][group]
    assert min(gains.values()) > 0, gains


def test_planted_copies_are_nearest_neighbours(drawn: tuple[Path, list[str], np.ndarray]) -> None:
    folder, ids, embeddings = drawn
    similar = embeddings @ embeddings.T
    np.fill_diagonal(similar, -1)
    row = {key: at for at, key in enumerate(ids)}
    truth = pd.read_parquet(folder / "truth.parquet")
    for kind, close in (("exact", 0.99999), ("recaption", 0.99999), ("jpeg", 0.98)):
        pairs = truth[truth.kind == kind]
        copies = [row[key] for key in pairs.id]
        originals = [row[key] for key in pairs.copy_of]
        found = similar[copies, originals]
        assert (found >= close).mean() >= 0.99
        assert (found >= similar[copies].max(1) - 1e-6).mean() >= 0.99


def test_the_committed_figures_are_those_of_the_committed_weights() -> None:
    results = json.loads((ROOT / "benchmarks" / "results" / "builtin_encoder.json").read_text(encoding="utf-8"))
    assert results["weights"]["bytes"] == WEIGHTS.stat().st_size
    for accuracy in results["zero-shot"]["skewed"].values():
        assert 0.5 < accuracy["accuracy"] <= 1


def test_text_tells_occupations_apart(encoder: Encoder) -> None:
    rng = np.random.default_rng(5)
    jobs = list(OCCUPATIONS)
    texts = encoder.texts([f"a photo of a {job}" for job in jobs])
    hits = []
    for _ in range(60):
        scene = make_setting(rng)
        gender = OCCUPATIONS[scene.occupation][2]
        scene = type(scene)(**{**vars(scene), "person": make_person(rng, gender)})
        best = int((encoder.images([draw_scene(scene)]) @ texts.T).argmax())
        hits.append(jobs[best] == scene.occupation)
    assert np.mean(hits) >= 0.9
    assert pick(rng, ("a",)) == "a"
