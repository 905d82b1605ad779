"""What the messages about models and their weights advise works: it is read from the message and given."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
from model_folders import write_model
from PIL import Image

from fairdedup.encoders import openclip
from fairdedup.encoders.loading import check_model, load_encoder
from fairdedup.encoders.spec import BUILTIN_FOLDER, BUILTIN_MODEL, BUILTIN_WEIGHTS, EncoderSpec
from fairdedup.errors import FairdedupError, UserError

BUILTIN = EncoderSpec(BUILTIN_MODEL, None, 4, "cpu", "float32", 1)
WEIGHTS = str(BUILTIN_WEIGHTS)


@pytest.mark.parametrize(
    ("wrong", "says", "right"),
    [
        (("ViT-B16", "openai"), r"did you mean (?P<a>\S+) or", ("{a}", "openai")),
        (("x", "openai"), r"did you mean (?P<a>\S+) or (?P<b>\S+)\?", ("{b}", "openai")),
        (("ViT-B-16", None), r"add --pretrained with a tag \((?P<tag>\w+)\)", ("ViT-B-16", "{tag}")),
        (("ViT-B-16", None), r"or a file", ("ViT-B-16", WEIGHTS)),
        (("ViT-B-16", "none.safetensors"), r"give a tag that open_clip knows", ("ViT-B-16", "openai")),
        (("ViT-B-16", "none.safetensors"), r"or a file of weights", ("ViT-B-16", WEIGHTS)),
        (("hf-hub:a/b", "openai"), r"omit --pretrained openai", ("hf-hub:a/b", None)),
        (("local-dir:nowhere", None), r"give a folder that has one", ("local-dir:FOLDER", None)),
    ],
)
def test_the_model_that_a_message_names_is_accepted(wrong, says, right, tmp_path):
    with pytest.raises(UserError) as caught:
        check_model(*wrong)
    found = re.search(says, str(caught.value))
    assert found, str(caught.value)
    write_model(tmp_path)
    model, pretrained = (None if v is None else v.replace("FOLDER", str(tmp_path)).format(**found.groupdict())
                         for v in right)  # fmt: skip
    check_model(model, pretrained)


def test_the_tag_that_a_message_names_is_one_of_the_model():
    with pytest.raises(UserError) as caught:
        openclip._check_tag(EncoderSpec("ViT-B-16", "opnai", 4, "cpu", "float32", 1))
    for tag in re.search(r"choose one of (.*)", str(caught.value))[1].split(", "):  # type: ignore[index]
        openclip._check_tag(EncoderSpec("ViT-B-16", tag, 4, "cpu", "float32", 1))


def test_a_model_without_tags_takes_a_file_of_weights():
    with pytest.raises(UserError, match="it has none; give a file of weights"):
        load_encoder(replace(BUILTIN, pretrained="openai"))
    assert load_encoder(replace(BUILTIN, pretrained=WEIGHTS))


@pytest.mark.parametrize("content", ["other tensors", "no weights"])
def test_weights_that_do_not_load_can_be_replaced_by_the_models_own(content, tmp_path):
    file = tmp_path / "wrong.pt"
    if content == "no weights":
        file.write_text("no weights")
    else:
        torch.save({"a": torch.ones(3)}, file)
    with pytest.raises(UserError, match="does not load into 'fairdedup-small' .*: give the model's own file"):
        load_encoder(replace(BUILTIN, pretrained=str(file)))
    assert load_encoder(replace(BUILTIN, pretrained=WEIGHTS))


def test_weights_that_cannot_be_downloaded_can_be_a_local_file(monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network")

    tagged = EncoderSpec("ViT-B-16", "openai", 4, "cpu", "float32", 1)
    with monkeypatch.context() as patched:
        patched.setattr(open_clip, "create_model_and_transforms", refuse)
        with pytest.raises(FairdedupError, match=r"\(.*\)\. Check the network, or .* give the file with --pretrained"):
            load_encoder(tagged)
    assert load_encoder(replace(BUILTIN, pretrained=WEIGHTS))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_cpu_can_be_named():
    with pytest.raises(UserError) as caught:
        load_encoder(replace(BUILTIN, device="cuda"))
    found = re.search(r"Use --device (\w+) or auto", str(caught.value))
    assert found and load_encoder(replace(BUILTIN, device=found[1]))


def test_a_batch_that_does_not_fit_can_be_smaller(monkeypatch):
    """The memory of the device is simulated: it holds two images."""
    images = [Image.new("RGB", (32, 32), (k * 60, 0, 0)) for k in range(4)]
    expected = load_encoder(BUILTIN).encode_images(images)
    encoder = load_encoder(BUILTIN)
    encode = encoder.model.encode_image  # type: ignore[attr-defined]

    def small(batch: torch.Tensor) -> torch.Tensor:
        if len(batch) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return encode(batch)

    monkeypatch.setattr(encoder.model, "encode_image", small)  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"--batch-size 4 does not fit into the memory of cpu: lower it"):
        encoder.encode_images(images)
    monkeypatch.setattr(encoder, "spec", replace(BUILTIN, batch_size=2))
    assert np.allclose(encoder.encode_images(images), expected, atol=1e-5)


def test_a_model_that_does_not_fit_can_be_smaller(monkeypatch):
    """The memory of the device is simulated: only the built-in model fits."""
    create = open_clip.create_model_and_transforms

    def small(model: str, **options: object) -> object:
        if model != BUILTIN_MODEL:
            raise torch.OutOfMemoryError("out of memory")
        return create(model, **options)

    monkeypatch.setattr(open_clip, "create_model_and_transforms", small)
    with pytest.raises(FairdedupError, match="does not fit on cpu: use a smaller model or another device"):
        load_encoder(EncoderSpec("ViT-B-16", "openai", 4, "cpu", "float32", 1))
    assert load_encoder(BUILTIN) and BUILTIN_FOLDER.is_dir()
