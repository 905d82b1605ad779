"""The starters of Slurm, Kubernetes and GPUs read YAML files, and a mistake starts nothing."""

from __future__ import annotations

import importlib
import importlib.util
import re
import resource
import shlex
import subprocess
import sys

import pytest
import starter
from starters import CONFIGS, KINDS, ROOT, STARTERS, call, slurm_config, written

from fairdedup.open_files import FILES, LEAST_FILES
from fairdedup.workers import PRELOAD


@pytest.mark.parametrize("kind", STARTERS)
def test_the_shipped_configuration_can_be_read_and_names_every_key(kind):
    text = (CONFIGS / f"{kind}.yaml").read_text(encoding="utf-8")
    starter.read_config(KINDS[kind], CONFIGS / f"{kind}.yaml")
    named = set(re.findall(r"^(?:# )?([a-z_]+):", text, re.MULTILINE))
    assert named | {"name", "python", "namespace"} >= set(KINDS[kind].model_fields)


@pytest.mark.parametrize("kind", STARTERS)
def test_every_key_of_a_configuration_is_documented(kind):
    page = (ROOT / "docs" / "clusters.md").read_text(encoding="utf-8")
    for key in KINDS[kind].model_fields:
        assert f"`{key}`" in page, key


@pytest.mark.parametrize(
    ("kind", "keys", "message"),
    [
        ("slurm", {}, "workers in {file} is missing. Add a line `workers: ...`."),
        ("slurm", {"workers": 0}, "workers in {file} must be at least 1; got 0."),
        ("slurm", {"worker": 2, "workers": 2}, "worker in {file} is not an option. Did you mean workers?"),
        ("slurm", {"workers": 2, "cheese": 1}, "cheese in {file} is not an option. See docs/clusters.md."),
        ("slurm", {"workers": 2, "memory": 4}, "memory in {file} must be an amount of memory, such as 4GiB; got 4."),
        (
            "slurm",
            {"workers": 2, "walltime": 36000},
            'walltime in {file} 36000 is read as a number by YAML. Write it in quotes, such as "10:00:00".',
        ),
        ("slurm", {"workers": 2, "start_with": 3}, "start_with must be at most the number of workers, 2; got 3."),
        (
            "slurm",
            {"workers": 2, "workers_per_job": 2, "gres": "gpu:2"},
            "gres needs workers_per_job 1, since all workers of a job would use its first GPU; got gres 'gpu:2' and "
            "workers_per_job 2.",
        ),
        ("kubernetes", {"workers": 2}, "image in {file} is missing. Add a line `image: ...`."),
        (
            "kubernetes",
            {"workers": 2, "image": "i", "name": "My run"},
            "name in {file} must match pattern '^[a-z0-9]([-a-z0-9]{{0,44}}[a-z0-9])?$'; got 'My run'.",
        ),
        (
            "kubernetes",
            {"workers": 2, "image": "i", "gpus": 2},
            "gpus in {file} must be at most 1; got 2.",
        ),
        (
            "cuda",
            {"memory": "much"},
            "memory in {file} must be an amount of memory, such as 4GiB, or auto; got 'much'.",
        ),
    ],
)
def test_a_wrong_configuration_is_one_line_with_a_remedy(kind, keys, message, tmp_path, capsys):
    file = written(tmp_path, **keys)
    assert call(kind, "--config", file, "--dry-run") == 2
    assert capsys.readouterr().err == f"fairdedup: error: {message.format(file=file)}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], r"there is no command to run\. After --, give one of run, refit, .*, such as -- run INPUT --keep 0\.5\."),
        (["sample", "x"], r"'sample' needs no workers\. After --, give one of run, .*"),
        (["run", "x", "--kep", "0.5"], r"No such option '--kep'.* See fairdedup run --help\."),
        (["run", "x", "--workers", "2"], r"--workers 2 is set by the cluster\. Leave it out\."),
        (["run", "x", "--scheduler", "tcp://h:1"], r"--scheduler tcp://h:1 is set by the cluster\. Leave it out\."),
        (["run", "x", "--memory-limit", "2GiB"], r"--memory-limit 2GiB is set by the cluster\. Leave it out\."),
    ],
)
def test_a_mistake_in_the_command_is_reported_before_anything_is_submitted(
    arguments, message, slurm, tmp_path, capsys
):  # fmt: skip
    assert call("slurm", "--config", slurm_config(tmp_path), "--", *arguments) == 2
    assert re.fullmatch(f"fairdedup: error: {message}\n", capsys.readouterr().err)
    assert not slurm.asked()


def test_least_and_most_in_the_wrong_order_are_an_error(tmp_path, capsys):
    assert call("slurm", "--config", slurm_config(tmp_path), "--adapt", 3, 1, "--", "run", "x") == 2
    assert "--adapt needs the smaller number first; got 3 1." in capsys.readouterr().err


@pytest.mark.parametrize("kind", STARTERS)
def test_the_command_of_the_page_starts_with_what_it_names(kind, capfd):
    """A dry run of each: it prints what would be started, or that this machine has no GPU."""
    page = (ROOT / "docs" / "clusters.md").read_text(encoding="utf-8")
    (line,) = [line for line in page.splitlines() if line.startswith(f"python pipelines/on_{kind}.py")]
    words = shlex.split(line)
    ended = subprocess.run(
        [sys.executable, *words[1 : words.index("--")], "--dry-run", *words[words.index("--") :]], cwd=ROOT, check=False
    )
    told = capfd.readouterr()
    started = {"slurm": "#SBATCH", "kubernetes": "kind: DaskCluster", "cuda": "CUDA_VISIBLE_DEVICES"}[kind]
    if kind == "cuda" and ended.returncode:
        assert "no GPU was found here" in told.err
    else:
        assert ended.returncode == 0 and started in told.out


@pytest.mark.parametrize("kind", STARTERS)
def test_a_library_that_is_missing_is_named_with_its_extra(kind, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert call(kind, "--config", CONFIGS / f"{kind}.yaml", "--dry-run") == 2
    library = {"slurm": "dask_jobqueue", "kubernetes": "dask_kubernetes", "cuda": "dask_cuda"}[kind]
    told = capsys.readouterr().err
    assert told == f"fairdedup: error: {library} is not installed. Run pip install '.[{kind}]'.\n"


def test_a_preloaded_worker_may_open_enough_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (LEAST_FILES, hard))
    importlib.import_module(PRELOAD).dask_setup(None)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (most, hard)
