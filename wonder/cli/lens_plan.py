"""`wonder lens plan`: what a training run will need, before anything is started."""

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Any


def add_verb(verbs: "argparse._SubParsersAction[Any]") -> None:
    """Add `plan` to `wonder lens`."""
    plan = verbs.add_parser(
        "plan",
        help="what a training run will need: memory, work, time, disk; exit code 7 if it does not fit",
        description="Reads a specification and the model's config.json, loads nothing, needs no server and no GPU. "
        "Memory and work are counted and checked against PyTorch; times are estimates.",
    )
    plan.add_argument("config", type=Path, help="a JSON file; docs/lenses.md says what stands in it")
    plan.add_argument("--device-kind", choices=("h100", "h200", "cpu"), help="default: as the file's launch says")
    plan.add_argument("--json", action="store_true", help="print JSON")
    plan.set_defaults(handler=run_plan, needs_client=False)


async def run_plan(args: argparse.Namespace) -> int:
    """Let the trainer's own package plan: this one does not know it."""
    command = [sys.executable, "-m", "lens_training", "plan", str(args.config)]
    command += ["--device-kind", args.device_kind] if args.device_kind else []
    command += ["--json"] if args.json else []
    started = await asyncio.create_subprocess_exec(*command)
    return await started.wait()
