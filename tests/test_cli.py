"""The command line as a person meets it: help, a run asked for again, another configuration, YAML."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, get_args

import click
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from runs import (
    CLUSTERS,
    command,
    contents,
    done,
    files,
    manifest,
    picture,
    raw_vectors,
    table,
    write_tar,
)

from fairdedup import __version__, cli
from fairdedup.config import DEFAULT_FILE, RunConfig
from fairdedup.core import rules
from fairdedup.encoders import BUILTIN_WEIGHTS

COMMANDS = sorted(cli.cli.commands)
EXAMPLES = {name: cli.cli.commands[name].examples for name in COMMANDS}  # type: ignore[attr-defined]
NEEDS_A_HUB = "--pretrained openai"


def examples_of(text: str) -> list[str]:
    """Return the lines that stand under Examples in a help text."""
    return [line.strip() for line in text.partition("Examples:\n")[2].splitlines() if line.strip()]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Help


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


def test_the_help_of_an_audit_says_what_its_seed_is_of():
    assert re.search(r"--seed INTEGER +Seed of the resampling\.  \[default: 0\]\n", done("audit", "--help").out)


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_without_a_command_there_is_help(arguments):
    shown = done(*arguments)
    assert shown.out.startswith("Usage: fairdedup") and all(f"\n  {name} " in shown.out for name in COMMANDS)


def test_version():
    assert done("--version").out == f"fairdedup, version {__version__}\n"


def test_the_module_is_the_command():
    shown = subprocess.run([sys.executable, "-m", "fairdedup", "sweep"], capture_output=True, text=True)
    assert (shown.returncode, shown.stdout) == (2, "")
    assert shown.stderr == "fairdedup: error: Missing option '--keep'. See fairdedup sweep --help.\n"


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
    """All but those that fetch a model; what the built-in encoder would do, the local weights do."""
    DEFAULT_FILE.write_text(yaml.safe_dump({
        "scheduler": scheduler, "model": "fairdedup-small", "pretrained": str(weights)
    }))  # fmt: skip
    Path("photos").mkdir()
    for k in range(400):
        Path("photos", f"{k}.png").write_bytes(picture(5 * k, side=16))
    ran = []
    lines = [f"{k}.png,{('woman', 'man')[k % 2]},{('young', 'older')[k % 3 == 0]}" for k in range(400)]
    Path("labels.csv").write_text("\n".join(["id,gender,age", *lines]))
    for name in ("run", "cluster", "prune", "sweep", "audit", "export", "sample"):
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
    monkeypatch.setattr(sample, "write_sample", lambda folder: draw(folder, n=300))
    shown = done("run", "--keep", 0.5, "--scheduler", scheduler)
    known = manifest(here / "fairdedup-run")
    assert known["counts"]["kept"] == 150 and known["counts"]["rejected"] == 5
    assert {line["attribute"] for line in known["shares"]} == {
        "drawn perceived gender", "drawn age", "drawn skin tone"
    }  # fmt: skip
    assert "groups as they were drawn" in shown.out and "rejected" in shown.out
    shown = done("export", "--to", "webdataset", "--scheduler", scheduler)
    assert "kept samples: 150, 1 tar, " in shown.out and (here / "fairdedup-run-kept" / "shard-00000.tar").is_file()
    assert set(table(here / "fairdedup-run" / "kept")["id"]) <= set(
        pq.read_table(here / "fairdedup-run" / "sample" / "labels.parquet")["id"].to_pylist()
    )
    (here / "gone.txt").write_text("\n".join(table(here / "fairdedup-run" / "kept")["id"][:20]))
    with monkeypatch.context() as patched:  # killed before the state is renewed
        patched.setattr("fairdedup.increments.renew_state", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
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


# What is printed


def test_a_run_prints_counts_eps_guarantees_shares_and_where_the_ids_are(finished, embeddings, prototypes, scheduler):
    shown = done("run", embeddings, "--keep", 0.5, "--prototypes", prototypes, "--clusters", CLUSTERS,
                 "--out", finished, "--scheduler", scheduler)  # fmt: skip
    assert "finished already: nothing to do (--restart clears it)" in shown.err
    for part in (
        "input        240  5 clusters", "119  50.2% of the valid rows", "reasons in", "duplicates have a cosine above",
        "guarantees (rule fairdedup", "no two kept samples of a cluster are duplicates", "tone", "light", "points",
        f"kept IDs: {finished / 'kept'}",
    ):  # fmt: skip
        assert part in shown.out, part


def test_quiet_prints_nothing_at_all(again, prototypes, scheduler, embeddings):
    asked = ("--prototypes", prototypes, "--scheduler", scheduler, "--quiet")
    for words in (
        ("run", embeddings, "--keep", 0.5, "--clusters", CLUSTERS, "--out", again, *asked),
        ("run", embeddings, "--keep", 0.5, "--clusters", CLUSTERS, "--out", again, *asked, "--restart"),
        ("embed", embeddings, "--out", again, "--scheduler", scheduler, "--quiet"),
        ("cluster", again, "--clusters", 3, "--scheduler", scheduler, "--quiet"),
        ("prune", again, "--keep", 0.5, *asked),
    ):
        shown = done(*words)
        assert (shown.out, shown.err) == ("", ""), words


@pytest.fixture
def labels(again, tmp_path):
    """Return a file with the tone of every sample that the copy decided."""
    ids = table(again / "decisions")["id"]
    lines = [f"{name},{('light', 'dark')[k % 2]}" for k, name in enumerate(ids)]
    (tmp_path / "labels.csv").write_text("\n".join(["id,tone", *lines]))
    return tmp_path / "labels.csv"


def test_quiet_leaves_only_what_a_command_was_asked_to_print(again, prototypes, scheduler, labels, tmp_path):
    (tmp_path / "gone.txt").write_text("k1\n")
    dask = ("--scheduler", scheduler, "--quiet")
    for words in (
        ("audit", again, "--labels", labels, *dask),
        ("gate", again, "--max-rejected", 1, "--quiet"),
        ("calibrate", again, "--labels", labels, "--out", tmp_path / "c.parquet", *dask),
        ("export", again, "--to", "txt", *dask),
        ("refit", again, "--keep", 0.5, "--out", tmp_path / "new", *dask),
        ("replace", again, "--gone", tmp_path / "gone.txt", *dask),
    ):
        shown = done(*words)
        assert (shown.out, shown.err) == ("", ""), words
    for more in ((), ("--log-json",)):
        shown = done("sweep", again, "--keep", 0.5, "--prototypes", prototypes, *dask, *more)
        assert shown.out.split()[:5] == ["keep", "kept", "eps", "re-admitted", "0.5"] and shown.err == ""
        shown = done("audit", again, "--labels", labels, "--json", *dask, *more)
        assert shown.out == (again / "report" / "audit.json").read_text(encoding="utf-8") and shown.err == ""


OF_A_RUN = {"counts", "eps", "guarantees", "warnings", "shares"}


def test_every_command_ends_with_the_event_that_is_documented(
    again, embeddings, prototypes, scheduler, labels, tmp_path
):
    (tmp_path / "gone.txt").write_text("k1\n")
    asked = ("--prototypes", prototypes, "--scheduler", scheduler)
    of_run = (embeddings, "--keep", 0.5, "--clusters", CLUSTERS, "--out", again, *asked)
    of_audit = {"report", "source", "counts", "notes"}
    for words, keys in (
        (("run", *of_run), OF_A_RUN),
        (("audit", again, "--labels", labels), of_audit),
        (("audit", again, "--labels", labels, "--json"), of_audit),
        (("gate", again, "--max-rejected", 1), {"checks"}),
        (("sweep", again, "--keep", 0.5, *asked), {"sweep"}),
        (("calibrate", again, "--labels", labels, "--out", tmp_path / "c.parquet"), {"prototypes", "attributes"}),
        (("export", again, "--to", "txt"), {"path", "samples"}),
        (("refit", again, "--keep", 0.5, "--out", tmp_path / "new", "--scheduler", scheduler), OF_A_RUN),
        (("replace", again, "--gone", tmp_path / "gone.txt", "--scheduler", scheduler), OF_A_RUN),
        (("embed", embeddings, "--out", again, "--scheduler", scheduler), set()),
        (("cluster", again, "--clusters", CLUSTERS, "--scheduler", scheduler), set()),
        (("prune", again, "--keep", 0.5, *asked), OF_A_RUN),
    ):
        shown = done(*words, "--log-json")
        assert bool(shown.out) == ("--json" in words), words
        event = json.loads(shown.err.splitlines()[-1])
        assert event.pop("event") == "finished" and set(event) == {"time", "run"} | keys, words


def test_sweep_prints_a_line_for_each_fraction(finished, prototypes, scheduler):
    shown = done(
        "sweep", finished, "--keep", "0.3, 0.5,1", "--prototypes", prototypes, "--scheduler", scheduler, "--quiet"
    )
    lines = [line.split() for line in shown.out.splitlines()]
    assert lines[0] == ["keep", "kept", "eps", "re-admitted"]
    assert [line[:2] for line in lines[1:]] == [["0.3", "71"], ["0.5", "119"], ["1", "237"]]
    assert lines[2][2] == f"{manifest(finished)['eps']:.4f}"


def on_a_terminal(*words: object, **options: Any) -> tuple[int, str]:
    """Run a command with a terminal of 100 columns for all it prints; return its exit code and what was seen."""
    environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "fairdedup", *map(str, words)], stdin=slave, stdout=slave, stderr=slave,
        env=environment | {"TERM": "xterm", "COLUMNS": "100"}, **options,
    )  # fmt: skip
    os.close(slave)
    chunks: list[bytes] = []

    def drain() -> None:
        while True:
            try:
                chunks.append(os.read(master, 1 << 16))
            except OSError:  # the other end is closed
                return

    reader = threading.Thread(target=drain)
    reader.start()
    code = process.wait(120)
    reader.join(10)
    os.close(master)
    return code, b"".join(chunks).decode()


def test_on_a_terminal_every_stage_has_a_bar_and_names_stay_tame(tmp_path, scheduler):
    np.save(tmp_path / "x.npy", raw_vectors(40))
    out = tmp_path / "run\x1b[31m"
    code, seen = on_a_terminal("run", tmp_path / "x.npy", "--keep", 0.5, "--rule", "semdedup", "--out", out,
                               "--scheduler", scheduler)  # fmt: skip
    assert code == 0, seen
    for stage in ("embed", "train k-means", "assign", "search", "decide", "export"):
        assert re.search(rf"{stage} +\S*━.* 40/40 .*rows.*ETA", seen), stage
    assert "\x1b[31m" + "/kept" not in seen and "run\\x1b[31m/kept" in seen


# A run asked for again


@pytest.fixture
def asked(embeddings: Path, prototypes: Path, scheduler: str) -> list[object]:
    """Return the command of the finished run, but for --out."""
    return ["run", embeddings, "--keep", 0.5, "--prototypes", prototypes, "--clusters", CLUSTERS,
            "--scheduler", scheduler]  # fmt: skip


def test_a_finished_run_says_so_and_starts_nothing(again, asked, monkeypatch):
    before = files(again)
    monkeypatch.setattr("fairdedup.workers.Workers._start", lambda self: pytest.fail("workers were started"))
    shown = done(*asked, "--out", again)
    assert "finished already" in shown.err and files(again) == before


def test_another_configuration_is_refused_and_the_keys_are_named(again, asked):
    before = files(again)
    shown = command(*asked, "--out", again, "--rule", "balanced", "--keep", 0.4, "--seed", 7)
    assert (shown.code, shown.err.count("\n")) == (2, 1)
    assert (
        "was begun with another configuration (seed was 0, is 7, keep was 0.5, is 0.4, rule was 'fairdedup', is "
        "'balanced'): choose another --out or --restart\n"
    ) in shown.err
    shown = command(*asked, "--out", again, "--keep", 0.4)
    assert (
        "configuration (keep was 0.5, is 0.4): choose another --out, --restart, or decide again without re-embedding "
        f"by `fairdedup prune {again}`\n"
    ) in shown.err
    other = command("run", again / "nowhere", "--keep", 0.5, "--out", again)
    assert other.code == 2 and "input was" in other.err
    assert files(again) == before


def test_an_option_that_an_earlier_version_had_not_stood_at_its_default(again, asked, tmp_path):
    known = json.loads((again / "config.json").read_text())
    del known["asked"]["prune"]["drop"]
    (again / "config.json").write_text(json.dumps(known))
    assert "finished already" in done(*asked, "--out", again).err
    (tmp_path / "drop.txt").write_text("k1")
    shown = command(*asked, "--out", again, "--drop", tmp_path / "drop.txt")
    assert shown.code == 2 and "drop was None, is '" in shown.err
    for text in ("{}", "[]", '{"asked": {}}'):
        (again / "config.json").write_text(text)
        shown = command(*asked, "--out", again)
        assert (shown.code, shown.err.count("\n")) == (1, 1) and "config.json is damaged" in shown.err


def test_deciding_again_goes_by_the_seed_of_the_run(embeddings, tmp_path, scheduler):
    out = tmp_path / "run"
    asked = ("run", embeddings, "--rule", "random-neighbour", "--clusters", CLUSTERS, "--keep", 0.5, "--seed", 4,
             "--out", out, "--scheduler", scheduler)  # fmt: skip
    done(*asked, "--quiet")
    kept = contents(out / "kept")
    done("prune", out, "--rule", "random-neighbour", "--keep", 0.5, "--scheduler", scheduler, "--quiet")
    assert manifest(out)["seed"] == 4 and contents(out / "kept") == kept
    assert "finished already" in done(*asked).err
    done("prune", out, "--rule", "random-neighbour", "--keep", 0.5, "--seed", 5, "--scheduler", scheduler, "--quiet")
    assert contents(out / "kept") != kept


def test_a_flag_beats_the_file_also_where_it_says_no(here, again, scheduler):
    (here / "fairdedup.yaml").write_text("cover: true\nrule: semdedup\n")
    for flags, expected in (((), True), (("--no-cover",), False)):
        done("prune", again, "--keep", 0.5, *flags, "--scheduler", scheduler, "--quiet")
        assert manifest(again)["config"]["prune"]["cover"] is expected


def test_prototypes_of_another_content_are_another_configuration(again, asked, prototypes, tmp_path):
    shutil.copy(prototypes, tmp_path / "p.npz")
    asked[asked.index("--prototypes") + 1] = tmp_path / "p.npz"
    done(*asked, "--out", again, "--restart", "--quiet")
    vectors = dict(np.load(tmp_path / "p.npz"))
    np.savez(tmp_path / "p.npz", **{name: -vector for name, vector in vectors.items()})
    shown = command(*asked, "--out", again)
    assert shown.code == 2 and "prototypes_sha256 was" in shown.err


def test_restart_clears_the_run_and_only_the_run(again, asked):
    first = contents(again / "kept")
    (again / "mine.txt").write_text("mine")
    (again / "embeddings" / "stale").write_text("stale")
    shown = done(*asked, "--out", again, "--restart")
    assert "finished already" not in shown.err
    assert contents(again / "kept") == first
    assert (again / "mine.txt").read_text() == "mine" and not (again / "embeddings" / "stale").exists()


def test_restart_clears_no_folder_that_is_no_run(here, asked):
    for folder in ("embeddings", "kept", "report", "sample"):
        (here / "mine" / folder).mkdir(parents=True)
        (here / "mine" / folder / "x").write_text("mine")
    before = files(here)
    shown = command(*asked, "--out", "mine", "--restart")
    assert shown.code == 2 and "mine' holds other files ('embeddings'): choose a new or empty folder" in shown.err
    assert files(here) == before


def test_a_folder_with_other_files_is_refused(here, asked):
    (here / "mine").mkdir()
    (here / "mine" / "thesis.tex").write_text("x")
    for words in (asked, ["embed", asked[1]]):
        shown = command(*words, "--out", "mine")
        assert (shown.code, shown.err) == (
            2, f"fairdedup: error: --out {str(here / 'mine')!r} holds other files ('thesis.tex'): "
            "choose a new or empty folder\n",
        )  # fmt: skip
    assert [p.name for p in (here / "mine").iterdir()] == ["thesis.tex"]


def test_an_input_inside_the_run_is_refused(again, scheduler):
    shown = command("run", again / "embeddings", "--keep", 0.5, "--out", again, "--scheduler", scheduler)
    assert shown.code == 2
    fresh = command("embed", again / "embeddings", "--out", again.parent, "--scheduler", scheduler)
    assert fresh.code == 2 and "holds other files" in fresh.err


# YAML


def write_config(path: Path, **keys: Any) -> Path:
    path.write_text(yaml.safe_dump(keys), encoding="utf-8")
    return path


def test_the_command_line_and_the_yaml_know_the_rules_that_there_are():
    assert set(cli.options.RULES) == set(rules.RULES) == set(get_args(RunConfig.model_fields["rule"].annotation))


def test_every_option_of_run_is_a_key_of_the_yaml():
    options = {p.name for p in cli.cli.commands["run"].params} - {"config_file", "restart", "quiet", "log_json"}
    assert options == set(RunConfig.model_fields)
    for name, model in RunConfig.model_fields.items():
        default = model.default
        assert default is None or not isinstance(default, type), name


def test_a_yaml_file_can_say_it_all_and_a_flag_beats_it(here, embeddings, prototypes, scheduler):
    file = write_config(here / "mine.yaml", input=str(embeddings), keep=0.5, rule="semdedup", clusters=CLUSTERS,
                        out="from-yaml", scheduler=scheduler, cover=True)  # fmt: skip
    done("run", "--config", file, "--quiet")
    asked = manifest(here / "from-yaml")["config"]
    assert asked["prune"]["keep"] == 0.5 and asked["prune"]["rule"] == "semdedup" and asked["prune"]["cover"] is True
    done("run", "--config", file, "--quiet", "--out", "from-flags", "--eps", 0.02, "--rule", "fairdedup",
         "--prototypes", prototypes)  # fmt: skip
    asked = manifest(here / "from-flags")["config"]["prune"]
    assert (asked["keep"], asked["eps"], asked["rule"], asked["cover"]) == (None, 0.02, "fairdedup", True)


def test_a_file_named_fairdedup_yaml_is_read_where_it_lies(here, embeddings, scheduler):
    write_config(here / "fairdedup.yaml", **{"at-most": 0.5, "rule": "semdedup", "scheduler": scheduler})
    done("run", embeddings, "--quiet")
    assert manifest(here / "fairdedup-run")["config"]["prune"]["at_most"] == 0.5
    write_config(here / "other.yaml", keep=0.4, rule="semdedup", scheduler=scheduler)
    done("prune", "--config", "other.yaml", "--quiet")
    assert manifest(here / "fairdedup-run")["config"]["prune"] | {"seed": 0} == {
        **manifest(here / "fairdedup-run")["config"]["prune"], "keep": 0.4, "at_most": None, "seed": 0
    }  # fmt: skip


def test_an_unknown_key_names_the_nearest(here):
    write_config(here / "fairdedup.yaml", keep=0.5, protoypes="x")
    shown = command("run", "x.npy")
    assert (shown.code, shown.err) == (
        2, "fairdedup: error: protoypes in fairdedup.yaml is not an option. Did you mean prototypes?\n"
    )  # fmt: skip
    write_config(here / "fairdedup.yaml", qqq=1)
    assert "qqq in fairdedup.yaml is not an option. See fairdedup run --help." in command("run", "x.npy").err


def test_a_flag_for_the_scheduler_beats_workers_in_the_file(here, embeddings, scheduler):
    write_config(here / "fairdedup.yaml", keep=0.5, rule="semdedup", workers=1)
    done("run", embeddings, "--scheduler", scheduler, "--quiet")


def test_shares_to_aim_at_come_from_the_yaml(here, again, prototypes, scheduler):
    target = {"tone": {"light": 0.2, "dark": 0.8}}
    write_config(here / "fairdedup.yaml", rule="balanced", target=target, scheduler=scheduler,
                 prototypes=str(prototypes), keep=0.4)  # fmt: skip
    done("prune", again, "--quiet")
    assert manifest(again)["config"]["prune"]["target"] == target
    dark = {line["group"]: line["kept"] for line in manifest(again)["shares"]}["dark"]
    done("prune", again, "--quiet", "--target", "uniform")
    assert {line["group"]: line["kept"] for line in manifest(again)["shares"]}["dark"] < dark


# What is not imported, and who runs it

WATCH = """
import os, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "open_clip", "torchvision"):
            with open(os.environ["WATCHED"], "a") as log:
                print(os.getpid(), name, file=log)
        return None
sys.meta_path.insert(0, Watch())
"""


def test_ready_embeddings_need_no_torch_and_one_local_worker_gives_the_same_bytes(
    finished, tmp_path, embeddings, prototypes
):
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(WATCH)
    paths = os.pathsep.join([str(tmp_path / "hook"), *filter(None, [os.environ.get("PYTHONPATH")])])
    shown = subprocess.run(
        [sys.executable, "-m", "fairdedup", "run", embeddings, "--keep", "0.5", "--prototypes", prototypes,
         "--clusters", str(CLUSTERS), "--workers", "1", "--out", "run"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": paths, "WATCHED": str(tmp_path / "watched")},
        capture_output=True, text=True,
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    assert not (tmp_path / "watched").exists(), (tmp_path / "watched").read_text()
    assert "\x1b" not in shown.stderr + shown.stdout
    for folder in ("kept", "decisions", "rejected", "embeddings/img_emb", "clusters"):
        assert contents(tmp_path / "run" / folder) == contents(finished / folder)
    probe = [sys.executable, "-c", "import importlib.util; importlib.util.find_spec('torch')"]
    subprocess.run(probe, check=True, env=os.environ | {"PYTHONPATH": paths, "WATCHED": str(tmp_path / "probe")})
    assert "torch" in (tmp_path / "probe").read_text(), "the watch sees nothing"


# Exit codes


def test_what_is_nobodys_mistake_ends_with_1_and_one_line(here, monkeypatch):
    def broken(*_: object) -> None:
        raise RuntimeError("first line\nsecond \x1b[31mline")

    monkeypatch.setattr("fairdedup.config.load_config", broken)
    shown = command("run", "x.npy", "--keep", 0.5)
    assert (shown.code, shown.err) == (
        1,
        "fairdedup: error: RuntimeError: first line (set FAIRDEDUP_DEBUG=1 to see the traceback)\n",
    )
    monkeypatch.setenv("FAIRDEDUP_DEBUG", "1")
    with pytest.raises(RuntimeError, match="first line"):
        command("run", "x.npy", "--keep", 0.5)


def test_the_end_of_a_file_is_not_taken_for_a_wish_to_stop(here, monkeypatch):
    def ends(*_: object) -> None:
        raise EOFError("no data left")

    monkeypatch.setattr("fairdedup.config.load_config", ends)
    shown = command("run", "x.npy", "--keep", 0.5)
    assert shown.code == 1 and shown.err.strip().startswith("fairdedup: error: EOFError: no data left")


def test_a_damaged_run_is_named(again, scheduler):
    (again / "config.json").write_text('{"asked": ')
    shown = command("prune", again, "--keep", 0.5, "--rule", "semdedup", "--scheduler", scheduler)
    assert shown.code == 1 and shown.err.count("\n") == 1 and f"{again / 'config.json'} is damaged" in shown.err


def test_names_of_exit_codes():
    assert (cli.EXIT_USER, cli.EXIT_OTHER) == (2, 1)
    assert issubclass(cli.UserError, ValueError) and isinstance(cli.cli, click.Group)
    assert json.dumps(COMMANDS) == json.dumps(sorted(COMMANDS))


def test_shards_and_folders_of_the_examples_are_what_they_say(here):
    write_tar(Path("data-00000.tar"), {"a.png": picture(0)})
    shown = command("run", "data-{00000..00014}.tar", "--keep", 0.5, "--model", "ViT-B-16", "--pretrained", "openai")
    assert (
        shown.code == 2 and "data-00001.tar' of 'data-{00000..00014}.tar' is missing (1 of 15 are there)" in shown.err
    )
