"""Figures that cannot flatter: each is its definition, and the controls are what they say."""

from itertools import combinations
from typing import Any

import pytest
import torch

from lens_training.batch import Batch, Statistics
from lens_training.evaluate.controls import (
    clustered,
    permuted,
    principal,
    quantised,
    random_words,
    ridge,
    shuffled,
)
from lens_training.evaluate.metrics import (
    Draws,
    best_of,
    distinct_share,
    entropy_bits,
    kl_recovered,
    negative_log_likelihood,
    next_tokens,
    ratio_interval,
    reconstruction,
    spread,
)
from lens_training.evaluate.samples import chosen
from lens_training.evaluate.slices import slices
from tests.unit.lens.test_target import target
from wonder.errors import SpecError


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


def test_texts_that_give_the_mean_of_what_they_stand_for_come_to_minus_their_figure_when_shuffled() -> None:
    generator = torch.Generator().manual_seed(3)
    centre, text = torch.randn(40, 16, generator=generator), torch.randint(0, 40, (6000, 1), generator=generator)
    a = centre[text[:, 0]] + 0.7 * torch.randn(6000, 16, generator=generator)
    batch = Batch(a, text, torch.zeros(6000, dtype=torch.long), torch.arange(6000) // 4)
    statistics = Statistics.of(a)
    means = torch.stack([a[text[:, 0] == at].mean(0) for at in range(40)])
    own = reconstruction(means[text[:, 0]], batch, statistics).fve
    other = reconstruction(means[shuffled(text)[:, 0]], batch, statistics).fve
    assert own.value > 0.6
    assert other.value == pytest.approx(-own.value, abs=0.02)
    # A lens that quotes perfectly, and one that shrinks to the mean, which the self-check tells apart.
    assert reconstruction(a, batch, statistics).fve.value == 1.0
    timid = statistics.mean_D + 0.3 * (means - statistics.mean_D)
    assert reconstruction(timid[shuffled(text)[:, 0]], batch, statistics).fve.value > -0.3 * own.value


def test_figures_that_share_draws_can_be_subtracted_draw_by_draw() -> None:
    generator = torch.Generator().manual_seed(0)
    spread_N, document_N = torch.rand(300, generator=generator) + 0.5, torch.arange(300) // 5
    noise = torch.rand(300, generator=generator)
    draws = Draws(document_N, 400)
    ahead = draws.ratio(noise + 0.1 * spread_N - noise, spread_N)
    assert (ahead.value, ahead.low, ahead.high) == pytest.approx((0.1, 0.1, 0.1), abs=1e-6)
    assert draws.mean(torch.full((300,), 2.0)).low == pytest.approx(2.0)
    with pytest.raises(SpecError, match="300 rows of 60 documents give no finite figure"):
        draws.explained(noise, torch.zeros(300))


def test_a_replacement_that_is_none_fails_its_self_test() -> None:
    made = target("llama")
    ids = torch.randint(5, 300, (6, 16), generator=torch.Generator().manual_seed(0))
    pos = torch.full((6,), 15)
    batch = Batch(made.capture(ids, pos).activation_BD, ids, pos, torch.arange(6))
    _, itself = next_tokens(made, [], batch)
    assert itself.kl_N.abs().max() < 1e-5
    assert itself.agrees_N.min() == 1

    # With a block that is not deterministic, two passes of the same context differ.
    def disturb(*passed: Any) -> Any:
        noise = 0.05 * torch.randn_like(passed[2][0] if isinstance(passed[2], tuple) else passed[2])
        return (passed[2][0] + noise, *passed[2][1:]) if isinstance(passed[2], tuple) else passed[2] + noise

    for block in made.anatomy.blocks:
        block.register_forward_hook(disturb)
    _, broken = next_tokens(made, [], batch)
    assert broken.kl_N.abs().max() > 1e-4


def test_the_best_of_k_is_the_mean_over_every_choice_of_k() -> None:
    errors = torch.rand(7, 5, generator=torch.Generator().manual_seed(2)).double()
    spread_N, draws = torch.ones(7), Draws(torch.arange(7), 100)
    for k in range(1, 6):
        picks = list(combinations(range(5), k))
        expected = 1 - sum(errors[:, list(pick)].min(1).values.sum() for pick in picks) / len(picks) / 7
        assert best_of(errors, spread_N, draws, k).value == pytest.approx(float(expected), abs=1e-9)


def test_bits_are_counted_and_bought_as_the_theory_says() -> None:
    assert entropy_bits(torch.tensor([[1, 2]] * 4)) == 0
    assert entropy_bits(torch.arange(8)) == pytest.approx(3)
    assert entropy_bits(torch.tensor([[0, 1], [0, 1], [0, 2], [5, 5]])) == pytest.approx(1.5)
    generator = torch.Generator().manual_seed(0)
    a = torch.cat([torch.randn(8_000, 1, generator=generator), 0.01 * torch.randn(8_000, 2, generator=generator)], 1)
    rows = Batch(a, torch.zeros(8_000, 1, dtype=torch.long), torch.zeros(8_000, dtype=torch.long), torch.arange(8_000))
    statistics = Statistics.of(a)

    def fve(predicted: torch.Tensor) -> float:
        return float(1 - (a - predicted).square().sum() / (a - statistics.mean_D).square().sum())

    # A Gaussian in 1, 2 and 3 bits (Max 1960): distortion 0.3634, 0.1175, 0.03454.
    for bits, distortion in ((1, 0.3634), (2, 0.1175), (3, 0.03454)):
        assert fve(quantised(rows, rows, statistics, bits)) == pytest.approx(1 - distortion, abs=0.015)
        assert fve(clustered(rows, rows, bits)) == pytest.approx(1 - distortion, abs=0.02)
    assert fve(quantised(rows, rows, statistics, 0)) == pytest.approx(0, abs=1e-5)
    few = rows.rows(torch.arange(200))
    assert torch.allclose(clustered(few, few, 8), few.activation_BD, atol=1e-5)
    many = torch.randn(600, 6, generator=generator)
    some = Batch(many, torch.zeros(600, 1, dtype=torch.long), torch.zeros(600, dtype=torch.long), torch.arange(600))
    left = [(clustered(some, some, bits) - many).square().sum() for bits in (8, 10, 16)]
    assert left[0] > left[1] > left[2]


def test_ridge_solved_for_the_rows_is_ridge_solved_for_the_words() -> None:
    train, statistics = world(80)
    test, _ = world(10, seed=5)
    by_words = ridge(train, test, statistics, words=3, vocabulary=9)
    by_rows = ridge(train, test, statistics, words=3, vocabulary=1_000_000)
    torch.testing.assert_close(by_words, by_rows, atol=1e-4, rtol=1e-4)


def test_slices_part_the_rows_and_their_errors() -> None:
    batch, statistics = world(400)
    error = torch.rand(400, generator=torch.Generator().manual_seed(1))
    found = slices(batch, batch, error, spread(batch, statistics), 100, 0)
    assert len(found) == 3
    for parts in found.values():
        assert sum(part.rows for part in parts) == 400
        assert sum(part.error_share for part in parts) == pytest.approx(1, abs=1e-6)
    assert len(found["position"]) == 1
    first = found["norm of the activation"][0]
    rows = batch.activation_BD.norm(dim=-1).argsort()[: first.rows]
    expected = 1 - error[rows].sum() / spread(batch, statistics)[rows].sum()
    assert first.fve is not None
    assert first.fve.value == pytest.approx(expected.item(), abs=1e-5)


def test_rows_to_look_at_are_the_best_the_worst_and_others_none_twice() -> None:
    error = torch.arange(100.0).flip(0)
    found = chosen(error, 12, seed=0)
    assert len({row for _, row in found}) == len(found) == 12
    kinds = {kind: [row for one, row in found if one == kind] for kind, _ in found}
    assert kinds["best"] == [99, 98, 97]
    assert kinds["worst"] == [0, 1, 2]
    assert set(kinds["median"]) <= set(range(45, 55))
    assert chosen(error, 0, seed=0) == []
    assert len(chosen(torch.arange(3.0), 24, seed=0)) == 3
