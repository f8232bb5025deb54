"""Taking past decisions again by another table, without a model: who would have gone elsewhere, and what that means."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from wonder.errors import BacktestError
from wonder.history.estimate import ErrorEstimate, error_rate
from wonder.history.record import DecisionRecord
from wonder.routing import audit, deciding
from wonder.routing.context import Context
from wonder.routing.env import Env
from wonder.routing.rows import Row
from wonder.routing.table import TransitionTable
from wonder.routing.thresholds import resolve

EXAMPLES: Final = 20
"""Runs that are named for each change of route."""
CURVE_POINTS: Final = 200


@dataclass(frozen=True)
class Policy:
    """What a table does to the recorded traffic."""

    decisions: int
    """Those that ended somewhere: an answer that is tried again is not one."""
    reviewed: int
    """Sent to a person by a decision, audits not counted."""
    error: ErrorEstimate
    """Among the accepted."""
    retried: int
    """Answers that were tried again instead."""
    unseen: int
    """Accepted answers that nobody could have looked at when they were given: what they were like is not known."""

    @property
    def load(self) -> float:
        """Share sent to a person."""
        return self.reviewed / max(1, self.decisions)


@dataclass(frozen=True)
class Change:
    """Decisions that went one way and would go another."""

    after: str
    before: str
    now: str
    count: int
    wrong: int
    """Of those that were judged."""
    judged: int
    runs: list[str]
    """Some of them, by workflow id."""


@dataclass(frozen=True)
class CurvePoint:
    """Accepting from one confidence on."""

    threshold: float
    load: float
    error: float | None


@dataclass(frozen=True)
class Costs:
    """What a review and a wrong answer cost, in any one currency."""

    review: float
    error: float

    def per_thousand(self, policy: Policy, error: float | None = None) -> float | None:
        """Expected cost of a thousand decisions; None where the error is unknown."""
        share = policy.error.value if error is None else error
        if share is None:
            return None
        return 1000 * (policy.load * self.review + (1 - policy.load) * share * self.error)


@dataclass(frozen=True)
class Backtest:
    """The comparison of what was decided with what a table would decide."""

    table: str
    since: datetime | None
    until: datetime | None
    today: Policy
    proposed: Policy
    changes: list[Change]
    """Most frequent first."""
    unknown: dict[str, int]
    """Why the proposed table could not know something → decisions that go to a person for it."""
    skipped: dict[str, int]
    """Action → decisions that no row of the proposed table follows."""
    curve: list[CurvePoint] = field(default_factory=list)
    """Load against error when the confidence alone decides."""
    costs: Costs | None = None

    @property
    def changed(self) -> int:
        """Decisions that would go elsewhere."""
        return sum(change.count for change in self.changes)


@dataclass(slots=True)
class _Tally:
    decisions: int = 0
    reviewed: int = 0
    retried: int = 0
    unseen: int = 0
    labelled: list[tuple[float, bool]] = field(default_factory=list)

    def add(self, record: DecisionRecord, targets: Sequence[str], *, reviewed: bool) -> None:
        if record.after in targets:
            self.retried += 1
            return
        self.decisions += 1
        if reviewed:
            self.reviewed += 1
        elif record.propensity <= 0:
            self.unseen += 1
        elif record.right is not None:
            self.labelled.append((record.propensity, not record.right))

    def policy(self) -> Policy:
        return Policy(self.decisions, self.reviewed, error_rate(self.labelled), self.retried, self.unseen)


def backtest(
    records: Iterable[DecisionRecord],
    table: TransitionTable,
    *,
    reviews: Sequence[str] | None = None,
    costs: Costs | None = None,
) -> Backtest:
    """Take past decisions again.

    Args:
        records: As they were exported.
        table: Decides anew. Its audits are not drawn again: an audit is no route.
        reviews: Targets at which a person looks, for both tables; None: today, where the record says that somebody
            surely looked, and for the proposed table, where it says itself.
        costs: To price both.

    Raises:
        BacktestError: There is no decision, or none that the table has rows for.
    """
    people = frozenset(reviews) if reviews is not None else audit.review_nodes(table.spec)
    before, now = _Tally(), _Tally()
    moves: Counter[tuple[str, str, str]] = Counter()
    judged: dict[tuple[str, str, str], list[bool]] = {}
    named: dict[tuple[str, str, str], list[str]] = {}
    unknown: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    points: list[tuple[float | None, float, bool | None]] = []
    since = until = None
    simple = {after: _is_simple(table, after) for after in table.sources}
    for record in records:
        if record.after not in table.sources:
            skipped[record.after] += 1
            continue
        targets, why = _decide(record, table, simple[record.after])
        unknown.update(why)
        was, would = " and ".join(record.targets), " and ".join(targets)
        seen = record.propensity >= 1 and not record.audit
        before.add(record, record.targets, reviewed=seen if reviews is None else bool(people & {*record.targets}))
        now.add(record, targets, reviewed=bool(people & {*targets}))
        points.append((record.trace.overall_confidence, record.propensity, record.right))
        if was != would:
            key = (record.after, was, would)
            moves[key] += 1
            if record.right is not None:
                judged.setdefault(key, []).append(not record.right)
            if len(runs := named.setdefault(key, [])) < EXAMPLES:
                runs.append(record.run)
        if record.at is not None:
            since = record.at if since is None else min(since, record.at)
            until = record.at if until is None else max(until, record.at)
    if not before.decisions and not before.retried:
        others = ", ".join(f"{action!r} ({count})" for action, count in skipped.items())
        raise BacktestError(
            f"the table has rows after {', '.join(map(repr, table.sources))}, and the records are of {others}: "
            "give the table that follows these actions"
            if skipped
            else "there are no decisions to take again: export some, or look further back (--since)"
        )
    return Backtest(
        table=table.spec.name or table.digest,
        since=since,
        until=until,
        today=before.policy(),
        proposed=now.policy(),
        changes=[
            Change(*key, count, sum(judged.get(key, [])), len(judged.get(key, [])), named[key])
            for key, count in moves.most_common()
        ],
        unknown=dict(unknown.most_common()),
        skipped=dict(skipped),
        curve=curve(points),
        costs=costs,
    )


def _decide(record: DecisionRecord, table: TransitionTable, simple: bool) -> tuple[tuple[str, ...], list[str]]:
    """Where a record would go, and why what was unknown was."""
    rows = table.rows(record.after)
    values, reasons = {}, {}
    if table.thresholds:
        found = resolve(table.thresholds, _context(record), record.trace, {})
        values, reasons = found.values, found.why
    env = Env(record.trace, record.output, record.state, record.visit, values, reasons)
    if simple and (row := _first(rows, env)) is not None:
        return row.transition.targets, []
    evaluated = deciding.evaluate(rows, env)
    choice = deciding.choose(evaluated, table.policy(record.after), env, table.spec.on_unknown)
    row = next((row for row in rows if row.name == choice.row), None)
    if row and choice.reason in ("condition", "otherwise") and record.rung < len(row.transition.escalate_to):
        return (record.after,), []
    why = [f"{path}: {reason}" for item in evaluated if item.truth is None for path, reason in item.unknown.items()]
    return choice.targets, why if choice.reason == "unknown" else []


def _is_simple(table: TransitionTable, after: str) -> bool:
    """Whether the first row that is true decides, and nothing else has a say."""
    plain = {"from_", "to", "condition", "name", "priority", "on_unknown", "audit_rate"}
    return table.policy(after) == "first" and all(row.transition.model_fields_set <= plain for row in table.rows(after))


def _first(rows: Sequence[Row], env: Env) -> Row | None:
    """The first true row; None where an unknown one stands before it. The same as `deciding`, without its record."""
    for row in rows:
        truth = True if row.condition is None else row.condition.evaluate(env)
        if truth is not False:
            return row if truth else None
    return None


def _context(record: DecisionRecord) -> Context:
    calibrations = {} if record.calibration is None else {record.after: record.calibration}
    return Context.model_construct(thought_traces=[record.trace], calibrations=calibrations)


def curve(points: Iterable[tuple[float | None, float, bool | None]]) -> list[CurvePoint]:
    """What accepting from each confidence on would have meant; unknown confidence always goes to a person.

    Args:
        points: (confidence, propensity, whether the answer was right) of each decision.
    """
    rows = list(points)
    known = sorted(((c, p, right) for c, p, right in rows if c is not None), key=lambda row: -row[0])
    found: list[CurvePoint] = []
    total = wrong = 0.0
    step = max(1, len(known) // CURVE_POINTS)
    for at, (confidence, propensity, right) in enumerate(known, 1):
        if right is not None and propensity > 0:
            total += 1 / propensity
            wrong += (not right) / propensity
        is_last_of_value = at == len(known) or known[at][0] != confidence
        if is_last_of_value and (
            at % step == 0 or at == len(known) or (found and found[-1].threshold - confidence > 0.01)
        ):
            found.append(CurvePoint(confidence, 1 - at / len(rows), wrong / total if total else None))
    return found
