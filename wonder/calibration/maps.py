"""Maps from what was read to the probability that the answer is right, as a few plain floats.

| kind | formula | keeps order | interval |
|---|---|---|---|
| `beta` | sigmoid(a ln p − b ln(1 − p) + c), slopes ≥ 0 (Kull et al. 2017) | yes | no |
| `isotonic` | straight lines between the centres of the pooled blocks | yes | no |
| `venn_abers` | p₁ / (1 − p₀ + p₁) of two isotonic fits (Vovk, Petej 2014) | yes | p₀ … p₁ |
| `stacked` | sigmoid of a weighted sum of the standardised log-odds of several signals | of its own score | no |

A map of one signal mixes in a millionth of the signal itself: flat stretches then still rise, so that a threshold on
the signal and the same threshold on the probability accept the very same answers.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from wonder.wire import NonNegative, Probability, WireRecord

CLIP = 1e-9
"""Signals are kept this far from 0 and 1 before a logarithm is taken."""
STACK_CLIP = 1e-6
"""The same in a stack, where one far-off signal must not outweigh all others."""
SLOPE = 1e-6
"""Share of the signal itself in every mapped value."""
MOST_KNOTS = 64
"""More would not fit into a small bundle."""
MOST_SIGNALS = 10


class Mapped(NamedTuple):
    """A probability that the answer is right, and its interval where the map has one."""

    value: float
    low: float | None = None
    high: float | None = None


class BetaMap(WireRecord):
    """sigmoid(a ln p − b ln(1 − p) + c)."""

    kind: Literal["beta"] = "beta"
    a: NonNegative
    b: NonNegative
    c: float

    def at(self, signal: float) -> Mapped:
        """The probability for a signal in [0, 1]."""
        p = min(max(signal, CLIP), 1 - CLIP)
        return Mapped(_rising(sigmoid(self.a * math.log(p) - self.b * math.log1p(-p) + self.c), signal))


class _Knots(WireRecord):
    x: Annotated[list[Probability], Field(min_length=1, max_length=MOST_KNOTS)]
    """Signals, rising."""

    @model_validator(mode="after")
    def _is_a_rising_function(self) -> Self:
        if any(left >= right for left, right in pairwise(self.x)):
            raise ValueError("the knots of a map rise strictly")
        for values in self._columns():
            if len(values) != len(self.x) or any(a > b for a, b in pairwise(values)):
                raise ValueError("a map has one value per knot, and they never fall")
        return self

    def _columns(self) -> Sequence[Sequence[float]]:
        raise NotImplementedError


class IsotonicMap(_Knots):
    """Straight lines between knots, flat outside them."""

    kind: Literal["isotonic"] = "isotonic"
    y: list[Probability]

    def at(self, signal: float) -> Mapped:
        """The probability for a signal in [0, 1]."""
        return Mapped(_rising(_between(self.x, self.y, signal), signal))

    def _columns(self) -> Sequence[Sequence[float]]:
        return (self.y,)


class VennAbersMap(_Knots):
    """The two isotonic fits of Venn-Abers, with the new answer taken for wrong (`p0`) and for right (`p1`).

    Exact at the knots; between two of them the interval reaches from the left one's `p0` to the right one's `p1`, which
    holds whatever the exact one is.
    """

    kind: Literal["venn_abers"] = "venn_abers"
    p0: list[Probability]
    p1: list[Probability]

    def at(self, signal: float) -> Mapped:
        """The probability for a signal in [0, 1], with its interval."""
        low, high = _between(self.x, self.p0, signal), _between(self.x, self.p1, signal)
        left = max(bisect_right(self.x, signal) - 1, 0)
        right = left if self.x[left] >= signal else min(left + 1, len(self.x) - 1)
        value = _rising(high / (1 - low + high) if high > 0 else 0.0, signal)
        return Mapped(value, min(self.p0[left], value), max(self.p1[right], value))

    def _columns(self) -> Sequence[Sequence[float]]:
        return (self.p0, self.p1)


class StackedMap(WireRecord):
    """sigmoid(Σ weight (log-odds of the signal − mean) / scale + bias) of several signals of a trace."""

    kind: Literal["stacked"] = "stacked"
    signals: Annotated[list[str], Field(min_length=1, max_length=MOST_SIGNALS)]
    mean: list[float]
    scale: list[Annotated[float, Field(gt=0)]]
    weight: list[float]
    bias: float

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if {len(self.mean), len(self.scale), len(self.weight)} != {len(self.signals)}:
            raise ValueError("a stacked map has one mean, scale and weight for every signal")
        return self

    def of(self, values: Sequence[float]) -> Mapped:
        """The probability for the signals, in the order of `signals`."""
        parts = zip(values, self.mean, self.scale, self.weight, strict=True)
        terms = [weight * (log_odds(value) - mean) / scale for value, mean, scale, weight in parts]
        return Mapped(sigmoid(sum(terms) + self.bias))


SignalMap = BetaMap | IsotonicMap | VennAbersMap
"""A rising map of one signal in [0, 1]."""

CalibrationMap = Annotated[SignalMap | StackedMap, Field(discriminator="kind")]


def mapped(by: SignalMap | StackedMap, signal: str, values: Mapping[str, float | None]) -> Mapped | str:
    """The probability for the signals of one answer, or why there is none.

    Args:
        by: The map.
        signal: The signal that a map of one signal reads.
        values: Signal → what was read; None and NaN count as not read.
    """
    wanted = by.signals if isinstance(by, StackedMap) else [signal]
    read: list[float] = []
    for name in wanted:
        value = values.get(name)
        if value is None or not math.isfinite(value):
            return f"the trace has no finite {name!r}, which its calibration reads"
        read.append(value)
    if isinstance(by, StackedMap):
        return by.of(read)
    if not 0 <= read[0] <= 1:
        return f"{signal!r} is {read[0]:.4g}, and its calibration reads numbers from 0 to 1"
    return by.at(read[0])


def sigmoid(x: float) -> float:
    """1 / (1 + e⁻ˣ), without overflow."""
    if x >= 0:
        return 1 / (1 + math.exp(-x))
    grown = math.exp(x)
    return grown / (1 + grown)


def log_odds(p: float) -> float:
    """The logarithm of p / (1 − p), with p kept `STACK_CLIP` away from 0 and 1."""
    kept = min(max(p, STACK_CLIP), 1 - STACK_CLIP)
    return math.log(kept) - math.log1p(-kept)


def _rising(value: float, signal: float) -> float:
    return min(1.0, max(0.0, (1 - SLOPE) * value + SLOPE * signal))


def _between(x: Sequence[float], y: Sequence[float], at: float) -> float:
    right = bisect_right(x, at)
    if right == 0:
        return y[0]
    if right == len(x):
        return y[-1]
    share = (at - x[right - 1]) / (x[right] - x[right - 1])
    # The bounds keep the rounding of the line from leaving its ends, which would make the map fall.
    return min(y[right], max(y[right - 1], y[right - 1] + share * (y[right] - y[right - 1])))
