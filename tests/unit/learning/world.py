"""A world of answers with a known truth: how likely each is right, and an overconfident signal of it."""

import math
import random
from datetime import UTC, datetime, timedelta
from typing import Any

from wonder.calibration.maps import log_odds, sigmoid
from wonder.calibration.outcomes import LabeledOutcome

START = datetime(2026, 11, 1, tzinfo=UTC)


def answers(
    n: int,
    *,
    seed: int = 0,
    sharpen: float = 2.0,
    ease: float = 2.0,
    review_below: float | None = None,
    audit: float = 0.0,
    unjudged: bool = False,
    first_minute: int = 0,
    **fields: Any,
) -> list[LabeledOutcome]:
    """Answers to `classify`, one a minute.

    Args:
        n: Answers given; fewer are judged where they are routed.
        seed: Of the draw.
        sharpen: By how much the signal's log-odds exaggerate the true ones; 1 is calibrated.
        ease: The larger, the more answers are right.
        review_below: Signals below this go to a person, of the others the share `audit`; None: all are judged.
        audit: Share of the accepted answers that is judged.
        unjudged: Keep the others too, without a verdict.
        first_minute: When the first one is given.
        fields: Of every outcome.
    """
    drawn, found = random.Random(f"{seed}/{n}/{ease}"), []
    for i in range(n):
        true = drawn.betavariate(ease, 0.5)
        signal = sigmoid(sharpen * log_odds(true))
        right, lot = drawn.random() < true, drawn.random()
        usual: dict[str, Any] = {
            "id": f"{seed}-{i}",
            "action": "classify",
            "model": "m",
            "signals": {"value_probability": signal, "hidden_norm": drawn.random()},
            "right": right,
            "time": START + timedelta(minutes=first_minute + i),
        }
        if review_below is not None:
            routed = signal < review_below
            usual |= {"selection": "routed"} if routed else {"selection": "audit", "propensity": max(audit, 1e-9)}
            if not routed and lot >= audit:
                if not unjudged:
                    continue
                usual |= {"right": None, "propensity": 1.0, "selection": "sample"}
        found.append(LabeledOutcome(**usual | fields))
    return found


def truth(outcome: LabeledOutcome, sharpen: float = 2.0) -> float:
    """How likely the answer of an outcome is right."""
    p = outcome.signals["value_probability"]
    return sigmoid((math.log(max(p, 1e-300)) - math.log1p(-min(p, 1 - 1e-16))) / sharpen)
