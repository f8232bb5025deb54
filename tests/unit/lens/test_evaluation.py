"""Figures that cannot flatter: each is its definition, and the controls are what they say."""

import pytest
import torch

from lens_training.batch import Batch, Statistics
from lens_training.evaluate.controls import permuted, principal, random_words, ridge, shuffled
from lens_training.evaluate.metrics import (
    distinct_share,
    kl_recovered,
    negative_log_likelihood,
    ratio_interval,
    reconstruction,
)
from tests.unit.lens.test_target import target


def world(rows: int = 60, seed: int = 0) -> tuple[Batch, Statistics]:
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(rows, 5, generator=generator) + torch.arange(5.0)
    ids = torch.randint(0, 9, (rows, 12), generator=generator)
    batch = Batch(a, ids, torch.full((rows,), 11), torch.arange(rows) // 3)
    return batch, Statistics.of(a)


def test_the_mean_explains_nothing_the_truth_everything_and_shuffling_what_it_must() -> None:
    batch, statistics = world(2000)
    a = batch.activation_BD
    assert reconstruction(statistics.mean_D.expand_as(a), batch, statistics).fve.value == pytest.approx(0, abs=1e-6)
    assert reconstruction(a, batch, statistics).fve.value == 1.0
    noise = 0.5 * torch.randn(a.shape, generator=torch.Generator().manual_seed(9))
    found = reconstruction(a + noise, batch, statistics)
    assert found.fve.value == pytest.approx(1 - 0.25, abs=0.02)
    assert found.fve.low < 0.75 < found.fve.high
    assert reconstruction(a.roll(1, 0), batch, statistics).fve.value == pytest.approx(-1, abs=0.1)


def test_the_interval_is_drawn_over_documents_and_widens_with_their_likeness() -> None:
    generator = torch.Generator().manual_seed(1)
    below = torch.ones(400)
    shared = torch.rand(40, generator=generator).repeat_interleave(10)
    alike = ratio_interval(shared, below, torch.arange(400) // 10)
    apart = ratio_interval(shared, below, torch.arange(400))
    assert alike.value == apart.value == pytest.approx(1 - shared.mean().item(), abs=1e-6)
    assert alike.high - alike.low > 2 * (apart.high - apart.low)


def test_the_kl_recovered_is_1_for_the_truth_and_0_for_the_mean() -> None:
    made = target("llama")
    ids = torch.randint(5, 300, (12, 16), generator=torch.Generator().manual_seed(0))
    pos = torch.full((12,), 15)
    batch = Batch(made.capture(ids, pos).activation_BD, ids, pos, torch.arange(12))
    statistics = Statistics.of(batch.activation_BD)
    truth, nats = kl_recovered(made, batch.activation_BD, batch, statistics, size=5)
    assert truth.value == pytest.approx(1, abs=1e-4)
    assert nats > 0
    mean, _ = kl_recovered(made, statistics.mean_D.expand_as(batch.activation_BD), batch, statistics, size=5)
    assert mean.value == pytest.approx(0, abs=1e-5)


def test_the_likelihood_of_texts_is_the_targets() -> None:
    made = target("llama")
    ids = torch.randint(5, 300, (4, 6), generator=torch.Generator().manual_seed(0))
    whole = torch.cat([torch.ones(4, 1, dtype=torch.long), ids], 1)
    logits = made.model(input_ids=whole).logits.log_softmax(-1)
    expected = -sum(logits[row, at, whole[row, at + 1]] for row in range(4) for at in range(6)) / 24
    assert negative_log_likelihood(made, ids, neutral=1) == pytest.approx(expected.item(), rel=1e-5)  # type: ignore[union-attr]


def test_no_shuffled_row_keeps_its_text_and_permuting_keeps_the_words() -> None:
    ids = torch.arange(60).view(20, 3)
    moved = shuffled(ids)
    assert sorted(map(tuple, moved.tolist())) == sorted(map(tuple, ids.tolist()))
    assert not any(torch.equal(one, other) for one, other in zip(ids, moved, strict=True))
    again = permuted(ids, 1)
    assert [sorted(row) for row in again.tolist()] == ids.tolist()
    assert not torch.equal(again, ids)


def test_random_words_are_allowed_ones_and_distinct_texts_are_counted() -> None:
    drawn = random_words(torch.zeros(50, 8), 20, torch.tensor([0, 3]))
    assert not set(drawn.flatten().tolist()) & {0, 3}
    assert drawn.max() < 20
    assert distinct_share(torch.tensor([[1, 2], [1, 2], [2, 1], [3, 3]])) == 0.75


def test_ridge_is_the_closed_form_over_one_hot_words() -> None:
    train, statistics = world(80)
    test, _ = world(10, seed=5)
    found = ridge(train, test, statistics, words=2, vocabulary=9, alpha=3.0)

    def hot(batch: Batch) -> torch.Tensor:
        return torch.nn.functional.one_hot(batch.tail(2), 9).double().flatten(1)

    x, y = hot(train), (train.activation_BD - statistics.mean_D).double()
    weights = torch.linalg.solve(x.T @ x + 3 * torch.eye(18, dtype=torch.float64), x.T @ y)
    torch.testing.assert_close(found, (hot(test) @ weights).float() + statistics.mean_D, atol=1e-4, rtol=1e-4)


def test_all_principal_directions_give_everything_back_and_fewer_less() -> None:
    train, statistics = world(500)
    values = [reconstruction(principal(train, train, statistics, k), train, statistics).fve.value for k in (1, 3, 5)]
    assert values == sorted(values)
    assert values[-1] == pytest.approx(1, abs=1e-5)
