"""The gate before a calibration comes into force: it must not be worse on answers that it has not seen."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from wonder.calibration.bundle import CalibrationBundle
from wonder.calibration.maps import mapped
from wonder.calibration.outcomes import LabeledOutcome
from wonder.learning.calibrate import Method, blocks, calibrate
from wonder.learning.labels import FEWEST, FEWEST_OF_EACH, Labels, effective, weights
from wonder.learning.scoring import losses, mean, standard_error

MARGIN_NATS = 0.02
"""Mean log-loss by which a calibration may at most be worse before it counts as worse."""
SURENESS = 2.326
"""Standard errors of a one-sided 99 % bound."""
NEWEST_TENTHS = 3
"""Of the answers, in tenths, that the comparison is made on."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a calibration may come into force, and why."""

    passed: bool
    reason: str
    gain_nats: float = 0.0
    """Mean held-out log-loss saved."""
    low_nats: float = 0.0
    """Its lower 99 % bound."""
    held_out: int = 0


def compare(champion: CalibrationBundle, challenger: CalibrationBundle, held_out: Sequence[LabeledOutcome]) -> Verdict:
    """Compare two calibrations on answers that the challenger has not seen.

    Args:
        champion: The one in force.
        challenger: The one to come.
        held_out: Judged answers; weighted to stand for the traffic. If the champion has seen some of them, that is to
            its advantage.
    """
    right = [bool(outcome.right) for outcome in held_out]
    of = weights(held_out)
    few = min(sum(right), len(right) - sum(right))
    if few < FEWEST_OF_EACH:
        return Verdict(
            False,
            f"the newest {len(right)} answers hold only {few} {'wrong' if sum(right) > few else 'right'} ones, "
            f"and comparing takes {FEWEST_OF_EACH}: judge more",
            held_out=len(right),
        )
    old, new = ([chance(bundle, outcome) for outcome in held_out] for bundle in (champion, challenger))
    gain = [a - b for a, b in zip(losses(old, right), losses(new, right), strict=True)]
    saved = mean(gain, of)
    spread = max(standard_error(gain, of), _unseen(old, new, of))
    low = saved - SURENESS * spread
    told = (
        f"on the newest {len(right)} answers its log-loss is {abs(saved):.4f} nats {'below' if saved >= 0 else 'above'}"
    )
    told += f" that of the one in force ({champion.id[:12]}), and surely no more than {max(0.0, -low):.4f} above"
    passed = low >= -MARGIN_NATS
    return Verdict(passed, told + ("" if passed else f"; {MARGIN_NATS} would be allowed"), saved, low, len(right))


def _unseen(old: Sequence[float], new: Sequence[float], of: Sequence[float]) -> float:
    """Standard error of the mean gain if answers are right as often as the calibration in force says.

    Among a few dozen audits of accepted answers there may be no wrong one at all, and then their gains look alike
    however much an exaggerating map has to lose: what was not seen has to be counted with. The beliefs are drawn
    half an answer towards doubt, for the same reason.
    """
    worth = effective(of)
    total = 0.0
    for p, q, weight in zip(old, new, of, strict=True):
        belief = (worth * p + 0.5) / (worth + 1)
        apart = _gain(p, q) - _gain(1 - p, 1 - q)
        total += weight * weight * belief * (1 - belief) * apart * apart
    return math.sqrt(total) / math.fsum(of)


def _gain(old: float, new: float) -> float:
    """What is saved where something happens that two maps give these chances."""
    return losses([old], [True])[0] - losses([new], [True])[0]


def challenge(
    labels: Labels, champion: CalibrationBundle | None, *, created_at: datetime, method: Method = "auto"
) -> Verdict:
    """Whether a calibration fitted on these labels may come into force.

    With one in force: fitted on the older answers and compared with it on the newer ones. The first one of an action
    has nothing to be compared with but the raw signal, and has to beat that in cross-validation, by log-loss or Brier
    score.
    """
    if champion is None:
        return _first(labels, created_at, method)
    newer, older = split(labels)
    if len(older.judged) < FEWEST:
        return Verdict(False, f"{len(labels.judged)} labels are too few to keep {NEWEST_TENTHS * 10} % for comparing")
    challenger = calibrate(older, created_at=created_at, method=method).bundle
    return compare(champion, challenger, newer.judged)


def _first(labels: Labels, created_at: datetime, method: Method) -> Verdict:
    held = calibrate(labels, created_at=created_at, method=method).bundle.held_out
    assert held is not None
    before, after = held.before, held.after
    assert before is not None
    told = (
        f"held out, its log-loss is {after.log_loss:.4f} and its Brier score {after.brier:.4f}, "
        f"where the raw signal has {before.log_loss:.4f} and {before.brier:.4f}"
    )
    passed = after.log_loss <= before.log_loss or after.brier <= before.brier
    gain = before.log_loss - after.log_loss
    return Verdict(passed, told if passed else f"{told}: judge more answers", gain, gain, held.labels)


def split(labels: Labels) -> tuple[Labels, Labels]:
    """The newer answers and the older ones; what belongs together stays together."""
    tenths = blocks(labels.judged, 10)
    at = max(len(tenths) - NEWEST_TENTHS, 1)
    older, newer = ([labels.judged[i] for part in parts for i in part] for parts in (tenths[:at], tenths[at:]))
    return Labels(newer, newer), Labels(older, older)


def chance(bundle: CalibrationBundle, outcome: LabeledOutcome) -> float:
    """A calibration's probability that an answer is right; one half where it cannot read it."""
    found = mapped(bundle.map, bundle.signal, outcome.signals)
    return 0.5 if isinstance(found, str) else found.value
