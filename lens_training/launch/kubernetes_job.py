"""A job as Kubernetes is told it: one indexed Job that is tried once, and a service that gives its pods names."""

from collections.abc import Mapping
from typing import Any, Final

from lens_training.launch.base import JobSpec, short_hash
from lens_training.launch.command import command, environment

RUN_LABEL: Final = "wonder-run"
KEY_NOTE: Final = "wonder-key"
CANCELLED_NOTE: Final = "wonder-cancelled"
_PORT: Final = 29400


def job_name(key: str) -> str:
    """Of the Job, from which Kubernetes makes the names of its pods."""
    return f"wonder-{short_hash(key)}"


def run_label(run_folder: str) -> str:
    """What all jobs of a run folder carry."""
    return short_hash(run_folder.rstrip("/"))


def manifest(job: JobSpec, python: str, pod: Mapping[str, Any], container: Mapping[str, Any]) -> dict[str, Any]:
    """The Job, suspended: it begins when it is known to be alone.

    Args:
        job: The job.
        python: The interpreter in the image.
        pod: Merged into the pod's specification: volumes, node selector, tolerations.
        container: Merged into the container's: mounts, security context.
    """
    name = job_name(job.key)
    limits: dict[str, str] = {}
    if job.gpus_per_node:
        limits["nvidia.com/gpu"] = str(job.gpus_per_node)
    if job.cpus is not None:
        limits["cpu"] = str(job.cpus)
    if job.memory_gb is not None:
        limits["memory"] = f"{job.memory_gb}Gi"
    one = {
        "name": "job",
        "image": job.image,
        "command": [_literal(part) for part in command(job, python, f"{name}-0.{name}:{_PORT}")],
        "workingDir": job.workdir,
        "env": [{"name": key, "value": _literal(value)} for key, value in environment(job).items()],
        "resources": {"limits": limits, "requests": limits},
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    labels = {"app.kubernetes.io/managed-by": "wonder", RUN_LABEL: run_label(job.run_folder)}
    pod_spec = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": job.grace_s,
        "subdomain": name,
        "containers": [_merged(one, container)],
    }
    spec: dict[str, Any] = {
        "suspend": True,
        "backoffLimit": 0,
        "completionMode": "Indexed",
        "completions": job.nodes,
        "parallelism": job.nodes,
        # A pod that is evicted or whose node is lost: the same verdict, told apart by its reason.
        "podFailurePolicy": {
            "rules": [{"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
        },
        "template": {"metadata": {"labels": labels}, "spec": _merged(pod_spec, pod)},
    }
    if job.wall_s is not None:
        spec["activeDeadlineSeconds"] = job.wall_s
    note = {KEY_NOTE: job.key}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": labels, "annotations": note},
        "spec": spec,
    }


def service(name: str, uid: str) -> dict[str, Any]:
    """What lets the pods of a job find the first one; goes with the Job."""
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": uid}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "ownerReferences": [owner]},
        "spec": {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": {"job-name": name}},
    }


def _literal(value: str) -> str:
    # Kubernetes replaces $(NAME) in commands and values; a doubled dollar stands for itself.
    return value.replace("$", "$$")


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    both = {name: _merged(base[name], over[name]) for name in base.keys() & over.keys() if isinstance(base[name], dict)}
    return {**base, **over, **both}
