"""A killed run resumes and ends with the same bytes; damaged files are detected and made again, never read as data."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from runs import CLUSTERS, PRODUCT, command, contents, done, manifest, product, started

KILLS = int(os.environ.get("KILLS", "50"))  # in `make soak`


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a command and all processes that it started, at once."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def at_work_on(run: Path) -> str:
    """Return the stage in which a run was killed, from the files that it left."""
    if (run / "run.json").is_file():
        return "finished"
    state = json.loads((run / "config.json").read_text()) if (run / "config.json").is_file() else {"done": {}}
    if "embed" not in state["done"]:
        return "embed"
    if "cluster" not in state["done"]:
        return "cluster"
    return "export" if list((run / "kept").glob("*")) else "prune"


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, ...]:
    """Return a command over twenty shards of ready embeddings, large enough for every stage to take a while."""
    folder = tmp_path_factory.mktemp("many")
    rng = np.random.default_rng(0)
    (folder / "img_emb").mkdir()
    for number in range(20):
        x = rng.normal(size=(1000, 64)).astype(np.float16)
        x[500:] = x[:500] + rng.uniform(0.01, 1, (500, 1)) * x[500:]
        np.save(folder / "img_emb" / f"img_emb_{number}.npy", x)
    np.savez(folder / "p.npz", **{f"tone/{k}": rng.normal(size=64) for k in range(3)})  # type: ignore[arg-type]
    return ("run", folder, "--keep", 0.5, "--rule", "balanced", "--prototypes", folder / "p.npz", "--clusters", 30,
            "--workers", 2)  # fmt: skip


@pytest.fixture(scope="module")
def asked_of_images(shards: Path, weights: Path) -> tuple[object, ...]:
    return ("run", shards, "--keep", 0.5, "--rule", "balanced", "--model", "fairdedup-small", "--pretrained", weights,
            "--batch-size", 4, "--clusters", 3, "--workers", 2)  # fmt: skip


@pytest.fixture(scope="module")
def asked_against_a_line(tmp_path_factory: pytest.TempPathFactory, scheduler: str) -> tuple[object, ...]:
    """Return the command of the third night of a line; the two nights before are finished."""
    folder = tmp_path_factory.mktemp("line")
    rng = np.random.default_rng(3)
    base = rng.normal(size=(3000, 32))
    for night in "123":
        (folder / night / "img_emb").mkdir(parents=True)
        for number in range(4):
            x = base[rng.integers(0, 3000, 600)] + rng.normal(size=(600, 32)) * rng.uniform(0.01, 1, (600, 1))
            np.save(folder / night / "img_emb" / f"img_emb_{number}.npy", x.astype(np.float16))
    named = ("--id", "shard/key", "--scheduler", scheduler, "--quiet")
    runs = folder / "runs"
    done("run", folder / "1", "--rule", "semdedup", "--eps", 0.1, "--clusters", 10, "--out", runs / "1", *named)
    done("run", folder / "2", "--against", runs / "1", "--out", runs / "2", *named)
    return ("run", folder / "3", "--against", runs / "2", "--id", "shard/key")


def undisturbed(asked: tuple[object, ...], folder: Path) -> tuple[Path, int]:
    """Return an undisturbed run, and the number of its stages."""
    process = started(folder, *asked, "--out", "run", "--log-json")
    _, err = process.communicate()
    assert process.returncode == 0, err
    return folder / "run", err.count('"event": "stage"')


def wait_for_stages(process: subprocess.Popen[str], number: int) -> None:
    """Wait until a command's workers have started and a number of stages have ended, or all have."""
    assert process.stderr is not None
    ended = -1
    for line in process.stderr:
        ended += "dashboard" in line or '"event": "stage"' in line
        if ended >= number:
            return


def kill_at(moments: list[tuple[float, float]], asked: tuple[object, ...], folder: Path) -> dict[str, int]:
    """Kill a run at each moment, resume it, and require the same bytes; return how often each stage was hit.

    A moment is the share of the stages that have ended, and the seconds that have passed since.
    """
    expected, number = undisturbed(asked, folder)
    stages = []
    for k, (share, seconds) in enumerate(moments):
        out = folder / f"run{k}"
        process = started(folder, *asked, "--out", out, "--log-json")
        wait_for_stages(process, int(share * number))
        time.sleep(seconds)
        kill(process)
        stages.append(at_work_on(out))
        again = started(folder, *asked, "--out", out)
        _, err = again.communicate()
        assert again.returncode == 0, (share, seconds, stages[-1], err)
        assert product(out) == product(expected), (share, seconds, stages[-1])
        assert not list(out.rglob("*.tmp")), (share, seconds, stages[-1])
        shutil.rmtree(out)
        counts = {stage: stages.count(stage) for stage in dict.fromkeys(stages)}
        print(f"{len(stages)} kills among {number} stages, while at work on: {counts}", flush=True)
    return counts


def draw_moments(seed: int) -> list[tuple[float, float]]:
    """Return moments for `kill_at`, more of them early: a decision has most of the stages, the steps before it few."""
    rng = random.Random(seed)
    return [(rng.random() ** 3, 0.5 * rng.random() ** 3) for _ in range(KILLS)]


@pytest.mark.timeout(300)
def test_a_run_that_was_killed_ends_with_the_same_bytes(asked, tmp_path):
    kill_at([(0.3, 0.1)], asked, tmp_path)


@pytest.mark.soak
def test_a_run_that_was_killed_at_fifty_moments_ends_with_the_same_bytes(asked, tmp_path):
    counts = kill_at(draw_moments(0), asked, tmp_path)
    assert {"embed", "cluster", "prune"} <= set(counts)


@pytest.mark.soak
def test_a_run_over_images_that_was_killed_at_fifty_moments_ends_with_the_same_bytes(asked_of_images, tmp_path):
    counts = kill_at(draw_moments(1), asked_of_images, tmp_path)
    assert {"embed", "cluster", "prune"} <= set(counts)


def test_a_run_against_a_line_whose_client_was_killed_ends_with_the_same_bytes(
    asked_against_a_line, scheduler, tmp_path
):
    words = (*asked_against_a_line, "--scheduler", scheduler)
    done(*words, "--out", tmp_path / "expected", "--quiet")
    process = started(tmp_path, *words, "--out", tmp_path / "run", "--log-json")
    wait_for_stages(process, 1)
    kill(process)
    assert at_work_on(tmp_path / "run") != "finished"
    done(*words, "--out", tmp_path / "run", "--quiet")
    assert product(tmp_path / "run") == product(tmp_path / "expected")


@pytest.mark.soak
def test_a_run_against_a_line_that_was_killed_at_fifty_moments_ends_with_the_same_bytes(asked_against_a_line, tmp_path):
    line = asked_against_a_line[asked_against_a_line.index("--against") + 1]
    before = contents(line.parent)
    words = (*asked_against_a_line, "--workers", 2)
    counts = kill_at(draw_moments(2), words, tmp_path)
    assert {"embed", "cluster", "prune"} <= set(counts)
    assert contents(line.parent) == before, "the earlier runs are only read"


# Damage


def flip(path: Path) -> None:
    """Flip one bit in the middle of a file, without changing its size and time."""
    stat = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


DAMAGED = {
    "embeddings/img_emb/img_emb_1.npy": "embed", "embeddings/metadata/metadata_0.parquet": "embed",
    "embeddings/records/record_2.json": "embed", "clusters/centroids.npy": "cluster",
    "clusters/vectors_0.npy": "cluster", "clusters/rows_0.npy": "cluster", "clusters/offsets_0.npy": "cluster",
    "kept/part-00000.parquet": "prune", "decisions/part-00000.parquet": "prune", "run.json": "prune",
}  # fmt: skip


@pytest.mark.parametrize(("how", "file"), [
    *(("flipped", file) for file in DAMAGED),
    *(("cut", file) for file in ("embeddings/img_emb/img_emb_1.npy", "clusters/rows_0.npy", "kept/part-00000.parquet")),
    *(("gone", file) for file in ("embeddings/metadata/metadata_0.parquet", "clusters/offsets_0.npy", "run.json")),
])  # fmt: skip
def test_a_damaged_file_is_made_again_by_the_same_command(
    file, how, again, finished, embeddings, prototypes, scheduler
):
    path = again / file
    if how == "flipped":
        flip(path)
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-7])
    else:
        path.unlink()
    if DAMAGED[file] != "prune":
        (again / "run.json").unlink()  # a run that had not ended yet
    if file.endswith("record_2.json") and how == "flipped":
        path.write_text(path.read_text().replace('"valid": 79', '"valid": 78'))
    done("run", embeddings, "--keep", 0.5, "--prototypes", prototypes, "--clusters", CLUSTERS, "--out", again,
         "--scheduler", scheduler, "--quiet")  # fmt: skip
    assert product(again) == product(finished)
    for folder in ("embeddings/img_emb", "embeddings/metadata", "clusters"):
        assert contents(again / folder) == contents(finished / folder)


@pytest.mark.parametrize(
    "file", ["clusters/vectors_0.npy", "clusters/rows_0.npy", "embeddings/metadata/metadata_0.parquet"]
)
def test_a_prune_of_damaged_files_names_them_and_decides_nothing(file, again, scheduler):
    before = contents(again / "kept")
    flip(again / file)
    answer = command("prune", again, "--keep", 0.4, "--rule", "semdedup", "--scheduler", scheduler, "--quiet")
    folder, mend = ("clusters", "cluster") if file.startswith("clusters") else ("embeddings", "embed")
    assert answer.code == 2 and answer.err.count("\n") == 1
    assert f"{again / folder}" in answer.err and f"missing or damaged: run `fairdedup {mend}" in answer.err
    if folder == "clusters":
        assert contents(again / "kept") == before
    else:
        assert not (again / "run.json").exists(), "nothing half-written counts as a result"


# A disk that refuses to write


def test_a_limit_on_the_size_of_files_is_one_line_and_nothing_half_written_counts(tmp_path, embeddings):
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)),) * 2);"
        "from fairdedup.cli import main; main()"
    )
    asked = ["run", str(embeddings), "--keep", "0.5", "--rule", "semdedup", "--out", "run", "--workers", "1", "--quiet"]
    failed = subprocess.run(
        [sys.executable, "-c", script, "6000", *asked], cwd=tmp_path, capture_output=True, text=True
    )
    assert failed.returncode == 1, failed.stderr
    assert failed.stderr.count("\n") == 1 and "cannot write" in failed.stderr and "File too large" in failed.stderr
    assert not (tmp_path / "run" / "run.json").exists() and not list((tmp_path / "run").rglob("*.tmp"))
    for number in range(3):
        path = tmp_path / "run" / "embeddings" / "img_emb" / f"img_emb_{number}.npy"
        assert not path.exists() or np.load(path).shape[1] == 16
    done(*asked[:-3], "--workers", 1, "--quiet", "--out", tmp_path / "run")
    assert manifest(tmp_path / "run")["counts"]["input"] == 240


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_or_locked_disk_is_one_line_and_the_run_resumes_with_more_room(tmp_path, embeddings, scheduler):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("this machine mounts nothing")
    asked = ("run", embeddings, "--keep", 0.5, "--rule", "semdedup", "--out", disk / "run",
             "--scheduler", scheduler, "--quiet")  # fmt: skip
    try:
        full = command(*asked)
        assert full.code == 1 and full.err.count("\n") == 1
        assert "cannot write" in full.err and "No space left on device" in full.err
        assert not (disk / "run" / "run.json").exists() and not list((disk / "run").rglob("*.tmp"))
        subprocess.run(["mount", "-o", "remount,size=4m,ro", disk], check=True)
        locked = command(*asked)
        assert locked.code == 1 and locked.err.count("\n") == 1 and "Read-only file system" in locked.err
        subprocess.run(["mount", "-o", "remount,size=4m,rw", disk], check=True)
        done(*asked)
        assert manifest(disk / "run")["counts"]["kept"] == 119
    finally:
        subprocess.run(["umount", disk], check=False)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_one_line(tmp_path, embeddings, scheduler):
    (tmp_path / "locked").mkdir(mode=0o500)
    answer = command("run", embeddings, "--keep", 0.5, "--rule", "semdedup", "--out", tmp_path / "locked" / "run",
                     "--scheduler", scheduler, "--quiet")  # fmt: skip
    assert answer.code == 1 and answer.err.count("\n") == 1 and "Permission denied" in answer.err


def test_a_run_directory_is_for_one_command_at_a_time(tmp_path, embeddings):
    asked = ("run", embeddings, "--keep", 0.5, "--rule", "semdedup", "--clusters", CLUSTERS, "--out", tmp_path / "run")
    first = started(tmp_path, *asked, "--workers", 1)
    assert first.stderr is not None and "dashboard" in first.stderr.readline()
    os.kill(first.pid, signal.SIGSTOP)
    try:
        for second in (asked, ("prune", tmp_path / "run", "--keep", 0.4), ("sweep", tmp_path / "run", "--keep", 0.4)):
            refused = command(*second)
            assert (refused.code, refused.err) == (
                1, f"fairdedup: error: {tmp_path / 'run'} is in use by another command of fairdedup: wait until it has "
                "ended, or name another run directory\n",
            )  # fmt: skip
    finally:
        os.kill(first.pid, signal.SIGCONT)
    _, err = first.communicate()
    assert first.returncode == 0, err
    assert "finished already" in done(*asked).err


def test_a_command_that_is_refused_leaves_no_folder_behind(tmp_path, embeddings):
    assert command("run", embeddings, "--out", tmp_path / "a" / "b").code == 2  # nothing says how much to keep
    assert command("prune", tmp_path / "a" / "b", "--keep", 0.5).code == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("limit", "enough"), [("-Hn 100", False), ("-Sn 64", True)])
def test_a_limit_on_open_files_is_raised_or_reported_in_one_line(limit, enough, tmp_path, embeddings):
    asked = f"run {embeddings} --keep 0.5 --rule semdedup --out run --workers 1 --quiet"
    ended = subprocess.run(
        ["bash", "-c", f"ulimit {limit.replace('-Hn', '-n')}; exec {sys.executable} -m fairdedup {asked}"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    if enough:
        assert ended.returncode == 0, ended.stderr
    else:
        assert ended.returncode == 2 and ended.stderr == (
            "fairdedup: error: this process may open only 100 files. Raise the hard limit (`ulimit -Hn`) to 4096, "
            "which only root may do, for example in /etc/security/limits.conf or by `docker run --ulimit "
            "nofile=4096`.\n"
        )


def test_the_files_that_a_finished_run_vouches_for_are_all_there(finished):
    named = manifest(finished)["files"]
    vouched = (*PRODUCT, "state")
    assert set(named) == {f"{folder}/{name}" for folder in vouched for name in contents(finished / folder)}
