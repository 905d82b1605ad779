"""Help: every command shows options and examples, and the examples run."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from runs import (
    command,
    contents,
    done,
    manifest,
    picture,
    table,
)

from fairdedup import __version__, cli
from fairdedup.config import DEFAULT_FILE, RunConfig
from fairdedup.encoders import BUILTIN_WEIGHTS

COMMANDS = sorted(cli.cli.commands)
EXAMPLES = {name: cli.cli.commands[name].examples for name in COMMANDS}  # type: ignore[attr-defined]
NEEDS_A_HUB = "--pretrained openai"


def examples_of(text: str) -> list[str]:
    """Return the lines under Examples in a help text."""
    return [line.strip() for line in text.partition("Examples:\n")[2].splitlines() if line.strip()]


def test_help_answers_in_under_a_second():
    spent = []
    for _ in range(3):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "fairdedup", "--help"], check=True, capture_output=True)
        spent.append(time.perf_counter() - started)
    assert min(spent) < 1.5


def test_help_imports_nothing_heavy():
    code = "import sys; from fairdedup.cli import call; call(['run', '--help']); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    heavy = {"numpy", "pandas", "pyarrow", "torch", "open_clip", "distributed", "numba", "faiss", "rich", "pydantic"}
    assert not heavy & set(loaded.splitlines()[-1].split())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_examples_of_itself(name):
    shown = done(name, "--help")
    examples = examples_of(shown.out)
    assert examples == list(EXAMPLES[name])
    assert examples and all(example.startswith(f"fairdedup {name}") for example in examples)
    assert shown.err == ""


def test_the_help_of_an_audit_explains_its_seed():
    assert re.search(r"--seed INTEGER +Seed of the resampling\.  \[default: 0\]\n", done("audit", "--help").out)


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_without_a_command_there_is_help(arguments):
    shown = done(*arguments)
    assert shown.out.startswith("Usage: fairdedup") and all(f"\n  {name} " in shown.out for name in COMMANDS)


def test_version():
    assert done("--version").out == f"fairdedup, version {__version__}\n"


def test_the_module_is_the_command():
    shown = subprocess.run([sys.executable, "-m", "fairdedup", "replace"], capture_output=True, text=True)
    assert (shown.returncode, shown.stdout) == (2, "")
    assert shown.stderr == "fairdedup: error: Missing option '--gone'. See fairdedup replace --help.\n"


@pytest.mark.parametrize("example", [line for lines in EXAMPLES.values() for line in lines])
def test_every_example_is_well_formed(example, here):
    for part in example.split("&&"):
        program, name, *arguments = shlex.split(part)
        assert program == "fairdedup"
        found = cli.cli.commands[name]
        with found.make_context(name, arguments) as context:
            flags = {k: v for k, v in context.params.items() if k in RunConfig.model_fields and v is not None}
        flags |= {k: int(v) for k, v in flags.items() if k == "clusters"}
        RunConfig(**{k: v for k, v in flags.items() if k not in ("seed", "rows") or name != "sample"})


def test_every_example_runs_in_this_order(here, weights, scheduler):
    """All examples run except those that download a model; local weights replace the built-in encoder."""
    DEFAULT_FILE.write_text(yaml.safe_dump({
        "scheduler": scheduler, "model": "fairdedup-small", "pretrained": str(weights)
    }))  # fmt: skip
    Path("photos").mkdir()
    for k in range(400):
        Path("photos", f"{k}.png").write_bytes(picture(5 * k, side=16))
    ran = []
    lines = [f"{k}.png,{('woman', 'man')[k % 2]},{('young', 'older')[k % 3 == 0]}" for k in range(400)]
    Path("labels.csv").write_text("\n".join(["id,gender,age", *lines]))
    for name in ("run", "cluster", "prune", "sweep", "search", "explain", "audit", "export", "sample"):
        for example in examples_of(done(name, "--help").out):
            if NEEDS_A_HUB in example or "--to uids" in example or example == "fairdedup run --keep 0.5":
                continue
            shutil.rmtree("fairdedup-run", ignore_errors=True)
            for part in example.split("&&"):
                words = shlex.split(part)[1:]
                if "embeddings/" in words:
                    shutil.copytree("my-run/embeddings", "embeddings")
                if "new-photos/" in words:
                    shutil.copytree("photos", "new-photos", ignore=lambda _, names: names[::3])
                if words[0] == "sample":
                    words += ["--rows", "200"]
                flags = ["--pretrained", str(weights)] if words[0] in ("sweep", "prune") else []
                shown = done(*words, *flags)
                assert shown.out, part
                ran.append(part.strip())
    assert len(ran) >= 9, ran
    assert manifest(Path("my-run"))["config"]["prune"]["keep"] == 0.3


@pytest.mark.skipif(not BUILTIN_WEIGHTS.is_file(), reason="the built-in weights are not trained yet")
def test_the_first_command_of_the_help_runs_on_the_sample_that_it_draws(here, scheduler, monkeypatch):
    from fairdedup import sample

    draw = sample.write_sample
    monkeypatch.setattr(sample, "write_sample", lambda folder, **options: draw(folder, n=300, **options))
    shown = done("run", "--keep", 0.5, "--scheduler", scheduler)
    known = manifest(here / "fairdedup-run")
    assert known["counts"]["kept"] == 150 and known["counts"]["rejected"] == 5
    assert {line["attribute"] for line in known["shares"]} == {
        "drawn perceived gender", "drawn age", "drawn skin tone"
    }  # fmt: skip
    assert "groups as they were drawn" in shown.out and "rejected" in shown.out
    shown = done("export", "--to", "webdataset", "--scheduler", scheduler)
    assert (
        "kept samples: 150, 1 tar shard, " in shown.out and (here / "fairdedup-run-kept" / "shard-00000.tar").is_file()
    )
    assert set(table(here / "fairdedup-run" / "kept")["id"]) <= set(
        pq.read_table(here / "fairdedup-run" / "sample" / "labels.parquet")["id"].to_pylist()
    )
    (here / "gone.txt").write_text("\n".join(table(here / "fairdedup-run" / "kept")["id"][:20]))
    with monkeypatch.context() as patched:  # killed before the state is renewed
        patched.setattr(
            "fairdedup.commands.replace.renew_run_state", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        assert command("replace", "--gone", "gone.txt", "--scheduler", scheduler, "--quiet").code == 1
    assert "finished already" in done("run", "--keep", 0.5, "--scheduler", scheduler).err
    after = manifest(here / "fairdedup-run")
    assert after["replaced"][0]["gone"] == 20 and len(after["shares"]) == len(known["shares"])
    assert after["shares"] != known["shares"] and not (here / "fairdedup-run" / "state" / "stale.json").exists()


def test_sample_writes_what_run_reads(here):
    shown = done("sample", "faces", "--rows", 200, "--seed", 3)
    assert shown.out == "200 pictures, 24 of them copies, in faces\n"
    assert done("sample", "quiet", "--rows", 200, "--seed", 3, "--quiet").out == ""
    assert contents(here / "faces") == contents(here / "quiet")
    again = command("sample", "faces", "--rows", 200)
    assert (again.code, again.err) == (2, "fairdedup: error: DIR 'faces' is not empty. Choose a new folder.\n")
