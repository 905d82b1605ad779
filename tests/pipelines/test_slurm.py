"""The starter for Slurm: the job script, and a run on the jobs of a substitute for Slurm."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import on_slurm
import starter
from runs import CLUSTERS, product
from starters import Slurm, call, config, launched, slurm_config


def test_a_job_asks_for_what_its_workers_need():
    asked = config(
        "slurm", workers=8, workers_per_job=4, memory="2GiB", cpus=2, partition="main", account="us", name="night",
        walltime="10:00:00", interface="lo", local_directory="/scratch/a b", python="/env/bin/python",
        prologue=["module load x"], directives=["--constraint=skylake"], log_directory="logs",
    )  # fmt: skip
    # Memory: 4 x (2 GiB and 256 MiB for the nanny).
    assert on_slurm.job_script(asked).splitlines() == [
        "#!/usr/bin/env bash",
        "",
        "#SBATCH -J night",
        "#SBATCH -p main",
        "#SBATCH -A us",
        "#SBATCH -n 1",
        "#SBATCH --cpus-per-task=8",
        "#SBATCH --mem=9216M",
        "#SBATCH -t 10:00:00",
        "#SBATCH -o logs/%x-%j.out",
        "#SBATCH --constraint=skylake",
        "module load x",
        "/env/bin/python -m distributed.cli.dask_worker tcp://SCHEDULER:8786 --name night --nthreads 1 "
        "--memory-limit 2.00GiB --nworkers 4 --nanny --death-timeout 60 --local-directory '/scratch/a b' "
        "--no-dashboard --preload fairdedup.workers --interface lo",
    ]


def test_a_job_for_a_gpu_asks_for_it():
    assert "#SBATCH --gres=gpu:a100:1" in on_slurm.job_script(config("slurm", gres="gpu:a100:1")).splitlines()


def test_a_start_without_slurm_is_an_error(tmp_path, capsys):
    assert shutil.which("sbatch") is None
    assert call("slurm", "--config", slurm_config(tmp_path), "--", "run", "x", "--keep", "0.5") == 2
    assert "there is no `sbatch` here. Start this on a node that submits to Slurm." in capsys.readouterr().err


def test_a_job_that_slurm_refuses_is_an_error_and_nothing_is_submitted(slurm, tmp_path, capsys):
    file = slurm_config(tmp_path, partition="nosuch")
    assert call("slurm", "--config", file, "--", "run", "x", "--keep", "0.5") == 2
    assert capsys.readouterr().err == (
        "fairdedup: error: Slurm refuses the job (sbatch: error: invalid partition specified: nosuch). See --dry-run, "
        "and change the YAML file.\n"
    )
    assert not slurm.asked()


def test_jobs_that_bring_no_worker_are_cancelled(slurm, tmp_path, capsys):
    file = slurm_config(tmp_path, workers=1, patience=1, prologue=["sleep 60"])
    assert call("slurm", "--config", file, "--", "run", "x", "--keep", "0.5") == 1
    assert capsys.readouterr().err.splitlines() == [
        "waiting for 1 of 1 workers",
        "fairdedup: error: fewer than 1 workers came within 1 seconds. See `squeue --me` and the logs in "
        "`log_directory`. Or raise `patience`.",
    ]
    assert len(slurm.asked()) == 1 and ended(slurm)


def ended(slurm: Slurm) -> bool:
    """Tell whether all jobs have ended, or end soon."""
    for _ in range(100):
        if not slurm.alive():
            return True
        time.sleep(0.1)
    return False


def test_a_run_on_jobs_survives_a_request_to_end_and_a_lost_job_and_has_the_bytes_of_any_other(
    slurm, tmp_path, finished, embeddings, prototypes, monkeypatch
):
    monkeypatch.setenv("DASK_DISTRIBUTED__DEPLOY__LOST_WORKER_TIMEOUT", "1s")  # else a job is missed after 15 seconds
    file = slurm_config(tmp_path, workers=1)
    asked = ("--", "run", embeddings, "--keep", 0.5, "--prototypes", prototypes, "--clusters", CLUSTERS, "--out",
             tmp_path / "run")  # fmt: skip
    process = launched("slurm", "--config", file, *asked)
    begun(tmp_path / "run" / "embeddings", process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143 and "Traceback" not in err, err[-3000:]
    assert err.startswith("waiting for 1 of 1 workers\ndashboard: http://127.0.0.1:")
    assert err.endswith("\nfairdedup: error: Ended by SIGTERM. Run the same command to resume.\n")
    assert ended(slurm)
    (script,) = [file.read_text() for file in slurm.asked()]
    shown = on_slurm.job_script(starter.read_config(on_slurm.SlurmConfig, file))
    differ = r"tcp://\S+ --name \S+"
    assert re.sub(differ, "", script) == re.sub(differ, "", shown)

    # With --adapt a job that is cancelled, or at the end of its time, is submitted again.
    process = launched("slurm", "--config", file, "--adapt", 1, 1, *asked)
    begun(tmp_path / "run" / "clusters", process)
    (job,) = slurm.alive()
    slurm.cancel(job)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0 and "kept IDs:" in out, err
    assert product(tmp_path / "run") == product(finished)
    assert len(slurm.asked()) == 3 and ended(slurm)


def begun(folder: Path, process: subprocess.Popen[str]) -> None:
    """Wait until a run has created a folder."""
    for _ in range(1200):
        if folder.exists():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError(f"there is no {folder}")
