"""`fairdedup init` writes starter files that the package ships, and overwrites nothing."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path

import pytest
from runs import command, contents, done

from fairdedup.cli.init_command import KINDS
from fairdedup.commands.starter_files import STARTERS
from fairdedup.storage.shipped_files import find_shipped

ROOT = Path(__file__).parents[2]
WRITTEN = {
    "airflow": {"airflow_dag.py"},
    "slurm": {"on_slurm.py", "starter.py", "slurm.yaml"},
    "kubernetes": {"on_kubernetes.py", "starter.py", "kubernetes.yaml"},
    "cuda": {"on_cuda.py", "starter.py", "cuda.yaml"},
    "prototypes": {"people.yaml", "fairface.yaml"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_files_are_written_as_they_are(kind, tmp_path):
    shown = done("init", kind, "--dest", tmp_path / "new" / "place")
    written = contents(tmp_path / "new" / "place")
    assert set(written) == WRITTEN[kind]
    for name, data in written.items():
        (source,) = [path for path in (*ROOT.glob("pipelines/*"), *ROOT.glob("configs/*/*")) if path.name == name]
        assert data == source.read_bytes()
        assert f"written: {tmp_path / 'new' / 'place' / name}\n" in shown.out
    assert shown.out.splitlines()[-1] == STARTERS[kind].then and shown.err == ""


def test_the_wheel_has_every_file_at_the_place_where_it_is_looked_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert set(STARTERS) == set(KINDS) == set(WRITTEN)
    for name in {name for starter in STARTERS.values() for name in starter.files}:
        top = name.split("/")[0]
        assert included[top] == f"fairdedup/{top}" and (ROOT / name).is_file()
        assert find_shipped(name) in (Path(str(files("fairdedup") / name)), ROOT / name)


def test_the_types_are_shipped():
    assert (files("fairdedup") / "py.typed").is_file()


def test_the_current_folder_is_the_default_and_files_that_are_there_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done("init", "slurm", "--quiet")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    shown = done("init", "slurm")
    assert shown.out.count("is there already: ") == 3 and "written" not in shown.out
    assert "is there already: starter.py" in done("init", "kubernetes").out  # which both have
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_another_file_is_never_overwritten_and_nothing_else_is_written(tmp_path):
    (tmp_path / "slurm.yaml").write_text("workers: 99\n")
    shown = command("init", "slurm", "--dest", tmp_path)
    assert (shown.code, shown.out) == (2, "")
    assert shown.err == (
        f"fairdedup: error: '{tmp_path / 'slurm.yaml'}' is there already with other content. Choose another --dest, or "
        "rename it.\n"
    )
    assert contents(tmp_path) == {"slurm.yaml": b"workers: 99\n"}
    done("init", "slurm", "--dest", tmp_path / "other")  # the remedy
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "slurm.yaml").symlink_to("nowhere")
    assert command("init", "slurm", "--dest", tmp_path / "link").code == 2
    assert not (tmp_path / "link" / "on_slurm.py").exists()


def test_a_place_that_is_a_file_and_an_unknown_kind_are_one_line(tmp_path):
    (tmp_path / "x").write_text("")
    shown = command("init", "slurm", "--dest", tmp_path / "x")
    assert (shown.code, shown.err) == (2, f"fairdedup: error: --dest '{tmp_path / 'x'}' is a file. Choose a folder.\n")
    shown = command("init", "spark")
    assert shown.code == 2 and "'spark' is not one of 'airflow', 'slurm', 'kubernetes'" in shown.err
