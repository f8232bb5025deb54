"""The worker of a pool: serves the activities of training until a signal comes; jobs go on without it."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Final

from lens_training.job.activities import BEAT_S, TrainingJobs
from lens_training.launch.base import JobLauncher
from lens_training.run_spec import LaunchSpec
from wonder.connect import connect
from wonder.names import train_queue
from wonder.plugin import WonderPlugin
from wonder.worker import runtime, serve

DRAIN_S: Final = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `python -m lens_training worker`."""
    parser.add_argument("--pool", default="local", help="whose jobs to run; its queue is wonder-train.<pool>")
    parser.add_argument("--address", help="Temporal server; default: TEMPORAL_ADDRESS, else localhost:7233")
    parser.add_argument("--namespace", help="default: TEMPORAL_NAMESPACE, else default")
    parser.add_argument(
        "--slots",
        type=int,
        default=1,
        help="jobs at a time; 1 for a pool that is this machine, many where jobs run elsewhere (Slurm, a cloud)",
    )
    parser.add_argument(
        "--jobs",
        type=Path,
        default=Path(".wonder/jobs"),
        help="where jobs of this machine are remembered; keep it, so that the next worker finds them",
    )
    parser.add_argument("--glance", type=float, default=2.0, metavar="SECONDS", help="between looks at a job")
    parser.add_argument(
        "--patience", type=float, default=900.0, metavar="SECONDS", help="how long a launcher may not answer"
    )
    parser.add_argument("--drain", type=float, default=DRAIN_S, metavar="SECONDS", help="grace after SIGTERM")


async def work(options: argparse.Namespace, choose: Callable[[LaunchSpec], JobLauncher]) -> int:
    """Poll the pool's queue."""
    jobs = TrainingJobs(choose, glance_s=options.glance, patience_s=options.patience)
    plugin = WonderPlugin(roles=["train"], training=jobs.activities)
    client = await connect(options.address, namespace=options.namespace, plugins=[plugin], runtime=runtime())
    await serve(
        client,
        task_queue=train_queue(options.pool),
        max_concurrent_activities=options.slots,
        heartbeats_s=BEAT_S,
        drain_s=options.drain,
    )
    return 0
