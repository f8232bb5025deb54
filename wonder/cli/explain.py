"""`wonder explain`: each step of a run with its signals, calibrated number, rules, distances and versions."""

import argparse
import sys
from pathlib import Path
from typing import Any

from temporalio.client import Client

from wonder.errors import RequestError
from wonder.history.explaining import explain_run
from wonder.history.explanation_page import page
from wonder.history.explanation_text import text
from wonder.history.reading import context_of
from wonder.routing.context import Context


def add_commands(commands: "argparse._SubParsersAction[Any]", server: argparse.ArgumentParser) -> None:
    """Add `explain`."""
    explain = commands.add_parser("explain", parents=[server], help="why a run went where it went, for an auditor")
    explain.add_argument("workflow_id")
    explain.add_argument("--run-id", help="an earlier run of that id")
    form = explain.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true")
    form.add_argument("--html", metavar="FILE", type=Path, help="write a page that needs nothing else")
    explain.set_defaults(handler=run_explain, needs_client=True)


async def run_explain(arguments: argparse.Namespace, client: Client) -> int:
    """Query the run and explain it."""
    ctx: Context = await context_of(client, arguments.workflow_id, arguments.run_id)
    found = explain_run(arguments.workflow_id, ctx)
    if arguments.html:
        try:
            arguments.html.write_text(page(found), encoding="utf-8")
        except OSError as error:
            raise RequestError(f"{arguments.html}: {error.strerror or error}") from None
        sys.stdout.write(f"{arguments.html}\n")
    else:
        sys.stdout.write(found.model_dump_json(indent=2) + "\n" if arguments.json else text(found))
    return 0
