"""A model folder, local or of the hub, cannot make a library run its code, read elsewhere or fetch anything.

`test_without_the_check_*` show that the check is what prevents it: they load the same folders as open_clip alone would.
"""

from __future__ import annotations

import json
import os
import sys
import types
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import model_folders as folders
import pytest
import torch
from model_folders import CONFIG, WEIGHTS, builtin_config, change, write_model

from fairdedup.encoders import loading, network, openclip
from fairdedup.encoders.loading import check_model, load_encoder
from fairdedup.encoders.spec import BUILTIN_MODEL, EncoderSpec
from fairdedup.errors import FairdedupError, UserError

TEXT = "model_cfg.text_cfg"
KWARGS = f"{TEXT}.tokenizer_kwargs"
VISION = "model_cfg.vision_cfg"

CONFIGS = {
    "Python for the tokenizer": (f"{KWARGS}.trust_remote_code", True, "it would run Python"),
    "Python, said to be off": (f"{KWARGS}.trust_remote_code", False, "it would run Python"),
    "Python by name": (f"{TEXT}.auto_map", {"AutoModel": "evil.Model"}, "it would run Python"),
    "Python of another repository": (f"{KWARGS}.auto_map", {"AutoTokenizer": ["a/b--x.Y"]}, "it would run Python"),
    "Python at a revision": (f"{KWARGS}.code_revision", "main", "it would run Python"),
    "Python beside the model": ("trust_remote_code", True, "it would run Python"),
    "Python in the preprocessing": ("preprocess_cfg.auto_map", {}, "it would run Python"),
    "Python deep inside": ("notes", [{"a": [{"trust_remote_code": 1}]}], "notes.0.a.0.trust_remote_code = 1"),
    "a text model of transformers": (f"{TEXT}.hf_model_name", "a/b", "names a model of transformers outside"),
    "a text model at a path": (f"{TEXT}.hf_model_name", "/tmp/evil", "names a model of transformers outside"),
    "a tokenizer at a path": (f"{TEXT}.hf_tokenizer_name", "/tmp/evil", "neither a path nor an address"),
    "a tokenizer above": (f"{TEXT}.hf_tokenizer_name", "../evil", "neither a path nor an address"),
    "a tokenizer of the web": (f"{TEXT}.hf_tokenizer_name", "https://a.b/c", "neither a path nor an address"),
    "a tokenizer's file": (f"{KWARGS}.tokenizer_file", "/etc/passwd", "no such key"),
    "a tokenizer in GGUF": (f"{KWARGS}.gguf_file", "x.gguf", "no such key"),
    "a tokenizer of Mistral": (f"{KWARGS}.mistral_format", True, "no such key"),
    "another folder": (f"{KWARGS}.subfolder", "..", "no such key"),
    "a cache elsewhere": (f"{KWARGS}.cache_dir", "/tmp", "no such key"),
    "a proxy": (f"{KWARGS}.proxies", {"https": "evil:80"}, "no such key"),
    "merges elsewhere": (f"{KWARGS}.bpe_path", "/etc/passwd", "names a file outside the folder"),
    "a download of nltk": (f"{KWARGS}.reduction_mask", "syntax", "or downloads data"),
    "a regular expression": (f"{KWARGS}.additional_special_tokens", ["(a+)+$"], "part of a regular expression"),
    "a vision model of the hub": (f"{VISION}.timm_model_name", "hf-hub:a/b", "neither a path nor an address"),
    "a vision model at a path": (f"{VISION}.timm_model_name", "local-dir:/tmp/evil", "neither a path nor an address"),
    "arguments of timm": (f"{VISION}.timm_kwargs", {"checkpoint_path": "/tmp/x"}, "no such key"),
    "pretrained weights at an address": (f"{VISION}.timm_pretrained_url", "https://a.b/c", "no such key"),
    "the type of a layer": (f"{VISION}.norm_kwargs", {"device": "cuda"}, "no such key"),
    "an activation": (f"{VISION}.act_kwargs", {"approximate": "__import__('os')"}, "not one that such a model"),
    "an argument of the model": ("model_cfg.cast_dtype", "float16", "no such key"),
    "text for a number": ("model_cfg.embed_dim", "256; x", "not one that such a model"),
    "no number": ("model_cfg.init_logit_scale", float("nan"), "not one that such a model"),
    "an endless number": ("model_cfg.init_logit_scale", 10**4000, "not one that such a model"),
    "a key that moves the cursor": ("model_cfg.\x1b[2J\n", 1, "\\x1b[2J"),
    "a width for all memory": (f"{TEXT}.width", 1 << 40, "not one that such a model"),
    "layers without weights": (f"{TEXT}.layers", 1000, "describes at least"),
    "a list for the model": ("model_cfg", [], "model_cfg = [] is refused"),
    "no text": (TEXT, None, "text_cfg = None is refused"),
    "an unknown interpolation": ("preprocess_cfg.interpolation", "eval", "not one that such a model"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_loaded():
    """Forget the encoder that another test has loaded by the same name."""
    loading.forget_encoders()


def spec(model: object, pretrained: str | None = None) -> EncoderSpec:
    return EncoderSpec(str(model), pretrained, 4, "cpu", "float32", 1)


def refusal(folder: Path) -> str:
    """Return the error of a folder: the same one before workers start and on a worker."""
    name = f"local-dir:{folder}"
    with pytest.raises(UserError) as early:
        check_model(name, None)
    with pytest.raises(UserError) as late:
        load_encoder(spec(name))
    assert str(early.value) == str(late.value)
    assert "\n" not in str(early.value) and str(folder) in str(early.value)
    return str(early.value)


@pytest.mark.parametrize(("key", "value", "says"), CONFIGS.values(), ids=CONFIGS)
def test_a_configuration_that_is_more_than_data_is_refused(key, value, says, tmp_path):
    message = refusal(write_model(tmp_path, change(builtin_config(), key, value)))
    assert CONFIG in message and says in message
    assert key.rpartition(".")[2] in message or "notes" in message or "parameters" in message or "x1b" in message


TOKENIZERS = {
    "Python": ({"auto_map": {"AutoTokenizer": ["evil.Evil", None]}}, "it would run Python"),
    "a class that is no tokenizer": ({"tokenizer_class": "Pipeline"}, "reads only text and numbers"),
    "a class with a pickle": ({"tokenizer_class": "TransfoXLTokenizer"}, "reads only text and numbers"),
    "a class that starts programs": ({"tokenizer_class": "BertJapaneseTokenizer"}, "reads only text and numbers"),
    "no class": ({"tokenizer_class": None}, "reads only text and numbers"),
    "options of SentencePiece": ({"sp_model_kwargs": {"model_file": "/etc/passwd"}}, "sp_model_kwargs"),
    "an unknown key": ({"mecab_kwargs": {"mecab_option": "-r x"}}, "mecab_kwargs"),
}


@pytest.mark.parametrize(("keys", "says"), TOKENIZERS.values(), ids=TOKENIZERS)
def test_a_tokenizer_that_is_more_than_data_is_refused(keys, says, tmp_path):
    write_model(tmp_path, change(builtin_config(), f"{TEXT}.hf_tokenizer_name", "a/b"))
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer", **keys}))
    message = refusal(tmp_path)
    assert "tokenizer_config.json" in message and says in message


def test_a_pickled_tokenizer_is_not_read(tmp_path):
    write_model(tmp_path, change(builtin_config(), f"{TEXT}.hf_tokenizer_name", "a/b"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))
    (tmp_path / "vocab.pkl").write_bytes(folders.plain_pickle(tmp_path / "marker"))
    assert "tokenizer.json is missing" in refusal(tmp_path)
    assert not (tmp_path / "marker").exists()


def link(folder: Path, name: str, target: Path) -> None:
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(target)


def fifo(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)


FILES = {
    "a configuration elsewhere": (lambda f: link(f, CONFIG, Path("/etc/passwd")), "is a link out of the folder"),
    "weights elsewhere": (lambda f: link(f, WEIGHTS, Path("/etc/passwd")), "is a link out of the folder"),
    "endless weights": (lambda f: link(f, WEIGHTS, Path("/dev/zero")), "is a link out of the folder"),
    "weights above": (lambda f: link(f, WEIGHTS, Path("../x")), "is a link out of the folder"),
    "a link to itself": (lambda f: link(f, WEIGHTS, Path(WEIGHTS)), "is not a regular file"),
    "a configuration without end": (lambda f: fifo(f, CONFIG), "is not a regular file"),
    "weights without end": (lambda f: fifo(f, WEIGHTS), "is not a regular file"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "no weights in that folder; put open_clip_model.safetensors"),
    "no JSON": (lambda f: (f / CONFIG).write_text("import os"), "is not JSON"),
    "deep JSON": (lambda f: (f / CONFIG).write_text("[" * 500_000), "is not JSON (it is nested too deeply)"),
    "a list": (lambda f: (f / CONFIG).write_text("[]"), "is not a JSON object"),
    "a huge configuration": (lambda f: (f / CONFIG).write_text(" " * (1 << 21)), "has over 1 MiB"),
    "other bytes": (lambda f: (f / CONFIG).write_bytes(b"\xff\xfe{}"), "is not JSON"),
    "another kind of model": (lambda f: (f / CONFIG).write_text("{}"), "model_cfg has no embed_dim"),
}  # fmt: skip


@pytest.mark.parametrize(("break_it", "says"), FILES.values(), ids=FILES)
def test_a_file_that_is_none_of_the_folder_is_refused(break_it, says, tmp_path):
    folder = write_model(tmp_path / "model")
    break_it(folder)
    assert says in refusal(folder)


def poison(folder: Path, marker: Path, content: bytes, name: str = "open_clip_pytorch_model.bin") -> str:
    write_model(folder, weights=content, name=name)
    assert not marker.exists()
    return f"local-dir:{folder}"


@pytest.mark.parametrize("make", [folders.plain_pickle, folders.tricky_pickle])
@pytest.mark.parametrize("name", ["open_clip_pytorch_model.bin", "model.pth", WEIGHTS])
def test_pickled_weights_run_nothing(make, name, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    marker = tmp_path / "marker"
    padded = make(marker) if name == WEIGHTS else with_padding(make(marker))
    with pytest.raises(UserError) as caught:
        load_encoder(spec(poison(tmp_path / "model", marker, padded, name)))
    assert "give" in str(caught.value) and "\n" not in str(caught.value)
    assert not marker.exists()
    assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1"


def with_padding(archive: bytes) -> bytes:
    """Return an archive of torch that is as large as the weights that the configuration describes."""
    import io
    import zipfile

    stream = io.BytesIO(archive)
    with zipfile.ZipFile(stream, "a") as zipped:
        zipped.writestr("archive/padding", bytes(4 << 20))
    return stream.getvalue()


@pytest.mark.parametrize("ending", [".pt", ".pth", ".bin", ".npz", ".npy", ".safetensors", ""])
@pytest.mark.parametrize("make", [folders.plain_pickle, folders.tricky_pickle])
def test_a_file_of_weights_runs_nothing(make, ending, tmp_path, monkeypatch):
    import numpy as np

    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    marker, file = tmp_path / "marker", tmp_path / f"weights{ending}"
    if ending in (".npz", ".npy"):
        array = np.array([folders.Code(marker)], dtype=object)
        with open(file, "wb") as opened:
            (np.savez if ending == ".npz" else np.save)(opened, array)
    else:
        file.write_bytes(make(marker))
    with pytest.raises(UserError, match="does not load into 'fairdedup-small'"):
        load_encoder(spec(BUILTIN_MODEL, str(file)))
    assert not marker.exists()


# Without the check, open_clip alone: what these show is why the check is needed.


@contextmanager
def open_clip_alone(monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(openclip, "_safe_name", nullcontext)
        patched.setattr(openclip, "tensors_only", nullcontext)
        yield


def load_both_ways(model: str, marker: Path, monkeypatch, *, refused: str) -> None:
    """Show that a folder does something without the check, and nothing with it."""
    with open_clip_alone(monkeypatch):
        with suppress(FairdedupError, TypeError):  # the harm is done by then
            load_encoder(spec(model)).encode_texts(["a photo"])
        assert marker.exists(), "without the check, the folder does nothing: this test shows nothing"
    loading.forget_encoders()
    marker.unlink()
    with pytest.raises(UserError, match=refused):
        load_encoder(spec(model))
    assert not marker.exists()


def test_without_the_check_pickled_weights_run(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    marker = tmp_path / "marker"
    model = poison(tmp_path / "model", marker, with_padding(folders.tricky_pickle(marker)))
    load_both_ways(model, marker, monkeypatch, refused="does not load")


def test_without_the_check_a_tokenizer_of_the_folder_runs(tmp_path, monkeypatch):
    """The real transformers if it is installed; otherwise a stand-in that loads `auto_map` as transformers does."""
    folder, marker = tmp_path / "model", tmp_path / "marker"
    config = change(builtin_config(), f"{TEXT}.hf_tokenizer_name", "a/b")
    write_model(folder, change(config, f"{KWARGS}.trust_remote_code", True))
    keys = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(keys))
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w').close()\nclass Evil: pass\n")
    use_transformers(monkeypatch)
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    load_both_ways(f"local-dir:{folder}", marker, monkeypatch, refused="trust_remote_code = True is refused")


def use_transformers(monkeypatch) -> None:
    try:
        import transformers  # noqa: F401
    except ImportError:
        module = types.ModuleType("transformers")
        module.AutoTokenizer = StandIn  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "transformers", module)


class StandIn:
    """Loads the class that `auto_map` names from the folder's Python, if that is trusted."""

    @staticmethod
    def from_pretrained(folder, *, cache_dir=None, trust_remote_code=False):
        where = json.loads((Path(folder) / "tokenizer_config.json").read_text())["auto_map"]["AutoTokenizer"][0]
        module, _, name = where.partition(".")
        inside: dict[str, object] = {}
        if trust_remote_code:
            exec((Path(folder) / f"{module}.py").read_text(), inside)
        return inside.get(name)


def test_without_the_check_captions_download_data(tmp_path, monkeypatch):
    """A stand-in for nltk writes the marker where the real one would download."""
    folder, marker = tmp_path / "model", tmp_path / "marker"
    write_model(folder, change(builtin_config(), f"{KWARGS}.reduction_mask", "syntax"))
    nltk = types.ModuleType("nltk")
    nltk.download = lambda name: marker.touch()  # type: ignore[attr-defined]
    nltk.tokenize = types.SimpleNamespace(word_tokenize=str.split)  # type: ignore[attr-defined]
    nltk.pos_tag = lambda words: [(word, "NN") for word in words]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "nltk", nltk)
    monkeypatch.setattr("open_clip.tokenizer._nltk_init", False)
    load_both_ways(f"local-dir:{folder}", marker, monkeypatch, refused="reduction_mask = 'syntax' is refused")


READS: list[str] = []
LISTENING = [False]


def listen(event: str, arguments: tuple) -> None:
    if LISTENING[0] and event == "open":
        READS.append(str(arguments[0]))


sys.addaudithook(listen)


@pytest.mark.parametrize(
    ("key", "prefix", "name"),
    [
        (f"{KWARGS}.bpe_path", "", "merges.gz"),
        (f"{VISION}.timm_model_name", "local-dir:", "config.json"),
    ],
)
def test_without_the_check_files_elsewhere_are_read(key, prefix, name, tmp_path, monkeypatch):
    folder, elsewhere = tmp_path / "model", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / name).write_text("{}")
    write_model(folder, change(builtin_config(), key, f"{prefix}{elsewhere}" if prefix else str(elsewhere / name)))

    def reads() -> bool:
        READS.clear()
        LISTENING[0] = True
        with pytest.raises(FairdedupError):
            load_encoder(spec(f"local-dir:{folder}"))
        LISTENING[0] = False
        return str(elsewhere / name) in READS

    with open_clip_alone(monkeypatch):
        assert reads(), "without the check, the folder reads nothing: this test shows nothing"
    assert not reads()


def test_without_the_check_the_hub_is_contacted(tmp_path, monkeypatch):
    folder, marker = tmp_path / "model", tmp_path / "marker"
    write_model(folder, change(builtin_config(), f"{VISION}.timm_model_name", "hf-hub:a/b"))

    def contact(*_: object, **__: object) -> None:
        marker.touch()
        raise OSError("no network")

    monkeypatch.setattr("timm.models._hub.hf_hub_download", contact)
    load_both_ways(f"local-dir:{folder}", marker, monkeypatch, refused="timm_model_name = 'hf-hub:a/b' is refused")


def test_while_a_folder_loads_the_hub_is_out_of_reach():
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    before = constants.HF_HUB_OFFLINE
    with network.nothing_fetched(), pytest.raises(LocalEntryNotFoundError):
        hf_hub_download("a/b", "c")
    assert before == constants.HF_HUB_OFFLINE


def test_weights_of_more_than_tensors_are_named_as_that(tmp_path):
    folder = tmp_path / "model"
    model = poison(folder, tmp_path / "marker", with_padding(folders.plain_pickle(tmp_path / "marker")))
    with pytest.raises(UserError, match="its weights hold more than tensors"):
        load_encoder(spec(model))
    write_model(folder)  # the remedy: the files of one model
    assert load_encoder(spec(model)).encode_texts(["a"]).shape == (1, 256)
    assert torch.is_tensor(torch.zeros(1))
