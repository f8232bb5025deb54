"""From judged answers to a calibration: the map is chosen by how it does on answers it has not seen."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from wonder.calibration.bundle import STACKED, CalibrationBundle, HeldOut
from wonder.calibration.certify import GRID, Certification, count
from wonder.calibration.maps import SignalMap, StackedMap
from wonder.calibration.outcomes import LabeledOutcome
from wonder.errors import TooFewLabels
from wonder.learning.fits import FITS, Judged, read
from wonder.learning.labels import Labels, cannot_certify, effective, raw, thin, weights
from wonder.learning.scoring import Bin, bins, losses, mean, scores, standard_error

Method = Literal["auto", "beta", "isotonic", "venn_abers", "stacked"]

FROM: dict[str, int] = {"beta": 50, "isotonic": 1000, "venn_abers": 200, "stacked": 300}
"""Evenly drawn labels (or as many as theirs are worth) from which each kind of map is tried; with fewer, the ones with
more freedom fit the noise."""
FOLDS = 5
STACK_FIT_SHARE = 0.6
"""A stack is fitted on the older answers and certified on the newer ones, which its score has not seen."""
QUANTILES = 21
DIGITS = 6
"""Of the quantiles kept; what is compared with them is rounded alike, or a saturated signal would seem to move."""
REFERENCES = 4
"""Signals whose distribution is kept for the drift monitor, the action's own first."""


@dataclass(frozen=True, slots=True)
class Calibrated:
    """A bundle, and what to tell about it."""

    bundle: CalibrationBundle
    before: list[Bin]
    """Reliability of the raw signal."""
    after: list[Bin]
    """Of the held-out probabilities."""


def calibrate(
    labels: Labels,
    *,
    created_at: datetime,
    method: Method = "auto",
    parent: str | None = None,
) -> Calibrated:
    """Fit a calibration.

    Candidates are compared by log-loss in cross-validation: five blocks in order of time, answers that belong together
    in one of them, weighted to stand for the traffic. Beta is taken unless another is better by more than a standard
    error of the difference. The chosen one is fitted on all labels again.

    Args:
        labels: Checked by `prepare`.
        created_at: For the record.
        method: One kind of map, or the best one.
        parent: Id of the bundle that this one is to replace.

    Raises:
        TooFewLabels: The kind that was asked for takes more.
    """
    first, judged = labels.first, labels.judged
    table = columns(judged)
    kinds = _candidates(table, method)
    folds = blocks(judged)
    held = {kind: _held_out(kind, table, folds) for kind in kinds}
    kind = _best(held, table)
    by = _final(kind, table)
    bundle = CalibrationBundle.named(
        action=first.action,
        model=first.model,
        model_revision=first.model_revision,
        model_fingerprint=first.model_fingerprint,
        signal=STACKED if isinstance(by, StackedMap) else first.signal,
        map=by,
        labels=len(judged),
        wrong=labels.wrong,
        effective_labels=round(effective(table.weights), 1),
        since=min((item.time for item in judged if item.time), default=None),
        until=max((item.time for item in judged if item.time), default=None),
        held_out=HeldOut(
            labels=len(judged),
            before=scores(table.signals, table.right, table.weights),
            after=scores(held[kind], table.right, table.weights),
            candidates={
                name: round(mean(losses(found, table.right), table.weights), 6) for name, found in held.items()
            },
        ),
        certification=_certification(by, judged, table),
        shares=_rounded(quantiles(read(by, table), table.weights)),
        reference=references(labels),
        created_at=created_at,
        parent=parent,
    )
    return Calibrated(
        bundle,
        bins(table.signals, table.right, table.weights, 10),
        bins(held[kind], table.right, table.weights, 10),
    )


def columns(judged: Sequence[LabeledOutcome]) -> Judged:
    """Judged answers as columns, weighted; the signals that all of them have may go into a stack."""
    names = sorted(set.intersection(*(set(outcome.signals) for outcome in judged)))
    names = [name for name in names if all(0 <= outcome.signals[name] <= 1 for outcome in judged)]
    return Judged(
        [raw(outcome) for outcome in judged],
        [bool(outcome.right) for outcome in judged],
        weights(judged),
        [[outcome.signals[name] for name in names] for outcome in judged],
        names,
    )


def blocks(judged: Sequence[LabeledOutcome], count: int = FOLDS) -> list[list[int]]:
    """Answers in blocks of about equal size in the order given; what belongs together is in the block of its first."""
    order: dict[str, list[int]] = {}
    for i, outcome in enumerate(judged):
        order.setdefault(outcome.block, []).append(i)
    found: list[list[int]] = [[]]
    placed = 0
    for rows in order.values():
        if placed >= len(judged) * len(found) / count and len(found) < count:
            found.append([])
        found[-1] += rows
        placed += len(rows)
    return [rows for rows in found if rows]


def quantiles(values: Sequence[float], of: Sequence[float], count: int = QUANTILES) -> list[float]:
    """Weighted quantiles at equal steps from 0 to 1."""
    ordered = sorted(zip(values, of, strict=True))
    total, at, passed = math.fsum(of), 0, ordered[0][1]
    found = []
    for i in range(count):
        goal = total * i / (count - 1)
        while passed < goal * (1 - 1e-12) and at < len(ordered) - 1:
            at += 1
            passed += ordered[at][1]
        found.append(ordered[at][0])
    return found


def references(labels: Labels) -> dict[str, list[float]]:
    """Quantiles of the signals over the traffic these labels stand for, for the drift monitor."""
    seen = labels.judged
    own = labels.first.signal
    others = sorted(set.intersection(*(set(outcome.signals) for outcome in seen)) - {own})
    chosen = [own, *[name for name in _TELLING if name in others], *others]
    names = list(dict.fromkeys(chosen))[:REFERENCES]
    of = weights(seen)
    return {name: _rounded(quantiles([outcome.signals[name] for outcome in seen], of)) for name in names}


_TELLING = ("hidden_norm", "state_stability", "mean_entropy")
"""Signals that move with the input rather than with the answer."""


def _candidates(table: Judged, method: Method) -> list[str]:
    if method != "auto":
        if len(table) < FROM[method]:
            raise TooFewLabels(
                f"{method} takes at least {FROM[method]} labels, and there are {len(table)}: "
                f"judge {FROM[method] - len(table)} more, or use --method auto"
            )
        return [method]
    worth = effective(table.weights)
    found = [kind for kind, fewest in FROM.items() if worth >= fewest and (kind != "stacked" or len(table.names) > 1)]
    return found or ["beta"]


def _held_out(kind: str, table: Judged, folds: Sequence[Sequence[int]]) -> list[float]:
    """Every answer's probability by a map that was fitted without its block."""
    found = [0.0] * len(table)
    for fold in folds:
        held = set(fold)
        rest = table.part([i for i in range(len(table)) if i not in held])
        chances = read(FITS[kind](rest), table.part(fold))
        for i, chance in zip(fold, chances, strict=True):
            found[i] = chance
    return found


def _best(held: dict[str, list[float]], table: Judged) -> str:
    kinds = list(held)
    lost = {kind: losses(found, table.right) for kind, found in held.items()}
    best = kinds[0]
    for kind in kinds[1:]:
        gain = [a - b for a, b in zip(lost[best], lost[kind], strict=True)]
        if mean(gain, table.weights) > standard_error(gain, table.weights):
            best = kind
    return best


def _older(count: int) -> int:
    return round(STACK_FIT_SHARE * count)


def _final(kind: str, table: Judged) -> SignalMap | StackedMap:
    if kind == "stacked":
        return FITS[kind](table.part(range(_older(len(table)))))
    return FITS[kind](table)


def _certification(by: SignalMap | StackedMap, judged: Sequence[LabeledOutcome], table: Judged) -> Certification:
    """Counts at the declared thresholds, from answers thinned to stand for the traffic."""
    stacked = isinstance(by, StackedMap)
    start = _older(len(judged)) if stacked else 0
    values = read(by, table) if stacked else table.signals
    # The scale of a stack is its own. Thresholds taken from the answers it was fitted on are declared before those that
    # certify it are looked at.
    grid = _declared(values[:start], table.weights[:start]) if stacked else GRID
    scored = dict(zip((item.id for item in judged), values, strict=True))
    seen = {item.block for item in judged[:start]}
    kept = [item for item in thin(judged[start:], key=judged[0].action) if item.block not in seen]
    counts = count(((scored[item.id], not item.right) for item in kept), grid)
    scale: Literal["signal", "probability"] = "probability" if stacked else "signal"
    return counts.model_copy(update={"scale": scale, "refused": cannot_certify(judged)})


def _declared(chances: Sequence[float], of: Sequence[float]) -> list[float]:
    """Thresholds that accept 15 %, 20 % … 95 % and all of the answers, strictest first."""
    found = sorted(set(quantiles(chances, of)[1:18]), reverse=True)
    return [*found, 0.0] if found[-1] > 0 else found


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, DIGITS) for value in values]
