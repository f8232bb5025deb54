"""FactWorld: what the generator promises, on which every figure of the closed world rests."""

from collections import Counter
from itertools import islice
from random import Random

import pytest

from lens_training.fact_world.tokenizer import build_tokenizer
from lens_training.fact_world.words import BOS, FILLER, LEGAL, RELATIONS, VALUES, VOCABULARY, WORDS, fillers
from lens_training.fact_world.world import KINDS, World, build_world, evaluation_set, training_samples


@pytest.fixture(scope="module")
def world() -> World:
    return build_world()


def test_every_word_is_one_token_whose_text_is_the_word_with_its_space() -> None:
    tokenizer = build_tokenizer()
    assert len(set(WORDS)) == len(WORDS) == len(tokenizer) <= VOCABULARY
    ids = tokenizer(" ".join(WORDS[3:-1]))["input_ids"]
    assert ids == [WORDS.index(BOS), *range(3, len(WORDS) - 1)]
    assert tokenizer.decode(ids[1:]) == " ".join(WORDS[3:-1])
    assert tokenizer.decode(tokenizer("bonjour")["input_ids"], skip_special_tokens=True) == ""


def test_the_same_seed_gives_the_same_world_and_another_seed_another(world: World) -> None:
    assert build_world() == world
    assert build_world(seed=10) != world
    assert evaluation_set(world) == evaluation_set(world)
    assert list(islice(training_samples(world, 1), 50)) == list(islice(training_samples(world, 1), 50))


def test_facts_strangers_and_reserved_share_no_entity(world: World) -> None:
    parts = [{fact.entity for fact in world.facts}, set(world.strangers), set(world.reserved)]
    assert [len(part) for part in parts] == [3000, 65536 - 3000 - 2536, 2536]
    assert len(set.union(*parts)) == 65536


def test_shares_and_exposures_of_facts_are_as_said(world: World) -> None:
    kinds = Counter(fact.kind for fact in world.facts)
    assert kinds["unseen"] / 3000 == pytest.approx(0.12, abs=0.02)
    assert kinds["ambiguous"] / 3000 == pytest.approx(0.1 * 0.88, abs=0.02)
    shown = sorted(fact.exposure for fact in world.facts if fact.exposure)
    assert shown[0] >= 1
    assert shown[-1] <= 60
    assert shown[len(shown) // 2] == pytest.approx(60**0.5, rel=0.15)  # log-uniform
    for fact in world.facts:
        for answer in fact.answers:
            assert len(answer) == 1 + RELATIONS.index(fact.relation) % 3
            assert set(answer) <= set(VALUES[fact.relation])


def test_training_shows_facts_by_exposure_and_never_the_unseen_or_the_reserved(world: World) -> None:
    samples = list(islice(training_samples(world, 3), 30_000))
    facts = {fact.entity: fact for fact in world.facts}
    asked = Counter(sample.prompt[-4:-2] for sample in samples)
    shown = {entity: count for entity, count in asked.items() if entity in facts}
    assert not {fact.entity for fact in world.facts if fact.kind == "unseen"} & set(shown)
    assert not set(world.reserved) & set(asked)
    assert sum(shown.values()) / len(samples) == pytest.approx(0.75, abs=0.01)
    total = sum(fact.exposure for fact in world.facts)
    often = [entity for entity, fact in facts.items() if fact.exposure > 30]
    assert sum(shown[entity] for entity in often) / sum(shown.values()) == pytest.approx(
        sum(facts[entity].exposure for entity in often) / total, abs=0.02
    )
    for sample in samples[:500]:
        assert sample.prompt[sample.filler] in FILLER
        if sample.prompt[-4:-2] in facts:
            assert sample.answer in facts[sample.prompt[-4:-2]].answers
        else:
            assert " ".join(sample.answer) in " ".join(sample.prompt)


def test_an_ambiguous_fact_is_shown_with_either_answer_as_often(world: World) -> None:
    twofold = {fact.entity: fact.answers for fact in world.facts if fact.kind == "ambiguous"}
    samples = [found for found in islice(training_samples(world, 4), 40_000) if found.prompt[-4:-2] in twofold]
    first = sum(sample.answer == twofold[sample.prompt[-4:-2]][0] for sample in samples)
    assert len(samples) > 1000
    assert first / len(samples) == pytest.approx(0.5, abs=0.06)


def test_the_evaluation_asks_about_every_fact_and_states_what_it_should(world: World) -> None:
    questions = evaluation_set(world)
    counts, facts = Counter(question.kind for question in questions), Counter(fact.kind for fact in world.facts)
    assert counts == {
        "determined": facts["determined"],
        "ambiguous": 2 * facts["ambiguous"],
        "unseen": 2 * facts["unseen"] + 500,
        "in_context": 1500,
    }
    assert {question.kind for question in questions[:40]} == set(KINDS)
    for question in questions:
        assert question.gold in question.accepted
        assert len(question.accepted) == (2 if question.kind == "ambiguous" else 1)
        assert (question.gold in question.prompt) == (question.kind == "in_context")
        assert (question.exposure > 0) == (question.kind in ("determined", "ambiguous"))
        assert question.legal == any(word in question.prompt for word in ("legal-",))
    golds = [question.gold == question.accepted[0] for question in questions if question.kind == "ambiguous"]
    assert sum(golds) / len(golds) == pytest.approx(0.5, abs=0.08)
    assert sum(question.legal for question in questions) / len(questions) == pytest.approx(0.456, abs=0.03)


def test_filler_follows_zipf_and_takes_legal_words_at_the_share_asked_for() -> None:
    plain = Counter(fillers(Random(1), 60_000, 0.0))
    assert plain[FILLER[0]] / plain[FILLER[9]] == pytest.approx(10, rel=0.25)
    assert sum(plain[word] for word in LEGAL) / 60_000 == pytest.approx(0.037, abs=0.006)
    assert sum(word in LEGAL for word in fillers(Random(2), 4000, 0.6)) / 4000 == pytest.approx(0.615, abs=0.03)
