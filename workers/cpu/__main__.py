"""`wonder-cpu-worker`: Wonder's workflows, those of lens training and the project's own, until a signal comes."""

import argparse
import sys

from lens_training.job.sweep import LensSweep
from lens_training.job.workflow import LensTraining
from wonder import entry, search_attributes
from wonder.connect import connect
from wonder.discovery import configured_workflows, load_workflows
from wonder.names import WORKFLOW_QUEUE
from wonder.plugin import WonderPlugin
from wonder.worker import runtime, serve


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="wonder-cpu-worker", description=__doc__)
    parser.add_argument(
        "--workflows",
        nargs="*",
        metavar="MODULE",
        help="modules or .py files with workflows; default: WONDER_WORKFLOWS, else [tool.wonder] in pyproject.toml",
    )
    parser.add_argument("--address", help="Temporal server; default: TEMPORAL_ADDRESS, else localhost:7233")
    parser.add_argument("--namespace", help="default: TEMPORAL_NAMESPACE, else default")
    parser.add_argument("--task-queue", default=WORKFLOW_QUEUE)
    parser.add_argument("--drain", type=float, default=10.0, metavar="SECONDS", help="grace after SIGTERM")
    return parser.parse_args(argv)


async def work(options: argparse.Namespace) -> int:
    """Find the workflows, then poll."""
    names = configured_workflows() if options.workflows is None else options.workflows
    workflows = load_workflows(names)
    probe = await connect(options.address, namespace=options.namespace)
    plugin = WonderPlugin(roles=["workflow", "cpu"], search_attributes=await search_attributes.registered(probe))
    client = await connect(options.address, namespace=options.namespace, plugins=[plugin], runtime=runtime())
    await serve(
        client, task_queue=options.task_queue, workflows=[*workflows, LensTraining, LensSweep], drain_s=options.drain
    )
    return 0


def main() -> None:
    """Entry point of the console script."""
    options = arguments(sys.argv[1:])
    entry.log_to_stderr()
    entry.run(lambda: work(options))


if __name__ == "__main__":
    main()
