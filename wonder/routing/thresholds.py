"""Thresholds by risk: what each `threshold(…)` of a decision is worth, by the calibration of the deciding action."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from wonder.calibration.apply import is_applied
from wonder.calibration.certify import DEFAULT_DELTA, NotCertified
from wonder.routing.context import Context
from wonder.routing.decision import ThresholdUsed
from wonder.routing.env import Thresholds, guard
from wonder.routing.syntax import ThresholdKey
from wonder.trace.schema import ThoughtTrace


@dataclass(slots=True)
class Resolved:
    """The thresholds of one decision."""

    values: dict[ThresholdKey, float | None] = field(default_factory=dict)
    why: dict[ThresholdKey, str] = field(default_factory=dict)
    """Why one has no number."""
    record: list[ThresholdUsed] = field(default_factory=list)


def resolve(wanted: Iterable[ThresholdKey], ctx: Context, trace: ThoughtTrace, given: Thresholds) -> Resolved:
    """Look thresholds up: those given, else certified by the calibration of the deciding action.

    A certified number is one of calibrated probabilities, so it is used only where that very calibration made the
    trace's confidence; everywhere else the threshold is unknown.
    """
    found = Resolved()
    for key in dict.fromkeys(wanted):
        used = _given(key, given) if key in given else _certified(key, ctx, trace)
        found.record.append(used)
        found.values[key] = used.value
        if used.value is None:
            found.why[key] = used.reason
    return found


def _given(key: ThresholdKey, given: Thresholds) -> ThresholdUsed:
    value = guard(given[key])
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _used(key, reason="no certified threshold was given")
    return _used(key, value=float(value))


def _certified(key: ThresholdKey, ctx: Context, trace: ThoughtTrace) -> ThresholdUsed:
    name = key[0]
    if name != trace.action:
        return _used(key, reason=f"no certified threshold: {name!r} is not the deciding action {trace.action!r}")
    bundle = ctx.calibrations.get(name)
    if bundle is None or not is_applied(trace, bundle):
        told = trace.confidence_reason or "no calibration of this action and model is in force"
        return _used(key, reason=f"no certified threshold: {told}")
    found = bundle.certified(key[1], _delta(key))
    if isinstance(found, NotCertified):
        return _used(key, reason=f"no certified threshold: {found.reason}", bundle=bundle.id, needed=found.needed)
    return _used(key, value=found.threshold, bundle=bundle.id, kept=found.kept, wrong=found.wrong, share=found.share)


def _delta(key: ThresholdKey) -> float:
    return key[2] if len(key) == 3 else DEFAULT_DELTA


def _used(
    key: ThresholdKey,
    *,
    value: float | None = None,
    reason: str = "",
    bundle: str = "",
    kept: int | None = None,
    wrong: int | None = None,
    share: float | None = None,
    needed: int | None = None,
) -> ThresholdUsed:
    return ThresholdUsed(
        name=key[0],
        risk=key[1],
        delta=_delta(key),
        value=value,
        bundle=bundle,
        kept=kept,
        wrong=wrong,
        share=share,
        more_labels=needed,
        reason=reason,
    )
