"""Whether a calibration still holds: what comes in, how sure the model is of it, and how often people overrule it.

* `input`: the signals of what comes in against the quantiles kept in the bundle, by population stability index over ten
  bins and by the largest distance between the distributions (Kolmogorov-Smirnov); drift where one of them is beyond
  both a size that matters and 99.9 % of what chance makes.
* `confidence`: mean confidence against the share of right answers; drift where they differ by more than 0.03 and 2.6
  standard errors.
* `override`: people's verdicts one by one, as a bet that the model is more often wrong than it says (an e-process);
  drift where the bet has won twenty-fold. It may be looked at after every answer: while the calibration holds, the
  chance that it ever wins that much is at most one in twenty (Ville's inequality). The other two are tests at one
  moment.
"""

import logging
import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Literal

from wonder.calibration.bundle import CalibrationBundle
from wonder.calibration.outcomes import LabeledOutcome
from wonder.calibration.registry import CalibrationRegistry, Drift
from wonder.learning.calibrate import DIGITS
from wonder.learning.gate import chance
from wonder.learning.labels import effective, weights
from wonder.learning.scoring import mean, standard_error

log = logging.getLogger(__name__)

PSI_LIMIT = 0.2
"""Population stability index that counts as a shift (the usual reading: 0.1 some, 0.25 a large one)."""
KS_LIMIT = 0.1
CHI2_999 = (10.828, 13.816, 16.266, 18.467, 20.515, 22.458, 24.322, 26.124, 27.877)
"""99.9 % quantiles of χ² with 1 to 9 degrees of freedom."""
KS_999 = 1.949
"""99.9 % quantile of the Kolmogorov distribution."""
FEWEST = 30
"""Answers below which a check says nothing."""
GAP_LIMIT = 0.03
GAP_ERRORS = 2.576
WIN = 20.0
"""Gain of the bet at which it is called: its chance under a calibration that holds is at most 1 / 20."""
SLACK = 0.03
"""Errors beyond those that the confidence announces which still count as holding."""
BETS = (0.02, 0.05, 0.1, 0.2, 0.4)
"""Shares of the capital staked; the bets run side by side and are averaged."""

Kind = Literal["input", "confidence", "override"]


@dataclass(frozen=True, slots=True)
class Check:
    """What one check says."""

    kind: Kind
    drifted: bool
    told: str
    """One sentence."""
    statistic: float = 0.0
    limit: float = 0.0
    answers: int = 0
    """How many it looked at."""


def monitor(bundle: CalibrationBundle, outcomes: Sequence[LabeledOutcome]) -> list[Check]:
    """Every check of a calibration on the answers that were given since it was made.

    Args:
        bundle: The calibration.
        outcomes: Of its action and model, oldest first; where nobody judged them, they count for the input alone.
    """
    newer = [
        outcome
        for outcome in outcomes
        if outcome.action == bundle.action
        and (bundle.until is None or outcome.time is None or outcome.time > bundle.until)
    ]
    judged = [outcome for outcome in newer if outcome.right is not None]
    return [*inputs(bundle, newer), confidence(bundle, judged), overrides(bundle, judged)]


def inputs(bundle: CalibrationBundle, traffic: Sequence[LabeledOutcome]) -> list[Check]:
    """How far the signals have moved from those the calibration was made on."""
    # Answers that nobody judged are part of the traffic as it came; judged ones alone have to be weighted back to it.
    whole = any(outcome.right is None for outcome in traffic)
    of = [1.0] * len(traffic) if whole else weights(traffic)
    return [_input(bundle, name, traffic, of) for name in bundle.reference]


def _input(bundle: CalibrationBundle, name: str, traffic: Sequence[LabeledOutcome], of: Sequence[float]) -> Check:
    rows = [
        (round(outcome.signals[name], DIGITS), weight)
        for outcome, weight in zip(traffic, of, strict=True)
        if name in outcome.signals
    ]
    if len(rows) < FEWEST:
        return Check("input", False, f"{name}: {len(rows)} answers are too few to compare", answers=len(rows))
    noise = 1 / effective([weight for _, weight in rows]) + 1 / (bundle.effective_labels or bundle.labels)
    shift, freedom = psi(bundle.reference[name], rows)
    distance = ks(bundle.reference[name], rows)
    # With few answers even the same traffic differs: both statistics grow by themselves, and the limits with them.
    psi_limit = max(PSI_LIMIT, CHI2_999[freedom - 1] * noise) if freedom else math.inf
    ks_limit = max(KS_LIMIT, KS_999 * math.sqrt(noise))
    drifted = shift > psi_limit or distance > ks_limit
    told = (
        f"{name} has {'moved' if drifted else 'not moved'}: PSI {shift:.3f} (limit {psi_limit:.3f}), "
        f"distance {distance:.3f} (limit {ks_limit:.3f}) over {len(rows)} answers"
    )
    return Check("input", drifted, told, max(shift / psi_limit, distance / ks_limit), 1.0, len(rows))


def confidence(bundle: CalibrationBundle, judged: Sequence[LabeledOutcome]) -> Check:
    """Whether the mean confidence is still the share of right answers."""
    if len(judged) < FEWEST:
        return Check("confidence", False, f"{len(judged)} judged answers are too few to compare", answers=len(judged))
    of = weights(judged)
    gaps = [chance(bundle, outcome) - bool(outcome.right) for outcome in judged]
    gap, spread = mean(gaps, of), standard_error(gaps, of)
    limit = GAP_LIMIT + GAP_ERRORS * spread
    told = (
        f"confidence is {abs(gap):.3f} {'above' if gap > 0 else 'below'} the share of right answers (limit {limit:.3f})"
    )
    return Check(
        "confidence", abs(gap) > limit, f"{told} over {len(judged)} judged answers", abs(gap), limit, len(judged)
    )


def overrides(bundle: CalibrationBundle, judged: Sequence[LabeledOutcome]) -> Check:
    """Whether people find more errors than the confidence announces; may be looked at after every answer."""
    won = capital((chance(bundle, outcome), bool(outcome.right)) for outcome in judged)
    told = f"the bet that people overrule more than announced stands at {won:.3g} (limit {WIN:g})"
    return Check("override", won >= WIN, f"{told} after {len(judged)} judged answers", won, WIN, len(judged))


def capital(answers: Iterable[tuple[float, bool]], slack: float = SLACK) -> float:
    """The most that a bet on hidden errors has won, from a stake of 1, over (confidence, right) pairs in order.

    Against "wrong with chance at most w = 1 − confidence + slack" each bet κ wins the factor 1 + κ (1 − w) / w on a
    wrong answer and keeps 1 − κ on a right one: under that hypothesis its expectation never grows.
    """
    logs = [0.0] * len(BETS)
    highest = 1.0
    for sure, right in answers:
        w = min(max(1 - sure + slack, 1e-6), 1.0)
        for i, stake in enumerate(BETS):
            logs[i] += math.log1p(-stake) if right else math.log1p(stake * (1 - w) / w)
        highest = max(highest, math.fsum(math.exp(min(value, 700.0)) for value in logs) / len(BETS))
    return highest


def psi(reference: Sequence[float], rows: Sequence[tuple[float, float]]) -> tuple[float, int]:
    """Population stability index over the reference's tenths, and its degrees of freedom; ties share one bin."""
    steps = len(reference) - 1
    edges = sorted({reference[i * steps // 10] for i in range(1, 10)})
    expected = _shares(edges, [(value, 1.0) for value in _spread(reference)])
    found = _shares(edges, rows)
    floor = 0.5 / max(len(rows), 1)
    pairs = [(max(a, floor), max(b, floor)) for a, b in zip(expected, found, strict=True)]
    return math.fsum((b - a) * math.log(b / a) for a, b in pairs), sum(a > floor for a in expected) - 1


def ks(reference: Sequence[float], rows: Sequence[tuple[float, float]]) -> float:
    """Largest distance between the distributions that shows at the reference's quantiles."""
    ordered = sorted(rows)
    values = [value for value, _ in ordered]
    sums = [0.0]
    for _, weight in ordered:
        sums.append(sums[-1] + weight)
    steps = len(reference) - 1
    far = 0.0
    for at in sorted(set(reference)):
        # A quantile that repeats is a jump of the reference, from `first` to `last` at least.
        first, last = bisect_left(reference, at), bisect_right(reference, at) - 1
        below, up_to = (sums[side(values, at)] / sums[-1] for side in (bisect_left, bisect_right))
        far = max(far, last / steps - up_to, below - first / steps)
    return far


def watch(
    registry: CalibrationRegistry,
    bundle: CalibrationBundle,
    outcomes: Sequence[LabeledOutcome],
    *,
    at: datetime,
    on_drift: Callable[[CalibrationBundle, Sequence[Check]], None] | None = None,
) -> list[Check]:
    """Check a calibration that is in force; if it has drifted, take it out of force and tell.

    Args:
        registry: Where it is in force.
        bundle: The calibration.
        outcomes: See `monitor`.
        at: Now.
        on_drift: Told of the checks that say so, after the registry was changed.

    Raises:
        CalibrationConflict: Another calibration is in force meanwhile.
    """
    checks = monitor(bundle, outcomes)
    found = [check for check in checks if check.drifted]
    if found:
        because = "; ".join(check.told for check in found)
        registry.mark_drift(bundle, Drift(found_at=at, because=because))
        log.warning(
            "calibration of %s drifted: %s", bundle.action, because, extra={"model": bundle.model, "bundle": bundle.id}
        )
        if on_drift is not None:
            on_drift(bundle, found)
    return checks


def _spread(quantiles: Sequence[float]) -> list[float]:
    """Values that have these quantiles: the middle of every step."""
    return [(low + high) / 2 for low, high in pairwise(quantiles)]


def _shares(edges: Sequence[float], rows: Sequence[tuple[float, float]]) -> list[float]:
    sums = [0.0] * (len(edges) + 1)
    for value, weight in rows:
        sums[bisect_right(edges, value)] += weight
    total = math.fsum(sums)
    return [found / total for found in sums]
