"""The settings of each launcher, as `launch.options` of a specification gives them, and the launcher they make."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from lens_training.launch.base import JobLauncher
from lens_training.launch.kubernetes import KubernetesLauncher
from lens_training.launch.local import LocalLauncher
from lens_training.launch.sagemaker import SageMakerLauncher
from lens_training.launch.slurm import SlurmLauncher
from lens_training.spec import Spec, parse

Kind = Literal["local", "slurm", "sagemaker", "kubernetes"]


class Options(Spec):
    """What every place may be told of a job; each is a field of `JobSpec`."""

    image: str = ""
    workdir: str = ""
    """Empty: that of the worker, which containers do not have."""
    env: dict[str, str] = Field(default_factory=dict)
    cpus: int | None = Field(None, ge=1)
    memory_gb: int | None = Field(None, ge=1)
    wall_s: int | None = Field(None, ge=1)
    python: str = ""
    """The interpreter there; empty: the worker's own, in containers `python`."""


class SlurmOptions(Options):
    """See `SlurmLauncher`."""

    sbatch: list[str] = Field(default_factory=list)
    """Such as `--partition=h100`."""


class KubernetesOptions(Options):
    """See `KubernetesLauncher`."""

    server: str = ""
    """Empty: that of the cluster this worker runs in, as its pod's service account."""
    namespace: str = ""
    """Empty: the worker's own, or `default` outside a cluster."""
    token_file: str = ""
    ca_file: str = ""
    pod: dict[str, Any] = Field(default_factory=dict)
    container: dict[str, Any] = Field(default_factory=dict)


class SageMakerOptions(Options):
    """See `SageMakerLauncher`."""

    role_arn: str = Field(min_length=1)
    instance_type: str = "ml.p5.48xlarge"
    volume_gb: int = Field(500, ge=1)
    spot: bool = False
    spot_wait_s: int = Field(86_400, ge=1)
    start_attempts: int = Field(3, ge=1, le=30)
    output: str = ""
    region: str = ""
    request: dict[str, Any] = Field(default_factory=dict)


def read_options(kind: Kind, options: dict[str, Any]) -> Options:
    """The options of a kind of launcher.

    Raises:
        SpecError: One that it does not know, or that cannot be.
    """
    kinds: dict[str, type[Options]] = {
        "local": Options,
        "slurm": SlurmOptions,
        "kubernetes": KubernetesOptions,
        "sagemaker": SageMakerOptions,
    }
    return parse(kinds[kind], options)


def open_launcher(kind: Kind, options: dict[str, Any], jobs: Path) -> JobLauncher:
    """The launcher of a specification.

    Args:
        kind: Where jobs run.
        options: Its settings.
        jobs: Where jobs of this machine and of Slurm are remembered; for Slurm, nodes share it.

    Raises:
        SpecError: An option that this launcher does not know, or that cannot be.
        ExtraMissing: What it needs is not installed.
    """
    found = read_options(kind, options)
    python: dict[str, Any] = {"python": found.python} if found.python else {}
    if isinstance(found, SlurmOptions):
        return SlurmLauncher(jobs, options=found.sbatch, **python)
    if isinstance(found, KubernetesOptions):
        return _kubernetes(found, python)
    if isinstance(found, SageMakerOptions):
        return SageMakerLauncher(
            found.role_arn,
            instance_type=found.instance_type,
            volume_gb=found.volume_gb,
            spot=found.spot,
            spot_wait_s=found.spot_wait_s,
            start_attempts=found.start_attempts,
            output=found.output,
            request=found.request,
            region=found.region or None,
            **python,
        )
    return LocalLauncher(jobs, **python)


def _kubernetes(found: KubernetesOptions, python: dict[str, Any]) -> JobLauncher:
    settings: dict[str, Any] = {"pod": found.pod, "container": found.container, **python}
    if found.namespace:
        settings["namespace"] = found.namespace
    if not found.server:
        return KubernetesLauncher.in_cluster(**settings)
    if found.token_file:
        settings["token"] = Path(found.token_file)
    if found.ca_file:
        settings["ca"] = Path(found.ca_file)
    return KubernetesLauncher(found.server, **settings)
