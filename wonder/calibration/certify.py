"""Thresholds that keep a promised risk: Learn-then-Test by fixed sequence, with exact binomial tests.

The promise: with probability 1 − δ over the draw of the labels, at most a share α of the answers that are accepted is
wrong. Thresholds declared before any label was seen are tested from the strictest down, each with an exact binomial
test of "the risk is above α"; the first that is not rejected ends the sequence (Angelopoulos et al. 2021, Learn then
Test). It takes labels that are exchangeable with what will come, speaks of single answers and not of whole runs, and
says nothing once the traffic has drifted.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from wonder.calibration.binomial import at_most, lower_bound
from wonder.wire import Probability, WireRecord

GRID: tuple[float, ...] = (
    *(0.98, 0.95, 0.92, 0.90, 0.87, 0.84, 0.80, 0.76, 0.72, 0.68, 0.64),
    *(0.60, 0.55, 0.50, 0.45, 0.40, 0.35, 0.30, 0.25, 0.20, 0.10, 0.0),
)
"""Declared once and for all, strictest first; a grid taken from the labels themselves would void the promise."""
DEFAULT_DELTA = 0.1
MOST_LABELS = 10_000_000
"""Where the search for enough labels gives up."""


class Certification(WireRecord):
    """What the labels say at every declared threshold; any risk and δ can be certified from it later."""

    scale: Literal["signal", "probability"] = "signal"
    """Whether `grid` holds values of the raw signal, or of the calibrated probability (of a stacked map)."""
    grid: Annotated[list[Probability], Field(min_length=1, max_length=64)]
    kept: list[Annotated[int, Field(ge=0)]]
    """Labelled answers at or above each threshold."""
    wrong: list[Annotated[int, Field(ge=0)]]
    """How many of those were wrong."""
    labels: int = Field(ge=0)
    """Labelled answers that could be used: those that stand for the traffic."""
    refused: str = ""
    """Why nothing can be certified from these labels, whatever the risk."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if not len(self.grid) == len(self.kept) == len(self.wrong):
            raise ValueError("a certification has counts for every threshold of its grid")
        if any(a <= b for a, b in pairwise(self.grid)):
            raise ValueError("the grid of a certification goes from the strictest threshold down")
        if any(wrong > kept or kept > self.labels for kept, wrong in zip(self.kept, self.wrong, strict=True)):
            raise ValueError("a certification has at most as many wrong answers as kept ones, and kept ones as labels")
        return self


@dataclass(frozen=True, slots=True)
class Certified:
    """A threshold that keeps the promise."""

    threshold: float
    kept: int
    wrong: int
    share: float
    """Share of the labelled answers at or above it: what will be accepted."""


@dataclass(frozen=True, slots=True)
class NotCertified:
    """No threshold keeps the promise yet."""

    reason: str
    needed: int | None
    """How many more labels it takes at least, if none of them is wrong; None: labels alone will not do it."""


def count(scored: Iterable[tuple[float, bool]], grid: Sequence[float] = GRID) -> Certification:
    """The counts of (score, wrong) pairs of answers that stand for the traffic."""
    pairs = sorted(scored)
    scores = [score for score, _ in pairs]
    errors = [0, *accumulate(bad for _, bad in pairs)]
    below = [bisect_left(scores, at) for at in grid]
    return Certification(
        grid=list(grid),
        kept=[len(pairs) - at for at in below],
        wrong=[errors[-1] - errors[at] for at in below],
        labels=len(pairs),
    )


def certify(counts: Certification, risk: float, delta: float = DEFAULT_DELTA) -> Certified | NotCertified:
    """The loosest declared threshold whose risk stays at or below `risk` with probability 1 − `delta`.

    Args:
        counts: From labels that stand for the traffic.
        risk: α, the share of wrong answers allowed among the accepted ones; in (0, 1).
        delta: Chance, over the draw of the labels, that the promise is broken; in (0, 1).
    """
    if counts.refused:
        return NotCertified(counts.refused, None)
    best: Certified | None = None
    for at, kept, wrong in zip(counts.grid, counts.kept, counts.wrong, strict=True):
        if at_most(wrong, kept, risk) > delta:
            break
        best = Certified(at, kept, wrong, kept / counts.labels)
    return best or _not_yet(counts, risk, delta)


def fewest_labels(risk: float, delta: float = DEFAULT_DELTA) -> int:
    """Accepted answers without a single error that it takes to certify a risk: ln δ / ln(1 − α), rounded up."""
    return math.ceil(math.log(delta) / math.log1p(-risk))


def _not_yet(counts: Certification, risk: float, delta: float) -> NotCertified:
    kept, wrong, strictest = counts.kept[0], counts.wrong[0], counts.grid[0]
    where = f"{'signal' if counts.scale == 'signal' else 'calibrated probability'} ≥ {strictest:g}"
    seen = f"{kept} of {counts.labels} usable labels have {where}, {wrong} of them wrong"
    promise = f"a risk of {risk:g} with δ = {delta:g}"
    if lower_bound(wrong, kept, delta) > risk:
        return NotCertified(
            f"{promise} is out of reach: {seen}; more labels will not lower that: allow a higher risk, "
            "or improve the model",
            None,
        )
    accepted = _enough(wrong, risk, delta) - kept
    needed = math.ceil(accepted * counts.labels / kept) if kept else accepted
    return NotCertified(
        f"{promise} cannot be certified yet: {seen}; at least {needed} more labels are needed "
        f"({accepted} of them with {where}), and none of those wrong",
        needed,
    )


def _enough(wrong: int, risk: float, delta: float) -> int:
    """The fewest kept answers with which so many errors still certify the risk."""
    low, high = wrong, max(fewest_labels(risk, delta), wrong + 1)
    while at_most(wrong, high, risk) > delta and high < MOST_LABELS:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if at_most(wrong, middle, risk) > delta else (low, middle)
    return high
