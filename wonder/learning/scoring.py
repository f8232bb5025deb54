"""How good probabilities are: calibration error, Brier score, log-loss and ranking, all of them weighted."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from wonder.calibration.bundle import Scores

BINS = 15
CLIP = 1e-6
"""Probabilities are kept this far from 0 and 1 in the log-loss, so that one answer cannot decide a comparison."""


@dataclass(frozen=True, slots=True)
class Bin:
    """One bar of a reliability picture."""

    confidence: float
    """Mean probability."""
    accuracy: float
    share: float
    """Of the total weight."""


def bins(chances: Sequence[float], right: Sequence[bool], weights: Sequence[float], count: int = BINS) -> list[Bin]:
    """Bins of equal weight over the probabilities, lowest first; equal probabilities stay together."""
    rows = sorted(zip(chances, right, weights, strict=True))
    total = math.fsum(weights)
    found: list[Bin] = []
    at = 0
    done = 0.0
    while at < len(rows):
        end, weight, confidence, good = at, 0.0, 0.0, 0.0
        goal = total * (len(found) + 1) / count
        while end < len(rows) and (done + weight < goal * (1 - 1e-12) or rows[end][0] == rows[end - 1][0] or end == at):
            chance, is_right, w = rows[end]
            weight, confidence, good = weight + w, confidence + w * chance, good + w * is_right
            end += 1
        if weight > 0:
            found.append(Bin(confidence / weight, good / weight, weight / total))
        at, done = end, done + weight
    return found


def ece(chances: Sequence[float], right: Sequence[bool], weights: Sequence[float], count: int = BINS) -> float:
    """Expected calibration error over bins of equal weight (adaptive ECE)."""
    found = bins(chances, right, weights, count)
    return min(1.0, math.fsum(item.share * abs(item.confidence - item.accuracy) for item in found))


def brier(chances: Sequence[float], right: Sequence[bool], weights: Sequence[float]) -> float:
    """Mean squared distance to the truth."""
    rows = zip(chances, right, weights, strict=True)
    return math.fsum(w * (chance - good) ** 2 for chance, good, w in rows) / math.fsum(weights)


def losses(chances: Sequence[float], right: Sequence[bool]) -> list[float]:
    """−ln of the probability given to what was true, per answer, in nats."""
    return [-math.log(min(max(p if good else 1 - p, CLIP), 1.0)) for p, good in zip(chances, right, strict=True)]


def mean(values: Sequence[float], weights: Sequence[float]) -> float:
    """Weighted mean."""
    return math.fsum(w * value for value, w in zip(values, weights, strict=True)) / math.fsum(weights)


def standard_error(values: Sequence[float], weights: Sequence[float]) -> float:
    """Of the weighted mean (linearised, for independent answers)."""
    centre, total = mean(values, weights), math.fsum(weights)
    return math.sqrt(math.fsum((w * (value - centre)) ** 2 for value, w in zip(values, weights, strict=True))) / total


def scores(chances: Sequence[float], right: Sequence[bool], weights: Sequence[float]) -> Scores:
    """All three."""
    return Scores(
        ece=round(ece(chances, right, weights), 6),
        brier=round(min(1.0, brier(chances, right, weights)), 6),
        log_loss=round(mean(losses(chances, right), weights), 6),
    )


def auroc(values: Sequence[float], right: Sequence[bool]) -> float:
    """Chance that a right answer has the higher value; ties count half."""
    rows = sorted(zip(values, right, strict=True))
    below = good = total = 0.0
    at = 0
    while at < len(rows):
        end = at
        while end < len(rows) and rows[end][0] == rows[at][0]:
            end += 1
        here = sum(is_right for _, is_right in rows[at:end])
        wrong = end - at - here
        total += here * (below + wrong / 2)
        below, good, at = below + wrong, good + here, end
    return total / (good * below) if good and below else 0.5
