"""An explanation for a terminal."""

import json
from collections.abc import Iterable
from textwrap import shorten

from wonder.history.explaining import RuleExplanation, RunExplanation, StepExplanation
from wonder.routing.decision import RouteDecision
from wonder.routing.distance import Distance
from wonder.routing.explain import short_text
from wonder.trace.explanation import guesses

WIDTH = 100


def text(found: RunExplanation) -> str:
    """The whole run."""
    lines = [f"run {found.run}"]
    for step in found.steps:
        lines += ["", *_step(step)]
    if not found.steps:
        lines += ["", "no model call yet"]
    return "\n".join([*lines, "", found.written_by]) + "\n"


def figure(value: float | None, digits: int = 3) -> str:
    """A number in few digits; `unknown` where there is none."""
    return "unknown" if value is None else f"{value:.{digits}g}"


def how_sure(step: StepExplanation) -> list[str]:
    """The sentences about the confidence: what was read, what became of it, and what that rests on."""
    told = []
    if step.calibration is not None and step.confidence_status == "calibrated":
        made = step.calibration
        interval = (
            f" ({figure(step.confidence_low)} to {figure(step.confidence_high)})"
            if step.confidence_low is not None and step.confidence_high is not None
            else ""
        )
        told.append(f"{figure(step.confidence)}{interval} probability of being right")
        told.append(f"made of {step.confidence_method} {figure(step.raw_confidence)} by {made.kind} {made.id[:12]}")
        period = f", {made.since} to {made.until}" if made.since else ""
        quality = f", held-out ECE {made.ece:.3f}" if made.ece is not None else ""
        told.append(f"fitted to {made.labels} judged answers, {made.wrong} of them wrong{period}{quality}")
    else:
        told.append(f"{figure(step.confidence)} by {step.confidence_method}, {step.confidence_status}")
    if step.confidence_reason:
        told.append(step.confidence_reason)
    return told


def distance(found: Distance) -> str:
    """How far one comparison was from turning."""
    held = "held" if found.holds else "did not hold"
    return (
        f"{short_text(found.path)} {figure(found.value, 4)} {found.op} {figure(found.bound, 4)} {held}, "
        f"by {figure(found.gap)}"
    )


def _step(step: StepExplanation) -> list[str]:
    again = f" (visit {step.visit})" if step.visit > 1 else ""
    lines = [f"── {step.action}{again} " + "─" * max(4, 60 - len(step.action) - len(again))]
    answer = step.answer if isinstance(step.answer, str) else json.dumps(step.answer, ensure_ascii=False)
    lines += _named("answer", [shorten(answer or "–", WIDTH)])
    lines += _named("confidence", how_sure(step))
    if len(step.fields) > 1:
        lines += _named("fields", [", ".join(f"{path} {figure(value)}" for path, value in step.fields.items())])
    lines += _named("signals", _wrapped(f"{name} {figure(value)}" for name, value in step.signals.items()))
    lines += _named("concepts", _wrapped(f"{name} {figure(value)}" for name, value in step.concepts.items()))
    for name, claim in step.claims.items():
        lines += _named("claim", [f"{name}: {claim.verdict or 'may not decide'} ({claim.reason})", *claim.notes])
    if step.samples is not None:
        agreed = f"{step.samples.agreement:.0%} of {step.samples.count} agree, {step.samples.distinct} distinct answers"
        lines += _named("samples", [agreed])
    lines += _named("in words", guesses(step.explanations))
    if step.decision is not None:
        lines += _named("decision", [step.decision.explanation])
        lines += _named("rules", [line for rule in step.rules for line in _rule(rule)])
        for used in step.decision.thresholds:
            value = used.reason if used.value is None else f"{figure(used.value, 4)}"
            lines += _named("threshold", [f"{used.name}, risk {used.risk:g}, δ {used.delta:g}: {value}"])
        lines += _named("cascade", _cascade(step.decision))
        looked = f"{step.decision.propensity:.0%}" + (", and was drawn for an audit" if step.decision.audit else "")
        lines += _named("audit", [f"the chance that a person would look at this answer was {looked}"])
    lines += _named("versions", _wrapped(f"{name} {value}" for name, value in step.versions.items()))
    return lines


def _cascade(decision: RouteDecision) -> list[str]:
    told = []
    if decision.rung or decision.retry is not None:
        told.append(f"rung {decision.rung}" + (f"; next with {decision.retry}" if decision.retry else ""))
    if decision.error:
        told.append(f"the action failed with {decision.error}")
    if decision.budget is not None:
        spent = decision.budget.spent
        left = {
            "tokens": decision.budget.tokens_left,
            "seconds": decision.budget.seconds_left,
            "money": decision.budget.money_left,
        }
        money = "unknown" if spent.money is None else f"{spent.money:.4g}"
        told.append(
            f"spent {spent.tokens:,} tokens, {spent.seconds:.3g} s, money {money}; left "
            + (", ".join(f"{name} {value:.4g}" for name, value in left.items() if value is not None) or "no limit")
        )
    return told


def _rule(rule: RuleExplanation) -> list[str]:
    mark = "●" if rule.fired else "?" if rule.outcome == "unknown" else "○"
    lines = [f"{mark} {rule.condition} → {' and '.join(rule.to)}   {rule.outcome}"]
    lines += [f"    {distance(found)}" for found in rule.distances]
    return [*lines, *(f"    {short_text(path)} is unknown: {why}" for path, why in rule.unknown.items())]


def _named(name: str, lines: list[str]) -> list[str]:
    return [f"  {name if at == 0 else '':<11} {line}" for at, line in enumerate(lines)]


def _wrapped(parts: Iterable[str]) -> list[str]:
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + len(part) + 3 <= WIDTH:
            lines[-1] += " · " + part
        else:
            lines.append(part)
    return lines
