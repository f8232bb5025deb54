"""How well a confidence picks the answers to accept: risk against coverage, and what a reviewer catches by it.

Every function takes the confidence of each answer (larger: surer) and whether that answer was right. `e` is the share
of wrong answers. Answers of equal confidence count as if they came in random order: each stands for its group's mean.

| metric | formula | best | knows nothing |
|---|---|---|---|
| `aurc` | mean over k = 1..n of the share of wrong answers among the k surest | e + (1-e) ln(1-e), nearly | e |
| `e_aurc` | aurc - (e + (1-e) ln(1-e)) | 0, nearly | -(1-e) ln(1-e) |
| `prr` | (A - random) / (oracle - random), A the mean quality of what is kept while up to half is rejected | 1 | 0 |

All three depend on the order alone. Whether the confidence is the probability it says, `wonder.learning.scoring` tells.

Sources: Geifman et al. 2019 (E-AURC); Malinin and Gales 2021 (prediction rejection), in the form of LM-Polygraph with
50 % of rejections.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby


@dataclass(frozen=True)
class RiskPoint:
    """What happens when the surest answers are accepted and the others reviewed."""

    coverage: float
    """Share of answers accepted."""
    risk: float
    """Share of wrong answers among the accepted."""


@dataclass(frozen=True)
class Reviewed:
    """What people see, and what slips through."""

    reviewed: float
    """Share of all answers that are reviewed."""
    errors_caught: float | None
    """Share of the wrong answers that are reviewed; None where no answer is wrong."""
    risk: float | None
    """Share of wrong answers among those not reviewed; None where all are reviewed."""


def risk_coverage(confidence: Sequence[float], right: Sequence[bool]) -> list[RiskPoint]:
    """The curve that `aurc` is the area of: one point for every number of accepted answers, from one to all.

    Raises:
        ValueError: There is no answer, the lengths differ, or a confidence is not a number.
    """
    n = len(confidence)
    return [
        RiskPoint(kept / n, 1 - quality / kept)
        for kept, quality in enumerate(accumulate(_surest_first(confidence, right)), start=1)
    ]


def aurc(confidence: Sequence[float], right: Sequence[bool]) -> float:
    """Area under the risk-coverage curve.

    Raises:
        ValueError: As `risk_coverage`.
    """
    return _mean([point.risk for point in risk_coverage(confidence, right)])


def e_aurc(confidence: Sequence[float], right: Sequence[bool]) -> float:
    """Excess of `aurc` over what a perfect order would have, for many answers.

    Raises:
        ValueError: As `risk_coverage`.
    """
    accuracy = _mean([float(flag) for flag in right]) if right else 0.0
    perfect = 1 - accuracy + (accuracy * math.log(accuracy) if accuracy else 0.0)
    return aurc(confidence, right) - perfect


def prr(confidence: Sequence[float], right: Sequence[bool], *, rejected: float = 0.5) -> float:
    """Prediction-rejection ratio: how much of what a perfect order would gain is gained.

    Args:
        confidence: Of each answer.
        right: Whether it was right.
        rejected: The largest share that is rejected; 0.5 gives PRR@50.

    Raises:
        ValueError: As `risk_coverage`; all answers are right or all are wrong; or fewer than two would be rejected.
    """
    ordered = _surest_first(confidence, right)
    accuracy = _mean(ordered)
    if accuracy in (0.0, 1.0):
        raise ValueError(f"all {len(ordered)} answers are {'right' if accuracy else 'wrong'}, wanted some of each")
    steps = int(rejected * len(ordered))
    if steps < 2:
        raise ValueError(f"{len(ordered)} answers, of which a share of {rejected} is {steps}: wanted two at least")
    oracle = _rejection_area(sorted(map(float, right), reverse=True), steps)
    return (_rejection_area(ordered, steps) - accuracy) / (oracle - accuracy)


def review_below(confidence: Sequence[float], right: Sequence[bool], threshold: float) -> Reviewed:
    """What is reviewed and caught when every answer with a confidence below the threshold is reviewed.

    Raises:
        ValueError: As `risk_coverage`.
    """
    _check(confidence, right)
    below = [done for said, done in zip(confidence, right, strict=True) if said < threshold]
    return _reviewed(len(below), len(below) - sum(below), right)


def review_least(confidence: Sequence[float], right: Sequence[bool], share: float) -> Reviewed:
    """What is caught when a budget allows this share of the answers to be reviewed, the least sure ones.

    Raises:
        ValueError: As `risk_coverage`, or the share is not in 0..1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"a share of {share}, wanted 0..1")
    ordered = _surest_first(confidence, right)
    count = int(share * len(ordered))
    return _reviewed(count, math.fsum(1 - quality for quality in ordered[len(ordered) - count :]), right)


def _reviewed(count: int, caught: float, right: Sequence[bool]) -> Reviewed:
    wrong, left = len(right) - sum(right), len(right) - count
    return Reviewed(
        reviewed=count / len(right),
        errors_caught=caught / wrong if wrong else None,
        risk=(wrong - caught) / left if left else None,
    )


def _surest_first(confidence: Sequence[float], right: Sequence[bool]) -> list[float]:
    """1 for a right and 0 for a wrong answer, surest first; within a tie everybody has the mean."""
    _check(confidence, right)
    pairs = sorted(zip(confidence, right, strict=True), key=lambda pair: -pair[0])
    ordered: list[float] = []
    for _, tied in groupby(pairs, key=lambda pair: pair[0]):
        flags = [done for _, done in tied]
        ordered += [sum(flags) / len(flags)] * len(flags)
    return ordered


def _rejection_area(ordered: Sequence[float], steps: int) -> float:
    n = len(ordered)
    sums = list(accumulate(ordered))
    return _mean([sums[kept - 1] / kept for kept in range(n - steps + 1, n + 1)])


def _check(confidence: Sequence[float], right: Sequence[bool]) -> None:
    if len(confidence) != len(right) or not right:
        raise ValueError(f"{len(confidence)} confidences and {len(right)} outcomes, wanted one each and at least one")
    if any(math.isnan(said) for said in confidence):
        raise ValueError("a confidence is not a number: leave such answers out, or rank them below all others")


def _mean(numbers: Sequence[float]) -> float:
    return math.fsum(numbers) / len(numbers)
