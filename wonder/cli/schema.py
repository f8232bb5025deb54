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
from wonder.graph.workflow import Graph
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
    named = configured_workflows() if arguments.workflows is None else arguments.workflows
    known = {type_name(found): found for found in (*load_workflows(named), Graph)}
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
        f"--input {shlex.quote(json.dumps(example(schema), ensure_ascii=False))}"
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


def example(schema: dict[str, Any]) -> Any:
    """The schema's own example; else a value with every property that has no default, in its shape."""
    if schema.get("examples"):
        return schema["examples"][0]
    return _example(schema, schema.get("$defs", {}))


def _example(schema: dict[str, Any], definitions: dict[str, Any]) -> Any:
    if "$ref" in schema:
        return _example(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            return _example(schema[choice][0], definitions)
    if "const" in schema or "enum" in schema:
        return schema["const"] if "const" in schema else schema["enum"][0]
    match schema.get("type"):
        case "object":
            required = {name: schema["properties"][name] for name in schema.get("required", [])}
            return {name: _example(part, definitions) for name, part in required.items()}
        case "array":
            return [_example(schema["items"], definitions)] if schema.get("minItems", 0) else []
        case kind:
            return {"integer": 1, "number": 0.5, "boolean": True}.get(str(kind), "…")
