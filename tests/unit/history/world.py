"""A world of decisions whose truth is known, and tables over it."""

import random
from collections.abc import Iterator

from wonder.history.record import DecisionRecord, RowRecord
from wonder.routing.table import TransitionTable
from wonder.routing.transition import Transition
from wonder.trace.schema import ThoughtTrace

CONFIDENCE = "thought_trace.overall_confidence"


def table(threshold: float | str, name: str = "", audit_rate: float = 0.1) -> TransitionTable:
    return TransitionTable(
        [
            Transition(from_="classify", to="human_review", condition=f"{CONFIDENCE} < {threshold}"),
            Transition(from_="classify", to="resolve", condition="otherwise"),
        ],
        on_unknown="human_review",
        reviews=["human_review"],
        audit_rate=audit_rate,
        name=name,
    )


def records(count: int, seed: int = 1, audit_rate: float = 0.1, threshold: float = 0.7) -> Iterator[DecisionRecord]:
    """Answers that are right with the probability that their confidence says."""
    chance = random.Random(seed)
    for number in range(count):
        confidence = round(chance.betavariate(4, 1), 6)
        right = chance.random() < confidence
        reviewed = confidence < threshold
        audit = not reviewed and chance.random() < audit_rate
        yield DecisionRecord(
            run=f"run-{number}",
            after="classify",
            targets=["human_review" if reviewed else "resolve"],
            rows=[RowRecord(name="row 1", to=["human_review"], condition=f"{CONFIDENCE} < {threshold}")],
            propensity=1.0 if reviewed else audit_rate,
            audit=audit,
            trace=ThoughtTrace(
                action="classify", model="m", overall_confidence=confidence, confidence_status="uncalibrated"
            ),
            output={"team": "billing"},
            right=right if reviewed or audit else None,
        )


def truth(count: int, threshold: float, seed: int = 1, audit_rate: float = 0.1) -> tuple[float, float]:
    """(load, error among the accepted) of a threshold, by the truth that nobody else sees."""
    chance = random.Random(seed)
    accepted = wrong = 0
    for _ in range(count):
        confidence = round(chance.betavariate(4, 1), 6)
        right = chance.random() < confidence
        if confidence >= 0.7:
            chance.random()
        if confidence >= threshold:
            accepted += 1
            wrong += not right
    return 1 - accepted / count, wrong / accepted
