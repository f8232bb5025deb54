"""`wonder doctor`: is everything here that a run needs? One line per check, and what to do about each failure."""

import argparse
import importlib.util
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client

from wonder import search_attributes
from wonder.connect import connect
from wonder.errors import ServerNotReachable
from wonder.names import EMBEDDED_MODEL, WORKFLOW_QUEUE, gpu_queue
from wonder.plugin import WonderPlugin

Check = tuple[bool, str, str]
"""Passed, what was checked, what to do (empty when passed)."""


def add_commands(commands: "argparse._SubParsersAction[Any]", server: argparse.ArgumentParser) -> None:
    """Add `doctor`."""
    doctor = commands.add_parser("doctor", parents=[server], help="check server, search attributes, workers, extras")
    doctor.add_argument("--model", default=EMBEDDED_MODEL)
    doctor.add_argument("--json", action="store_true")
    doctor.set_defaults(handler=run_doctor, needs_client=False)


async def run_doctor(arguments: argparse.Namespace) -> int:
    """Check everything; exit code 5 if anything is missing."""
    found = [check async for check in checks(arguments)]
    if arguments.json:
        rows = [{"ok": passed, "check": what, "do": remedy} for passed, what, remedy in found]
        sys.stdout.write(json.dumps(rows, ensure_ascii=False) + "\n")
    else:
        for passed, what, remedy in found:
            sys.stdout.write(f"{'ok  ' if passed else 'FAIL'}  {what}{'' if passed else ': ' + remedy}\n")
    return 0 if all(passed for passed, _, _ in found) else 5


async def checks(arguments: argparse.Namespace) -> AsyncIterator[Check]:
    """Each check, as soon as it is made."""
    for package, extra in (("torch", "gpu"), ("transformers", "gpu"), ("safetensors", "gpu")):
        installed = importlib.util.find_spec(package) is not None
        yield installed, f"{package} for GPU workers on this machine", f"pip install 'wonder-temporal[{extra}]'"
    try:
        client = await connect(arguments.address, namespace=arguments.namespace, plugins=[WonderPlugin()], timeout_s=5)
    except ServerNotReachable as error:
        yield False, "Temporal server", str(error)
        return
    yield True, f"Temporal server, namespace {client.namespace!r}", ""
    lacking = await search_attributes.lacking(client)
    yield not lacking, "search attributes", f"{', '.join(lacking)} missing: run `wonder init`"
    workflows = await pollers(client, WORKFLOW_QUEUE, TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW)
    yield workflows > 0, f"workflow workers on {WORKFLOW_QUEUE!r} ({workflows})", "start `wonder-cpu-worker`"
    queue = gpu_queue(arguments.model)
    models = await pollers(client, queue, TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY)
    yield models > 0, f"GPU workers on {queue!r} ({models})", f"start `wonder-gpu-worker --model {arguments.model}`"


async def pollers(client: Client, queue: str, kind: TaskQueueType.ValueType) -> int:
    """How many workers have polled this queue in the last minutes."""
    described = await client.workflow_service.describe_task_queue(
        DescribeTaskQueueRequest(namespace=client.namespace, task_queue=TaskQueue(name=queue), task_queue_type=kind)
    )
    return len(described.pollers)
