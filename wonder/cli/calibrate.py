"""`wonder calibrate`: from people's decisions to a confidence that means something, and whether it still does."""

import argparse
import json
import re
import sys
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from temporalio.client import Client

from wonder.calibration.certify import DEFAULT_DELTA
from wonder.calibration.outcomes import LabeledOutcome, read_outcomes, write_outcomes
from wonder.calibration.registry import CalibrationRegistry, InForce
from wonder.cli import calibrate_text
from wonder.errors import CalibrationError, DefinitionError, NotPromoted
from wonder.learning.calibrate import FROM, Method, calibrate
from wonder.learning.drift import monitor, watch
from wonder.learning.gate import challenge
from wonder.learning.labels import prepare
from wonder.learning.picture import reliability_svg
from wonder.review import outcomes as reviews

REGISTRY = Path(".wonder/calibrations")
DRIFTED = 6
"""Exit code of `--check` where a calibration has drifted."""
UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def add_commands(commands: "argparse._SubParsersAction[Any]", server: argparse.ArgumentParser) -> None:
    """Add `calibrate`."""
    parser = commands.add_parser(
        "calibrate",
        parents=[server],
        help="make an action's confidence a probability, from what people decided; check whether it still is one",
        description="Exit codes: 0 done, 2 wrong use, 3 somebody else moved the calibration meanwhile, 4 these labels "
        "make no calibration, or none that is as good, 5 the server does not answer, 6 --check found drift.",
    )
    parser.add_argument("--action", required=True, help="whose confidence")
    source = parser.add_mutually_exclusive_group(required=True)
    # The one source that needs a server.
    source.add_argument(
        "--from-reviews", action="store_const", const=True, dest="needs_client", help="what people decided"
    )
    source.add_argument("--labels", type=Path, metavar="FILE", help='JSON lines: {"confidence": 0.93, "right": true}')
    parser.add_argument("--registry", type=Path, default=REGISTRY, metavar="FOLDER", help=f"default: {REGISTRY}")
    parser.add_argument("--since", metavar="WHEN", help="only answers after this: 30d, 12h, or 2026-11-01")
    parser.add_argument("--model", help="only of this model; with --labels also for lines that name none")
    parser.add_argument("--revision", help="the same for its revision")
    parser.add_argument("--fingerprint", help="the same for the digest of its weights, or the beginning of it")
    parser.add_argument("--signal", help="the confidence method to calibrate; default: the action's own")
    parser.add_argument("--method", choices=["auto", *FROM], default="auto", help="kind of map; default: the best one")
    parser.add_argument(
        "--risk", type=float, nargs="+", default=[0.05, 0.1, 0.2], help="risks to certify thresholds for"
    )
    parser.add_argument("--delta", type=float, default=DEFAULT_DELTA, help="chance that a certified risk is exceeded")
    parser.add_argument("--drop-contradictions", action="store_true", help="leave out answers called right and wrong")
    parser.add_argument("--check", action="store_true", help="fit nothing: does the calibration in force still hold?")
    parser.add_argument("--dry-run", action="store_true", help="change nothing")
    parser.add_argument("--export", type=Path, metavar="FILE", help="write the outcomes as JSON lines")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="write a reliability picture (SVG)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(handler=run, needs_client=False)


async def run(args: argparse.Namespace, client: Client | None = None) -> int:
    """Read the outcomes, then fit or check."""
    _check_numbers(args)
    skipped: Counter[str] = Counter()
    if client is not None:
        read = await reviews.read_outcomes(client, action=args.action, since=_since(args.since))
        outcomes, skipped = read.outcomes, read.skipped
    else:
        named = {"model": args.model, "model_revision": args.revision, "model_fingerprint": args.fingerprint}
        defaults = {key: value for key, value in {**named, "signal": args.signal}.items() if value}
        outcomes = read_outcomes(args.labels, action=args.action, **defaults)
    outcomes = _chosen(outcomes, args)
    if args.export is not None:
        write_outcomes(args.export, outcomes)
    registry = CalibrationRegistry(args.registry)
    return _check(args, registry, outcomes) if args.check else _fit(args, registry, outcomes, skipped)


def _fit(
    args: argparse.Namespace, registry: CalibrationRegistry, outcomes: list[LabeledOutcome], skipped: Counter[str]
) -> int:
    now, method = datetime.now(UTC), _method(args.method)
    entry = _entry(registry, args.action, outcomes)
    champion = registry.get(entry.bundle) if entry else None
    if entry is not None and champion is not None and entry.drift is not None:
        # What was decided before the drift describes a world that is gone.
        outcomes = [item for item in outcomes if not (item.time and champion.until and item.time <= champion.until)]
    labels = prepare(outcomes, action=args.action, drop_contradictions=args.drop_contradictions)
    parent = champion.id if champion else None
    found = calibrate(labels, created_at=now, method=method, parent=parent)
    standing = champion if entry is not None and entry.drift is None else None
    verdict = challenge(labels, standing, created_at=now, method=method)
    if args.picture is not None:
        args.picture.write_text(reliability_svg(found.before, found.after, found.bundle), encoding="utf-8")
    if verdict.passed and not args.dry_run:
        registry.promote(found.bundle, at=now, because=verdict.reason, replacing=parent)
    if args.json:
        document = {"bundle": found.bundle.model_dump(mode="json"), "gate": verdict.reason, "passed": verdict.passed}
        sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
    else:
        told = calibrate_text.lines(found, verdict, args.risk, args.delta, skipped)
        if verdict.passed:
            told.append(
                "dry run     nothing was moved"
                if args.dry_run
                else f"in force    {found.bundle.id[:12]} in {registry.root}"
            )
        sys.stdout.write("\n".join(told) + "\n")
    if not verdict.passed:
        raise NotPromoted(f"nothing was moved: {verdict.reason}")
    return 0


def _check(args: argparse.Namespace, registry: CalibrationRegistry, outcomes: list[LabeledOutcome]) -> int:
    entry = _entry(registry, args.action, outcomes)
    if entry is None:
        raise CalibrationError(
            f"no calibration of {args.action!r} and this model is in force in {registry.root}: "
            "make one with `wonder calibrate`, or name its --registry"
        )
    bundle = registry.get(entry.bundle)
    checks = monitor(bundle, outcomes) if args.dry_run else watch(registry, bundle, outcomes, at=datetime.now(UTC))
    drifted = any(check.drifted for check in checks)
    if args.json:
        document = {"bundle": bundle.id, "drifted": drifted, "checks": [asdict(check) for check in checks]}
        sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write("\n".join(calibrate_text.checks(bundle, checks, entry.drift)) + "\n")
    return DRIFTED if drifted else 0


def _entry(registry: CalibrationRegistry, action: str, outcomes: list[LabeledOutcome]) -> InForce | None:
    """What is in force for the model of the outcomes."""
    first = next((item for item in outcomes if item.action == action), None)
    if first is None:
        return None
    return registry.in_force(action, first.model, first.model_revision, first.model_fingerprint)


def _chosen(outcomes: list[LabeledOutcome], args: argparse.Namespace) -> list[LabeledOutcome]:
    since = _since(args.since)
    found = [
        item
        for item in outcomes
        if (args.model is None or item.model == args.model)
        and (args.revision is None or item.model_revision == args.revision)
        and (args.fingerprint is None or item.model_fingerprint.startswith(args.fingerprint))
        and (since is None or item.time is None or item.time > since)
    ]
    if args.signal is not None:
        found = [item.model_copy(update={"signal": args.signal}) for item in found]
    return found


def _since(text: str | None) -> datetime | None:
    if text is None:
        return None
    if match := re.fullmatch(r"(\d+)([mhdw])", text):
        return datetime.now(UTC) - timedelta(**{UNITS[match[2]]: int(match[1])})
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise DefinitionError(f"--since {text!r}: write 30d, 12h, or a date such as 2026-11-01") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _check_numbers(args: argparse.Namespace) -> None:
    for value in (*args.risk, args.delta):
        if not 0 < value < 1:
            raise DefinitionError(f"{value} is no share: a risk and a delta lie between 0 and 1, both excluded")


def _method(name: str) -> Method:
    found: dict[str, Method] = {
        "auto": "auto",
        "beta": "beta",
        "isotonic": "isotonic",
        "venn_abers": "venn_abers",
        "stacked": "stacked",
    }
    return found[name]
