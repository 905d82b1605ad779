"""`fairdedup doctor`: each check finds what is wrong, says what to do, and what it says helps."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from runs import Finished, command, done, write_tar
from runs import sample as shard_sample

from fairdedup.commands import doctor
from fairdedup.config import RunConfig, load_config
from fairdedup.encoders import cached_weights

NAMES = ["fairdedup", "packages", "cores", "memory", "open files", "GPU", "model", "run directory", "temporary files"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read_lines(shown: Finished) -> dict[str, tuple[str, str]]:
    """Return state and text of each line by the name of its check."""
    found = re.findall(r"^(ok|note|stop) {2,4}(.{15})  (.+)$", shown.out, re.MULTILINE)
    assert len(found) == shown.out.count("\n")
    return {name.strip(): (state, text) for state, name, text in found}


def stopped(*words: object) -> tuple[str, str]:
    """Return the name and the text of the one check that stops a run; the error says it again."""
    shown = command("doctor", *words)
    stops = [(name, text) for name, (state, text) in read_lines(shown).items() if state == "stop"]
    assert shown.code == 1 and len(stops) == 1, shown
    assert shown.err == f"fairdedup: error: a run would stop here: {stops[0][0]}: {stops[0][1]}\n"
    return stops[0]


def test_a_machine_that_works_has_a_line_for_each_check_and_nothing_is_written(here):
    shown = done("doctor")
    lines = read_lines(shown)
    assert list(lines) == NAMES and not any(state == "stop" for state, _ in lines.values())
    assert "numpy" in lines["packages"][1] and "--model ViT-B-16" in lines["model"][1]
    assert not list(here.iterdir())


def test_the_input_is_opened(here):
    write_tar(here / "a.tar", shard_sample("x", 1))
    write_tar(here / "b.tar", shard_sample("y", 2))
    assert read_lines(done("doctor", "."))["input"] == ("ok", ".: webdataset, 2 shards of images")
    name, text = stopped("nowhere.tar")
    assert name == "input" and "nowhere.tar" in text


def test_a_run_directory_that_cannot_be_made_stops(here):
    (here / "file").write_text("x")
    assert stopped("--out", "file/run") == (
        "run directory", f"{here / 'file'} cannot be written (Not a directory). Choose another place with --out.",
    )  # fmt: skip
    assert done("doctor", "--out", "new/run").code == 0
    assert not (here / "new").exists()


@pytest.mark.parametrize(("free", "state"), [(5 << 30, "ok"), (1 << 30, "note"), (1 << 20, "stop")])
def test_a_full_disk_is_noticed(free, state, monkeypatch):
    usage = doctor.shutil.disk_usage(".")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: usage.__class__(usage.total, usage.total - free, free))
    lines = read_lines(command("doctor"))
    assert lines["run directory"][0] == lines["temporary files"][0] == state
    assert ("by --out" in lines["run directory"][1]) == ("TMPDIR" in lines["temporary files"][1]) == (state != "ok")


def test_memory_for_fewer_workers_than_cores_names_how_many(monkeypatch):
    needed = int(doctor.least_memory(encoder=True).resident / doctor.PAUSES_AT)
    monkeypatch.setattr(doctor, "machine_memory", lambda: 2 * needed)
    state, text = read_lines(done("doctor", "--workers", 3))["memory"]
    remedy = re.search(r"Give (--workers \d+)\.$", text)
    assert state == "note" and remedy and remedy[1] == "--workers 2"
    assert read_lines(done("doctor", *shlex.split(remedy[1])))["memory"][0] == "ok"
    monkeypatch.setattr(doctor, "machine_memory", lambda: needed // 2)
    assert stopped()[0] == "memory"


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda _: ["numpy>=2", "no-such-thing>=1", "x; extra"])
    assert stopped() == ("packages", "not installed: no-such-thing. Install them: pip install no-such-thing")


def test_a_gpu_that_is_not_here_stops_only_where_it_is_named(monkeypatch):
    monkeypatch.setattr(doctor, "may_have_gpu", lambda: False)
    assert read_lines(done("doctor"))["GPU"][0] == "ok"
    name, text = stopped("--device", "cuda")
    assert name == "GPU" and "Give --device cpu" in text
    assert done("doctor", "--device", "cpu").code == 0


def test_a_model_that_does_not_exist_stops():
    assert "did you mean" in stopped("--model", "ViT-B-61", "--pretrained", "openai")[1]
    assert "add --pretrained" in stopped("--model", "ViT-B-16")[1]


def test_weights_in_a_file_are_there_and_a_hub_s_are_looked_for_in_its_cache(here, monkeypatch):
    (here / "weights.safetensors").write_bytes(b"x")
    lines = read_lines(done("doctor", "--model", "ViT-B-16", "--pretrained", "weights.safetensors"))
    assert lines["model"] == ("ok", "ViT-B-16 weights.safetensors: weights.safetensors")
    for name in doctor.OFFLINE:
        monkeypatch.delenv(name, raising=False)
    assert "downloads it once" in read_lines(done("doctor", "--model", "hf-hub:nobody/nothing"))["model"][1]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE is set" in stopped("--model", "hf-hub:nobody/nothing")[1]


def test_a_tag_is_found_in_the_cache_of_the_hub_or_of_downloads(here, monkeypatch):
    monkeypatch.setenv("HOME", str(here))
    known = {"hf_hub": "nobody/nothing/", "url": "https://somewhere.example/ViT-B-16.pt"}
    assert cached_weights._find_tag(known) is None
    file = here / ".cache" / "clip" / "ViT-B-16.pt"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    assert cached_weights._find_tag(known) == file
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repository, name: f"/{repository}/{name}")
    assert cached_weights._find_tag(known) == Path("/nobody/nothing/open_clip_model.safetensors")


def test_a_scheduler_is_asked_for_its_workers(scheduler):
    state, text = read_lines(done("doctor", "--scheduler", scheduler))["scheduler"]
    assert state == "ok" and text.startswith(f"{scheduler}: 2 workers")


def test_a_scheduler_that_does_not_answer_stops(monkeypatch):
    monkeypatch.setattr(doctor, "ANSWER_WITHIN", 0.5)
    assert "does not answer" in stopped("--scheduler", "tcp://127.0.0.1:1")[1]


def test_a_check_that_fails_by_surprise_is_a_line_and_the_others_follow(monkeypatch):
    monkeypatch.setattr(doctor, "may_have_gpu", lambda: 1 / 0)
    name, text = stopped()
    assert name == "GPU" and text.startswith("ZeroDivisionError")


def test_findings_are_an_event_of_the_log():
    shown = done("doctor", "--log-json")
    (event,) = [json.loads(line) for line in shown.err.splitlines()]
    assert shown.out == "" and event["event"] == "finished"
    assert [finding["name"] for finding in event["findings"]] == NAMES


def test_a_store_that_does_not_answer_is_one_line(monkeypatch):
    monkeypatch.setattr(doctor.RemotePath, "exists", lambda _: (_ for _ in ()).throw(doctor.UserError("no store")))
    config: RunConfig = load_config(None, {"out": "s3://bucket/run"})
    (found,) = [finding for finding in doctor.examine_machine(config) if finding.name == "run directory"]
    assert found == doctor.Finding("run directory", "stop", "no store")
