"""`wonder lens train`, `status`, `pause`, `resume`, `stop`, `extend`, `sweep`, `schedule`."""

import argparse
import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from temporalio.client import Client, ScheduleOverlapPolicy, WorkflowExecutionStatus

from wonder.cli import lens_training_text as text
from wonder.errors import SpecError, WorkerMissing
from wonder.names import train_queue
from wonder.training.client import LensRuns
from wonder.training.types import OVER, STAGES, ExtendInput, LensProgress, LensResult, LensRun, SweepRun
from wonder.wire import WireModel

REFUSED: Final = 4
"""Exit code for a lens that did not pass its gate."""
EVERY_S: Final = 1.0


def add_verbs(verbs: "argparse._SubParsersAction[Any]", server: argparse.ArgumentParser) -> None:
    """Add what runs and steers training to `wonder lens`."""

    def verb(name: str, help: str, handler: Callable[..., Any]) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = verbs.add_parser(name, help=help, parents=[server])
        parser.add_argument("--json", action="store_true", help="print JSON")
        parser.set_defaults(handler=handler, needs_client=True)
        return parser

    train = verb("train", "train a lens on a pool of workers, from texts to the registry", run_train)
    sweep = verb("sweep", "train a lens with some settings changed in each arm, and register the best", run_sweep)
    schedule = verb("schedule", "train a lens again and again", run_schedule)
    for parser in (train, sweep, schedule):
        parser.add_argument("config", type=Path, help="a JSON file; docs/lenses.md says what stands in it")
        parser.add_argument("--pool", default="local", help="whose workers run the jobs (default: local)")
        parser.add_argument("--id", default="", help="default: lens/<name>")
    for parser in (train, sweep):
        parser.add_argument("--wait", action="store_true", help="until it is over; exit code 4 if the lens is refused")
    train.add_argument(
        "--until", choices=STAGES, default="register", metavar="STAGE", help=f"last of {', '.join(STAGES)}"
    )
    sweep.add_argument("--arms", type=Path, required=True, help='JSON: {"short": {"lens.length": 4}, …}')
    sweep.add_argument("--parallel", type=int, default=1, help="arms at a time")
    schedule.add_argument("--cron", required=True, help="minute hour day month weekday, such as '0 3 * * 0'")
    overlap = [policy.name.lower().replace("_", "-") for policy in ScheduleOverlapPolicy]
    schedule.add_argument("--overlap", choices=overlap, default="skip", help="if one still runs (default: skip)")
    status = verb("status", "how a run stands", run_status)
    status.add_argument("--watch", action="store_true", help="until it is over")
    pause = verb("pause", "stop the job with a checkpoint, and wait", run_change)
    resume = verb("resume", "go on with a paused run", run_change)
    stop = verb("stop", "stop the job with a checkpoint, and end the run", run_change)
    extend = verb("extend", "train further", run_change)
    extend.add_argument("--steps", type=int, help="like the last ones, schedules held at their last values")
    extend.add_argument("--phases", type=Path, metavar="FILE", help="JSON: a list of phases as in run.phases")
    for parser in (status, pause, resume, stop, extend):
        parser.add_argument("run", help="its workflow id, or the lens's name")


async def run_train(arguments: argparse.Namespace, client: Client) -> int:
    """Start a run, and follow it if that is wanted."""
    runs = LensRuns(client)
    given = LensRun(spec=_object(arguments.config), pool=arguments.pool, until=arguments.until)
    handle = await runs.train(given, arguments.id)
    await _check(runs, client, handle.id)
    if not arguments.wait:
        _tell({"id": handle.id}, handle.id, as_json=arguments.json)
        if not await runs.has_worker(arguments.pool):
            sys.stderr.write(_nobody(arguments.pool))
        return 0
    if not arguments.json:
        await _watch(runs, handle.id, as_json=False)
    found: LensResult = await runs.result(handle.id)
    _tell(found, "\n".join(text.result(found)), as_json=arguments.json)
    return REFUSED if found.outcome == "refused" else 0


async def run_sweep(arguments: argparse.Namespace, client: Client) -> int:
    """Start a sweep; its table once it is over."""
    runs = LensRuns(client)
    given = SweepRun(
        spec=_object(arguments.config), arms=_object(arguments.arms), pool=arguments.pool, parallel=arguments.parallel
    )
    handle = await runs.sweep(given, arguments.id)
    if not arguments.wait:
        _tell({"id": handle.id}, handle.id, as_json=arguments.json)
        return 0
    found = await runs.sweep_result(handle.id)
    _tell(found, "\n".join(text.sweep(found)), as_json=arguments.json)
    return 0 if found.best else REFUSED


async def run_schedule(arguments: argparse.Namespace, client: Client) -> int:
    """Make or change a schedule."""
    given = LensRun(spec=_object(arguments.config), pool=arguments.pool)
    id = arguments.id or f"lens-{given.spec.get('name', 'lens')}"
    policy = ScheduleOverlapPolicy[arguments.overlap.upper().replace("-", "_")]
    new = await LensRuns(client).schedule(id, given, arguments.cron, overlap=policy)
    what = f"{'made' if new else 'changed'}: {arguments.cron}"
    said = f"schedule {id} {what}; `temporal schedule describe -s {id}` shows it"
    _tell({"id": id, "new": new}, said, as_json=arguments.json)
    return 0


async def run_status(arguments: argparse.Namespace, client: Client) -> int:
    """Show how a run stands, once or until it is over."""
    runs = LensRuns(client)
    if arguments.watch:
        found = await _watch(runs, arguments.run, as_json=arguments.json)
        return {"refused": REFUSED, "failed": 1}.get(found.state, 0)
    found = await runs.status(arguments.run)
    _tell(found, "\n".join(text.status(found, colour=_colour())), as_json=arguments.json)
    if found.state == "running" and found.report is None and not await runs.has_worker(found.pool):
        sys.stderr.write(_nobody(found.pool))
    return 0


async def run_change(arguments: argparse.Namespace, client: Client) -> int:
    """Change a run's course, and wait until a job that was to stop has stopped."""
    runs = LensRuns(client)
    more = None
    if arguments.verb == "extend":
        phases = json.loads(_text(arguments.phases)) if arguments.phases is not None else []
        if not isinstance(phases, list):
            raise SpecError(f"{arguments.phases} is no list: write [{{…}}, …] with phases as in run.phases")
        more = ExtendInput(steps=arguments.steps, phases=phases)
    found = await runs.change(arguments.run, arguments.verb, more)
    while found.state in ("pausing", "stopping"):
        await asyncio.sleep(0.3)
        found = await runs.status(arguments.run)
    _tell(found, "\n".join(text.status(found, colour=_colour())), as_json=arguments.json)
    return 0


async def _check(runs: LensRuns, client: Client, id: str) -> None:
    """Say at once what is wrong with a specification; the workflow is who knows.

    Raises:
        SpecError: It cannot be.
    """
    try:
        await runs.status(id)
    except WorkerMissing as error:
        sys.stderr.write(f"{id} is started, and waits: {error}\n")
        return
    described = await client.get_workflow_handle(id).describe()
    if described.status is WorkflowExecutionStatus.FAILED:
        await runs.result(id)


async def _watch(runs: LensRuns, run: str, *, as_json: bool) -> LensProgress:
    """Show a run until it is over: redrawn on a terminal, else a line whenever something has changed."""
    drawn, last = 0, ""
    live = sys.stdout.isatty() and not as_json
    while True:
        found = await runs.status(run)
        lines = text.status(found, colour=_colour()) if live else [text.line(found)]
        shown = found.model_dump_json() if as_json else "\n".join(lines)
        if shown != last:
            if live and drawn:
                sys.stdout.write(f"\x1b[{drawn}F\x1b[J")
            sys.stdout.write(shown + "\n")
            sys.stdout.flush()
            drawn, last = len(lines), shown
        if found.state in OVER:
            return found
        await asyncio.sleep(EVERY_S)


def _nobody(pool: str) -> str:
    worker = f"python -m lens_training worker --pool {pool}"
    return f"nobody polls {train_queue(pool)} yet: start `{worker}` where its jobs are to run\n"


def _object(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        SpecError: It cannot be read, or is none.
    """
    try:
        found = json.loads(_text(path))
    except ValueError as error:
        raise SpecError(f"{path} is not JSON ({error})") from None
    if not isinstance(found, dict):
        raise SpecError(f"{path} is no JSON object: write {{…}}")
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise SpecError(f"{path} cannot be read ({error.strerror}): name a JSON file") from None


def _tell(value: WireModel | dict[str, Any], said: str, *, as_json: bool) -> None:
    if as_json:
        said = value.model_dump_json() if isinstance(value, WireModel) else json.dumps(value)
    sys.stdout.write(said + "\n")


def _colour() -> bool:
    return text.colour(sys.stdout)
