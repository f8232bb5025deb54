"""The command line of a job: one plain process, or torchrun with so many."""

from typing import Final

from lens_training.launch.base import JobSpec, short_hash

SHUTDOWN: Final = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"
"""How long torchrun lets its ranks write a checkpoint after SIGTERM; without it 30 s."""


def command(job: JobSpec, python: str, rendezvous: str = "") -> list[str]:
    """What one node runs.

    Args:
        job: The job.
        python: The interpreter there.
        rendezvous: `host:port` of the first node, for several.
    """
    if job.nproc == 1 and job.nodes == 1:
        return [python, *job.argv]
    run = [python, "-m", "torch.distributed.run"]
    if job.nodes == 1:
        run.append("--standalone")
    else:
        identity = ["--rdzv-id", short_hash(job.key), "--rdzv-backend", "c10d", "--rdzv-endpoint", rendezvous]
        run += ["--nnodes", str(job.nodes), *identity]
    return [*run, "--nproc-per-node", str(job.nproc), *job.argv]


def environment(job: JobSpec) -> dict[str, str]:
    """What a job's processes find in their environment beside what the place sets."""
    return {"PYTHONUNBUFFERED": "1", SHUTDOWN: str(job.grace_s), **job.env}
