"""Shared by the tests of the starters: configurations, calls, and a substitute for Slurm.

The tests need no Slurm: a `sbatch` that starts its script as a process replaces it.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from fairdedup import cli

ROOT = Path(__file__).parents[2]
PIPELINES = ROOT / "pipelines"
CONFIGS = ROOT / "configs" / "clusters"
sys.path.insert(0, str(PIPELINES))

import on_cuda  # noqa: E402
import on_kubernetes  # noqa: E402
import on_slurm  # noqa: E402

STARTERS = {"slurm": on_slurm, "kubernetes": on_kubernetes, "cuda": on_cuda}
KINDS = {"slurm": on_slurm.SlurmConfig, "kubernetes": on_kubernetes.KubernetesConfig, "cuda": on_cuda.GpuConfig}


@pytest.fixture(autouse=True)
def same_limit() -> Iterator[None]:
    """Restore the limit on open files of this process."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def written(folder: Path, **keys: Any) -> Path:
    """Write the YAML file of a cluster."""
    file = folder / "cluster.yaml"
    file.write_text(yaml.safe_dump(keys), encoding="utf-8")
    return file


def slurm_config(folder: Path, **keys: Any) -> Path:
    """Write the YAML file of a cluster whose jobs run on this machine."""
    here = {"workers": 2, "memory": "1GiB", "interface": "lo", "log_directory": str(folder / "logs"), "patience": 60}
    return written(folder, **here | keys)


def config(kind: str, **keys: Any) -> Any:
    """Return a configuration of a kind, without a file."""
    needed: dict[str, Any] = {"slurm": {"workers": 2}, "kubernetes": {"workers": 2, "image": "i"}, "cuda": {}}[kind]
    return KINDS[kind](**needed | keys)


def call(kind: str, *arguments: object) -> int:
    """Call a starter in this process."""
    return cli.call([str(a) for a in arguments], STARTERS[kind].main, f"on_{kind}.py")


def launched(kind: str, *arguments: object, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """Start a starter as users do."""
    return subprocess.Popen(
        [sys.executable, str(PIPELINES / f"on_{kind}.py"), *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, env=env,
    )  # fmt: skip


@dataclass
class Slurm:
    """Replaces the batch system: `sbatch` starts the script as a separate process, `scancel` ends it."""

    jobs: Path

    def asked(self) -> list[Path]:
        """Return the submitted scripts."""
        return sorted(self.jobs.glob("*.sh"))

    def alive(self) -> list[int]:
        """Return the jobs that are still running."""
        found = []
        for file in self.jobs.glob("*.pid"):
            with suppress(ProcessLookupError):
                os.killpg(int(file.read_text()), 0)
                found.append(int(file.stem))
        return found

    def cancel(self, job: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(int((self.jobs / f"{job}.pid").read_text()), signal.SIGKILL)


SBATCH = """#!{python}
import os, pathlib, shutil, subprocess, sys

jobs = pathlib.Path({jobs!r})
if sys.argv[1] == "--test-only":
    if "#SBATCH -p nosuch" in sys.stdin.read():
        sys.exit("sbatch: error: invalid partition specified: nosuch")
    sys.exit()
number = os.getpid()
shutil.copy(sys.argv[1], jobs / f"{{number}}.sh")
with open(jobs / f"{{number}}.out", "wb") as out:
    job = subprocess.Popen(["bash", jobs / f"{{number}}.sh"], stdout=out, stderr=out, start_new_session=True)
(jobs / f"{{number}}.pid").write_text(str(job.pid))
print("Submitted batch job", number)
"""
SCANCEL = """#!{python}
import os, pathlib, signal, sys

os.killpg(int((pathlib.Path({jobs!r}) / f"{{sys.argv[1]}}.pid").read_text()), signal.SIGTERM)
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slurm]:
    (tmp_path / "bin").mkdir()
    (tmp_path / "jobs").mkdir()
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        file = tmp_path / "bin" / name
        file.write_text(text.format(python=sys.executable, jobs=str(tmp_path / "jobs")))
        file.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    batch = Slurm(tmp_path / "jobs")
    yield batch
    for job in batch.alive():
        batch.cancel(job)
