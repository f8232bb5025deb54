"""Which signal knows when an answer is wrong: a leaderboard on the closed world and the support desk, or on your own.

`python -m benchmarks.confidence --model <name or folder> --data questions.jsonl` asks any model any questions; each
line of the file is `{"prompt": "…", "answers": ["…", "…"]}`.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks._leaderboard import Asked, Leaderboard, ask, best_elsewhere, leaderboard, table, without
from benchmarks._questions import FACT_WORLD, AnswerFormat, BadData, Item, fact_world_items, read_items
from benchmarks._questions import support_desk_items as desk_items
from benchmarks._results import Row, report, result_of
from wonder.embedded import SUPPORT_DESK
from wonder.engine import TraceEngine
from wonder.errors import WonderError
from wonder.learning.scoring import auroc
from wonder.learning.selective import prr

THRESHOLD, BUDGET = 0.7, 0.3
DEFAULT, NAIVE = "value_probability", "normalized_entropy"
TICKETS_SEED = 4242
FULL_TICKETS, QUICK_TICKETS, QUICK_FACTS = 1000, 100, 600
FACT_TOKENS, TICKET_TOKENS = 4, 64
REACH = {"AUROC": ">= 0.97", "PRR@50": ">= 0.92", "caught": ">= 0.85", "reviewed": "<= 0.3"}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and report; 2 where the input is unusable."""
    options = _arguments(argv)
    try:
        if options.data is not None:
            _your_own(options)
        else:
            _worlds(quick=options.quick, as_json=options.json, batch=options.batch)
    except (BadData, WonderError) as error:
        print(f"bench-confidence: {error}", file=sys.stderr)
        return 2
    return 0


def _worlds(*, quick: bool, as_json: bool, batch: int) -> None:
    facts, tickets = fact_world_items(), desk_items(QUICK_TICKETS if quick else FULL_TICKETS, TICKETS_SEED)
    closed, closed_reasons = _ask(FACT_WORLD, facts[: QUICK_FACTS if quick else None], FACT_TOKENS, "text", batch)
    desk, desk_reasons = _ask(SUPPORT_DESK, tickets, TICKET_TOKENS, "json", batch)
    boards = [
        _board("closed world", FACT_WORLD.name, closed, closed_reasons),
        _board("closed world, without unseen facts", FACT_WORLD.name, without("unseen", closed), closed_reasons),
        _board("support desk", SUPPORT_DESK, desk, desk_reasons),
    ]
    if not as_json:
        print("\n\n".join(map(table, boards)), end="\n\n")
    rows = [*_rows("closed world", closed, boards[0], REACH), *_rows("support desk", desk, boards[2], {})]
    flags = [flag for flag, on in (("--quick", quick), ("--json", as_json)) if on]
    report("confidence", rows, flags, more={"leaderboards": [board.as_dict() for board in boards]})


def _your_own(options: argparse.Namespace) -> None:
    items = read_items(options.data)[: options.limit]
    model = Path(options.model) if Path(options.model).is_dir() else options.model
    asked, reasons = _ask(
        model, items, options.max_new_tokens, options.answer_format, options.batch, loose=options.loose
    )
    board = _board(str(options.data), options.model, asked, reasons)
    result = json.dumps(
        result_of("confidence", [], more={"leaderboards": [board.as_dict()]}), indent=2, ensure_ascii=False
    )
    if options.out is not None:
        options.out.write_text(result + "\n", encoding="utf-8")
    print(result if options.json else table(board))


def _ask(
    model: Path | str, items: Sequence[Item], tokens: int, form: AnswerFormat, batch: int, *, loose: bool = False
) -> tuple[list[Asked], dict[str, str]]:
    engine = TraceEngine.load(model, max_batch=batch)
    try:
        return ask(
            engine, items, max_new_tokens=tokens, answer_format=form, loose=loose, progress=_progress(len(items))
        )
    finally:
        engine.close()


def _board(name: str, model: str, asked: Sequence[Asked], reasons: dict[str, str]) -> Leaderboard:
    try:
        return leaderboard(name, model, asked, reasons, threshold=THRESHOLD, budget=BUDGET)
    except ValueError as error:
        raise BadData(f"{name}: {error}") from error


def _rows(world: str, asked: Sequence[Asked], board: Leaderboard, reach: dict[str, str]) -> list[Row]:
    on = f"{board.questions} questions, {board.wrong} answered wrong, greedy, uncalibrated"
    rows = []
    for name, metric in (("AUROC", auroc), ("PRR@50", prr)):
        value, chosen = best_elsewhere(metric, asked)
        how = f"chosen on one half, measured on the other, both ways round ({', '.join(sorted(set(chosen)))}); {on}"
        rows.append(Row(f"{world}: {name} of the best signal", value, "", reach.get(name, ""), how))
    default, naive = board.of(DEFAULT), board.of(NAIVE)
    for found, bars in ((default, reach), (naive, {})):
        at = f"{found.signal} < {board.threshold}"
        rows += [
            Row(f"{world}: errors caught at {at}", found.caught_at_threshold, "", bars.get("caught", ""), on),
            Row(f"{world}: answers reviewed at {at}", found.reviewed_at_threshold, "", bars.get("reviewed", ""), on),
        ]
    surest, budget = board.standings[0], f"{board.budget:.0%}"
    how = f"the least sure {budget} by {surest.signal}; {on}"
    rows.append(Row(f"{world}: errors caught when {budget} are reviewed", surest.caught_at_budget, "", "", how))
    for name, value in (("ECE", default.ece), ("Brier score", default.brier)):
        assert value is not None
        rows.append(Row(f"{world}: {name} of {DEFAULT}", value, "", "", f"ECE in 15 bins of equal count; {on}"))
    return rows


def _progress(total: int) -> Callable[[int], None]:
    def told(done: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{done} of {total} answered", end="\n" if done == total else "", file=sys.stderr, flush=True)

    return told


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench-confidence", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="at most a minute on two cores; writes nothing")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--batch", type=_positive, default=64, help="most prompts in a forward pass (default: 64)")
    own = parser.add_argument_group("your own questions and model")
    own.add_argument("--data", type=Path, help='JSONL; a line is {"prompt": "…", "answers": ["…"], "group": "…"}')
    own.add_argument("--model", help="an embedded name, a folder or a hub name")
    own.add_argument("--answer-format", choices=("text", "json"), default="text", help="how answers are compared")
    own.add_argument("--loose", action="store_true", help="compare text without case, punctuation and articles")
    own.add_argument("--max-new-tokens", type=_positive, default=32)
    own.add_argument("--limit", type=_positive, help="ask only the first so many")
    own.add_argument("--out", type=Path, help="write the result as JSON")
    options = parser.parse_args(argv)
    if (options.data is None) != (options.model is None):
        parser.error("--data and --model go together: whose questions, and who answers them")
    if options.data is None and (options.out or options.limit):
        parser.error("--out and --limit are for --data; the worlds are written to benchmarks/results/confidence.json")
    return options


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: wanted 1 or more")
    return number


if __name__ == "__main__":
    sys.exit(main())
