import math
from itertools import accumulate

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wonder.engine.batching import passes, split
from wonder.engine.layout import Layout
from wonder.engine.reductions import (
    attention_from_scores,
    attention_from_weights,
    attention_numbers,
    low_of,
    masked_mean,
    score_negentropy,
)


def test_padding_never_enters_a_mean_whatever_stands_there() -> None:
    states = torch.randn(2, 5, 3)
    real = torch.tensor([[False, False, True, True, True], [True] * 5])
    states[0, :2] = float("nan")
    found = masked_mean(states, real, columns=2)
    torch.testing.assert_close(found[0], states[0, 2:].mean(0))
    torch.testing.assert_close(found[1], states[1].mean(0))


def test_scores_and_weights_reduce_to_the_same_numbers() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 4, 8, generator=generator), torch.randn(2, 2, 6, 8, generator=generator)
    mask = torch.tensor([[[False, False, True, True, True, True]], [[True] * 6]])
    product = q.reshape(2, 2, 2, 8) @ k.transpose(-1, -2)
    scores = torch.einsum("bhd,bhtd->bht", q, k.repeat_interleave(2, 1)) * 0.3
    weights = scores.masked_fill(~mask, float("-inf")).softmax(-1)
    one = attention_from_scores(product[None], 0.3, None, mask)
    other = attention_from_weights(weights[None], mask)
    additive = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
    third = attention_from_scores(product[None], 0.3, None, additive)
    for left, right, again in zip(one, other, third, strict=True):
        torch.testing.assert_close(left, right)
        torch.testing.assert_close(left, again)
    assert one[3].tolist() == [4, 6]
    for asked in (mask, additive):
        negated, share = score_negentropy(product.flatten(1, 2).clone(), 0.3, None, low_of(asked))
        torch.testing.assert_close(-negated.mean(-1)[None], one[1])
        torch.testing.assert_close(share[None], one[0])
    negated, share = score_negentropy(product.flatten(1, 2).clone(), 0.3, 2.0, None)
    capped = attention_from_scores(product[None], 0.3, 2.0, None)
    torch.testing.assert_close(-negated.mean(-1)[None], capped[1])
    torch.testing.assert_close(share[None], capped[0])


@pytest.mark.parametrize("low", [float("-inf"), torch.finfo(torch.float32).min, torch.finfo(torch.bfloat16).min])
def test_a_masked_score_makes_no_nan(low: float) -> None:
    scores = torch.randn(2, 3, 5)
    hidden = torch.tensor([True, True, False, False, True])
    additive = torch.zeros(5).masked_fill(hidden, low)
    want = scores[..., ~hidden].softmax(-1)
    for mask in (additive, ~hidden):
        negated, share = score_negentropy(scores.clone(), 1.0, None, low_of(mask))
        assert bool((share[..., hidden] == 0).all())
        torch.testing.assert_close(share[..., ~hidden], want)
        torch.testing.assert_close(-negated, torch.special.entr(want).sum(-1))
    # Taken as it is written, the same is not a number.
    infinite = scores.masked_fill(hidden, float("-inf"))
    assert bool((infinite.softmax(-1) * infinite.log_softmax(-1)).sum(-1).isnan().all())


def test_one_attended_key_has_no_normalised_entropy_and_the_first_token_is_no_pair() -> None:
    weights = torch.tensor([[[1.0, 0.0, 0.0], [0.2, 0.5, 0.3]]])
    numbers = attention_numbers(torch.tensor([[0.0, 1.0]]), weights, torch.tensor([1, 3]), torch.tensor([0, 0]), kept=2)
    assert math.isnan(float(numbers.normalized_LB[0, 0]))
    assert float(numbers.normalized_LB[0, 1]) == pytest.approx(1 / math.log(3))
    assert numbers.sink_LB[0].tolist() == pytest.approx([1.0, 0.2])
    assert numbers.column_LBK[0, 1].tolist() == [1, 2]
    gone = attention_numbers(torch.tensor([[0.0, 1.0]]), weights, torch.tensor([3, 3]), torch.tensor([-1, -2]), 1)
    assert gone.sink_LB[0].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("side", ["left", "right"])
def test_columns_and_positions_agree(side: str) -> None:
    layout = Layout.of([[7, 8], [1, 2, 3, 4]], 0, side, torch.device("cpu"))  # type: ignore[arg-type]
    real = layout.real()
    for row in range(2):
        for column in range(4):
            position = layout.position(row, column)
            assert (position is not None) == bool(real[row, column])
            if position is not None:
                assert position == int(layout.positions()[row, column])
        assert layout.position(row, layout.first_columns()[row]) == 0
        assert layout.position(row, layout.last_columns()[row]) == layout.lengths[row] - 1
        assert layout.position(row, 5) == layout.lengths[row] + 1 == int(layout.positions_after(1)[row, 0])


@given(
    st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), max_size=30),
    st.integers(1, 5),
    st.integers(1, 400),
    st.booleans(),
)
def test_every_request_is_in_one_batch_that_keeps_the_bounds(
    sizes: list[tuple[int, int]], rows: int, tokens: int, equal: bool
) -> None:
    lengths, new = [size[0] for size in sizes], [size[1] for size in sizes]
    groups = split(lengths, new, rows, tokens, equal_lengths=equal)
    assert sorted(index for group in groups for index in group) == list(range(len(sizes)))
    for group in groups:
        width = max(lengths[i] for i in group) + max(new[i] for i in group)
        assert len(group) == 1 or (len(group) <= rows and len(group) * width <= tokens)
        assert not equal or len({lengths[i] for i in group}) == 1


@given(st.lists(st.integers(1, 60), min_size=1, max_size=7).map(sorted), st.integers(0, 40))
def test_prompts_are_divided_into_the_passes_that_cost_least(lengths: list[int], cost: int) -> None:
    def price(sizes: list[int]) -> int:
        stops = list(accumulate(sizes))
        return sum(cost + size * lengths[stop - 1] for size, stop in zip(sizes, stops, strict=True))

    def divisions(count: int) -> list[list[int]]:
        return [[size, *rest] for size in range(1, count + 1) for rest in divisions(count - size)] if count else [[]]

    found = passes(lengths, cost)
    assert sum(found) == len(lengths)
    assert price(found) == min(map(price, divisions(len(lengths))))
