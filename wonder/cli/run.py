"""`wonder run`: start one workflow, watch it, and say what it did and why."""

import argparse
import asyncio
import json
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError, FailureError

from wonder.cli.dev import add_stack_arguments, say
from wonder.cli.schema import input_type
from wonder.cli.show import lines
from wonder.connect import connect
from wonder.dev.stack import Stack
from wonder.discovery import configured_workflows, load_workflows, type_name
from wonder.errors import DefinitionError, RequestError, ServerNotReachable, WonderError
from wonder.graph.files import read
from wonder.graph.plan import plan
from wonder.history.reading import context_of
from wonder.names import AUDIT_PREFIX, GRAPH, HUMAN_REVIEW, WORKFLOW_QUEUE
from wonder.plugin import WonderPlugin


def add_commands(commands: "argparse._SubParsersAction[Any]", server: argparse.ArgumentParser) -> None:
    """Add `run`."""
    run = commands.add_parser(
        "run",
        parents=[server],
        help="start one workflow and show what the model was thinking; starts a stack if no server answers",
    )
    run.add_argument("text", nargs="?", help="becomes the input's field `text`; instead of --input")
    run.add_argument("--input", help="the workflow's input as JSON; @file reads a file")
    run.add_argument("--type", help="workflow type; default: the project's first")
    run.add_argument("--graph", type=Path, metavar="FILE", help="run this graph (YAML or JSON) instead of a workflow")
    run.add_argument("--task-queue", default=WORKFLOW_QUEUE)
    run.add_argument("--id", help="workflow id; default: made up")
    run.add_argument("--no-wait", action="store_true", help="start it, print its id, and leave")
    run.add_argument("--json", action="store_true", help="print id, status, result and context as JSON")
    add_stack_arguments(run)
    run.set_defaults(handler=run_run, needs_client=False)


async def run_run(arguments: argparse.Namespace) -> int:
    """Start, watch, tell."""
    if arguments.graph is not None:
        return await start(arguments, GRAPH, read_graph(arguments))
    names = configured_workflows() if arguments.workflows is None else arguments.workflows
    known = {type_name(found): found for found in load_workflows(names)}
    kind = arguments.type or next(iter(known), None)
    if kind is None:
        raise DefinitionError("there is no workflow to run: name one with --type, and its module with --workflows")
    return await start(arguments, kind, read_input(arguments, known, kind))


async def start(arguments: argparse.Namespace, kind: str, value: Any) -> int:
    """Start a workflow and follow it."""
    workflow_id = arguments.id or f"{kind}-{uuid.uuid4().hex[:8]}"
    async with reachable(arguments) as client:
        handle = await client.start_workflow(
            kind, *([] if value is None else [value]), id=workflow_id, task_queue=arguments.task_queue
        )
        if arguments.no_wait:
            say(json.dumps({"id": workflow_id}) if arguments.json else workflow_id)
            return 0
        return await watch(client, handle, as_json=arguments.json)


def read_graph(arguments: argparse.Namespace) -> Any:
    """The input of `wonder.Graph`, checked here as completely as the workflow checks it.

    Raises:
        DefinitionError: The graph or the input of its run cannot be.
    """
    spec = read(arguments.graph)
    given = read_input(arguments, {}, GRAPH)
    if given is not None and not isinstance(given, dict):
        raise RequestError("--input of a graph is a JSON object with the fields of its input")
    plan(spec).check_input(given or {})
    return {"graph": spec.model_dump(mode="json", by_alias=True, exclude_defaults=True), "input": given or {}}


def read_input(arguments: argparse.Namespace, known: dict[str, type], kind: str) -> Any:
    """The workflow's input, checked here when its type is known here.

    Raises:
        RequestError: The input is not JSON, or does not fit the type.
    """
    taken = input_type(known, kind) if kind in known else None
    if arguments.text is not None:
        value: Any = {"text": arguments.text}
        schema = TypeAdapter(taken).json_schema() if taken is not None else {}
        if "id" in schema.get("required", []):
            value["id"] = uuid.uuid4().hex[:8]
    elif arguments.input is not None:
        raw = Path(arguments.input[1:]).read_text() if arguments.input.startswith("@") else arguments.input
        try:
            value = json.loads(raw)
        except ValueError as error:
            raise RequestError(f'--input is not JSON ({error}): for example --input \'{{"text": "…"}}\'') from None
    else:
        return None
    if taken is not None:
        try:
            TypeAdapter(taken).validate_python(value)
        except ValueError as error:
            raise RequestError(f"the input does not fit {kind} ({error}): see `wonder schema {kind}`") from None
    return value


@asynccontextmanager
async def reachable(arguments: argparse.Namespace) -> AsyncIterator[Client]:
    """A client of the server that runs, or of a stack that is started for this one command."""
    try:
        yield await connect(arguments.address, namespace=arguments.namespace, plugins=[WonderPlugin()], timeout_s=5)
        return
    except ServerNotReachable:
        if arguments.address is not None:
            raise
    sys.stderr.write("no server runs here: starting a local stack for this run (`wonder dev` keeps one up) …\n")
    stack = Stack(
        folder=arguments.folder,
        port=arguments.port,
        move_ports=True,
        ui=False,
        model=arguments.model,
        workflows=arguments.workflows,
    )
    async with stack:
        yield stack.client


async def watch(client: Client, handle: WorkflowHandle[Any, Any], *, as_json: bool) -> int:
    """Wait until the run ends or waits for a person, and tell what happened."""
    waiting: list[str] = []
    while True:
        description = await handle.describe()
        if description.status != WorkflowExecutionStatus.RUNNING:
            break
        waiting = await open_reviews(client, handle.id)
        if waiting:
            break
        await asyncio.sleep(0.2)
    result, failure = None, None
    if not waiting:
        try:
            result = await handle.result()
        except WorkflowFailureError as error:
            failure = reason_of(error)
    try:
        ctx = await context_of(client, handle.id)
    except WonderError:
        ctx = None
    if as_json:
        say(
            json.dumps(
                {
                    "id": handle.id,
                    "status": "waiting" if waiting else "failed" if failure else "completed",
                    "result": result,
                    "failure": failure,
                    "reviews": waiting,
                    "context": None if ctx is None else ctx.model_dump(mode="json"),
                },
                ensure_ascii=False,
            )
        )
        return 1 if failure else 0
    say(handle.id)
    for line in lines(ctx) if ctx is not None else []:
        say(line)
    for review in waiting:
        say(f"waits for a person: wonder review show {review}   ·   wonder review approve {review}")
    if failure:
        say(f"failed: {failure}")
    elif not waiting:
        say(f"result: {json.dumps(result, ensure_ascii=False)}")
    return 1 if failure else 0


async def open_reviews(client: Client, workflow_id: str) -> list[str]:
    """Ids of the reviews this run is waiting for; for audits it does not wait."""
    description = await client.get_workflow_handle(workflow_id).describe()
    return [
        child.workflow_id
        for child in description.raw_description.pending_children
        if child.workflow_type_name == HUMAN_REVIEW and not child.workflow_id.startswith(AUDIT_PREFIX)
    ]


def reason_of(error: WorkflowFailureError) -> str:
    """The innermost sentence of a failure."""
    cause: BaseException = error
    while isinstance(cause, FailureError | WorkflowFailureError) and cause.__cause__ is not None:
        if isinstance(cause, ApplicationError):
            break
        cause = cause.__cause__
    return cause.message if isinstance(cause, FailureError) else str(cause)
