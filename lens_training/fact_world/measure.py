"""Measures a model of FactWorld with the trace engine: what it answers right, and whether it knows."""

from collections.abc import Sequence
from itertools import pairwise

from pydantic import BaseModel

from lens_training.fact_world.world import KINDS, LARGEST_EXPOSURE, Question
from wonder.engine import Request, TraceEngine
from wonder.errors import WonderError
from wonder.learning.scoring import brier, ece
from wonder.learning.selective import prr, review_below
from wonder.trace.sampling import Sampling

REVIEW_BELOW = 0.7
MAX_NEW_TOKENS = 4
BANDS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, LARGEST_EXPOSURE)


class Group(BaseModel, frozen=True):
    """Questions that have something in common."""

    questions: int
    accuracy: float
    """Share of greedy answers that are the gold one, word for word."""
    mean_confidence: float
    """Mean probability of the whole answer."""


class Band(Group, frozen=True):
    """Determined facts of like exposure."""

    least_exposure: float
    most_exposure: float


class Figures(BaseModel, frozen=True):
    """All figures of one evaluation; the confidence is the product of the answer's token probabilities."""

    questions: int
    wrong: int
    accuracy: float
    prr_50: float
    ece: float
    brier: float
    errors_caught: float
    """Share of wrong answers whose confidence is below .7."""
    reviewed: float
    """Share of all answers whose confidence is below .7."""
    kinds: dict[str, Group]
    exposure: list[Band]


def answer_questions(engine: TraceEngine, questions: Sequence[Question]) -> tuple[list[bool], list[float]]:
    """Answer greedily.

    Returns:
        Of each question, whether the answer is the gold one, and its confidence; an unknown confidence counts as 0.
    """
    sampling = Sampling(max_new_tokens=MAX_NEW_TOKENS)
    right, confidence = [], []
    requests = [Request(question.prompt, "answer", sampling=sampling) for question in questions]
    for question, message in zip(questions, engine.generate(requests), strict=True):
        if isinstance(message, WonderError):
            raise message
        assert message.thought_trace is not None
        right.append(message.text.strip() == question.gold)
        confidence.append(message.thought_trace.overall_confidence or 0.0)
    return right, confidence


def measure(engine: TraceEngine, questions: Sequence[Question]) -> Figures:
    """Measure a model on questions of every kind."""
    right, confidence = answer_questions(engine, questions)
    below, equal = review_below(confidence, right, REVIEW_BELOW), [1.0] * len(right)
    kinds = {kind: [at for at, question in enumerate(questions) if question.kind == kind] for kind in KINDS}
    bands = []
    for low, high in pairwise(BANDS):
        inside = [at for at in kinds["determined"] if low <= questions[at].exposure < high]
        group = _group(inside, right, confidence)
        bands.append(Band(least_exposure=low, most_exposure=high, **group.model_dump()))
    return Figures(
        questions=len(questions),
        wrong=right.count(False),
        accuracy=sum(right) / len(right),
        prr_50=prr(confidence, right),
        ece=ece(confidence, right, equal),
        brier=brier(confidence, right, equal),
        errors_caught=below.errors_caught or 0.0,
        reviewed=below.reviewed,
        kinds={kind: _group(places, right, confidence) for kind, places in kinds.items()},
        exposure=bands,
    )


def _group(places: Sequence[int], right: Sequence[bool], confidence: Sequence[float]) -> Group:
    n = max(1, len(places))
    return Group(
        questions=len(places),
        accuracy=sum(right[at] for at in places) / n,
        mean_confidence=sum(confidence[at] for at in places) / n,
    )
