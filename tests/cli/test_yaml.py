"""The YAML file, and flags that override it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from runs import (
    CLUSTERS,
    command,
    done,
    manifest,
)

from fairdedup import cli
from fairdedup.config import STAGE_KEYS, RunConfig
from fairdedup.core.rules.registry import rule_names


def write_config(path: Path, **keys: Any) -> Path:
    path.write_text(yaml.safe_dump(keys), encoding="utf-8")
    return path


def test_the_command_line_and_the_yaml_know_the_rules_that_there_are():
    known = "|".join(rule_names())
    assert f"--rule[{known}]" in re.sub(r"\s", "", done("run", "--help").out)
    for name in rule_names():
        assert RunConfig(rule=name, prefer="width" if name == "prefer" else None).rule == name


def test_every_option_of_run_is_a_key_of_the_yaml():
    options = {p.name for p in cli.cli.commands["run"].params} - {"config_file", "restart", "quiet", "log_json"}
    assert options == set(RunConfig.model_fields)
    for name, model in RunConfig.model_fields.items():
        default = model.default
        assert default is None or not isinstance(default, type), name


def test_every_option_that_changes_a_result_belongs_to_a_stage():
    """Otherwise a run that is repeated with another value would keep its old result."""
    keys = {name for names in STAGE_KEYS.values() for name in names}
    assert set(RunConfig.model_fields) - keys == {
        "out",
        "skip_damaged",
        "max_rejected",
        "scheduler",
        "workers",
        "memory_limit",
        "decoders",  # changes no byte
        "report",
        "images",  # of the page alone
        "published",  # says what cover and reach are, which are of a stage
    }


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


def test_fairdedup_yaml_in_the_current_folder_is_read(here, embeddings, scheduler):
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


def test_a_stage_does_not_look_at_the_options_of_later_stages(here, embeddings, scheduler):
    file = write_config(here / "mine.yaml", exclude_near="missing.npy", exclude_near_eps=0.1, scheduler=scheduler)
    done("embed", embeddings, "--out", "run", "--config", file)
    done("cluster", "run", "--clusters", CLUSTERS, "--config", file)
    refused = command("prune", "run", "--keep", 0.5, "--rule", "semdedup", "--config", file)
    assert refused.code == 2 and "missing.npy" in refused.err


def test_published_is_no_cover_and_no_reach_and_contradicts_them():
    config = RunConfig(published=True)
    assert not config.cover and not config.reach
    assert RunConfig().cover and RunConfig().reach == "auto"
    for rule in ("random", "semdedup-chain"):  # they read neither
        assert not RunConfig(rule=rule).cover and not RunConfig(rule=rule).reach
    for words, value in (
        (("--cover",), "--cover"),
        (("--reach", "auto"), "--reach auto"),
        (("--reach", 0.2), "--reach 0.2"),
    ):
        said = command("run", "--keep", 0.5, "--published", *words)
        assert said.code == 2 and f"--published is --no-cover --reach 0; got {value}. Leave one" in said.err
