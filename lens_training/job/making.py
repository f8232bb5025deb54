"""From an order to what a launcher starts: the files a job reads, its command, and what it needs."""

import os
from pathlib import Path
from typing import Any, Final

from lens_training.artifacts import publish
from lens_training.job.orders import JobOrder
from lens_training.launch.base import JobSpec, short_hash
from lens_training.run_spec import RunSpec
from lens_training.spec import load
from lens_training.train.segment import Segment

ON_GPU: Final = ("dump", "evaluate", "export")
"""Stages besides training that load models."""


def job_for(order: JobOrder, spec: RunSpec, epoch: int) -> JobSpec:
    """Write down what the job is to read, and describe it; may be repeated.

    Raises:
        StoreNotUsable: The folder takes no files.
    """
    launch = spec.launch
    config = _config(spec)
    gpus = launch.gpus_per_node
    device = launch.device or ("cuda" if gpus else "")
    more = ("image", "env", "cpus", "memory_gb", "wall_s")
    shared: dict[str, Any] = {
        "key": order.key,
        "workdir": str(launch.options.get("workdir") or os.getcwd()),
        "grace_s": max(1, round(launch.grace_seconds)),
        **{name: launch.options[name] for name in more if name in launch.options},
    }
    if order.stage == "train":
        segment = Segment(
            spec=str(config),
            epoch=epoch,
            until_step=order.until_step,
            max_seconds=order.max_seconds,
            device=device or None,
            rate_scale=order.rate_scale,
            pieces=order.pieces,
        )
        path = _segment(order, spec)
        publish(path, segment.model_dump_json().encode())
        return JobSpec(
            argv=["-m", "lens_training.train.main", str(path)],
            nproc=launch.processes,
            nodes=launch.nodes,
            gpus_per_node=gpus,
            run_folder=str(spec.run_folder.absolute()),
            **shared,
        )
    argv = ["-m", "lens_training", order.stage, str(config), "--json"]
    if order.part:
        argv += ["--slice", order.part]
    if order.stage in ON_GPU and device:
        argv += ["--device", device]
    needs = gpus if order.stage in ON_GPU else 0
    return JobSpec(argv=argv, gpus_per_node=min(needs, 1), run_folder=str(own_folder(order, spec)), **shared)


def epoch_of(order: JobOrder, spec: RunSpec) -> int:
    """Of the lease that a segment was started with.

    Raises:
        SpecError: It was started elsewhere, or its file was removed.
    """
    return load(Segment, _segment(order, spec)).epoch


def own_folder(order: JobOrder, spec: RunSpec) -> Path:
    """What a job alone may write to: the run for training and what follows, a place of its own for data."""
    if order.stage in ("tokens", "dump", "merge"):
        name = "-".join([order.stage, *order.part.split("/")]).rstrip("-")
        return Path(spec.folder).absolute() / "jobs" / name
    return spec.run_folder.absolute()


def _segment(order: JobOrder, spec: RunSpec) -> Path:
    return spec.run_folder.absolute() / "segments" / f"{short_hash(order.key)}.json"


def _config(spec: RunSpec) -> Path:
    """The specification as a file, named by its content: an extended run has another one."""
    path = Path(spec.folder).absolute() / "jobs" / f"{spec.run_name}-{spec.digest()[:12]}.json"
    if not path.exists():
        publish(path, spec.model_dump_json(indent=1).encode())
    return path
