"""`wonder dev`: the local stack in the foreground; `wonder init`: search attributes on a server of one's own."""

import argparse
import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

from temporalio.client import Client

from wonder import search_attributes
from wonder.dev.stack import Stack
from wonder.discovery import configured_workflows
from wonder.errors import StackError
from wonder.names import EMBEDDED_MODEL, WORKFLOW_QUEUE, gpu_queue, train_queue


def add_commands(commands: "argparse._SubParsersAction[Any]", server: argparse.ArgumentParser) -> None:
    """Add `dev` and `init`."""
    dev = commands.add_parser("dev", help="start a local Temporal server and both workers; Ctrl-C drains and stops")
    add_stack_arguments(dev)
    dev.add_argument("--address", help="use this running server instead of starting one")
    dev.add_argument("--pool", metavar="NAME", help="also run a worker for `wonder lens train` on this machine")
    dev.add_argument("--verbose", action="store_true", help="print what the parts log (always in .wonder/logs)")
    dev.set_defaults(handler=run_dev, needs_client=False)
    init = commands.add_parser("init", parents=[server], help="register Wonder's search attributes on a server")
    init.set_defaults(handler=run_init, needs_client=True)


def add_stack_arguments(parser: argparse.ArgumentParser) -> None:
    """What describes a local stack."""
    parser.add_argument("--port", type=int, default=7233, help="of the Temporal server; its UI is 1000 above")
    parser.add_argument("--folder", type=Path, default=Path(".wonder"), help="database, logs, artifacts, calibrations")
    parser.add_argument("--model", default=EMBEDDED_MODEL, help="name or folder of a causal language model")
    parser.add_argument("--workflows", nargs="*", metavar="MODULE", help="default: [tool.wonder] in pyproject.toml")


async def run_dev(arguments: argparse.Namespace) -> int:
    """Start everything, say where it is, wait for Ctrl-C, drain."""
    say("starting the Temporal server, a GPU worker and a CPU worker …")
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    stack = Stack(
        folder=arguments.folder,
        port=arguments.port,
        address=arguments.address,
        model=arguments.model,
        workflows=arguments.workflows,
        pool=arguments.pool,
        echo=(lambda name, line: say(f"{name:>10} │ {line}")) if arguments.verbose else None,
    )
    starting = asyncio.create_task(stack.__aenter__())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        return 130
    await starting
    try:
        print_addresses(stack, configured_workflows() if arguments.workflows is None else arguments.workflows)
        ended = asyncio.create_task(stack.last_end(say))
        await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if ended.done() and not stop.is_set():
            child = ended.result()
            raise StackError(f"{child.name} ended by itself; its last lines (all in {child.log}):\n{child.tail()}")
        ended.cancel()
        say("draining …")
    finally:
        await stack.stop()
    say("stopped; the histories are kept in " + str(arguments.folder / "temporal.db"))
    return 0


def print_addresses(stack: Stack, workflows: list[str]) -> None:
    """Where everything is, and what to do next."""
    if stack.ui_url:
        say(f"Temporal UI   {stack.ui_url}")
    say(f"Temporal      {stack.address} (namespace {stack.client.namespace})")
    queues = [WORKFLOW_QUEUE, gpu_queue(stack.model), *([] if stack.pool is None else [train_queue(stack.pool)])]
    say(f"queues        {' · '.join(queues)}")
    say(f"workflows     {', '.join(workflows) or 'none of yours: name modules with --workflows'}")
    say(f"data          {stack.folder}")
    say("try           wonder run 'I was charged twice for my invoice'   ·   wonder review ls")
    say("Ctrl-C drains and stops everything")


async def run_init(_arguments: argparse.Namespace, client: Client) -> int:
    """Register what is missing."""
    added = await search_attributes.register(client)
    say(f"registered {', '.join(added)} in {client.namespace!r}" if added else "all search attributes are registered")
    return 0


def say(line: str) -> None:
    """A line for the person at the terminal, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
