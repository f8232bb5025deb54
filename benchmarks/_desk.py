"""Judged answers of the shipped model on generated held-out tickets: what was read, and whether the answer is right."""

import json
from collections.abc import Mapping
from pathlib import Path

from wonder.actions.contracts import ThinkRequest
from wonder.calibration.outcomes import LabeledOutcome, read_outcomes, write_outcomes
from wonder.embedded.world import DEFAULT_MIX, Kind, Ticket, prompt, tickets
from wonder.engine import TraceEngine
from wonder.names import EMBEDDED_MODEL
from wonder.trace.capture import ThoughtCapture
from wonder.trace.schema import AgentMessage

ACTION = "classify"
AT_ONCE = 256
UNSEEN: Mapping[Kind, float] = {
    **{kind: share * 0.5 / (1 - DEFAULT_MIX["unseen"]) for kind, share in DEFAULT_MIX.items()},
    "unseen": 0.5,
}
"""The traffic of the negative control: half of it about products the model has never met, instead of 8 %."""


def judged(
    engine: TraceEngine | None, n: int, *, seed: int, mix: Mapping[Kind, float] = DEFAULT_MIX, kept: Path | None = None
) -> list[LabeledOutcome]:
    """Answers to `n` tickets; right where team and urgency are both the ticket's.

    Args:
        engine: The shipped model; loaded if need be.
        n: How many tickets.
        seed: Of the tickets.
        mix: Shares of the kinds of tickets.
        kept: A file to take them from if it is there, and to keep them in otherwise.
    """
    if kept is not None and kept.exists():
        found = read_outcomes(kept)
        if len(found) >= n:
            return found[:n]
    engine = engine or TraceEngine.load()
    asked = tickets(n, seed=seed, split="held_out", mix=mix)
    capture = ThoughtCapture(top_alternatives=0)
    made = []
    for at in range(0, n, AT_ONCE):
        part = asked[at : at + AT_ONCE]
        requests = [
            ThinkRequest(
                action=ACTION, model=EMBEDDED_MODEL, prompt=prompt(ticket.text), answer_format="json", capture=capture
            )
            for ticket in part
        ]
        for ticket, answered in zip(part, engine.generate(requests), strict=True):
            if isinstance(answered, AgentMessage) and answered.thought_trace is not None:
                made.append(_outcome(ticket, answered))
    if kept is not None:
        write_outcomes(kept, made)
    return made


def _outcome(ticket: Ticket, answered: AgentMessage) -> LabeledOutcome:
    trace = answered.thought_trace
    assert trace is not None
    try:
        right = json.loads(answered.text) == {"team": ticket.team, "urgency": ticket.urgency}
    except ValueError:
        right = False
    return LabeledOutcome(
        id=ticket.id,
        action=ACTION,
        model=trace.model,
        model_fingerprint=trace.model_fingerprint,
        signals=trace.signals,
        right=right,
    )
