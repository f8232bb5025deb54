"""`wonder export` and `wonder backtest`: past decisions as a file, and the same decisions taken by another table."""

import argparse
import dataclasses
import json
import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from temporalio.client import Client

from wonder.connect import connect
from wonder.errors import RequestError
from wonder.history.backtest import Backtest, Costs, backtest
from wonder.history.picture import load_error_svg
from wonder.history.reading import Past, read_past
from wonder.history.record import DecisionRecord, read_records, write_records
from wonder.history.report import html_report, text_report
from wonder.history.tables import load_table
from wonder.plugin import WonderPlugin

UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def add_commands(commands: "argparse._SubParsersAction[Any]", server: argparse.ArgumentParser) -> None:
    """Add `export` and `backtest`."""
    source = argparse.ArgumentParser(add_help=False)
    source.add_argument("--since", type=moment, metavar="30d", help="how far back: 90m, 12h, 30d, 4w, or a date")
    source.add_argument("--type", metavar="WORKFLOW", help="only runs of this type")
    source.add_argument("--where", metavar="FILTER", help="a further list filter: \"WorkflowId STARTS_WITH 'shop-'\"")
    source.add_argument("--limit", type=int, default=100_000, help="at most so many runs, newest first")
    source.add_argument(
        "--today", metavar="TABLE", help="read histories without any worker; decisions are those of this table"
    )
    export = commands.add_parser("export", parents=[server, source], help="past decisions as JSON lines")
    export.add_argument("file", type=Path)
    export.add_argument("--whole", action="store_true", help="keep per-token lists (ten times the size)")
    export.set_defaults(handler=run_export, needs_client=True)
    test = commands.add_parser("backtest", parents=[server, source], help="take past decisions by another table")
    test.add_argument(
        "--table", required=True, help="table.py, table.yaml, table.json or module, with :NAME if need be"
    )
    test.add_argument("--from", dest="file", type=Path, help="an export; without it, the server is asked")
    test.add_argument("--reviews", nargs="*", metavar="TARGET", help="where a person looks; default: as the table says")
    test.add_argument("--review-cost", type=float, metavar="AMOUNT", help="what a review costs")
    test.add_argument("--error-cost", type=float, metavar="AMOUNT", help="what a wrong answer costs that nobody caught")
    test.add_argument("--html", type=Path, metavar="FILE", help="write the report as a page")
    test.add_argument("--svg", type=Path, metavar="FILE", help="write the picture of load against error")
    test.add_argument("--json", action="store_true")
    test.set_defaults(handler=run_backtest, needs_client=False)


def moment(text: str, now: datetime | None = None) -> datetime:
    """A point in time from `30d` or an ISO date.

    Raises:
        ArgumentTypeError: It is neither.
    """
    if found := re.fullmatch(r"(\d+)([mhdw])", text):
        return (now or datetime.now(UTC)) - timedelta(**{UNITS[found[2]]: int(found[1])})
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no period (90m, 12h, 30d, 4w) and no date (2026-05-01)"
        ) from None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


async def run_export(arguments: argparse.Namespace, client: Client) -> int:
    """Read and write."""
    past = await _past(arguments, client, whole=arguments.whole)
    try:
        with arguments.file.open("w", encoding="utf-8") as file:
            count = write_records(past.records, file)
    except OSError as error:
        raise RequestError(f"{arguments.file}: {error.strerror or error}") from None
    judged = sum(record.right is not None for record in past.records)
    sys.stdout.write(f"{count:,} decisions of {past.runs:,} runs, {judged:,} judged by people → {arguments.file}\n")
    return 0


async def run_backtest(arguments: argparse.Namespace) -> int:
    """Read, decide again, report."""
    table = load_table(arguments.table)
    if (arguments.review_cost is None) != (arguments.error_cost is None):
        raise RequestError("money needs both --review-cost and --error-cost")
    costs = None if arguments.review_cost is None else Costs(arguments.review_cost, arguments.error_cost)
    records: Iterable[DecisionRecord]
    if arguments.file is not None:
        records = _since(read_records(arguments.file), arguments.since)
    else:
        client = await connect(arguments.address, namespace=arguments.namespace, plugins=[WonderPlugin()])
        records = (await _past(arguments, client)).records
    found = backtest(records, table, reviews=arguments.reviews, costs=costs)
    for path, content in ((arguments.html, html_report), (arguments.svg, load_error_svg)):
        if path is not None:
            try:
                path.write_text(content(found), encoding="utf-8")
            except OSError as error:
                raise RequestError(f"{path}: {error.strerror or error}") from None
    sys.stdout.write(_json(found) if arguments.json else text_report(found))
    return 0


def _since(records: Iterable[DecisionRecord], since: datetime | None) -> Iterable[DecisionRecord]:
    return (record for record in records if since is None or record.at is None or record.at >= since)


async def _past(arguments: argparse.Namespace, client: Client, *, whole: bool = False) -> Past:
    today = load_table(arguments.today) if arguments.today else None
    past = await read_past(
        client,
        workflow_type=arguments.type,
        since=arguments.since,
        where=arguments.where,
        limit=arguments.limit,
        table=today,
        whole=whole,
    )
    for reason, count in past.skipped.most_common():
        sys.stderr.write(f"{count:,} runs left out: {reason}\n")
    return past


def _json(found: Backtest) -> str:
    return json.dumps(dataclasses.asdict(found), default=str, ensure_ascii=False, indent=2) + "\n"
