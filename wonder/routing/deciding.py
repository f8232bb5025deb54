"""Taking a decision: every row is evaluated, then the hit policy picks; a pure function of what it is given."""

from collections.abc import Sequence, Set
from dataclasses import dataclass, field, replace

from wonder.routing.decision import Reading, Reason, RowOutcome, Truth
from wonder.routing.env import Env
from wonder.routing.explain import figure, short_text
from wonder.routing.rows import Row, lineage
from wonder.routing.transition import HitPolicy

_STATUS_RANK = {"unknown": 0, "uncalibrated": 1, "calibrated": 2}


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A row with what it said."""

    row: Row
    truth: bool | None
    readings: dict[str, Reading] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)
    held: bool = False
    """True only because the row was taken before."""

    def outcome(self) -> RowOutcome:
        """The record of it."""
        said: Truth = "unknown" if self.truth is None else "true" if self.truth else "false"
        return RowOutcome(
            name=self.row.name,
            to=list(self.row.transition.targets),
            condition=self.row.text,
            digest=self.row.digest,
            outcome=said,
            readings=self.readings,
            unknown=self.unknown,
            held=self.held,
        )


@dataclass(frozen=True, slots=True)
class Choice:
    """Where to go, and why."""

    targets: tuple[str, ...]
    reason: Reason
    explanation: str
    row: str | None = None
    because: str = ""
    """The explanation without its target."""


def evaluate(rows: Sequence[Row], env: Env, held: Set[str] = frozenset()) -> list[Evaluated]:
    """What every row says; the last one is the otherwise, true where no other is true or unknown.

    Args:
        rows: Of one action.
        env: What they read.
        held: The rows taken at the previous visit, for those with hysteresis.
    """
    found = [_evaluate(row, env, held) for row in rows[:-1]]
    last = _with_status(Evaluated(rows[-1], all(item.truth is False for item in found)), env)
    return [*found, last]


def failed(rows: Sequence[Row], error: str, env: Env) -> list[Evaluated]:
    """What the rows about errors say of this one; a row for other errors is false."""
    kinds = lineage(error)
    found = []
    for row in rows:
        item = _evaluate(row, env, frozenset())
        found.append(item if set(row.transition.on_error or ()) & kinds else Evaluated(row, False))
    return found


def choose_error(found: Sequence[Evaluated], error: str, env: Env, on_unknown: str) -> Choice | None:
    """The first row about the error that is not false; None where there is none."""
    first = next((item for item in found if item.truth is not False), None)
    if first is None:
        return None
    taken = _take(first, env, on_unknown, error) if first.truth else _unknown(first, on_unknown)
    return replace(taken, reason="error") if taken.reason == "condition" else taken


def _evaluate(row: Row, env: Env, held: Set[str]) -> Evaluated:
    if row.condition is None:
        return Evaluated(row, True)
    readings = row.condition.readings(env)
    item = Evaluated(row, row.condition.evaluate(env), readings.values, readings.unknown)
    if row.until is not None and row.name in held and item.truth is False:
        over, read = row.until.evaluate(env), row.until.readings(env)
        truth = None if over is None else not over
        item = Evaluated(
            row, truth, {**item.readings, **read.values}, {**item.unknown, **read.unknown}, held=truth is True
        )
    return _with_status(item, env)


def _with_status(item: Evaluated, env: Env) -> Evaluated:
    wanted = item.row.transition.requires_status
    status = getattr(env.thought_trace, "confidence_status", "unknown")
    rank = _STATUS_RANK.get(status, 0) if isinstance(status, str) else 0
    if wanted is None or rank >= _STATUS_RANK[wanted]:
        return item
    if item.row.condition is None and item.truth is False:
        return item
    path = "thought_trace.confidence_status"
    reason = f"{status!r}, where {wanted!r} is required"
    if told := getattr(env.thought_trace, "confidence_reason", None):
        reason = f"{reason}: {told}"
    readings = {**item.readings, path: status if isinstance(status, str) else None}
    return Evaluated(item.row, None, readings, {**item.unknown, path: reason})


def choose(found: Sequence[Evaluated], policy: HitPolicy, env: Env, on_unknown: str) -> Choice:
    """Apply the hit policy."""
    true = [item for item in found[:-1] if item.truth]
    unknown = [item for item in found[:-1] if item.truth is None]
    if not true and not unknown:
        return _otherwise(found, env, on_unknown)
    if policy == "first":
        first = next(item for item in found if item.truth is not False)
        return _take(first, env, on_unknown) if first.truth else _unknown(first, on_unknown)
    if policy == "unique":
        return _unique(true, unknown, env, on_unknown)
    choices = [_take(item, env, on_unknown) for item in true] + [_unknown(item, on_unknown) for item in unknown]
    return Choice(
        tuple(dict.fromkeys(target for choice in choices for target in choice.targets)),
        choices[0].reason,
        "; ".join(choice.explanation for choice in choices),
        choices[0].row,
    )


def _unique(true: Sequence[Evaluated], unknown: Sequence[Evaluated], env: Env, on_unknown: str) -> Choice:
    if unknown:
        return _unknown(unknown[0], on_unknown)
    if len(true) == 1:
        return _take(true[0], env, on_unknown)
    names = " and ".join(item.row.name for item in true)
    return Choice((on_unknown,), "unknown", f"{names} are all true, and only one may be: on to {on_unknown}")


def _because(item: Evaluated, env: Env, error: str) -> str:
    row = item.row
    if row.until is not None and item.held:
        return f"{row.until.because(env, is_true=False)}, and {row.name} holds since it was taken"
    told = row.condition.because(env) if row.condition else "" if error else "no condition held"
    return " and ".join(part for part in (error, told) if part)


def _take(item: Evaluated, env: Env, on_unknown: str, error: str = "") -> Choice:
    row = item.row
    because = _because(item, env, error)
    limit = row.transition.max_visits
    if limit is not None and env.visits > limit:
        target = row.transition.on_unknown or on_unknown
        explanation = f"{because}, but {row.name} is taken at most {limit} times: on to {target}"
        return Choice((target,), "loop_limit", explanation, row.name)
    targets = row.transition.targets
    return Choice(targets, "condition", f"{because}: on to {' and '.join(targets)}", row.name, because)


def _unknown(item: Evaluated, on_unknown: str) -> Choice:
    target = item.row.transition.on_unknown or on_unknown
    why = ", ".join(f"{short_text(path)} ({reason})" for path, reason in item.unknown.items())
    return Choice((target,), "unknown", f"{item.row.name} is unknown because of {why}: on to {target}", item.row.name)


def _otherwise(found: Sequence[Evaluated], env: Env, on_unknown: str) -> Choice:
    last = found[-1]
    if last.truth is None:
        return _unknown(last, on_unknown)
    taken = _take(last, env, on_unknown)
    if taken.reason == "loop_limit":
        return taken
    read = {path: value for item in found for path, value in item.readings.items() if value is not None}
    seen = ", ".join(f"{short_text(path)} {figure(value)}" for path, value in read.items())
    targets = " and ".join(taken.targets)
    because = f"no condition held ({seen})" if seen else "no condition held"
    return Choice(taken.targets, "otherwise", f"{because}: on to {targets}", taken.row, because)
