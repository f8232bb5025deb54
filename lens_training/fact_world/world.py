"""Facts, training samples and the evaluation set of FactWorld, all from seeds and without torch.

Three thousand pairs of a first and a last name carry one fact each. How often training shows a fact is its exposure,
so what a model can know is known: facts never shown, facts shown with either of two answers, and questions whose
answer stands in the prompt. A question reads `word-0001 word-0017 Q: first-003 last-140 award A:`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, product
from random import Random
from typing import Final, Literal, get_args

from lens_training.fact_world.words import (
    ANSWER,
    CONTEXT,
    FIRST,
    LAST,
    LEGAL,
    QUESTION,
    RELATIONS,
    SEPARATOR,
    VALUES,
    fillers,
)

Kind = Literal["determined", "in_context", "ambiguous", "unseen"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

FACTS: Final = 3000
RESERVED: Final = 2536
"""Entities without a fact that training never mentions, so that the evaluation can ask about new ones."""
AMBIGUOUS_SHARE: Final = 0.1
UNSEEN_SHARE: Final = 0.12
LARGEST_EXPOSURE: Final = 60.0
IN_CONTEXT_SHARE: Final = 0.25
TRAINING_LEGAL_SHARES: Final[Mapping[float, float]] = {0.0: 0.7, 0.3: 0.15, 0.6: 0.15}
"""Share of legal words in a prompt → how often."""
EVALUATION_LEGAL_SHARES: Final = (0.0, 0.0, 0.3, 0.6)

WORLD_SEED: Final = 9
EVALUATION_SEED: Final = 2026
IN_CONTEXT_QUESTIONS: Final = 1500
UNKNOWN_ENTITIES: Final = 500

_LEGAL: Final = frozenset(LEGAL)

Answer = tuple[str, ...]
Entity = tuple[str, str]


@dataclass(frozen=True)
class Fact:
    """What is true of one entity."""

    entity: Entity
    relation: str
    answers: tuple[Answer, ...]
    """One, or for an ambiguous fact two that are equally true."""
    exposure: float
    """Relative frequency in training; 0 for a fact that is never shown."""

    @property
    def kind(self) -> Kind:
        """How much a model can know of it."""
        if not self.exposure:
            return "unseen"
        return "determined" if len(self.answers) == 1 else "ambiguous"


@dataclass(frozen=True)
class World:
    """All facts, and the entities without one."""

    facts: tuple[Fact, ...]
    strangers: tuple[Entity, ...]
    """Entities without a fact that training uses for facts stated in the prompt."""
    reserved: tuple[Entity, ...]
    """Entities without a fact that training never mentions."""


@dataclass(frozen=True)
class Sample:
    """One training sequence, without BOS and EOS."""

    prompt: tuple[str, ...]
    answer: Answer
    filler: int
    """Place in the prompt of the one filler word that carries some loss."""


@dataclass(frozen=True)
class Question:
    """One prompt of the evaluation set."""

    kind: Kind
    prompt: str
    accepted: tuple[str, ...]
    """Every true answer: two for an ambiguous fact."""
    gold: str
    """The one that counts as right here, drawn at random: for an ambiguous fact nobody can expect more than half."""
    exposure: float
    """That of the fact asked about; 0 for what training never showed."""
    legal: bool
    """Whether a legal word is in the prompt."""


def build_world(seed: int = WORLD_SEED) -> World:
    """Deal the facts to entities."""
    rng = Random(seed)
    entities = list(product(FIRST, LAST))
    rng.shuffle(entities)
    facts = []
    for entity in entities[:FACTS]:
        relation = rng.choice(RELATIONS)
        answers = [_any_answer(rng, relation)]
        if rng.random() < AMBIGUOUS_SHARE:
            answers.append(_any_answer(rng, relation))
        if rng.random() < UNSEEN_SHARE:
            facts.append(Fact(entity, relation, (answers[0],), 0.0))
        else:
            exposure = math.exp(rng.uniform(0, math.log(LARGEST_EXPOSURE)))
            facts.append(Fact(entity, relation, tuple(answers), exposure))
    return World(tuple(facts), tuple(entities[FACTS:-RESERVED]), tuple(entities[-RESERVED:]))


def training_samples(world: World, seed: int) -> Iterator[Sample]:
    """Yield samples without end: three in four ask about a fact by exposure, one states the answer in the prompt."""
    rng = Random(seed)
    exposures = tuple(accumulate(fact.exposure for fact in world.facts))
    shares, weights = zip(*TRAINING_LEGAL_SHARES.items(), strict=True)
    while True:
        (legal_share,) = rng.choices(shares, weights)
        if rng.random() < IN_CONTEXT_SHARE:
            relation = rng.choice(RELATIONS)
            answer = _any_answer(rng, relation)
            prompt = _open_book(rng, rng.choice(world.strangers), relation, answer, legal_share)
        else:
            (fact,) = rng.choices(world.facts, cum_weights=exposures)
            answer = rng.choice(fact.answers)
            prompt = _closed_book(rng, fact.entity, fact.relation, legal_share)
        filler = rng.randrange(_opening(prompt))
        yield Sample(prompt, answer, filler)


def evaluation_set(world: World, seed: int = EVALUATION_SEED) -> list[Question]:
    """Return the evaluation questions, shuffled, so that any beginning of the list has every kind.

    Every determined fact is asked about once, ambiguous and unseen facts twice; besides, `UNKNOWN_ENTITIES` without
    any fact, and `IN_CONTEXT_QUESTIONS` about new entities whose fact stands in the prompt.
    """
    rng = Random(seed)
    questions = []
    for fact in world.facts:
        for _ in range(1 if fact.kind == "determined" else 2):
            prompt = _closed_book(rng, fact.entity, fact.relation, rng.choice(EVALUATION_LEGAL_SHARES))
            questions.append(_question(rng, fact.kind, prompt, fact.answers, fact.exposure))
    strangers = iter(world.reserved)
    for _ in range(UNKNOWN_ENTITIES):
        relation = rng.choice(RELATIONS)
        prompt = _closed_book(rng, next(strangers), relation, rng.choice(EVALUATION_LEGAL_SHARES))
        questions.append(_question(rng, "unseen", prompt, (_any_answer(rng, relation),), 0.0))
    for _ in range(IN_CONTEXT_QUESTIONS):
        relation = rng.choice(RELATIONS)
        answer = _any_answer(rng, relation)
        prompt = _open_book(rng, next(strangers), relation, answer, rng.choice(EVALUATION_LEGAL_SHARES))
        questions.append(_question(rng, "in_context", prompt, (answer,), 0.0))
    rng.shuffle(questions)
    return questions


def _any_answer(rng: Random, relation: str) -> Answer:
    words = 1 + RELATIONS.index(relation) % 3
    return tuple(rng.choice(VALUES[relation]) for _ in range(words))


def _closed_book(rng: Random, entity: Entity, relation: str, legal_share: float) -> tuple[str, ...]:
    return (*fillers(rng, rng.randint(2, 5), legal_share), QUESTION, *entity, relation, ANSWER)


def _open_book(rng: Random, entity: Entity, relation: str, answer: Answer, legal_share: float) -> tuple[str, ...]:
    opening = fillers(rng, rng.randint(1, 4), legal_share)
    stated = (CONTEXT, *entity, relation, ANSWER, *answer, SEPARATOR)
    return (*opening, *stated, QUESTION, *entity, relation, ANSWER)


def _opening(prompt: Sequence[str]) -> int:
    """How many filler words a prompt opens with."""
    return next(place for place, word in enumerate(prompt) if word in (QUESTION, CONTEXT))


def _question(
    rng: Random, kind: Kind, prompt: tuple[str, ...], answers: tuple[Answer, ...], exposure: float
) -> Question:
    accepted = tuple(dict.fromkeys(" ".join(answer) for answer in answers))
    legal = not _LEGAL.isdisjoint(prompt)
    return Question(kind, " ".join(prompt), accepted, rng.choice(accepted), exposure, legal)
