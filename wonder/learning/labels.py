"""Judged answers made ready: checked, weighted to stand for the traffic, thinned where weights will not do."""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from wonder.calibration.outcomes import LabeledOutcome
from wonder.errors import CalibrationMismatch, LabelsContradict, OneClassOnly, SignalMissing, TooFewLabels

FEWEST = 50
"""Labels below which nothing is fitted."""
FEWEST_OF_EACH = 5
"""Right and wrong answers without which no map can be told from a guess."""
LARGEST_WEIGHT = 50.0
"""Weights are cut here, as for an audit rate of 2 %: one rarely audited answer must not outweigh all others."""
NAMED = 3

NEVER_AUDITED = (
    "only answers that a decision sent to a person have been judged, and of the accepted ones none was audited: "
    "nothing can be certified about them. Give the table an audit_rate (2 to 5 %) and calibrate again"
)


@dataclass(frozen=True, slots=True)
class Labels:
    """Judged answers of one action on one model, oldest first; those nobody judged are kept apart."""

    judged: Sequence[LabeledOutcome]
    traffic: Sequence[LabeledOutcome]
    """Judged or not."""

    @property
    def first(self) -> LabeledOutcome:
        """Any of them, for what they have in common."""
        return self.judged[0]

    @property
    def wrong(self) -> int:
        """How many were wrong."""
        return sum(not outcome.right for outcome in self.judged)


def prepare(
    outcomes: Sequence[LabeledOutcome], *, action: str, fewest: int = FEWEST, drop_contradictions: bool = False
) -> Labels:
    """The outcomes of an action, checked.

    Args:
        outcomes: Of any action.
        action: Which one.
        fewest: Labels that are needed at least.
        drop_contradictions: Leave answers out that are called both right and wrong, instead of refusing.

    Raises:
        CalibrationMismatch: They are of several models or signals.
        SignalMissing: Some lack the signal of their confidence method.
        LabelsContradict: The same answer is called right and wrong.
        TooFewLabels: There are fewer than it takes.
        OneClassOnly: All are right, or all are wrong.
    """
    mine = [outcome for outcome in outcomes if outcome.action == action]
    mine.sort(key=lambda outcome: outcome.time.timestamp() if outcome.time else -math.inf)
    _check_origin(mine)
    judged = _once(outcome for outcome in mine if outcome.right is not None)
    clash = _contradictions(judged)
    if clash and not drop_contradictions:
        raise LabelsContradict(
            f"{len(clash)} answers are called right by one judgement and wrong by another ({_some(sorted(clash))}): "
            "settle them, or leave them all out with --drop-contradictions"
        )
    judged = [outcome for outcome in judged if _same(outcome) not in clash]
    _check_counts(judged, action, fewest, mine)
    return Labels(judged, mine)


def weights(outcomes: Sequence[LabeledOutcome], largest: float = LARGEST_WEIGHT) -> list[float]:
    """Inverse propensities, cut at `largest`: so that what was judged stands for what there was."""
    return [min(1 / outcome.propensity, largest) for outcome in outcomes]


def effective(of: Sequence[float]) -> float:
    """How many equally weighted answers these weights are worth: (Σ w)² / Σ w²."""
    return math.fsum(of) ** 2 / math.fsum(w * w for w in of) if of else 0.0


def thin(outcomes: Sequence[LabeledOutcome], key: str = "") -> list[LabeledOutcome]:
    """Some of the answers, drawn so that all of the traffic had the same chance to be among them.

    Certification counts answers as draws from the traffic, and no weight turns a biased sample into one of those. So
    each is kept with the smallest propensity there is divided by its own: what a decision sent to a person thins out to
    the audit rate, and every audited answer stays. The draw is a keyed hash of the answer's id: the same labels give
    the same certificate, and adding new ones leaves the old draws as they were.
    """
    if not outcomes:
        return []
    smallest = min(outcome.propensity for outcome in outcomes)
    return [outcome for outcome in outcomes if _draw(key, outcome.id) * outcome.propensity < smallest]


def cannot_certify(outcomes: Sequence[LabeledOutcome]) -> str:
    """Why these answers say nothing about accepted ones, however they are thinned; empty if they do."""
    ways = {outcome.selection for outcome in outcomes}
    return NEVER_AUDITED if "routed" in ways and not ways & {"audit", "sample"} else ""


def raw(outcome: LabeledOutcome) -> float:
    """The value of the action's own signal."""
    return outcome.signals[outcome.signal]


def _check_origin(mine: Sequence[LabeledOutcome]) -> None:
    models = Counter(
        outcome.model_fingerprint[:12] or f"{outcome.model}@{outcome.model_revision}".rstrip("@") for outcome in mine
    )
    if len(models) > 1:
        found = ", ".join(f"{name or 'no name'} ({count})" for name, count in models.most_common(NAMED))
        raise CalibrationMismatch(
            f"these outcomes are of {len(models)} models: {found}; a calibration belongs to one, so choose it with "
            "--fingerprint, or --model and --revision"
        )
    signals = Counter(outcome.signal for outcome in mine)
    if len(signals) > 1:
        found = ", ".join(f"{name} ({count})" for name, count in signals.most_common(NAMED))
        raise CalibrationMismatch(
            f"these outcomes have {len(signals)} confidence methods: {found}; choose one with --signal"
        )
    lacking = [outcome.id for outcome in mine if outcome.signal not in outcome.signals]
    if lacking:
        there = sorted({name for outcome in mine for name in outcome.signals})
        raise SignalMissing(
            f"{len(lacking)} of {len(mine)} outcomes have no {mine[0].signal!r} ({_some(lacking)}); their signals are "
            f"{', '.join(there) or 'none'}: choose one with --signal, or capture it (ThoughtCapture.confidence_method)"
        )
    beyond = [outcome.id for outcome in mine if not 0 <= raw(outcome) <= 1]
    if beyond:
        raise SignalMissing(
            f"{mine[0].signal!r} lies outside 0..1 in {len(beyond)} outcomes ({_some(beyond)}): bring it there with a "
            "rising function, such as exp of a log-probability"
        )


def _once(outcomes: Iterable[LabeledOutcome]) -> list[LabeledOutcome]:
    """The newest judgement of every answer; two that differ stay both, to be noticed."""
    found: dict[tuple[str, bool | None], LabeledOutcome] = {}
    for outcome in outcomes:
        found[outcome.id, outcome.right] = outcome
    return list(found.values())


def _same(outcome: LabeledOutcome) -> str:
    return outcome.input or outcome.id


def _contradictions(judged: Sequence[LabeledOutcome]) -> set[str]:
    said: dict[str, set[bool | None]] = defaultdict(set)
    for outcome in judged:
        said[_same(outcome)].add(outcome.right)
    return {same for same, verdicts in said.items() if len(verdicts) > 1}


def _check_counts(judged: Sequence[LabeledOutcome], action: str, fewest: int, mine: Sequence[LabeledOutcome]) -> None:
    if len(judged) < fewest:
        there = f"{len(mine)} answers, {len(judged)} of them judged" if mine else "no answers at all"
        raise TooFewLabels(
            f"the action {action!r} has {there}, and a calibration takes at least {fewest}: "
            f"judge {fewest - len(judged)} more"
        )
    wrong = sum(not outcome.right for outcome in judged)
    if not wrong or wrong == len(judged):
        raise OneClassOnly(
            f"all {len(judged)} judged answers of {action!r} are {'wrong' if wrong else 'right'}: a calibration learns "
            "from both; judge answers that the model doubts more, or check how the labels were made"
        )
    few = min(wrong, len(judged) - wrong)
    if few < FEWEST_OF_EACH:
        raise TooFewLabels(
            f"only {few} of {len(judged)} judged answers of {action!r} are "
            f"{'wrong' if wrong == few else 'right'}, and a calibration takes at least {FEWEST_OF_EACH} of each: "
            "judge more of what the model doubts"
        )


def _draw(key: str, id: str) -> float:
    digest = hashlib.sha256(f"wonder.thin\0{key}\0{id}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) * 2.0**-53


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "")
