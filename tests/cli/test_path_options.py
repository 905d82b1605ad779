"""~, $VAR and ${VAR} in every option, argument and key of the YAML that is a path."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import click
import numpy as np
import pytest
from runs import command, done, manifest, raw_vectors

from fairdedup import cli
from fairdedup.cli.value_types import ModelName, PathText, Place
from fairdedup.config import MODELS, PATHS, RunConfig, load_config
from fairdedup.errors import UserError
from fairdedup.path_expansion import expand_model, expand_path


@pytest.fixture
def home(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder, with HOME, DATA and EMPTY in the environment."""
    folder = here / "home of me"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("DATA", str(here / "data"))
    monkeypatch.setenv("DAY", "2026-11-28")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("NOPE", raising=False)
    return folder


EXPANDED = {
    "~": "HOME",
    "~/x.npy": "HOME/x.npy",
    "$DATA/x.npy": "HERE/data/x.npy",
    "${DATA}/x.npy": "HERE/data/x.npy",
    "~/$DAY/part-${DAY}.tar": "HOME/2026-11-28/part-2026-11-28.tar",
    "$DATA/{00000..00014}.tar": "HERE/data/{00000..00014}.tar",
    "$DATA/{a,b}/**/*.jpg": "HERE/data/{a,b}/**/*.jpg",
    "s3://bucket/$DAY": "s3://bucket/2026-11-28",
    "a~b/~": "a~b/~",
    "./~/x": "./~/x",
    "price$": "price$",
    "5$/x": "5$/x",
    "$5": "$5",
    "a$/b": "a$/b",
    "[$]DATA/x": "[$]DATA/x",
    "~nobody-of-this-name/x": "~nobody-of-this-name/x",
    "~backup.npy": "~backup.npy",
    "": "",
    "plain": "plain",
    "$(date)": "$(date)",
    "${DATA": "${DATA",
    "zero\0$DATA": "zero\0HERE/data",
}


@pytest.mark.parametrize("text", EXPANDED)
def test_a_path_is_expanded_as_by_a_shell(text: str, home: Path, here: Path) -> None:
    assert expand_path(text, "--out") == EXPANDED[text].replace("HOME", str(home)).replace("HERE", str(here))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "$NOPE/x",
            "--drop '$NOPE/x': the environment variable NOPE is not set. Set it, or write the path without it.",
        ),
        ("a/${NOPE}.txt", "--drop 'a/${NOPE}.txt': the environment variable NOPE is not set."),
        ("$DATA/$NOPE", "--drop '$DATA/$NOPE': the environment variable NOPE is not set."),
        ("$EMPTY/run", "--drop '$EMPTY/run': the environment variable EMPTY is empty."),
        ("price$list.txt", "the environment variable list is not set"),
    ],
)
def test_a_variable_that_is_not_set_is_an_error(
    text: str, says: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError) as caught:
        expand_path(text, "--drop")
    assert says in str(caught.value) and "\n" not in str(caught.value)
    monkeypatch.setenv("NOPE", "set")  # the remedy
    monkeypatch.setenv("EMPTY", "set")
    monkeypatch.setenv("list", "-of-2026")
    assert "$" not in expand_path(text, "--drop")


def test_a_name_that_exists_as_it_is_written_is_meant(home: Path, here: Path) -> None:
    (here / "price$list.txt").touch()
    (here / "runs$DAY").mkdir()
    (here / "~").mkdir()
    (here / "~" / "old").mkdir()
    (here / "nowhere$DAY").symlink_to("gone")
    for text in ("price$list.txt", "runs$DAY", "runs$DAY/new", "runs$DAY/*.tar", "~/old", "nowhere$DAY"):
        assert expand_path(text, "--out") == text
    assert expand_path("~/new", "--out") == f"{home}/new"
    assert expand_path("other$DAY/new", "--out") == "other2026-11-28/new"


def test_a_home_with_a_dollar_sign_is_not_expanded_again(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/nowhere/a$NOPE")
    assert expand_path("~/x", "--out") == "/nowhere/a$NOPE/x"
    monkeypatch.setenv("DAY", "$NOPE")
    assert expand_path("~/$DAY", "--out") == "/nowhere/a$NOPE/$NOPE"


def test_a_model_is_expanded_where_it_is_a_path(home: Path, here: Path) -> None:
    assert expand_model("local-dir:~/model", "--model") == f"local-dir:{home}/model"
    assert expand_model("$DATA/weights.pt", "--pretrained") == f"{here}/data/weights.pt"
    for name in ("hf-hub:a/$b", "ViT-B-16", "openai", "~nobody-of-this-name"):
        assert expand_model(name, "--model") == name


def list_paths() -> list[tuple[str, str]]:
    """Return the command and name of every option and argument that takes a path."""
    kinds = (Place, PathText, ModelName)
    return [
        (name, option.name)
        for name, known in cli.cli.commands.items()
        for option in known.params
        if isinstance(option.type, kinds)
    ]


def test_every_option_that_is_a_path_is_known_to_be_one() -> None:
    """A new option of text must be put on one of the two lists."""
    plain = {"text", "sample", "collect", "column", "prefer", "within", "where", "scheduler", "memory_limit"}
    found = {name for _, name in list_paths()}
    assert found == {
        *PATHS, *MODELS, "runs", "gone", "labels", "suggestions", "file", "dest", "source", "folder", "config_file",
        "image", "html", "table", "drawing", "differs",
    }  # fmt: skip
    texts = {
        option.name for known in cli.cli.commands.values() for option in known.params if option.type is click.STRING
    }
    assert texts <= plain, texts - plain
    assert set(PATHS) | set(MODELS) <= set(RunConfig.model_fields)


@pytest.mark.parametrize("name", [*PATHS, *MODELS])
def test_every_path_of_the_yaml_is_expanded(name: str, home: Path, here: Path) -> None:
    file = here / "mine.yaml"
    rest = "model: ViT-B-16\n" if name == "pretrained" else ""
    file.write_text(f"{rest}{name}: ~/$DAY\n" if name != "against" else "against: [~/$DAY, '${DATA}/b']\n")
    value = getattr(load_config(file, {}), name)
    if name == "against":
        assert value == (home / "2026-11-28", here / "data" / "b")
    else:
        assert str(value) == f"{home}/2026-11-28"
    file.write_text(f"{rest}{name}: $NOPE/x\n" if name != "against" else "against: [$NOPE/x]\n")
    with pytest.raises(UserError, match=rf"{name} in .*mine.yaml '\$NOPE/x': the environment variable NOPE is not set"):
        load_config(file, {})
    given = {name: (Path("x"),) if name == "against" else "x"}
    assert load_config(file, given)  # a flag overrides the key, whose variable need not be set


def test_a_value_of_another_kind_is_left_to_the_checks(here: Path) -> None:
    for text in ("input: [a]", "out: 5", "drop: {a: b}", "against: 5", "model: [a]"):
        (here / "mine.yaml").write_text(text)
        with pytest.raises(UserError, match=r"in .*mine\.yaml"):
            load_config(here / "mine.yaml", {})


def test_a_run_reads_and_writes_where_variables_say(home: Path, here: Path, scheduler: str) -> None:
    (here / "data").mkdir()
    np.save(here / "data" / "x.npy", raw_vectors(60))
    (home / "drop.txt").write_text("3\n")
    (home / "keep.txt").write_text("5\n")
    (home / "mine.yaml").write_text("rule: semdedup\nout: ~/$DAY\nexclude_near_eps: 0.0001\n")
    np.save(home / "far.npy", -raw_vectors(60)[:2])
    done("run", "$DATA/x.npy", "--keep", 0.5, "--config", "~/mine.yaml", "--drop", "~/drop.txt", "--always-keep",
         "${HOME}/keep.txt", "--exclude-near", "~/far.npy", "--clusters", 2, "--scheduler", scheduler,
         "--quiet")  # fmt: skip
    run = home / "2026-11-28"
    assert manifest(run)["input"]["source"] == f"{here}/data/x.npy"
    done("prune", "~/$DAY", "--keep", 0.5, "--rule", "semdedup", "--scheduler", scheduler, "--quiet")
    (home / "gone.txt").write_text("7\n")
    done("replace", "~/$DAY", "--gone=~/gone.txt", "--scheduler", scheduler, "--quiet")
    (home / "labels.csv").write_text("id,age\n1,old\n2,young\n")
    done("audit", "~/$DAY", "--labels", "~/labels.csv", "--scheduler", scheduler, "--quiet")
    done("export", "~/$DAY", "--to", "txt", "--dest", "$DATA/kept.txt", "--scheduler", scheduler, "--quiet")
    assert "7" not in (here / "data" / "kept.txt").read_text().split()
    done("run", "$DATA/x.npy", "--against", "~/$DAY", "--out", "$DATA/next", "--id", "shard/key", "--scheduler",
         scheduler, "--quiet")  # fmt: skip
    assert (here / "data" / "next" / "run.json").is_file()
    done("refit", "~/$DAY", "--keep", 0.5, "--out", "~/refit", "--drop", "~/$DAY/gone/gone_0.parquet", "--scheduler",
         scheduler, "--quiet")  # fmt: skip
    assert json.loads((home / "refit" / "run.json").read_text())["counts"]["kept"]
    done("sample", "~/faces", "--rows", 200, "--quiet")
    assert list((home / "faces").glob("*.tar"))
    shutil.rmtree(home / "faces")


@pytest.mark.parametrize(
    "words",
    [
        ("run", "$NOPE/x.npy", "--keep", 0.5), ("run", "x.npy", "--keep", 0.5, "--out", "$NOPE"),
        ("run", "x.npy", "--keep", 0.5, "--drop", "${NOPE}/a.txt"), ("prune", "$NOPE", "--keep", 0.5),
        ("run", "x.npy", "--against", "$NOPE"), ("refit", "$NOPE", "--out", "y"), ("replace", "r", "--gone", "$NOPE"),
        ("audit", "r", "--labels", "$NOPE"), ("calibrate", "r", "--labels", "$NOPE"), ("sample", "$NOPE"),
        ("export", "r", "--to", "txt", "--dest", "$NOPE"), ("export", "r", "--to", "txt", "--input", "$NOPE"),
        ("run", "x.npy", "--config", "$NOPE"), ("run", "x.npy", "--exclude-near", "$NOPE"),
        ("run", "x.npy", "--model", "local-dir:$NOPE"), ("run", "x.npy", "--pretrained", "$NOPE"),
    ],
)  # fmt: skip
def test_every_command_names_the_option_whose_variable_is_not_set(words: tuple[object, ...], home: Path) -> None:
    shown = command(*words)
    assert shown.code == 2 and shown.err.count("\n") == 1
    assert "the environment variable NOPE is not set. Set it, or write the path without it." in shown.err
    option = next((word for word, value in zip(words, words[1:], strict=False) if "NOPE" in str(value)), "")
    if str(option).startswith("--"):
        assert f"{option} '" in shown.err, shown.err


def test_a_variable_brings_no_credentials_into_a_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA", "s3://name:secret@bucket")
    for words in (("run", "$DATA/x", "--keep", 0.5), ("prune", "$DATA/x", "--keep", 0.5)):
        shown = command(*words)
        assert shown.code == 2 and "has credentials in it" in shown.err and "secret" not in shown.err
