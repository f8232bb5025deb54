"""Fitting each kind of map to judged answers."""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from wonder.calibration.maps import CLIP, BetaMap, IsotonicMap, SignalMap, StackedMap, VennAbersMap, log_odds
from wonder.learning.isotonic import Point, points, pool, value_at
from wonder.learning.logistic import fit_logistic
from wonder.learning.scoring import auroc

ISOTONIC_KNOTS = 48
VENN_ABERS_KNOTS = 32
DIGITS = 7
STACK_SIGNALS = 10


@dataclass(frozen=True, slots=True)
class Judged:
    """Answers as columns."""

    signals: Sequence[float]
    right: Sequence[bool]
    weights: Sequence[float]
    stack: Sequence[Sequence[float]] = ()
    """Per answer, the signals a stack may read, in the order of `names`."""
    names: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.signals)

    def part(self, rows: Sequence[int]) -> "Judged":
        """Some of the answers."""
        return Judged(
            [self.signals[i] for i in rows],
            [self.right[i] for i in rows],
            [self.weights[i] for i in rows],
            [self.stack[i] for i in rows] if self.stack else (),
            self.names,
        )


def fit_beta(judged: Judged) -> BetaMap:
    """Beta calibration with slopes that are never negative, so that the map keeps the order of the signal."""
    kept = [min(max(p, CLIP), 1 - CLIP) for p in judged.signals]
    columns = ([math.log(p) for p in kept], [-math.log1p(-p) for p in kept])
    (a, b), c = fit_logistic(list(zip(*columns, strict=True)), judged.right, judged.weights)
    if a < 0 or b < 0:
        # A negative slope would bend the map back: fit the other one alone.
        alone = int(a < 0)
        (slope,), c = fit_logistic([(value,) for value in columns[alone]], judged.right, judged.weights)
        if slope < 0:
            slope, c = 0.0, log_odds(_clipped(_share(judged), len(judged)))
        a, b = (0.0, slope) if alone else (slope, 0.0)
    return BetaMap(a=a, b=b, c=c)


def fit_isotonic(judged: Judged) -> IsotonicMap:
    """Isotonic regression, read as straight lines between the centres of its blocks."""
    blocks = pool(points(judged.signals, judged.right, judged.weights))
    while len(blocks) > ISOTONIC_KNOTS:
        weights = [left.weight + right.weight for left, right in pairwise(blocks)]
        at = weights.index(min(weights))
        blocks[at].take(blocks.pop(at + 1))
    knots = {round(block.centre, DIGITS): _rounded(_clipped(block.value, len(judged))) for block in blocks}
    return IsotonicMap(x=list(knots), y=list(knots.values()))


def fit_venn_abers(judged: Judged) -> VennAbersMap:
    """Both isotonic fits of Venn-Abers, each with a new answer added, at knots spread over the signals seen."""
    ordered = points(judged.signals, judged.right, judged.weights)
    one = math.fsum(judged.weights) / len(judged)
    knots = sorted({ordered[i * (len(ordered) - 1) // (VENN_ABERS_KNOTS - 1)][0] for i in range(VENN_ABERS_KNOTS)})
    fitted = {
        round(x, DIGITS): (_rounded(_with(ordered, x, one, 0.0)), _rounded(_with(ordered, x, one, one))) for x in knots
    }
    # Rounding a knot moves it by less than it moves the fits, which only ever rise.
    low, high = (_rising([pair[side] for pair in fitted.values()]) for side in (0, 1))
    return VennAbersMap(x=list(fitted), p0=low, p1=high)


def fit_stacked(judged: Judged) -> StackedMap:
    """L2 logistic regression on the standardised log-odds of up to ten signals, the best-ranking ones."""
    columns = list(zip(*judged.stack, strict=True))
    by_rank = sorted(range(len(columns)), key=lambda i: -abs(auroc(columns[i], judged.right) - 0.5))
    chosen = sorted(by_rank[:STACK_SIGNALS])
    odds = [[log_odds(value) for value in columns[i]] for i in chosen]
    total = math.fsum(judged.weights)
    mean = [math.fsum(w * value for w, value in zip(judged.weights, column, strict=True)) / total for column in odds]
    spread = [
        math.sqrt(math.fsum(w * (v - centre) ** 2 for w, v in zip(judged.weights, column, strict=True)) / total)
        for column, centre in zip(odds, mean, strict=True)
    ]
    scale = [max(value, 1e-6) for value in spread]
    rows = [
        [(value - centre) / width for value, centre, width in zip(row, mean, scale, strict=True)]
        for row in zip(*odds, strict=True)
    ]
    weight, bias = fit_logistic(rows, judged.right, judged.weights, c=0.1)
    return StackedMap(signals=[judged.names[i] for i in chosen], mean=mean, scale=scale, weight=weight, bias=bias)


FITS: dict[str, Callable[[Judged], SignalMap | StackedMap]] = {
    "beta": fit_beta,
    "isotonic": fit_isotonic,
    "venn_abers": fit_venn_abers,
    "stacked": fit_stacked,
}


def read(by: SignalMap | StackedMap, judged: Judged) -> list[float]:
    """The map's probability for every answer."""
    if isinstance(by, StackedMap):
        at = [judged.names.index(name) for name in by.signals]
        return [by.of([row[i] for i in at]).value for row in judged.stack]
    return [by.at(signal).value for signal in judged.signals]


def _with(ordered: list[Point], signal: float, weight: float, good: float) -> float:
    """The isotonic fit at a signal once an answer has been added there."""
    at = bisect_left(ordered, signal, key=lambda point: point[0])
    if at < len(ordered) and ordered[at][0] == signal:
        there = ordered[at]
        added = [*ordered[:at], (signal, there[1] + weight, there[2] + good), *ordered[at + 1 :]]
    else:
        added = [*ordered[:at], (signal, weight, good), *ordered[at:]]
    return value_at(pool(added), signal)


def _share(judged: Judged) -> float:
    good = math.fsum(w for w, is_right in zip(judged.weights, judged.right, strict=True) if is_right)
    return good / math.fsum(judged.weights)


def _clipped(value: float, count: int) -> float:
    """Kept away from 0 and 1 by half an answer: so few cannot rule an error out."""
    return min(max(value, 0.5 / count), 1 - 0.5 / count)


def _rounded(value: float) -> float:
    return round(value, DIGITS)


def _rising(values: Sequence[float]) -> list[float]:
    found: list[float] = []
    for value in values:
        found.append(max(value, found[-1]) if found else value)
    return found
