"""Run a command of fairdedup on workers that are pods of Kubernetes.

The Dask operator creates the pods. The scheduler is a pod too. The command runs where this script is called: in a pod
that mounts the same claim as the workers, so that both see RUN and INPUT by the same path.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any

import yaml
from dask.utils import parse_bytes
from pydantic import Field
from starter import NANNY_MEMORY, Adapt, QueuedConfig, make_command

from fairdedup.cli import call
from fairdedup.errors import FairdedupError
from fairdedup.option_types import Memory
from fairdedup.workers import PRELOAD, WORKER_THREADS


class KubernetesConfig(QueuedConfig):
    """YAML file of Kubernetes pods. `memory`, `cpus` and `gpus` are those of one worker."""

    image: str
    name: str = Field("fairdedup", pattern="^[a-z0-9]([-a-z0-9]{0,44}[a-z0-9])?$")
    namespace: str | None = None
    gpus: int = Field(0, ge=0, le=1)
    claim: str | None = None
    mount: PurePosixPath = PurePosixPath("/data")
    secrets: tuple[str, ...] = ()
    environment: dict[str, str] = {}
    node_selector: dict[str, str] = {}
    tolerations: tuple[dict[str, Any], ...] = ()
    scheduler_memory: Memory = "2GiB"
    scheduler_cpus: int = Field(1, ge=1)


def manifest(config: KubernetesConfig, adapt: Adapt = None) -> dict[str, Any]:
    """Return the manifest of the DaskCluster: the default of dask-kubernetes with the changes that we need."""
    from dask_kubernetes.operator import make_cluster_spec

    command = ["dask", "worker", "--nthreads", str(WORKER_THREADS), "--memory-limit", config.memory]
    cluster: dict[str, Any] = make_cluster_spec(
        name=config.name,
        image=config.image,
        n_workers=adapt[0] if adapt else config.workers,
        resources=_resources(config.cpus, parse_bytes(config.memory) + NANNY_MEMORY, config.gpus),
        env=config.environment,
        worker_command=[*command, "--preload", PRELOAD],
    )
    scheduler, worker = cluster["spec"]["scheduler"]["spec"], cluster["spec"]["worker"]["spec"]
    # The default, `dask-scheduler`, is no longer a command of Dask.
    scheduler["containers"][0]["args"] = ["dask", "scheduler", "--host", "0.0.0.0"]
    scheduler["containers"][0]["resources"] = _resources(config.scheduler_cpus, parse_bytes(config.scheduler_memory))
    worker["nodeSelector"] = config.node_selector
    worker["tolerations"] = list(config.tolerations)
    worker["containers"][0]["envFrom"] = [{"secretRef": {"name": name}} for name in config.secrets]
    if config.claim:
        worker["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": config.claim}}]
        worker["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": str(config.mount)}]
    return cluster


def _resources(cpus: int, memory: float, gpus: int = 0) -> dict[str, dict[str, str]]:
    """Return equal requests and limits, so that no pod is evicted because others use more."""
    sizes = {"cpu": str(cpus), "memory": f"{-(int(memory) // -(2**20))}Mi"}
    if gpus:
        sizes["nvidia.com/gpu"] = str(gpus)
    return {"requests": dict(sizes), "limits": sizes}


def manifest_yaml(config: KubernetesConfig, adapt: Adapt = None) -> str:
    """Return the manifest as YAML."""
    return yaml.safe_dump(manifest(config, adapt), sort_keys=False)


@contextmanager
def start_cluster(config: KubernetesConfig, adapt: Adapt) -> Iterator[Any]:
    """Let the operator create the pods, and delete them at the end."""
    import kr8s
    from dask_kubernetes.operator import KubeCluster

    try:
        kr8s.api().lookup_kind("daskcluster.kubernetes.dask.org/v1")
    except Exception as error:  # dask-kubernetes would print a page of tracebacks
        reason = str(error).strip().rstrip(".") or type(error).__name__
        raise FairdedupError(
            f"cannot create Dask clusters in Kubernetes ({reason}). Try `kubectl get daskclusters`, and check that the "
            "Dask operator is installed."
        ) from error
    # A unique name: dask-kubernetes would use, and then delete, a cluster of another run that has the same name.
    config = config.model_copy(update={"name": f"{config.name}-{secrets.token_hex(3)}"})
    cluster = KubeCluster(
        custom_cluster_spec=manifest(config, adapt),
        namespace=config.namespace,
        resource_timeout=int(config.patience),
        quiet=True,
    )
    with cluster:
        if adapt:
            cluster.adapt(minimum=adapt[0], maximum=adapt[1])
        yield cluster


main = make_command(
    KubernetesConfig,
    manifest_yaml,
    start_cluster,
    library="dask_kubernetes",
    advice="See `kubectl get pods` and `kubectl describe pod`.",
)

if __name__ == "__main__":
    sys.exit(call(sys.argv[1:], main, "on_kubernetes.py"))
