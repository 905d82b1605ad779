"""What starts Dask on Slurm, on Kubernetes and on GPUs: scripts, manifests and workers, and runs that they carry out.

There is no Slurm and no Kubernetes here. A `sbatch` that starts its script as a process stands for Slurm; manifests are
held against the schema that dask-kubernetes ships, and the pods that its operator makes of them are run as processes.
"""

from __future__ import annotations

import http.server
import importlib.metadata
import importlib.resources
import importlib.util
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jsonschema
import pytest
import yaml
from distributed import Client
from runs import CLUSTERS, done, product
from test_workers import processes  # noqa: F401

from fairdedup import cli
from fairdedup.workers import FILES, LEAST_FILES, PRELOAD

ROOT = Path(__file__).parents[2]
PIPELINES = ROOT / "pipelines"
CONFIGS = ROOT / "configs" / "clusters"
sys.path.insert(0, str(PIPELINES))

import on_cuda  # noqa: E402
import on_kubernetes  # noqa: E402
import on_slurm  # noqa: E402
import starter  # noqa: E402

STARTERS = {"slurm": on_slurm, "kubernetes": on_kubernetes, "cuda": on_cuda}
KINDS = {"slurm": on_slurm.SlurmConfig, "kubernetes": on_kubernetes.KubernetesConfig, "cuda": on_cuda.GpuConfig}
HAS_CUDA = importlib.util.find_spec("dask_cuda") is not None


@pytest.fixture(autouse=True)
def same_limit() -> Iterator[None]:
    """Leave the number of files that this process may open as it was."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def written(folder: Path, **keys: Any) -> Path:
    """Write the YAML file of a cluster."""
    file = folder / "cluster.yaml"
    file.write_text(yaml.safe_dump(keys), encoding="utf-8")
    return file


def slurm_config(folder: Path, **keys: Any) -> Path:
    """Write one for jobs on this machine."""
    here = {"workers": 2, "memory": "1GiB", "interface": "lo", "log_directory": str(folder / "logs"), "patience": 60}
    return written(folder, **here | keys)


def config(kind: str, **keys: Any) -> Any:
    """Return a configuration of a kind, with no file."""
    needed: dict[str, Any] = {"slurm": {"workers": 2}, "kubernetes": {"workers": 2, "image": "i"}, "cuda": {}}[kind]
    return KINDS[kind](**needed | keys)


def call(kind: str, *arguments: object) -> int:
    """Call a starter in this process."""
    return cli.call([str(a) for a in arguments], STARTERS[kind].main, f"on_{kind}.py")


# The configuration


@pytest.mark.parametrize("kind", STARTERS)
def test_the_shipped_configuration_can_be_read_and_names_every_key(kind):
    text = (CONFIGS / f"{kind}.yaml").read_text(encoding="utf-8")
    starter.read(KINDS[kind], CONFIGS / f"{kind}.yaml")
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
        ("slurm", {}, "workers in {file} is missing: add a line `workers: ...`"),
        ("slurm", {"workers": 0}, "workers in {file} 0 cannot be used: input should be greater than or equal to 1"),
        ("slurm", {"worker": 2, "workers": 2}, "worker in {file} is no option: did you mean workers"),
        ("slurm", {"workers": 2, "cheese": 1}, "cheese in {file} is no option: see docs/clusters.md"),
        ("slurm", {"workers": 2, "memory": 4}, "memory in {file} 4: it is no amount of memory: give one such as 4GiB"),
        (
            "slurm",
            {"workers": 2, "walltime": 36000},
            'walltime in {file} 36000: YAML reads it as a number: write it in quotes, as "10:00:00"',
        ),
        ("slurm", {"workers": 2, "start_with": 3}, "start_with 3 is more than the 2 workers: lower it"),
        (
            "slurm",
            {"workers": 2, "workers_per_job": 2, "gres": "gpu:2"},
            "gres 'gpu:2' with workers_per_job 2: all workers of a job would take its first GPU; let workers_per_job "
            "be 1",
        ),
        ("kubernetes", {"workers": 2}, "image in {file} is missing: add a line `image: ...`"),
        (
            "kubernetes",
            {"workers": 2, "image": "i", "name": "My run"},
            "name in {file} 'My run' cannot be used: string should match pattern "
            "'^[a-z0-9]([-a-z0-9]{{0,44}}[a-z0-9])?$'",
        ),
        (
            "kubernetes",
            {"workers": 2, "image": "i", "gpus": 2},
            "gpus in {file} 2 cannot be used: input should be less than or equal to 1",
        ),
        (
            "cuda",
            {"memory": "much"},
            "memory in {file} 'much': it is no amount of memory: give one such as 4GiB, or auto",
        ),
    ],
)
def test_a_wrong_configuration_is_one_line_with_the_mend(kind, keys, message, tmp_path, capsys):
    file = written(tmp_path, **keys)
    assert call(kind, "--config", file, "--dry-run") == 2
    assert capsys.readouterr().err == f"fairdedup: error: {message.format(file=file)}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], r"there is nothing to run: after --, give one of run, refit, .*, as -- run INPUT --keep 0.5"),
        (["sample", "x"], r"'sample' needs no workers: after --, give one of run, .*"),
        (["run", "x", "--kep", "0.5"], r"No such option '--kep'.*; see fairdedup run --help"),
        (["run", "x", "--workers", "2"], r"--workers 2 is for the cluster to say: leave it out"),
        (["run", "x", "--scheduler", "tcp://h:1"], r"--scheduler tcp://h:1 is for the cluster to say: leave it out"),
        (["run", "x", "--memory-limit", "2GiB"], r"--memory-limit 2GiB is for the cluster to say: leave it out"),
    ],
)
def test_a_mistake_in_the_command_is_told_before_anything_is_submitted(
    arguments, message, slurm, tmp_path, capsys
):  # fmt: skip
    assert call("slurm", "--config", slurm_config(tmp_path), "--", *arguments) == 2
    assert re.fullmatch(f"fairdedup: error: {message}\n", capsys.readouterr().err)
    assert not slurm.asked()


def test_least_and_most_in_the_wrong_order_are_told(tmp_path, capsys):
    assert call("slurm", "--config", slurm_config(tmp_path), "--adapt", 3, 1, "--", "run", "x") == 2
    assert "--adapt 3 1: the first is the least, the second the most" in capsys.readouterr().err


@pytest.mark.parametrize("kind", STARTERS)
def test_a_library_that_is_missing_is_named_with_its_extra(kind, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert call(kind, "--config", CONFIGS / f"{kind}.yaml", "--dry-run") == 2
    library = {"slurm": "dask_jobqueue", "kubernetes": "dask_kubernetes", "cuda": "dask_cuda"}[kind]
    told = capsys.readouterr().err
    assert told == f"fairdedup: error: {library} is not installed: pip install '.[{kind}]'\n"


def test_a_preloaded_worker_may_open_enough_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (LEAST_FILES, hard))
    importlib.import_module(PRELOAD).dask_setup(None)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (most, hard)


# Slurm


@dataclass
class Slurm:
    """Stands for the batch system: `sbatch` starts the script as a process of its own, `scancel` ends it."""

    jobs: Path

    def asked(self) -> list[Path]:
        """Return the scripts that were submitted."""
        return sorted(self.jobs.glob("*.sh"))

    def alive(self) -> list[int]:
        """Return the jobs that still run."""
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


def test_a_job_asks_for_what_its_workers_need():
    asked = config(
        "slurm", workers=8, workers_per_job=4, memory="2GiB", cpus=2, partition="main", account="us", name="night",
        walltime="10:00:00", interface="lo", local_directory="/scratch/a b", python="/env/bin/python",
        prologue=["module load x"], directives=["--constraint=skylake"], log_directory="logs",
    )  # fmt: skip
    # Memory: 4 x (2 GiB and 256 MiB for the nanny).
    assert on_slurm.script(asked).splitlines() == [
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
    assert "#SBATCH --gres=gpu:a100:1" in on_slurm.script(config("slurm", gres="gpu:a100:1")).splitlines()


def test_without_slurm_a_start_says_so(tmp_path, capsys):
    assert shutil.which("sbatch") is None
    assert call("slurm", "--config", slurm_config(tmp_path), "--", "run", "x", "--keep", "0.5") == 2
    assert "there is no `sbatch` here: start this on a node that submits to Slurm" in capsys.readouterr().err


def test_a_job_that_slurm_refuses_is_told_and_nothing_is_submitted(slurm, tmp_path, capsys):
    file = slurm_config(tmp_path, partition="nosuch")
    assert call("slurm", "--config", file, "--", "run", "x", "--keep", "0.5") == 2
    assert capsys.readouterr().err == (
        "fairdedup: error: Slurm refuses the job (sbatch: error: invalid partition specified: nosuch): see --dry-run, "
        "and change the YAML file\n"
    )
    assert not slurm.asked()


def test_jobs_that_bring_no_worker_are_cancelled(slurm, tmp_path, capsys):
    file = slurm_config(tmp_path, workers=1, patience=1, prologue=["sleep 60"])
    assert call("slurm", "--config", file, "--", "run", "x", "--keep", "0.5") == 1
    assert capsys.readouterr().err.splitlines() == [
        "waiting for 1 of 1 workers",
        "fairdedup: error: fewer than 1 workers came within 1 seconds: see `squeue --me` and the logs in "
        "`log_directory`, or raise `patience`",
    ]
    assert len(slurm.asked()) == 1 and ended(slurm)


def ended(slurm: Slurm) -> bool:
    """Whether all jobs are gone, or soon will be."""
    for _ in range(100):
        if not slurm.alive():
            return True
        time.sleep(0.1)
    return False


def launched(kind: str, *arguments: object, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """Start a starter as its users do."""
    return subprocess.Popen(
        [sys.executable, str(PIPELINES / f"on_{kind}.py"), *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, env=env,
    )  # fmt: skip


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
    assert process.returncode == 1 and "Traceback" not in err, err[-3000:]
    assert err.startswith("waiting for 1 of 1 workers\ndashboard: http://127.0.0.1:")
    assert err.endswith("\nfairdedup: error: stopped; the same command goes on after the last finished shard\n")
    assert ended(slurm)
    (script,) = [file.read_text() for file in slurm.asked()]
    shown = on_slurm.script(starter.read(on_slurm.SlurmConfig, file))
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
    """Wait until a run has come to this folder."""
    for _ in range(1200):
        if folder.exists():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError(f"there is no {folder}")


# Kubernetes


def strict(schema: Any) -> Any:
    """Return a schema that refuses fields it does not name: Kubernetes drops them without a word."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    stricter = {key: strict(part) for key, part in schema.items()}
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        stricter.setdefault("additionalProperties", False)
    return stricter


@pytest.fixture(scope="module")
def schema() -> jsonschema.Draft202012Validator:
    """Check by the schema of a DaskCluster's spec, as dask-kubernetes installs it in Kubernetes."""
    folder = importlib.resources.files("dask_kubernetes") / "operator/deployment/helm/dask-kubernetes-operator/crds"
    definition = yaml.load((folder / "daskcluster.yaml").read_text(encoding="utf-8"), yaml.CSafeLoader)
    (version,) = definition["spec"]["versions"]
    assert (definition["spec"]["names"]["kind"], version["name"]) == ("DaskCluster", "v1")
    return jsonschema.Draft202012Validator(strict(version["schema"]["openAPIV3Schema"]["properties"]["spec"]))


FULL = {
    "name": "night", "workers": 3, "memory": "2GiB", "cpus": 2, "gpus": 1, "claim": "data", "mount": "/shared",
    "secrets": ["s3"], "environment": {"NUMBA_CACHE_DIR": "/tmp/numba"}, "node_selector": {"gpu": "a100"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
}  # fmt: skip


@pytest.mark.parametrize("keys", [{}, FULL], ids=["least", "all keys"])
def test_the_manifest_fits_the_schema_of_the_operator(keys, schema, tmp_path, capsys):
    assert call("kubernetes", "--config", written(tmp_path, **{"workers": 1, "image": "i"} | keys), "--dry-run") == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["apiVersion"], shown["kind"]) == ("kubernetes.dask.org/v1", "DaskCluster")
    schema.validate(shown["spec"])
    worker = shown["spec"]["worker"]["spec"]["containers"][0]
    for wrong in ({"volumeMount": []}, {"image": 3}, {"resources": {"limits": {"memory": []}}}):
        worker.update(wrong)
        with pytest.raises(jsonschema.ValidationError):
            schema.validate(shown["spec"])
        worker.pop("volumeMount", None)
        worker["image"] = "i"


def test_the_pods_have_the_image_the_volume_and_the_sizes_that_were_asked_for():
    made = on_kubernetes.manifest(config("kubernetes", image="r/fairdedup:1", **FULL), adapt=None)
    assert made["metadata"] == {"name": "night"} and made["spec"]["worker"]["replicas"] == 3
    pod, scheduler = made["spec"]["worker"]["spec"], made["spec"]["scheduler"]["spec"]
    (worker,) = pod["containers"]
    sizes = {"cpu": "2", "memory": "2304Mi", "nvidia.com/gpu": "1"}  # 2 GiB and 256 MiB for the nanny
    assert worker["resources"] == {"requests": sizes, "limits": sizes}
    assert worker["volumeMounts"] == [{"name": "data", "mountPath": "/shared"}]
    assert pod["volumes"] == [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    assert worker["envFrom"] == [{"secretRef": {"name": "s3"}}]
    assert worker["env"] == [{"name": "NUMBA_CACHE_DIR", "value": "/tmp/numba"}]
    assert pod["nodeSelector"] == FULL["node_selector"] and pod["tolerations"] == FULL["tolerations"]
    assert worker["image"] == scheduler["containers"][0]["image"] == "r/fairdedup:1"
    small = {"cpu": "1", "memory": "2048Mi"}
    assert scheduler["containers"][0]["resources"] == {"requests": small, "limits": small}, "no GPU, no big pod"
    assert on_kubernetes.manifest(config("kubernetes"), adapt=(1, 9))["spec"]["worker"]["replicas"] == 1


def test_the_pod_that_the_operator_makes_carries_out_a_run(
    processes, tmp_path, finished, embeddings, prototypes  # noqa: F811
):  # fmt: skip
    from dask_kubernetes.operator.controller.controller import build_worker_deployment_spec

    address = processes.scheduler()
    made = on_kubernetes.manifest(config("kubernetes", memory="1GiB", environment={"FROM_THE_FILE": "yes"}))
    deployment = build_worker_deployment_spec(
        "night-default", "default", "night", "0", made["spec"]["worker"]["spec"], {}, {}
    )
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    known = {variable["name"]: variable["value"] for variable in container["env"]}
    assert known["DASK_SCHEDULER_ADDRESS"] == "tcp://night-scheduler.default.svc.cluster.local:8786"
    known["DASK_SCHEDULER_ADDRESS"] = address
    words = [re.sub(r"\$\((\w+)\)", lambda found: known[found[1]], word) for word in container["args"]]
    assert words[0] == "dask"
    words = ["sh", "-c", f'ulimit -Sn {LEAST_FILES} && exec "$@"', "sh", sys.executable, "-m", *words]
    processes.running.append(
        subprocess.Popen(
            words, cwd=tmp_path, env=os.environ | known, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )  # fmt: skip
    )
    with Client(address, set_as_default=False) as client:
        client.wait_for_workers(1, timeout=60)
        (worker,) = client.scheduler_info(n_workers=-1)["workers"].values()
        assert (worker["name"], worker["nthreads"], worker["memory_limit"]) == ("night-default-worker-0", 1, 2**30)

        def seen() -> tuple[str, str, bool]:
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            return os.environ["FROM_THE_FILE"], os.environ["OMP_NUM_THREADS"], limit > LEAST_FILES

        assert client.submit(seen, pure=False).result() == ("yes", "1", True)
    done("run", embeddings, "--keep", 0.5, "--prototypes", prototypes, "--clusters", CLUSTERS, "--out",
         tmp_path / "run", "--scheduler", address, "--quiet")  # fmt: skip
    assert product(tmp_path / "run") == product(finished)


def test_the_scheduler_s_pod_starts_by_a_command_of_this_dask():
    (scheduler,) = on_kubernetes.manifest(config("kubernetes"))["spec"]["scheduler"]["spec"]["containers"]
    command, *arguments = scheduler["args"]
    assert (command, arguments[0]) == ("dask", "scheduler")
    (dask,) = importlib.metadata.entry_points(group="console_scripts", name="dask")
    from distributed.cli import dask_scheduler

    assert dask.dist is not None and dask.dist.name == "dask"
    dask_scheduler.main.make_context("scheduler", arguments[1:])  # an option it does not know would raise


class Api(http.server.BaseHTTPRequestHandler):
    """Stands for a Kubernetes that has no Dask operator."""

    answers: ClassVar[dict[str, Any]] = {
        "/version": {"gitVersion": "v1.33.0"},
        "/api": {"versions": []},
        "/apis": {"groups": []},
    }

    def do_GET(self) -> None:  # noqa: N802
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(self.answers[self.path.rstrip("/")]).encode())

    def log_message(self, *_: object) -> None: ...


@pytest.mark.parametrize("there", ["no Kubernetes", "no operator"])
def test_a_start_without_kubernetes_or_its_operator_is_an_error_of_one_line(there, tmp_path):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        named = {
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "k", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
        }  # fmt: skip
        if there == "no operator":
            (tmp_path / "kubeconfig").write_text(json.dumps(named))
        environment = os.environ | {"KUBECONFIG": str(tmp_path / "kubeconfig"), "HOME": str(tmp_path)}
        environment.pop("KUBERNETES_SERVICE_HOST", None)
        asked = ("--config", CONFIGS / "kubernetes.yaml", "--", "run", "x", "--keep", 0.5)
        process = launched("kubernetes", *asked, env=environment)
        _, err = process.communicate(timeout=60)
        server.shutdown()
    said = "Unable to find valid credentials" if there == "no Kubernetes" else "Kind daskcluster not found"
    assert (process.returncode, err) == (1, (
        f"fairdedup: error: Kubernetes cannot be asked for Dask clusters ({said}): see `kubectl get daskclusters`, and "
        "whether the Dask operator is installed\n"
    ))  # fmt: skip


# GPUs


@pytest.mark.skipif(not HAS_CUDA, reason="dask-cuda wants a Dask of its own: docs/clusters.md says how this was run")
def test_a_worker_for_each_gpu_carries_out_a_run(tmp_path, finished, embeddings, prototypes, monkeypatch):
    monkeypatch.setenv("DASK_CUDA_TEST_SINGLE_GPU", "1")  # dask-cuda's own way to be tried without so many GPUs
    monkeypatch.setenv("DASK_CUDA_TEST_DISABLE_DEVICE_SPECIFIC", "1")
    file = written(tmp_path, gpus=[0, 1], memory="1GiB")
    process = launched("cuda", "--config", file, "--dry-run")
    out, err = process.communicate(timeout=60)
    assert out == (
        "worker 0: CUDA_VISIBLE_DEVICES=0,1 threads=1 memory=1GiB\n"
        "worker 1: CUDA_VISIBLE_DEVICES=1,0 threads=1 memory=1GiB\n"
    ), err
    process = launched("cuda", "--config", file, "--", "run", embeddings, "--keep", 0.5, "--prototypes", prototypes,
                       "--clusters", CLUSTERS, "--out", tmp_path / "run")  # fmt: skip
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert product(tmp_path / "run") == product(finished)
