"""The demo: many tickets through a local stack; then what was decided by whom, how rightly, and what still waits."""

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from temporalio.client import Client
from tqdm import tqdm

from examples.ticket_triage.report import Case, follow, report
from examples.ticket_triage.workflow import Ticket, TicketTriage
from wonder import entry
from wonder.dev.stack import Stack
from wonder.errors import RequestError, ReviewError
from wonder.names import EMBEDDED_MODEL, WORKFLOW_QUEUE

HERE = Path(__file__).parent


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m examples.ticket_triage", description=__doc__)
    parser.add_argument("--tickets", type=Path, default=HERE / "tickets.jsonl", help="a JSON object with `text` a line")
    parser.add_argument("--folder", type=Path, default=Path(".wonder"))
    parser.add_argument("--port", type=int, default=7233)
    parser.add_argument("--model", default=EMBEDDED_MODEL)
    parser.add_argument("--stay", action=argparse.BooleanOptionalAction, help="stay up afterwards; asked on a terminal")
    return parser.parse_args(argv)


def read_cases(path: Path, run: str) -> list[Case]:
    """The tickets of a file; a ticket's `team`, where it has one, is the truth that it is judged by.

    Raises:
        RequestError: No such file, a line that is no JSON object, or one without a text.
    """
    if not path.exists():
        raise RequestError(f"there is no file {path}: give a JSON Lines file, one {{'text': …}} a line")
    cases = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
            ticket = Ticket.model_validate({"id": str(number), **found})
        except ValueError as error:
            raise RequestError(f'{path}, line {number} is not a ticket ({error}): write {{"text": "…"}}') from None
        cases.append(Case(f"{run}-{number:03d}", ticket, team=found.get("team"), urgency=found.get("urgency")))
    if not cases:
        raise RequestError(f'{path} holds no tickets: write one {{"text": "…"}} a line')
    return cases


async def demo(options: argparse.Namespace) -> int:
    """Run it."""
    started = time.monotonic()
    cases = read_cases(options.tickets, run=f"ticket-{int(time.time())}")
    print("starting Temporal and two workers …", flush=True)
    stack = Stack(folder=options.folder, port=options.port, move_ports=True, model=options.model)
    async with stack:
        client = stack.client
        await asyncio.gather(*(begin(client, case) for case in cases))
        with tqdm(total=len(cases), unit="ticket", disable=None, leave=False) as bar:
            await asyncio.gather(*(follow(client, case, bar.update) for case in cases))
        print(report(cases))
        if all(case.failure for case in cases):
            return 1
        await decide_two(cases, stack.address or "")
        await asyncio.gather(*(follow(client, case, lambda _: None) for case in cases if case.decided_now))
        for case in cases:
            if case.decided_now and case.resolution is not None and case.resolution.triage is not None:
                triage = case.resolution.triage
                print(f"    {case.id} went on, to {triage.team} with {triage.urgency} urgency")
        waiting = sum(case.review_id is not None and not case.decided_now for case in cases)
        print(farewell(options.folder, stack.ui_url, waiting))
        print(f"\n  {len(cases)} tickets in {time.monotonic() - started:.0f} s, set-up of the stack included")
        await stay_up(options, stack)
    return 0


def farewell(folder: Path, ui_url: str | None, waiting: int) -> str:
    """How to go on with what still waits."""
    commands = {
        "wonder dev": f"the stack again, until Ctrl-C; Temporal UI at {ui_url}",
        "wonder review ls": "the queue, most urgent first",
        "wonder review next": "claim the most urgent one and look at it",
        'wonder run "where is my parcel?"': "a ticket of your own",
    }
    lines = [f"\n  {waiting} still wait for a person; their runs are kept in {folder / 'temporal.db'}. To go on:"]
    lines.append("    source .venv/bin/activate")
    return "\n".join([*lines, *(f"    {command:<34} {what}" for command, what in commands.items())])


async def begin(client: Client, case: Case) -> None:
    """Start the workflow of one ticket."""
    await client.start_workflow(TicketTriage.run, case.ticket, id=case.id, task_queue=WORKFLOW_QUEUE)


async def decide_two(cases: Sequence[Case], address: str) -> None:
    """Decide two waiting tickets as a person would: on the command line."""
    judged = [case for case in cases if case.review_id and case.team and case.urgency and case.answer is not None]
    doubtful = [case for case in judged if case.route == "human_review"] or judged
    right = next((case for case in doubtful if case.model_is_right), None)
    wrong = next((case for case in doubtful if not case.model_is_right), None)
    print("\n  Two of them, decided on the command line:" if right or wrong else "")
    for case, verb, extra in (
        (right, "approve", []),
        (wrong, "edit", ["--set", f"team={wrong.team}", "--set", f"urgency={wrong.urgency}"] if wrong else []),
    ):
        if case is None or case.review_id is None:
            continue
        command = ["review", verb, case.review_id, *extra, "--as", "demo"]
        print(f"    $ wonder {' '.join(command)}")
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "wonder.cli",
            *command,
            "--json",
            "--address",
            address,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await process.communicate()
        if process.returncode != 0:
            raise ReviewError(f"`wonder {' '.join(command)}` ended with {process.returncode}: {said.decode().strip()}")
        case.decided_now = True


async def stay_up(options: argparse.Namespace, stack: Stack) -> None:
    """On a terminal, offer to keep the stack up."""
    stay = options.stay
    if stay is None and sys.stdin.isatty() and sys.stdout.isatty():
        answer = await asyncio.to_thread(input, "\n  Keep the stack up, to look around and decide some? [y/N] ")
        stay = answer.strip().lower().startswith("y")
    if not stay:
        return
    print(f"  up at {stack.address}, UI {stack.ui_url}; Ctrl-C drains and stops")
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()


if __name__ == "__main__":
    parsed = arguments(sys.argv[1:])
    entry.run(lambda: demo(parsed))
