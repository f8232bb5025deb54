"""How long it takes to take a hundred thousand past decisions again, and whether what is said of their error holds."""

import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks._results import Row, arguments, report
from wonder.history.backtest import backtest
from wonder.history.record import DecisionRecord, RowRecord, read_records, write_records
from wonder.routing.table import TransitionTable
from wonder.routing.transition import Transition
from wonder.trace.schema import FieldConfidence, ThoughtTrace
from wonder.trace.signals import SIGNALS

AUDIT_RATE = 0.05
TODAY = 0.7


def table(threshold: float) -> TransitionTable:
    """The demo's table with another threshold."""
    return TransitionTable(
        [
            Transition(from_="classify", to="legal_review", condition="thought_trace.active_concepts.legal_risk > 0.8"),
            Transition(
                from_="classify", to="human_review", condition=f"thought_trace.overall_confidence < {threshold}"
            ),
            Transition(from_="classify", to="resolve", condition="otherwise"),
        ],
        on_unknown="human_review",
        reviews=["legal_review", "human_review"],
        audit_rate=AUDIT_RATE,
    )


def decisions(count: int, seed: int) -> Iterator[tuple[DecisionRecord, bool]]:
    """Records as large as the demo's, and the truth of each: answers are right as often as their confidence says."""
    chance = random.Random(seed)
    rows = [
        RowRecord(name=row.name, to=list(row.transition.targets), condition=row.text)
        for row in table(TODAY).rows("classify")
    ]
    for number in range(count):
        confidence, legal = chance.betavariate(5, 0.7), chance.betavariate(0.2, 3)
        right = chance.random() < confidence
        target = "legal_review" if legal > 0.8 else "human_review" if confidence < TODAY else "resolve"
        audit = target == "resolve" and chance.random() < AUDIT_RATE
        trace = ThoughtTrace(
            action="classify",
            model="support-desk",
            model_fingerprint="8fcb62764417e174652770b1baf8780e4477a264dabdaaae036960597c49db87",
            overall_confidence=round(confidence, 6),
            confidence_status="uncalibrated",
            signals={name: round(confidence, 6) for name in SIGNALS},
            field_confidences={name: FieldConfidence(start=4, stop=5, confidence=0.99) for name in ("team", "urgency")},
            active_concepts={"legal_risk": round(legal, 6)},
            layer_norms=[1.5] * 4,
            prompt_tokens=60,
        )
        record = DecisionRecord(
            run=f"ticket-{number}",
            after="classify",
            targets=[target],
            rows=rows,
            propensity=AUDIT_RATE if target == "resolve" else 1.0,
            audit=audit,
            trace=trace,
            output={"team": "billing", "urgency": "low"},
            right=right if audit or target != "resolve" else None,
        )
        yield record, right


def seconds(count: int) -> tuple[float, float, float]:
    """(wall seconds, processor seconds, bytes per record) of reading an export and taking its decisions again."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "past.jsonl"
        with path.open("w") as file:
            write_records((record for record, _ in decisions(count, 1)), file)
        size = path.stat().st_size / count
        wall, processor = time.perf_counter(), time.process_time()
        found = backtest(read_records(path), table(0.85))
        assert found.today.decisions == count
        return time.perf_counter() - wall, time.process_time() - processor, size


def coverage(worlds: int, count: int) -> float:
    """Share of worlds in which the interval holds the true error among those that a laxer table would accept."""
    proposed, hits = table(0.6), 0
    for seed in range(worlds):
        pairs = list(decisions(count, 100 + seed))
        accepted = [
            right
            for record, right in pairs
            if (record.trace.overall_confidence or 0) >= 0.6 and record.trace.active_concepts["legal_risk"] <= 0.8
        ]
        error = backtest((record for record, _ in pairs), proposed).proposed.error
        hits += error.low <= 1 - sum(accepted) / len(accepted) <= error.high
    return hits / worlds


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and report."""
    quick = arguments(argv).quick
    count, worlds = (20_000, 20) if quick else (100_000, 100)
    wall, processor, size = seconds(count)
    scale = 100_000 / count
    rows = [
        Row(
            "backtest of 100,000 decisions, seconds",
            wall * scale,
            "s",
            "<= 10",
            f"wall clock of one process reading an export of {count:,} decisions and taking each again by another "
            "table, once"
            + (", scaled up" if quick else "")
            + f"; {processor * scale:.1f} s of processor time; {size:,.0f} bytes per record.",
        ),
        Row(
            "backtest: interval holds the true error, share of worlds",
            coverage(worlds, 3000),
            "",
            ">= 0.9",
            f"{worlds} simulated worlds of 3,000 decisions with {AUDIT_RATE:.0%} audits: the 95 % interval for a laxer "
            "table's error among the accepted against the truth.",
        ),
    ]
    report("backtest", rows, argv)


if __name__ == "__main__":
    main(sys.argv[1:])
