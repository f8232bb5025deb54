"""`wonder review`: see what waits for a person, claim it, decide it."""

import argparse
import getpass
import json
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import JsonValue
from temporalio.client import Client

from wonder.cli import review_text
from wonder.errors import DecisionInvalid
from wonder.review.client import ReviewClient
from wonder.review.types import ReviewSummary, ReviewView

STATUSES = ("open", "claimed", "decided", "timed_out", "withdrawn", "all")


def add_commands(commands: "argparse._SubParsersAction[Any]", server: argparse.ArgumentParser) -> None:
    """Add `review` and what it can do."""
    review = commands.add_parser(
        "review",
        help="what waits for a person: list, look, claim, decide",
        description="Exit codes: 0 done, 2 wrong use, 3 somebody else was faster or it is too late, 4 not allowed or "
        "not found, 5 the server does not answer.",
    )
    verbs = review.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, help: str, *, id: bool = True, who: bool = True) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = verbs.add_parser(name, parents=[server], help=help)
        if id:
            parser.add_argument("id", help="workflow id of the review, as `wonder review ls` shows it")
        if who:
            parser.add_argument("--as", dest="reviewer", metavar="NAME", help="who you are; default: $USER")
        parser.add_argument("--json", action="store_true", help="print JSON")
        parser.set_defaults(handler=run, needs_client=True)
        return parser

    ls = verb("ls", "items that wait, most urgent first", id=False, who=False)
    ls.add_argument("--queue")
    ls.add_argument("--status", choices=STATUSES, help="default: open and claimed")
    ls.add_argument("--assignee")
    ls.add_argument("--limit", type=int)
    verb("show", "one item: answer, tokens, why it is here, history", who=False)
    following = verb("next", "claim the most urgent item and show it", id=False)
    following.add_argument("--queue")
    claim = verb("claim", "take an item, so that nobody else works on it")
    renew = verb("renew", "keep an item for longer")
    for parser in (following, claim, renew):
        parser.add_argument("--lease-s", type=float, help="for how many seconds; default: the item's own")
    verb("release", "give an item back")
    comment = verb("comment", "say something without deciding")
    comment.add_argument("text")
    edit = verb("edit", "correct the answer")
    source = edit.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--set", action="append", metavar="PATH=VALUE", dest="changes", help="change one field; repeatable"
    )
    source.add_argument("--value", help="the whole answer: JSON, or plain text for a text answer")
    source.add_argument("--file", help="the whole answer as JSON; - reads standard input")
    approve = verb("approve", "the answer is right")
    reject = verb("reject", "the answer is wrong")
    for parser in (approve, edit, reject):
        parser.add_argument("--comment", default="")
        parser.add_argument("--expect", type=int, metavar="VERSION", help="refuse if the item changed since")
        parser.add_argument("--decision-id", help="repeating a call with the same id changes nothing; default: made up")


async def run(args: argparse.Namespace, client: Client) -> int:
    """Do what was asked, and print the item as it is then."""
    reviews = ReviewClient(client)
    if args.verb == "ls":
        rows = await reviews.ls(args.queue, args.status, assignee=args.assignee, limit=args.limit)
        if args.json:
            _print_json([row.model_dump(mode="json") for row in rows])
        else:
            _print(review_text.table(rows, datetime.now(UTC)))
    elif args.verb == "show":
        _tell_item(await reviews.show(args.id), as_json=args.json)
    elif args.verb == "next":
        row = await reviews.next(reviewer(args), args.queue, lease_s=args.lease_s)
        if row is not None:
            _tell_item(await reviews.show(row.id), as_json=args.json)
        elif args.json:
            _print_json(None)
        else:
            _print(["nothing waits"])
    else:
        _tell_row(await _change(args, reviews), args)
    return 0


async def _change(args: argparse.Namespace, reviews: ReviewClient) -> ReviewSummary:
    who = reviewer(args)
    match args.verb:
        case "claim":
            return await reviews.claim(args.id, who, lease_s=args.lease_s)
        case "renew":
            return await reviews.renew(args.id, who, lease_s=args.lease_s)
        case "release":
            return await reviews.release(args.id, who)
        case "comment":
            return await reviews.comment(args.id, who, args.text)
    value = await _edited(args, reviews) if args.verb == "edit" else None
    return await reviews.decide(
        args.id,
        args.verb,
        who,
        value=value,
        comment=args.comment,
        decision_id=args.decision_id,
        expected_version=args.expect,
    )


def reviewer(args: argparse.Namespace) -> str:
    """Who is calling.

    Raises:
        DecisionInvalid: Nobody said, and the system does not know.
    """
    name = args.reviewer or os.environ.get("USER")
    if not name:
        try:
            name = getpass.getuser()
        except (KeyError, OSError):
            raise DecisionInvalid("nobody knows who you are: say it with --as NAME") from None
    return str(name)


async def _edited(args: argparse.Namespace, reviews: ReviewClient) -> JsonValue:
    """The corrected answer."""
    if args.file is not None:
        try:
            text = sys.stdin.read() if args.file == "-" else Path(args.file).read_text(encoding="utf-8")
        except OSError as error:
            raise DecisionInvalid(f"--file {args.file} cannot be read: {error}") from None
        try:
            found: JsonValue = json.loads(text)
        except ValueError as error:
            raise DecisionInvalid(f"--file {args.file} is not JSON ({error})") from None
        return found
    answer = (await reviews.show(args.id)).request.answer
    if args.value is not None:
        return typed(args.value, answer)
    return changed(answer, args.changes)


def typed(text: str, before: JsonValue) -> JsonValue:
    """What a person typed, as JSON: text stays text where text was before."""
    if isinstance(before, str):
        return text
    try:
        found: JsonValue = json.loads(text)
    except ValueError:
        return text
    return found


def changed(answer: JsonValue, changes: Sequence[str]) -> JsonValue:
    """The answer with `path=value` changes: dots between names, numbers for places in a list.

    Raises:
        DecisionInvalid: A change has no `=`, or its path leads nowhere.
    """
    result: JsonValue = {} if answer is None else json.loads(json.dumps(answer))
    for change in changes:
        path, equals, text = change.partition("=")
        *parents, last = path.split(".")
        if not equals or not last:
            raise DecisionInvalid(f"--set {change!r} is not PATH=VALUE, for example --set team=billing")
        target: Any = result
        for name in parents:
            target = _inside(target, name, path)
        if isinstance(target, list):
            target[_place(target, last, path)] = typed(text, target[_place(target, last, path)])
        elif isinstance(target, dict):
            target[last] = typed(text, target.get(last))
        else:
            raise DecisionInvalid(
                f"--set {path}: there is no {last} in {json.dumps(target)}; use --value for the whole"
            )
    return result


def _inside(target: Any, name: str, path: str) -> Any:
    if isinstance(target, list):
        return target[_place(target, name, path)]
    if isinstance(target, dict) and name in target:
        return target[name]
    known = ", ".join(target) if isinstance(target, dict) else json.dumps(target)
    raise DecisionInvalid(f"--set {path}: there is no {name} in {known}")


def _place(target: list[Any], name: str, path: str) -> int:
    if name.isdecimal() and int(name) < len(target):
        return int(name)
    raise DecisionInvalid(f"--set {path}: {name} is not a place in a list of {len(target)}")


def _tell_item(view: ReviewView, *, as_json: bool) -> None:
    if as_json:
        _print_json(view.model_dump(mode="json"))
    else:
        colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        _print(review_text.item(view, datetime.now(UTC), colour=colour))


def _tell_row(row: ReviewSummary, args: argparse.Namespace) -> None:
    if args.json:
        _print_json(row.model_dump(mode="json"))
        return
    now = datetime.now(UTC)
    if row.verdict:
        done = f"{row.verdict} by {row.decided_by}"
    elif row.assignee and row.lease_until:
        done = f"{row.assignee} has it for {review_text.until(row.lease_until, now)}"
    else:
        done = row.status
    _print([f"{review_text.clean(row.id)}: {review_text.clean(done)}"])


def _print(lines: Sequence[str]) -> None:
    sys.stdout.write("\n".join(lines) + "\n")


def _print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
