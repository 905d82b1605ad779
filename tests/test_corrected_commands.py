"""After a mistake the corrected command works in the same run directory: the mistake is found before it is recorded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from remedies import call, manifest_of
from runs import files, sample, write_tar

from fairdedup.encoders.spec import BUILTIN_WEIGHTS

IMAGES = "run s.tar --keep 0.5 --rule semdedup --clusters 1 --out r"
VECTORS = "run v.npy --keep 0.5 --clusters 1 --out r"
RIGHT = f"--model fairdedup-small --pretrained {BUILTIN_WEIGHTS}"


@pytest.fixture
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a tar of pictures, on a machine without a network."""
    members: dict[str, bytes] = {}
    for k in range(6):
        members |= sample(f"{k:03d}", 7 * k)
    write_tar(place / "s.tar", members)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(place / "hub"))
    return place


def recorded(run: Path) -> dict[str, object]:
    """Return the options that a run directory has recorded; empty without a run."""
    file = run / "config.json"
    return json.loads(file.read_text())["asked"] if file.is_file() else {}


WRONG_MODELS = (
    ("--model fairdedup-small --pretrained opnai", "pretrained 'opnai' is not a tag of fairdedup-small", 2),
    ("--model ViT-B-16 --pretrained openai", "Could not download the weights of --model ViT-B-16", 1),
    ("--model hf-hub:a/b", "cannot be downloaded (HF_HUB_OFFLINE is set)", 1),
)


def test_a_model_that_does_not_load_is_not_recorded_and_clears_no_run(here):
    for words, says, code in WRONG_MODELS:
        shown = call(f"{IMAGES} {words}")
        assert (shown.code, shown.err.count("\n")) == (code, 1) and says in shown.err, shown.err
        assert recorded(here / "r") == {}
    assert call(f"{IMAGES} {RIGHT}").code == 0
    before = files(here / "r")
    assert call(f"{IMAGES} --model fairdedup-small --pretrained opnai --restart").code == 2
    assert files(here / "r") == before


def test_the_model_of_ready_embeddings_is_loaded_before_they_are_clustered(here):
    """Its text tower embeds the captions, at the end of a run."""
    (here / "v.npy").write_bytes((here / "x.npy").read_bytes())
    shown = call(f"{VECTORS} --rule balanced --model fairdedup-small --pretrained opnai")
    assert shown.code == 2 and "is not a tag of fairdedup-small" in shown.err
    assert recorded(here / "r") == {}
    assert call(f"{VECTORS} --rule balanced --prototypes p.npz").code == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_not_recorded(here):
    shown = call(f"{IMAGES} --device cuda")
    assert shown.code == 2 and "Use --device cpu or auto." in shown.err
    assert recorded(here / "r") == {}
    assert call(f"{IMAGES} --device cpu").code == 0


def test_a_column_that_pictures_do_not_have_is_found_before_they_are_embedded(here):
    words = "run s.tar --eps 0.1 --clusters 1 --out r"
    for wrong in ("--where 'sed > 1'", "--prefer sed", "--within sed", "--collect sed"):
        shown = call(f"{words} {wrong}")
        assert shown.code == 2 and "sed" in shown.err and "seed" in shown.err, shown.err
        assert recorded(here / "r") == {} and not list((here / "r").glob("embeddings/img_emb/*"))
    assert call(f"{words} --where 'seed > 1' --prefer pixels --within seed --collect seed").code == 0


def test_a_column_that_embeddings_do_not_have_is_found_before_the_clustering(here):
    words = "run t.parquet --eps 0.1 --clusters 2 --out r"
    for wrong, says in (
        ("--where 'wdth > 100'", "names column 'wdth'"),
        ("--prefer wdth", "the metadata has no such column"),
        ("--within langage", "the metadata has no such column"),
        ("--collect wrd", "the metadata has no such column"),
    ):
        shown = call(f"{words} {wrong}")
        assert shown.code == 2 and says in shown.err, shown.err
        assert set(recorded(here / "r")) <= {"embed"}
    assert call(f"{words} --where 'width > 100' --prefer width --within language --collect word").code == 0
    assert manifest_of(here / "r")["counts"]["input"] == 60


def test_an_expression_that_does_not_fit_the_columns_is_found_before_the_pictures_are_embedded(here):
    words = "run s.tar --eps 0.1 --clusters 1 --out r"
    for wrong, says in (
        ("--where 'seed + 1'", "must be true or false"),
        ("--where 'date_trunc(1, seed) > 1'", "cannot be evaluated (Binder Error"),
        ("--where 'len(list_filter(caption, lambda x: x > 1)) > 0'", "cannot be evaluated (Binder Error"),
        ("--where 'len(list_filter([1, 2], lambda x: x > sed)) > 0'", "names column 'sed'"),
        ("--where 'len(list_filter([1, 2], lambda x: x > 1)) > x'", "names column 'x'"),
        ("--prefer caption", "must be a column of numbers, and is string"),
    ):
        shown = call(f"{words} {wrong}")
        assert shown.code == 2 and says in shown.err and shown.err.count("\n") == 1, shown.err
        assert recorded(here / "r") == {} and not list((here / "r").glob("embeddings/img_emb/*"))
    assert call(f"{words} --where 'len(list_filter([0, 100], lambda x: x > seed)) > 0'").code == 0


def test_a_function_that_does_not_exist_is_found_before_the_input_is_read(here):
    shown = call("run s.tar --eps 0.1 --clusters 1 --out r --where 'sedd(seed) > 1'")
    assert shown.code == 2 and "Scalar Function with name sedd does not exist" in shown.err
    assert not (here / "r").exists()
