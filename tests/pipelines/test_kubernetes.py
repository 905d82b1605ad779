"""The starter for Kubernetes: manifests, and a run with the command of a pod.

The tests need no Kubernetes. Manifests are checked against the schema that dask-kubernetes ships, and the pods that its
operator would create run as processes.
"""

from __future__ import annotations

import http.server
import importlib.metadata
import importlib.resources
import json
import os
import re
import resource
import subprocess
import sys
import threading
from typing import Any, ClassVar

import jsonschema
import on_kubernetes
import pytest
import yaml
from distributed import Client
from runs import CLUSTERS, done, product
from starters import CONFIGS, call, config, launched, written
from test_workers import processes  # noqa: F401

from fairdedup.open_files import LEAST_FILES


def strict(schema: Any) -> Any:
    """Return a schema that refuses unknown fields, which Kubernetes drops silently."""
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
    """Check a manifest against the schema of a DaskCluster that dask-kubernetes installs in Kubernetes."""
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


def test_the_pods_have_the_image_the_volume_and_the_sizes_of_the_configuration():
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
    """Replaces a Kubernetes without the Dask operator."""

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
        f"fairdedup: error: cannot create Dask clusters in Kubernetes ({said}). Try `kubectl get daskclusters`, and "
        "check that the Dask operator is installed.\n"
    ))  # fmt: skip
