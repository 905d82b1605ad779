"""What the messages of the starters advise works: it is read from the message and applied."""

from __future__ import annotations

import re
import subprocess
import tomllib

import on_slurm
import pytest
import starter
from starters import CONFIGS, ROOT, STARTERS, call, config, slurm_config, written

from fairdedup.errors import UserError
from fairdedup.storage.urls import PACKAGES, explain_missing_package

TABLE = {
    "no number of workers": ("slurm", {}, r"Add a line `(?P<key>workers): \.\.\.`", {"workers": 1}),
    "no workers": ("slurm", {"workers": 0}, r"must be at least (?P<n>1)", {"workers": 1}),
    "a key in another spelling": ("slurm", {"worker": 2, "workers": 2}, r"Did you mean (?P<key>workers)\?",
                                  {"workers": 2}),
    "memory without a unit": ("slurm", {"workers": 2, "memory": 4}, r"such as (?P<memory>\w+)",
                              {"workers": 2, "memory": "{memory}"}),
    "a time that YAML reads as a number": ("slurm", {"workers": 2, "walltime": 36000}, r'such as "(?P<time>[\d:]+)"',
                                           {"workers": 2, "walltime": "{time}"}),
    "more to start with than all": ("slurm", {"workers": 2, "start_with": 3}, r"the number of workers, (?P<n>2)",
                                    {"workers": 2, "start_with": 2}),
    "a GPU for several": ("slurm", {"workers": 2, "workers_per_job": 2, "gres": "gpu:2"},
                          r"needs workers_per_job (?P<n>1)", {"workers": 2, "workers_per_job": 1, "gres": "gpu:1"}),
    "no image": ("kubernetes", {"workers": 2}, r"Add a line `image: \.\.\.`", {"workers": 2, "image": "i"}),
    "memory of a GPU": ("cuda", {"memory": "much"}, r"such as (?P<memory>\w+), or auto", {"memory": "{memory}"}),
    "memory of a GPU, automatic": ("cuda", {"memory": "much"}, r"or (?P<auto>auto)", {"memory": "{auto}"}),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLE)
def test_what_a_message_advises_works(case, tmp_path):
    kind, wrong, says, right = TABLE[case]
    with pytest.raises(UserError) as caught:
        starter.read_config(_kind(kind), written(tmp_path, **wrong))
    found = re.search(says, str(caught.value))
    assert found, str(caught.value)
    keys = {name: v.format(**found.groupdict()) if isinstance(v, str) else v for name, v in right.items()}
    assert starter.read_config(_kind(kind), written(tmp_path, **keys))


def _kind(name):
    return type(config(name))


@pytest.mark.parametrize("wrong", [[], ["sample", "x"]])
def test_the_command_that_a_message_names_is_accepted(wrong, slurm, tmp_path, capsys):
    file = slurm_config(tmp_path)
    assert call("slurm", "--config", file, "--", *wrong) == 2
    found = re.search(r"After --, give one of (.*), such as -- (.*)\.\n", capsys.readouterr().err)
    assert found
    assert starter.check_command(tuple(found[2].split())) is True
    assert "run" in found[1].split(", ")


@pytest.mark.parametrize("option", ["--workers 2", "--scheduler tcp://h:1", "--memory-limit 2GiB"])
def test_an_option_that_the_cluster_sets_can_be_left_out(option):
    with pytest.raises(UserError, match=r"is set by the cluster\. Leave it out\."):
        starter.check_command(("run", "x", "--keep", "0.5", *option.split()))
    assert starter.check_command(("run", "x", "--keep", "0.5")) is True


def test_numbers_of_adapt_in_the_other_order_are_accepted(slurm, tmp_path, capsys):
    file = slurm_config(tmp_path)
    assert call("slurm", "--config", file, "--dry-run", "--adapt", 3, 1) == 2
    found = re.search(r"the smaller number first; got (\d) (\d)\.", capsys.readouterr().err)
    assert found and call("slurm", "--config", file, "--dry-run", "--adapt", found[2], found[1]) == 0


def test_a_job_that_slurm_refuses_is_shown_by_dry_run_and_accepted_after_a_change(slurm, tmp_path, capsys):
    file = slurm_config(tmp_path, partition="nosuch")
    assert call("slurm", "--config", file, "--", "run", "x", "--keep", "0.5") == 2
    found = re.search(r"See (--dry-run), and change the YAML file", capsys.readouterr().err)
    assert found and call("slurm", "--config", file, found[1]) == 0
    assert "nosuch" in capsys.readouterr().out
    changed = starter.read_config(on_slurm.SlurmConfig, slurm_config(tmp_path))
    tried = subprocess.run(["sbatch", "--test-only"], input=on_slurm.job_script(changed), text=True, check=False)
    assert tried.returncode == 0


@pytest.mark.parametrize("kind", STARTERS)
def test_the_extra_that_a_message_names_exists_and_so_does_each_shipped_file(kind):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert kind in extras and (CONFIGS / f"{kind}.yaml").is_file()


@pytest.mark.parametrize("protocol", PACKAGES)
def test_the_package_of_a_store_is_that_of_an_extra(protocol):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    found = re.search(r"pip install (\w+)$", explain_missing_package(protocol, ""))
    assert found and any(found[1] in package for name in ("s3", "gcs", "azure", "http") for package in extras[name])
