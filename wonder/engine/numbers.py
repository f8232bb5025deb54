"""What becomes of a number that is to stand in a trace."""

import math
from typing import Final

NOT_FINITE: Final = "the model's own numbers are not finite here"


def inside(value: float, low: float, high: float) -> float | None:
    """A finite number inside its range (rounding may leave it by an epsilon), or None."""
    return min(high, max(low, value)) if math.isfinite(value) else None
