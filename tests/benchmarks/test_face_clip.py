"""The fine-tuned encoder of faces: folded norms change no vector; a stopped training ends with the same weights."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import finetune_face_encoder as ft  # noqa: E402
from contrastive import Codes  # noqa: E402
from faces import VALUES, Face, find_weights, parse_encoder  # noqa: E402
from lite0 import NAME, WEIGHTS, convert_weights, fold_norms, load_trunk, write_model_folder  # noqa: E402

from fairdedup.encoders import load_encoder  # noqa: E402


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def disturb_norms(trunk: torch.nn.Module) -> None:
    """Give the norms statistics of their own: those of a new network would hide a mistake."""
    for name, value in trunk.state_dict().items():
        if name.endswith(("running_mean", "running_var")) or "bn" in name and value.is_floating_point():
            value.copy_(value * torch.empty_like(value).uniform_(0.7, 1.3) + 0.01)


@torch.no_grad()
def test_folding_and_restoring_the_norms_changes_no_vector():
    torch.manual_seed(0)
    model = ft.make_model().eval()
    disturb_norms(model.visual.trunk)
    pictures = torch.rand(2, 3, 64, 64) * 2 - 1
    before = model.encode_image(pictures)
    fold_norms(model.visual.trunk)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())
    folded = model.encode_image(pictures)
    restored = ft.restore_norms(model).encode_image(pictures)
    torch.testing.assert_close(folded, before, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(restored, before, rtol=1e-4, atol=1e-5)


def test_published_weights_are_taken_by_their_order_and_others_are_refused(tmp_path):
    torch.manual_seed(1)
    source = timm.create_model(NAME, pretrained=False)
    disturb_norms(source)
    published = {f"_{k}": t for k, t in enumerate(source.state_dict().values())}
    torch.save(published, tmp_path / "weights.pth")
    model = ft.make_model()
    load_trunk(model.visual.trunk, tmp_path / "weights.pth")
    wanted, found = source.state_dict(), model.visual.trunk.state_dict()
    assert set(wanted) - set(found) == {"classifier.weight", "classifier.bias"}
    assert all(torch.equal(found[name], wanted[name]) for name in found)
    with pytest.raises(ValueError, match="give efficientnet-lite0"):
        convert_weights(dict(list(published.items())[1:]))


def train_steps(folder: Path, steps: int, stop_at: int | None = None) -> dict[str, torch.Tensor]:
    """Train a small number of steps on noise; with `stop_at` the training is stopped there and begun again."""
    rng = np.random.default_rng(0)
    faces = [Face(str(k), "", None, {a: v[int(rng.integers(len(v)))] for a, v in VALUES.items()}) for k in range(6)]
    pixels = torch.from_numpy(rng.integers(0, 256, (6, 3, 32, 32), dtype=np.uint8))
    tokenizer = ft.open_clip.SimpleTokenizer(context_length=24)
    args = argparse.Namespace(seed=0, steps=steps, batch=4, lr=1e-3, trunk_lr=1e-4, small_side=32, small_share=1.0)
    args.out = folder
    folder.mkdir(exist_ok=True)

    def begin(report: object) -> torch.nn.Module:
        torch.manual_seed(0)
        model = ft.make_model()
        fold_norms(model.visual.trunk)
        codes = Codes(list(VALUES), {})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ft, "SAVE_EVERY", 1)
            patch.setattr(ft.Progress, "report", report)
            data = ft.caption_faces(faces, pixels, codes, tokenizer, 0)
            ft.train(model, data, ft.read_concepts(faces, tokenizer), codes, args)
        return model

    def stop(_: object, step: int, __: float) -> None:
        if step == stop_at:
            raise KeyboardInterrupt

    if stop_at is not None:
        with pytest.raises(KeyboardInterrupt):
            begin(stop)
    return begin(lambda *_: None).state_dict()


def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path):
    whole = train_steps(tmp_path / "a", 3)
    stopped = train_steps(tmp_path / "b", 3, stop_at=2)
    assert all(torch.equal(stopped[name], t) for name, t in whole.items())


def test_the_model_folder_is_loaded_by_fairdedup_with_the_same_vectors(tmp_path):
    torch.manual_seed(2)
    model = ft.make_model().eval()
    weights = write_model_folder(model, tmp_path / "m")
    spec = parse_encoder(f"local-dir:{tmp_path / 'm'}")
    assert weights.name == WEIGHTS and find_weights(spec) == str(weights)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3), dtype=np.uint8)
    found = load_encoder(spec).encode_images([Image.fromarray(p) for p in pixels])
    with torch.no_grad():
        own = model.encode_image((torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5)
    np.testing.assert_allclose(found, own.numpy(), atol=2e-2 * float(own.abs().max()))  # float16 weights in the file


def test_augmented_pictures_keep_their_colours_and_have_the_size_that_was_wanted():
    flat = torch.full((3, 3, 40, 40), 0.5)
    out = ft.augment(flat, 24, torch.Generator().manual_seed(0))
    assert out.shape == (3, 3, 24, 24)
    assert float(out.min()) >= 0.5 * 0.85 - 1e-6 and float(out.max()) <= 0.5 * 1.15 + 1e-6  # brightness alone changes
