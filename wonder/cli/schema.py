"""`wonder schema`: what a workflow takes, as JSON schema and as a ready command line."""

import argparse
import json
import shlex
import sys
from typing import Any

from pydantic import TypeAdapter
from temporalio import workflow

from wonder.discovery import configured_workflows, load_workflows, type_name
from wonder.errors import RequestError
from wonder.names import WORKFLOW_QUEUE


def add_commands(commands: "argparse._SubParsersAction[Any]", server: argparse.ArgumentParser) -> None:  # noqa: ARG001
    """Add `schema`."""
    schema = commands.add_parser("schema", help="the input of a workflow: JSON schema and an example command")
    schema.add_argument("type", nargs="?", help="workflow type; without it, the known ones are listed")
    schema.add_argument("--workflows", nargs="*", metavar="MODULE", help="default: [tool.wonder] in pyproject.toml")
    schema.add_argument("--task-queue", default=WORKFLOW_QUEUE)
    schema.set_defaults(handler=run_schema, needs_client=False)


async def run_schema(arguments: argparse.Namespace) -> int:
    """Print it."""
    known = {
        type_name(found): found
        for found in load_workflows(configured_workflows() if arguments.workflows is None else arguments.workflows)
    }
    if arguments.type is None:
        sys.stdout.write("\n".join(known) + "\n" if known else "no workflows: name modules with --workflows\n")
        return 0
    taken = input_type(known, arguments.type)
    if taken is None:
        sys.stdout.write(f"{arguments.type} takes no input\n")
        return 0
    schema = TypeAdapter(taken).json_schema()
    command = (
        f"temporal workflow start --type {arguments.type} --task-queue {arguments.task_queue} "
        f"--input {shlex.quote(json.dumps(example(schema)))}"
    )
    sys.stdout.write(json.dumps(schema, indent=2) + "\n\n" + command + "\n")
    return 0


def input_type(known: dict[str, type], name: str) -> Any:
    """Type of a workflow's one parameter, or None.

    Raises:
        RequestError: No such workflow type.
    """
    if name not in known:
        raise RequestError(f"there is no workflow {name!r} here; known are {', '.join(known) or 'none'}")
    definition = workflow._Definition.must_from_class(known[name])
    return definition.arg_types[0] if definition.arg_types else None


def example(schema: dict[str, Any]) -> dict[str, Any]:
    """A value for every property without a default, in the shape of the schema."""
    samples: dict[str, Any] = {"string": "…", "integer": 1, "number": 0.5, "boolean": True, "array": [], "object": {}}
    required = schema.get("required", [])
    properties = schema.get("properties", {})
    return {
        name: properties[name].get("enum", [samples.get(properties[name].get("type", "string"), "…")])[0]
        for name in required
    }
