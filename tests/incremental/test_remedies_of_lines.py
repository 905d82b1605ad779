"""What the messages of `--against` and `refit` advise works: it is read from the message and applied."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from remedies import Advice, call, check, manifest_of
from runs import raw_vectors, table

from fairdedup.commands import replace as replace_command
from fairdedup.errors import UserError
from fairdedup.incremental.inherited_options import _join_inputs as join_inputs

FIRST = "run t.parquet --rule semdedup --eps 0.1 --clusters 4 --out r"
BALANCED = FIRST.replace("semdedup", "balanced --prototypes p.npz")
NEXT = "run y.npy --against r --out s"
NAMED = "--model ViT-B-32 --pretrained openai --prototypes p.npz"


def move(old: str, new: str):
    return lambda here: shutil.move(here / old, here / new)


TABLE = {
    "an amount": Advice(
        f"{FIRST} && {NEXT} --keep 0.5", r"leave it out, or limit the new rows with (?P<most>--at-most [0-9.]+)",
        [NEXT, f"{NEXT} {{most}} --restart"],
    ),
    "another eps": Advice(
        f"{FIRST} && {NEXT} --eps 0.2", r"the eps of 'r', (?P<eps>[0-9.]+): leave it out",
        [NEXT, f"{NEXT}2 --eps {{eps}}"],
    ),
    "another start": Advice(
        f"{FIRST} && {NEXT} --start zero",
        r"leave it out, or start a new line with it: `fairdedup (?P<refit>refit \S+ --keep) F --out NEW`",
        [NEXT, "{refit} 0.5 --out new --start zero"],
    ),
    "a rule that cannot": Advice(
        f"{FIRST} && {NEXT} --rule random", r"choose one of .*(?P<rule>semdedup)", [f"{NEXT} --rule {{rule}}"],
    ),
    "a rule that needs prototypes": Advice(
        f"{FIRST} && {NEXT} --rule balanced", r"choose a rule that needs none", [f"{NEXT} --rule semdedup"],
    ),
    "other prototypes": Advice(f"{BALANCED} && {NEXT} --prototypes other.npz", r"leave it out", [NEXT]),
    "other clusters": Advice(
        f"{FIRST} && {NEXT} --clusters 5", r"has (?P<k>[0-9]+) clusters.*: leave it out",
        [NEXT, f"{NEXT}2 --clusters {{k}}"],
    ),
    "fewer than earlier runs leave": Advice(
        f"{FIRST} && {NEXT} --at-most 0.01 --always-keep y.ids.txt", r"give at least (?P<most>--at-most \S+)",
        [f"{NEXT} {{most}} --always-keep y.ids.txt"],
    ),
    "vectors of another dimension": Advice(
        f"{FIRST} && {NEXT.replace('y.npy', 'wide.npy')}", r"all must come from one model", [f"{NEXT}2"],
    ),
    "the run itself": Advice(f"{FIRST} && run y.npy --against r --out r", r"choose another --out", [NEXT]),
    "no run": Advice(
        f"embed t.parquet --out r && {NEXT}", r"finish it, or name another folder",
        [f"cluster r --clusters 4 && prune r --eps 0.1 --rule semdedup && {NEXT}",
         f"{FIRST}2 && run y.npy --against r2 --out t"],
    ),
    "a run at random": Advice(
        f"run t.parquet --rule random --keep 0.5 --out r && {NEXT}", r"name another run",
        [f"{FIRST}2 && run y.npy --against r2 --out s"],
    ),
    "two lines": Advice(
        f"{FIRST} && {FIRST}2 --seed 5 && {NEXT} --against r2", r"name runs of one line",
        [f"{NEXT} && run y.npy --against r --out s2 && run x.npy --against s --against s2 --out u"],
    ),
    "another model": Advice(
        f"{FIRST} {NAMED} && {NEXT} --model ViT-B-16 --pretrained openai",
        r"the encoder is .* and that of .* was '(?P<model>[^']+)' '(?P<tag>[^']+)': embed new rows by that one",
        [f"{NEXT} --model {{model}} --pretrained {{tag}}"],
    ),
    # refit
    "a refit over itself": Advice(
        f"{FIRST} && {NEXT} && refit s --keep 0.5 --out r", r"choose another --out", ["refit s --keep 0.5 --out new"],
    ),
    "a refit without embeddings": Advice(
        f"{FIRST} && {NEXT} && refit s --keep 0.5 --out new", r"embeddings of '.*/r' are missing: restore the folder",
        ["refit s --keep 0.5 --out new"], move("r/embeddings", "away"), move("away", "r/embeddings"),
    ),
    "a refit with vanished samples": Advice(
        f"{FIRST} && {NEXT} && replace r --gone some.txt && refit s --keep 0.5 --out new",
        r"exclude them with (?P<drop>--drop) FILE, such as (?P<file>\S+)",
        ["refit s --keep 0.5 --out new {drop} {file}"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLE)
def test_what_a_message_advises_works(case, place):
    check(TABLE[case], place)


IMAGES = "--prototypes i.npz --device cpu"
MODEL = "--model ViT-B-32 --pretrained openai"
COLOURS = f"run vectors.npy --rule semdedup --eps 0.01 --clusters 1 {IMAGES}"


@pytest.fixture
def pictures(place, write_pictures):
    """Write pictures in in/, and the vectors that the encoder of colours makes of them, and prototypes."""
    write_pictures(place / "in")
    assert call(f"embed in {MODEL} --device cpu --out e").code == 0
    shutil.copy(place / "e/embeddings/img_emb/img_emb_0.npy", place / "vectors.npy")
    x = np.load(place / "vectors.npy").astype(np.float32)
    np.savez(place / "i.npz", **{"a/p": x[0], "a/q": x[1]})


def test_images_against_embeddings_of_an_unknown_model(pictures, place):
    """They can be given as embeddings, or the earlier run can be made again with the name of its model."""
    assert call(f"{COLOURS} --out r").code == 0
    shown = call(f"run in --against r --out s {MODEL}")
    found = re.search(r"give embeddings, or run it again with (--model) and (--restart)", shown.err)
    assert found, shown.err
    assert call("run vectors.npy --against r --out s1").code == 0
    assert call(f"{COLOURS} --out r {MODEL} {found[2]} && run in --against r --out s2 --device cpu").code == 0


def test_embeddings_of_an_unknown_model_against_images(pictures):
    """Their model can be named."""
    images = f"run in --rule semdedup --eps 0.01 --clusters 1 --out r {MODEL} {IMAGES}"
    assert call(images).code == 0
    shown = call("run vectors.npy --against r --out s")
    found = re.search(
        r"embedded by '(\S+)' '(\S+)': name the model that made them \((--model), (--pretrained)\)", shown.err
    )
    assert found, shown.err
    assert call(f"run vectors.npy --against r --out s {found[3]} {found[1]} {found[4]} {found[2]}").code == 0


def test_evaluation_samples_must_be_embeddings_where_the_run_has_embeddings(pictures, place):
    wrong = f"{COLOURS} --out r --exclude-near in"
    shown = call(wrong)
    assert "holds images, but this run has ready-made embeddings: give embeddings of the same model" in shown.err
    np.save(place / "evaluation.npy", -np.load(place / "vectors.npy")[:2])
    assert call(wrong.removesuffix("in") + "evaluation.npy").code == 0


def test_all_samples_that_vanished_from_any_run_are_named_and_stay_away(place):
    assert call(f"{FIRST} && replace r --gone some.txt && replace r --gone more.txt && {NEXT}").code == 0
    (place / "third.txt").write_text("y3\n")
    assert call("replace s --gone third.txt").code == 0
    shown = call("refit s --keep 0.5 --out new")
    found = re.search(r"(\d+) samples of .* --drop FILE, a file of all ids in (.*)\n", shown.err)
    assert found and found[1] == "4", shown.err
    gone = [name for file in found[2].split(", ") for name in pq.read_table(file)["id"].to_pylist()]
    assert sorted(gone) == ["k1", "k2", "k3", "y3"]
    (place / "gone.txt").write_text("\n".join(gone))
    assert call("refit s --keep 0.9 --out new --drop gone.txt").code == 0
    assert set(table(place / "new" / "kept")["id"]).isdisjoint(gone)


def test_the_command_of_the_warning_of_drift_clusters_again(place):
    np.save(place / "far.npy", raw_vectors(60)[:1] + 0.01 * np.random.default_rng(1).normal(size=(60, 16)))
    assert call(f"{FIRST} && run far.npy --against r --out s").code == 0
    (warning,) = manifest_of(place / "s")["warnings"]
    command = re.search(r"a new clustering is due: `fairdedup (refit \S+ --keep) F --out NEW`", warning)
    assert command, warning
    assert call(f"{command[1]} 0.5 --out new").code == 0
    assert manifest_of(place / "new")["counts"]["input"] == 120


def test_a_file_of_earlier_samples_that_was_removed_is_made_by_the_same_command(place, monkeypatch):
    """It can only vanish between two steps of a decision."""
    from fairdedup.commands import run as run_command
    from fairdedup.errors import FairdedupError
    from fairdedup.storage.earlier_samples import list_segments

    assert call(f"{FIRST}").code == 0
    link = run_command.link_earlier_runs

    def lose(directory, earlier):
        found = link(directory, earlier)
        (directory.root / "state" / "earlier.json").unlink()
        return found

    with monkeypatch.context() as patched:
        patched.setattr(run_command, "link_earlier_runs", lose)
        shown = call(NEXT)
    assert shown.code == 1 and "earlier.json is missing: run the same command again" in shown.err
    assert call(NEXT).code == 0 and list_segments(place / "s")
    (place / "s" / "state" / "earlier.json").unlink()
    with pytest.raises(FairdedupError, match="run the same command again"):
        list_segments(Path(place / "s"))


def test_runs_in_different_stores_can_be_copied_to_one(place):
    assert call(f"{FIRST} && {NEXT}").code == 0
    with pytest.raises(UserError, match="copy their embeddings to one, and `fairdedup run` them"):
        join_inputs(["s3://bucket/r", str(place / "s")])
    together = join_inputs([str(place / "r"), str(place / "s")])
    assert (
        call(f"run '{together.replace('{', '{{').replace('}', '}}')}' --rule semdedup --keep 0.5 --out all").code == 0
    )
    assert manifest_of(place / "all")["counts"]["input"] == 90


@pytest.mark.parametrize("remedy", ["run", "replace"])
def test_a_replacement_that_was_stopped_before_it_renewed_the_state_is_finished(place, monkeypatch, remedy):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    assert call(FIRST).code == 0
    with monkeypatch.context() as patched:
        patched.setattr(replace_command, "_update_dependents", stop)
        assert call("replace r --gone some.txt").code == 1
    shown = call(NEXT)
    found = re.search(r"its own `fairdedup (run)` command, or by `fairdedup (replace \S+ --gone) FILE`", shown.err)
    assert shown.code == 2 and found, shown.err
    words = FIRST.replace("run", found[1], 1) if remedy == "run" else f"{found[2]} some.txt"
    assert call(f"{words} && {NEXT}").code == 0
