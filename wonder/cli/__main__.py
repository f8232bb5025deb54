"""Entry point of `wonder`: the parser, and what surrounds every command."""

import argparse
import asyncio
import gc
import logging
import sys
from collections.abc import Sequence
from importlib.metadata import version

from wonder import entry
from wonder.cli import backtest, calibrate, claims, dev, doctor, explain, graph, lens, review, run, schema, show
from wonder.connect import connect
from wonder.plugin import WonderPlugin

COMMANDS = (dev, run, show, explain, backtest, review, graph, calibrate, lens, schema, claims, doctor)


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    root = argparse.ArgumentParser(
        prog="wonder", description="Temporal workflows that see what a model was thinking, and route on it."
    )
    root.add_argument("--version", action="version", version=f"wonder {version('wonder-temporal')}")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    server = argparse.ArgumentParser(add_help=False)
    server.add_argument("--address", help="Temporal server; default: TEMPORAL_ADDRESS, else localhost:7233")
    server.add_argument("--namespace", help="default: TEMPORAL_NAMESPACE, else default")
    for module in COMMANDS:
        module.add_commands(commands, server)
    return root


async def dispatch(arguments: argparse.Namespace) -> int:
    """Run one command; those that talk to a server get a connected client."""
    if not arguments.needs_client:
        return int(await arguments.handler(arguments))
    client = await connect(arguments.address, namespace=arguments.namespace, plugins=[WonderPlugin()])
    try:
        return int(await arguments.handler(arguments, client))
    finally:
        del client
        gc.collect()
        await asyncio.sleep(0)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, run, leave with the proper exit code."""
    arguments = parser().parse_args(argv if argv is not None else sys.argv[1:])
    entry.log_to_stderr(logging.WARNING)
    entry.run(lambda: dispatch(arguments))


if __name__ == "__main__":
    main()
