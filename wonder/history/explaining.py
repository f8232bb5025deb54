"""Why a run went where it went: every step with its signals, its calibrated number, its rules and its versions."""

from importlib.metadata import version
from typing import Any

from pydantic import Field, JsonValue

from wonder.routing.context import Context
from wonder.routing.decision import RouteDecision, Truth
from wonder.routing.distance import Distance, distances
from wonder.trace.explanation import Explanation
from wonder.trace.schema import ClaimResult, SampleSummary, ThoughtTrace
from wonder.wire import WireModel, WireRecord


class RuleExplanation(WireRecord):
    """One row of the table: whether it fired, and how far it was from doing otherwise."""

    name: str
    to: list[str]
    condition: str
    outcome: Truth
    fired: bool
    distances: list[Distance] = Field(default_factory=list)
    unknown: dict[str, str] = Field(default_factory=dict)


class CalibrationExplanation(WireRecord):
    """What made a raw number a probability."""

    id: str
    signal: str
    kind: str
    labels: int
    wrong: int
    ece: float | None = None
    """On held-out answers."""
    since: str = ""
    until: str = ""


class StepExplanation(WireRecord):
    """One action, what was read of it, and the decision that followed."""

    action: str
    visit: int
    answer: JsonValue = None
    raw_confidence: float | None = None
    """By the confidence method, before calibration."""
    confidence: float | None = None
    confidence_low: float | None = None
    confidence_high: float | None = None
    confidence_method: str
    confidence_status: str
    confidence_reason: str | None = None
    calibration: CalibrationExplanation | None = None
    signals: dict[str, float] = Field(default_factory=dict)
    fields: dict[str, float | None] = Field(default_factory=dict)
    concepts: dict[str, float] = Field(default_factory=dict)
    claims: dict[str, ClaimResult] = Field(default_factory=dict)
    samples: SampleSummary | None = None
    explanations: list[Explanation] = Field(default_factory=list)
    """What a lens said of single states: guesses."""
    versions: dict[str, str] = Field(default_factory=dict)
    """Model, weights, dtype, bundles."""
    missing: dict[str, str] = Field(default_factory=dict)
    decision: RouteDecision | None = None
    rules: list[RuleExplanation] = Field(default_factory=list)


class RunExplanation(WireModel):
    """A whole run."""

    run: str
    steps: list[StepExplanation]
    reviews: dict[str, int] = Field(default_factory=dict)
    """Action → reviews it has had."""
    written_by: str = ""
    """Version of Wonder that wrote this."""


def explain_run(run: str, ctx: Context) -> RunExplanation:
    """Everything that the context of a run says about why it went where it went."""
    visits: dict[str, int] = {}
    decisions = {(decision.after, decision.visit): decision for decision in ctx.decisions}
    outputs = ctx.model_dump(mode="json", include={"outputs"})["outputs"]
    steps = []
    for trace in ctx.thought_traces:
        visit = visits[trace.action] = visits.get(trace.action, 0) + 1
        is_latest = trace is ctx.trace(trace.action)
        answer = outputs.get(trace.action) if is_latest else None
        steps.append(_step(ctx, trace, visit, answer, decisions.get((trace.action, visit)), is_latest=is_latest))
    return RunExplanation(run=run, steps=steps, reviews=ctx.reviews, written_by=f"wonder {version('wonder-temporal')}")


def _step(
    ctx: Context, trace: ThoughtTrace, visit: int, answer: Any, decision: RouteDecision | None, *, is_latest: bool
) -> StepExplanation:
    raw = trace.overall_confidence if trace.confidence_status == "uncalibrated" else trace.raw_confidence
    names = {
        "model": trace.model,
        "model revision": trace.model_revision,
        "weights": trace.model_fingerprint[:16],
        "dtype": trace.dtype,
        **{f"bundle {kind}": id_[:16] for kind, id_ in trace.bundles.items()},
        "trace schema": str(trace.schema_version),
    }
    if decision is not None:
        names |= {"table": decision.table or "unnamed", "table digest": decision.table_digest}
    return StepExplanation(
        action=trace.action,
        visit=visit,
        answer="".join(trace.tokens).strip() if answer is None else answer,
        raw_confidence=raw,
        confidence=trace.overall_confidence,
        confidence_low=trace.confidence_low,
        confidence_high=trace.confidence_high,
        confidence_method=trace.confidence_method,
        confidence_status=trace.confidence_status,
        confidence_reason=trace.confidence_reason,
        calibration=_calibration(ctx, trace) if is_latest else None,
        signals=trace.signals,
        fields={path: field.confidence for path, field in trace.field_confidences.items()},
        concepts=trace.active_concepts,
        claims=trace.claims,
        samples=trace.samples,
        explanations=trace.explanations,
        versions={name: value for name, value in names.items() if value},
        missing=trace.missing,
        decision=decision,
        rules=[] if decision is None else _rules(decision),
    )


def _calibration(ctx: Context, trace: ThoughtTrace) -> CalibrationExplanation | None:
    bundle = ctx.calibrations.get(trace.action)
    if bundle is None:
        return None
    return CalibrationExplanation(
        id=bundle.id,
        signal=bundle.signal,
        kind=bundle.map.kind,
        labels=bundle.labels,
        wrong=bundle.wrong,
        ece=bundle.held_out.after.ece if bundle.held_out else None,
        since=f"{bundle.since:%Y-%m-%d}" if bundle.since else "",
        until=f"{bundle.until:%Y-%m-%d}" if bundle.until else "",
    )


def _rules(decision: RouteDecision) -> list[RuleExplanation]:
    return [
        RuleExplanation(
            name=row.name,
            to=row.to,
            condition=row.condition,
            outcome=row.outcome,
            fired=row.name == decision.row,
            distances=distances(row, decision.thresholds),
            unknown=row.unknown,
        )
        for row in decision.rows
    ]
