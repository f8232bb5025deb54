"""`wonder graph`: check a graph in a file, or draw it."""

import argparse
import sys
from pathlib import Path
from typing import Any

from wonder.graph.files import read
from wonder.graph.plan import plan
from wonder.routing.mermaid import flowchart
from wonder.routing.svg import svg


def add_commands(commands: "argparse._SubParsersAction[Any]", server: argparse.ArgumentParser) -> None:  # noqa: ARG001
    """Add `graph check` and `graph draw`."""
    graph = commands.add_parser("graph", help="check or draw a graph given as YAML or JSON")
    verbs = graph.add_subparsers(dest="verb", required=True, metavar="VERB")
    check = verbs.add_parser("check", help="everything that `wonder.Graph` checks before its first step")
    check.add_argument("file", type=Path)
    check.set_defaults(handler=run_check, needs_client=False)
    draw = verbs.add_parser("draw", help="draw its table; as Mermaid on standard output by default")
    draw.add_argument("file", type=Path)
    draw.add_argument("--svg", type=Path, metavar="OUT", help="write a picture here; - is standard output")
    draw.set_defaults(handler=run_draw, needs_client=False)


async def run_check(arguments: argparse.Namespace) -> int:
    """Say what is wrong, or what there is."""
    found = plan(read(arguments.file))
    spec = found.spec
    names = ", ".join(spec.input) or "anything"
    sys.stdout.write(
        f"{arguments.file}: {len(spec.actions)} actions, {len(spec.rows)} rows, {len(spec.reviews)} reviews, "
        f"table {found.table.digest}; input: {names}\n"
    )
    return 0


async def run_draw(arguments: argparse.Namespace) -> int:
    """Draw it."""
    found = plan(read(arguments.file))
    if arguments.svg is None:
        sys.stdout.write(flowchart(found.table.spec))
        return 0
    picture = svg(found.table.spec)
    if str(arguments.svg) == "-":
        sys.stdout.write(picture)
    else:
        arguments.svg.write_text(picture, encoding="utf-8")
    return 0
