"""The whole loop, simulated: answers come, people see some, a challenger is fitted, the gate decides; twelve times."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from wonder.calibration.bundle import CalibrationBundle
from wonder.calibration.outcomes import LabeledOutcome
from wonder.errors import CalibrationError
from wonder.learning.calibrate import columns
from wonder.learning.fits import fit_beta
from wonder.learning.gate import MARGIN_NATS, chance, compare, split
from wonder.learning.labels import Labels, prepare, raw
from wonder.learning.scoring import losses

NOW = datetime(2026, 11, 20, tzinfo=UTC)
ROUNDS = 12
A_ROUND = 300
AUDIT = 0.05
REVIEW_BELOW = 0.7
TRUTH = 2000
"""Answers of the world on which maps are compared in truth."""


@dataclass
class Loop:
    """What happened in one loop."""

    challengers: int = 0
    sabotaged: int = 0
    harmful: int = 0
    """Worse than the one in force by more than the gate's margin, in truth."""
    promoted: int = 0
    worse_promoted: int = 0
    largest_loss: float = -1.0
    """By a promotion, in nats; negative where every one was a gain."""


def rounds(world: Sequence[LabeledOutcome], seed: int) -> Loop:
    """One loop; the first calibration is fitted on the first labels that suffice."""
    drawn, found = random.Random(seed), Loop()
    truth = drawn.sample(list(world), min(TRUTH, len(world)))
    seen: list[LabeledOutcome] = []
    champion: CalibrationBundle | None = None
    for turn in range(ROUNDS):
        seen += _judged([drawn.choice(world) for _ in range(A_ROUND)], drawn, turn)
        try:
            newer, older = split(prepare(seen, action=world[0].action))
            made = _challenger(older, drawn, turn)
        except CalibrationError:
            continue
        if champion is None:
            champion = made
            continue
        found.challengers += 1
        found.sabotaged += turn % 2
        loss = _loss(made, truth) - _loss(champion, truth)
        found.harmful += loss > MARGIN_NATS
        if compare(champion, made, newer.judged).passed:
            champion = made
            found.promoted += 1
            found.worse_promoted += loss > MARGIN_NATS
            found.largest_loss = max(found.largest_loss, loss)
    return found


def _challenger(older: Labels, drawn: random.Random, turn: int) -> CalibrationBundle:
    """Every other one is fitted as it should be; the others each go wrong in one way."""
    kind = "honest" if turn % 2 == 0 else drawn.choice(["flipped", "doubted only", "exaggerating"])
    judged = list(older.judged)
    if kind == "flipped":
        judged = [item.model_copy(update={"right": item.right != (drawn.random() < 0.35)}) for item in judged]
    elif kind == "doubted only":
        judged = [item.model_copy(update={"propensity": 1.0}) for item in judged if item.selection == "routed"]
    by = fit_beta(columns(prepare(judged, action=judged[0].action).judged))
    if kind == "exaggerating":
        by = by.model_copy(update={"a": 3 * by.a, "b": 3 * by.b})
    first = judged[0]
    return CalibrationBundle.named(
        action=first.action, model=first.model, signal=first.signal, map=by, labels=len(judged), wrong=0, created_at=NOW
    )


def _judged(answers: Sequence[LabeledOutcome], drawn: random.Random, turn: int) -> list[LabeledOutcome]:
    found = []
    for i, item in enumerate(answers):
        id = f"{turn}/{i}"
        if raw(item) < REVIEW_BELOW:
            found.append(item.model_copy(update={"id": id, "selection": "routed"}))
        elif drawn.random() < AUDIT:
            found.append(item.model_copy(update={"id": id, "selection": "audit", "propensity": AUDIT}))
    return found


def _loss(bundle: CalibrationBundle, truth: Sequence[LabeledOutcome]) -> float:
    lost = losses([chance(bundle, item) for item in truth], [bool(item.right) for item in truth])
    return sum(lost) / len(lost)
