"""Good model folders load as before, and what a refusal advises works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from model_folders import CONFIG, WEIGHTS, builtin_config, change, write_cache, write_model
from PIL import Image
from safetensors.torch import load_file, save_file

from fairdedup.encoders import loading
from fairdedup.encoders.hub_snapshot import download_model
from fairdedup.encoders.loading import check_model, load_encoder
from fairdedup.encoders.model_config import MODEL, Refusal, count_least_parameters, keep_data
from fairdedup.encoders.model_folder import check_model_folder
from fairdedup.encoders.spec import BUILTIN_MODEL, BUILTIN_WEIGHTS, EncoderSpec
from fairdedup.errors import FairdedupError, UserError

PICTURES = [Image.new("RGB", (90, 40 + k), (k * 60, 9, 200 - k)) for k in range(3)]
CAPTIONS = ["a photo of a nurse", "an empty room"]


@pytest.fixture(autouse=True)
def nothing_loaded():
    """Forget the encoder that another test has loaded by the same name."""
    loading.forget_encoders()


def spec(model: str, pretrained: str | None = None) -> EncoderSpec:
    return EncoderSpec(model, pretrained, 4, "cpu", "float32", 1)


@pytest.fixture(scope="module")
def expected():
    encoder = load_encoder(spec(BUILTIN_MODEL))
    return encoder.encode_images(PICTURES), encoder.encode_texts(CAPTIONS)


def assert_same(model: str, expected: tuple[np.ndarray, np.ndarray]) -> None:
    check_model(model, None)
    encoder = load_encoder(spec(model))
    assert np.array_equal(encoder.encode_images(PICTURES), expected[0])
    assert np.array_equal(encoder.encode_texts(CAPTIONS), expected[1])


def test_a_local_folder_gives_the_vectors_of_its_model(expected, tmp_path):
    assert_same(f"local-dir:{write_model(tmp_path)}", expected)


@pytest.mark.parametrize("name", ["open_clip_pytorch_model.bin", "model.pth", "anything.bin"])
def test_a_folder_may_have_a_state_dict_of_torch(name, expected, tmp_path):
    folder = write_model(tmp_path, weights=b"", name=name)
    torch.save(load_file(BUILTIN_WEIGHTS), folder / name)
    assert_same(f"local-dir:{folder}", expected)


def test_files_that_no_model_needs_are_not_looked_at(expected, tmp_path):
    folder = write_model(tmp_path, {**builtin_config(), "license": "mit", "tags": ["a"]})
    (folder / "modeling_evil.py").write_text("raise SystemExit")
    (folder / "vocab.pkl").write_bytes(b"x")
    os.mkfifo(folder / "config.json")
    (folder / "tokenizer_config.json").symlink_to("/dev/zero")  # the model has open_clip's own tokenizer
    assert_same(f"local-dir:{folder}", expected)


def test_a_link_to_a_file_of_the_same_folder_is_followed(expected, tmp_path):
    folder = write_model(tmp_path, name="data")
    (folder / WEIGHTS).symlink_to("data")
    assert_same(f"local-dir:{folder}", expected)


def test_a_snapshot_of_the_hub_may_be_named_as_a_folder(expected, tmp_path):
    assert_same(f"local-dir:{write_cache(tmp_path, 'a/b', write_model(tmp_path / 'm'))}", expected)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Return the home of a cache of Hugging Face that is used without a network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "home"


def test_a_model_of_the_hub_gives_the_vectors_of_its_model(expected, cache, tmp_path):
    write_cache(cache, "own/er", write_model(tmp_path / "m"))
    assert_same("hf-hub:own/er", expected)


def test_a_model_of_the_hub_may_have_a_state_dict_of_torch(expected, cache, tmp_path):
    folder = write_model(tmp_path / "m", weights=b"", name="open_clip_pytorch_model.bin")
    torch.save(load_file(BUILTIN_WEIGHTS), folder / "open_clip_pytorch_model.bin")
    write_cache(cache, "own/er", folder)
    assert_same("hf-hub:own/er", expected)


def test_the_variables_of_the_hub_are_respected(tmp_path):
    """A new process, with the variables that a user without a network sets."""
    write_cache(tmp_path / "home", "own/er", write_model(tmp_path / "m"))
    code = (
        "from fairdedup.encoders import load_encoder, EncoderSpec\n"
        "print(load_encoder(EncoderSpec('hf-hub:own/er', None, 4, 'cpu', 'float32', 1)).encode_texts(['a']).shape)"
    )
    known = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    known.pop("HF_HUB_CACHE", None)
    done = subprocess.run([sys.executable, "-c", code], env=known, capture_output=True, text=True, check=False)
    assert done.stdout == "(1, 256)\n", done.stderr


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_cfg.text_cfg.tokenizer_kwargs.trust_remote_code", True),
        ("model_cfg.vision_cfg.timm_model_name", "hf-hub:a/b"),
        ("model_cfg.text_cfg.hf_model_name", "a/b"),
    ],
)
def test_a_model_of_the_hub_is_checked_as_a_folder_is(key, value, expected, cache, tmp_path):
    write_cache(cache, "own/er", write_model(tmp_path / "m", change(builtin_config(), key, value)))
    check_model("hf-hub:own/er", None)  # nothing is downloaded yet
    with pytest.raises(UserError, match=f"'hf-hub:own/er': {CONFIG}: {key} = .* is refused .* local-dir:") as caught:
        load_encoder(spec("hf-hub:own/er"))
    copy = tmp_path / "copy"  # the remedy: a copy without that
    write_model(copy, builtin_config())
    assert "copy of the folder" in str(caught.value)
    assert_same(f"local-dir:{copy}", expected)


T5 = {
    "tokenizer_class": "T5Tokenizer",
    "additional_special_tokens": [],
    "eos_token": "</s>",
    "extra_ids": 0,
    "model_input_names": ["input_ids"],
    "model_max_length": 64,
    "processor_class": "SiglipProcessor",
    "sp_model_kwargs": {},
    "added_tokens_decoder": {"1": {"content": "</s>", "lstrip": True, "special": True}},
    "special_tokens_map_file": "/nowhere/x",
    "chat_template": "{{ x }}",
}  # as models of the hub have it


@pytest.mark.parametrize("name", ["own/er", "another/one"])
def test_a_tokenizer_of_the_hub_is_downloaded_and_checked(name, cache, tmp_path):
    config = change(builtin_config(), "model_cfg.text_cfg.hf_tokenizer_name", name)
    folder = write_model(tmp_path / "m", config)
    tokenizer = folder if name == "own/er" else tmp_path / "t"
    tokenizer.mkdir(exist_ok=True)
    (tokenizer / "spiece.model").write_bytes(b"pieces")
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(T5))
    (tokenizer / "tokenization_evil.py").write_text("raise SystemExit")
    write_cache(cache, "own/er", folder)
    if tokenizer != folder:
        write_cache(cache, name, tokenizer)
    copy = tmp_path / "copy"
    copy.mkdir()
    download_model("hf-hub:own/er").write_copy(copy)
    assert sorted(file.name for file in copy.iterdir()) == sorted(
        [CONFIG, WEIGHTS, "spiece.model", "tokenizer_config.json"]
    )
    assert (copy / "spiece.model").read_bytes() == b"pieces"
    written = json.loads((copy / "tokenizer_config.json").read_text())
    left_out = {"special_tokens_map_file", "chat_template", "processor_class"}
    assert written == {key: value for key, value in T5.items() if key not in left_out}


def test_a_tokenizer_that_is_missing_can_be_saved_in_the_folder(tmp_path):
    folder = write_model(tmp_path, change(builtin_config(), "model_cfg.text_cfg.hf_tokenizer_name", "a/b"))
    with pytest.raises(UserError, match=r"tokenizer_config\.json is missing: save the tokenizer in the folder"):
        check_model(f"local-dir:{folder}", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(T5))
    with pytest.raises(UserError, match=r"tokenizer\.json is missing"):
        check_model(f"local-dir:{folder}", None)
    (folder / "tokenizer.json").write_text("{}")
    check_model(f"local-dir:{folder}", None)


def test_a_link_out_of_a_snapshot_is_refused(cache, tmp_path):
    snapshot = write_cache(cache, "own/er", write_model(tmp_path / "m"))
    (snapshot / WEIGHTS).unlink()
    (snapshot / WEIGHTS).symlink_to(BUILTIN_WEIGHTS)
    with pytest.raises(UserError, match="is a link out of the folder"):
        load_encoder(spec("hf-hub:own/er"))


def test_a_model_that_cannot_be_downloaded_can_be_a_folder(expected, cache, tmp_path):
    with pytest.raises(FairdedupError, match="cannot be downloaded .*give a folder that has the model with local-dir:"):
        load_encoder(spec("hf-hub:no/such"))
    assert_same(f"local-dir:{write_model(tmp_path / 'm')}", expected)


@pytest.mark.parametrize("name", ["", "a/b/c", "../x", "/etc", "https://a.b/c", "a b", "a/b@main", "-x"])
def test_a_name_that_the_hub_cannot_have_is_refused(name):
    with pytest.raises(UserError, match="give hf-hub:OWNER/NAME"):
        check_model(f"hf-hub:{name}", None)
    check_model("hf-hub:OWNER/NAME", None)


@pytest.mark.parametrize(
    ("spoil", "says", "repair"),
    [
        (lambda f: (f / CONFIG).unlink(), "give a folder that has one", write_model),
        (lambda f: (f / WEIGHTS).unlink(), f"no weights in that folder; put {WEIGHTS}", write_model),
        (lambda f: write_model(f, weights=b"x"), "give the weights of that model", write_model),
        (
            lambda f: ((f / WEIGHTS).unlink(), (f / WEIGHTS).symlink_to(BUILTIN_WEIGHTS)),
            "put a copy of the file there",
            lambda f: ((f / WEIGHTS).unlink(), write_model(f)),
        ),
    ],
)
def test_what_a_refusal_advises_works(spoil, says, repair, expected, tmp_path):
    folder = write_model(tmp_path)
    spoil(folder)
    with pytest.raises(UserError, match=says):
        check_model(f"local-dir:{folder}", None)
    repair(folder)
    assert_same(f"local-dir:{folder}", expected)


def test_the_configurations_of_open_clip_are_data():
    """All of them, except those with a text model of transformers."""
    import open_clip

    fine = 0
    for file in (Path(open_clip.__file__).parent / "model_configs").glob("*.json"):
        known = json.loads(file.read_text())
        if "hf_model_name" in known["text_cfg"]:
            with pytest.raises(Refusal, match="hf_model_name"):
                keep_data(known, MODEL)
        else:
            assert keep_data(known, MODEL) == known
            fine += 1
    assert fine > 100


@pytest.mark.parametrize("name", [BUILTIN_MODEL, "ViT-S-16", "RN50", "ViTamin-S", "coca_base"])
def test_no_model_has_fewer_parameters_than_the_bound(name):
    import open_clip

    from fairdedup.encoders.spec import BUILTIN_FOLDER

    open_clip.add_model_config(BUILTIN_FOLDER)
    config = open_clip.get_model_config(name)
    with torch.device("meta"):
        kind = open_clip.CoCa if "multimodal_cfg" in config else open_clip.CLIP
        custom = config.pop("custom_text", False)
        kind = open_clip.CustomTextCLIP if custom and kind is open_clip.CLIP else kind
        model = kind(**config)
    assert 0 < count_least_parameters(config) <= sum(each.numel() for each in model.state_dict().values())


def test_a_folder_that_may_not_be_read_is_one_line(tmp_path, monkeypatch):
    folder = write_model(tmp_path)

    def refuse(*_: object) -> list[str]:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr("fairdedup.encoders.model_folder.os.listdir", refuse)
        with pytest.raises(UserError, match=r"cannot be read \(Permission denied\): give a folder that you may read"):
            check_model_folder("m", folder)
    assert check_model_folder("m", folder)


def test_a_folder_that_has_changed_is_loaded_again(expected, tmp_path):
    folder = write_model(tmp_path)
    assert_same(f"local-dir:{folder}", expected)
    tensors = load_file(BUILTIN_WEIGHTS)
    tensors["text_projection"] = tensors["text_projection"] * 2
    save_file(tensors, folder / WEIGHTS)
    changed = load_encoder(spec(f"local-dir:{folder}")).encode_texts(CAPTIONS)
    assert np.allclose(changed, 2 * expected[1], rtol=1e-5)


def test_a_tokenizer_of_transformers_is_loaded_from_the_folder(expected, tmp_path):
    """A tokenizer that maps every word to one token, without a network."""
    pytest.importorskip("transformers")
    words = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, "a": 5, "photo": 6}
    folder = write_model(tmp_path, change(builtin_config(), "model_cfg.text_cfg.hf_tokenizer_name", "any/name"))
    (folder / "vocab.txt").write_text("\n".join(words))
    keys = {"tokenizer_class": "BertTokenizer", "vocab_file": "/etc/passwd", "name_or_path": "/nowhere/x"}
    (folder / "tokenizer_config.json").write_text(json.dumps(keys))
    encoder = load_encoder(spec(f"local-dir:{folder}"))
    tokens = encoder.tokenizer(["a photo"])  # type: ignore[attr-defined]
    assert tokens[0, :4].tolist() == [2, 5, 6, 3]
    assert encoder.encode_texts(["a photo"]).shape == (1, 256)
    assert np.array_equal(encoder.encode_images(PICTURES), expected[0])


def test_a_folder_with_a_vision_model_of_timm_loads(tmp_path):
    """A tiny model with random weights: what open_clip makes of the configuration, and of the folder, is the same."""
    import open_clip
    from safetensors.torch import save_model

    config = builtin_config()
    config["model_cfg"].update(
        custom_text=True,
        vision_cfg={
            "timm_model_name": "test_vit",
            "timm_model_pretrained": False,
            "timm_pool": "token",
            "image_size": 160,
        },
    )
    config["preprocess_cfg"] = {
        "interpolation": "bilinear",
        "resize_mode": "squash",
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
    }
    model = open_clip.CustomTextCLIP(**{k: v for k, v in config["model_cfg"].items() if k != "custom_text"}).eval()
    save_model(model, tmp_path / WEIGHTS)
    write_model(tmp_path, config, weights=(tmp_path / WEIGHTS).read_bytes())
    encoder = load_encoder(spec(f"local-dir:{tmp_path}"))
    prepared = torch.stack([encoder.prepare(each) for each in PICTURES])  # type: ignore[attr-defined]
    with torch.no_grad():
        assert np.array_equal(encoder.encode_images(PICTURES), model.encode_image(prepared).numpy())
