"""A run at a glance, as Markdown for the Temporal UI."""

from wonder.routing.context import Context
from wonder.trace.schema import ThoughtTrace


def percent(confidence: float | None) -> str:
    """A probability for people; `unknown` where there is none."""
    return "unknown" if confidence is None else f"{confidence:.0%}"


def concepts(trace: ThoughtTrace) -> str:
    """Concepts with their probabilities, likeliest first."""
    ordered = sorted(trace.active_concepts.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {probability:.2f}" for name, probability in ordered) or "–"


def details(ctx: Context) -> str:
    """One line per action that has run, and where each decision led."""
    lines = ["", "| step | confidence | concepts | route |", "|---|---|---|---|"]
    for trace, decision in ctx.steps():
        name = trace.action if trace else decision.after if decision else ""
        read = f"{percent(trace.overall_confidence)} | {concepts(trace)}" if trace else "– | –"
        route = "…" if decision is None else f"{', '.join(decision.targets)} ({decision.explanation})"
        lines.append(f"| {name} | {read} | {route} |")
    return "\n".join(lines) if len(lines) > 3 else "\nwaiting for the model"
