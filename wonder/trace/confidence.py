"""How sure the model was of its answer: one number by the method that was asked for, or a reason for none.

The methods are the signals of `wonder.trace.signals`. `value_probability` (maximum sequence probability on the
answer's span) is the default: scaffolding tokens (braces, field names, phrasing) say nothing about whether the answer
is right and drown the tokens that do. `normalized_entropy` is not, because its scale is useless as a threshold: k
equally likely tokens score 1 - ln k / ln V, so a pure guess between two values scores 0.94 with 128 k tokens, and
0.7 is reached only when the *average* token is a tie of more than 30.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Confidence:
    """A number in 0..1, or why there is none."""

    value: float | None
    reason: str | None = None


def product(probabilities: Sequence[float | None]) -> float | None:
    """Product of probabilities, taken in logarithms; None where one is unknown, not a number, or there is none."""
    known = [p for p in probabilities if p is not None and not math.isnan(p)]
    if len(known) < len(probabilities) or not known:
        return None
    return clamp(math.exp(math.fsum(map(_log, known))))


def mean_log(probabilities: Sequence[float]) -> float:
    """Mean of ln p, minus infinity where one is 0."""
    return math.fsum(map(_log, probabilities)) / len(probabilities)


def clamp(value: float) -> float:
    """Into 0..1, from which rounding may have led."""
    return min(1.0, max(0.0, value))


def _log(probability: float) -> float:
    return math.log(probability) if probability > 0 else -math.inf
