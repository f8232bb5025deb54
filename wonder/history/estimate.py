"""How often accepted answers are wrong, from the few that people looked at, each standing for those like it."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

Z: Final = 1.959964
"""Of the normal distribution, for 95 %."""


@dataclass(frozen=True)
class ErrorEstimate:
    """A share of wrong answers with its 95 % interval; None where nobody looked."""

    value: float | None
    low: float
    high: float
    labels: int
    """Judged answers it rests on."""
    effective: float
    """What they are worth: equally many of equal weight would give this interval."""


def error_rate(labelled: Iterable[tuple[float, bool]]) -> ErrorEstimate:
    """The weighted share of wrong answers (Hájek's estimator), with Wilson's interval at the effective sample size.

    Each answer weighs the inverse of its chance to be looked at (inverse-propensity weighting); the effective size is
    (Σw)² / Σw² (Kish 1965). Wilson's interval keeps its meaning where no answer was wrong.

    Args:
        labelled: (propensity in (0, 1], whether the answer was wrong).
    """
    total = squares = wrong = 0.0
    count = 0
    for propensity, is_wrong in labelled:
        weight = 1 / propensity
        total += weight
        squares += weight * weight
        wrong += weight * is_wrong
        count += 1
    if not count:
        return ErrorEstimate(None, 0.0, 1.0, 0, 0.0)
    share, size = min(1.0, wrong / total), total * total / squares
    scale = 1 + Z * Z / size
    middle = (share + Z * Z / (2 * size)) / scale
    spread = Z / scale * math.sqrt(share * (1 - share) / size + Z * Z / (4 * size * size))
    low, high = max(0.0, middle - spread), min(1.0, middle + spread)
    return ErrorEstimate(share, min(low, share), max(high, share), count, size)
