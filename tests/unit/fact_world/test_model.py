"""The model of the closed world: it loads as any folder does, is small, and knows what it was shown."""

import json
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
import torch

from benchmarks._questions import FACT_WORLD
from lens_training.fact_world.measure import answer_questions
from lens_training.fact_world.tokenizer import build_tokenizer
from lens_training.fact_world.train import Recipe, train_model
from lens_training.fact_world.words import VOCABULARY
from lens_training.fact_world.world import KINDS, Question, build_world, evaluation_set
from wonder.engine import TraceEngine

RETRAIN = "run `make fact-world`"


@pytest.fixture(scope="module")
def engine() -> TraceEngine:
    return TraceEngine.load(FACT_WORLD, device="cpu", max_batch=32)


@pytest.fixture(scope="module")
def questions() -> list[Question]:
    return evaluation_set(build_world())


def test_its_card_and_tokenizer_belong_to_its_weights(engine: TraceEngine) -> None:
    metrics = json.loads((FACT_WORLD / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["fingerprint"] == engine.info.fingerprint, RETRAIN
    assert engine.info.fingerprint in (FACT_WORLD / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert engine.info.vocabulary == VOCABULARY
    assert engine.tokenizer.get_vocab() == build_tokenizer().get_vocab()
    assert sum(path.stat().st_size for path in FACT_WORLD.iterdir()) < 5e6


def test_it_answers_what_it_was_shown_and_doubts_what_it_was_not(
    engine: TraceEngine, questions: list[Question]
) -> None:
    some = [found for kind in KINDS for found in islice((one for one in questions if one.kind == kind), 30)]
    right, confidence = answer_questions(engine, some)
    good = Counter(found.kind for found, is_right in zip(some, right, strict=True) if is_right)
    sure = {kind: sum(confidence[at] for at, one in enumerate(some) if one.kind == kind) / 30 for kind in KINDS}
    assert good["determined"] >= 27
    assert good["in_context"] >= 29
    assert 6 <= good["ambiguous"] <= 24
    assert good["unseen"] <= 1
    assert min(sure["determined"], sure["in_context"]) > 0.8
    assert sure["ambiguous"] < 0.75
    assert sure["unseen"] < 0.6


def test_training_goes_by_steps_and_gives_the_same_weights_again(tmp_path: Path) -> None:
    recipe = Recipe(steps=3, batch=8, warm_up_steps=2)
    (first, how), (again, _) = (train_model(recipe, build_world()) for _ in range(2))
    assert how.last_loss < 9.2
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert sum(weight.numel() for weight in first.parameters()) == 1_217_376
