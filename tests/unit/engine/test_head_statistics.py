"""RAUQ, attention score, lookback ratio: over which tokens, in which layers, and what is said where there is none."""

import math
from typing import Any

import pytest
import torch

from tests.unit.engine.conftest import build
from tests.unit.engine.reference import eager_twin, read, reference, statistics
from wonder.engine.demand import attention_layers
from wonder.engine.head_statistics import HeadRequest, explain, head_fields, rauq_score
from wonder.engine.recorder import HeadReadings
from wonder.engine.request import Request
from wonder.trace.capture import ThoughtCapture
from wonder.trace.layers import middle_third, nearest_to_middle, quarter
from wonder.trace.sampling import Sampling

HEADS = ThoughtCapture(compute_attention_statistics=True, attention_layers="all")


def test_uncertainty_is_handed_on_by_the_attention_on_the_token_before() -> None:
    assert rauq_score([0.5], [], 0.2) == pytest.approx(math.log(2))
    c2 = 0.2 * 0.9 + 0.8 * 0.25 * 0.5
    c3 = 0.2 * 1.0 + 0.8 * 0.5 * c2
    want = -(math.log(0.5) + math.log(c2) + math.log(c3)) / 3
    assert rauq_score([0.5, 0.9, 1.0], [0.25, 0.5], 0.2) == pytest.approx(want)
    assert rauq_score([1.0, 1.0], [1.0], 0.5) == 0.0
    assert rauq_score([0.0, 1.0], [1.0], 0.5) is None
    assert rauq_score([0.5, math.nan], [1.0], 0.5) is None
    # With α = 1 nothing is handed on: the mean negative log-probability.
    assert rauq_score([0.5, 0.25], [0.9], 1.0) == pytest.approx(1.5 * math.log(2))


def readings(steps: int, layers: int, heads: int = 3) -> HeadReadings:
    generator = torch.Generator().manual_seed(0)
    return HeadReadings(
        {layer: torch.rand(steps, 1, heads, generator=generator) for layer in range(layers)},
        {layer: -torch.rand(steps, 1, generator=generator) for layer in range(layers)},
        {layer: torch.rand(steps, 1, generator=generator) for layer in range(layers)},
    )


def asked(tokens: list[int], count: int, layers: list[int], prompt: int = 5) -> HeadRequest:
    return HeadRequest(0, prompt, [0.5 + 0.01 * t for t in range(count)], tokens, layers, 0.5)


def test_the_row_of_a_token_is_read_in_the_step_after_the_one_that_made_it() -> None:
    numbers = readings(6, 4)
    fields = head_fields(numbers, asked([2, 3], 6, [1]), 4)
    assert fields["attention_score"] == pytest.approx(float(numbers.own_NB[1][3:5, 0].sum()))
    assert fields["lookback_ratio"][1] == pytest.approx(float(numbers.lookback_NB[1][2:4, 0].mean()))
    # Token 3 is the only one with a token before it among those that count; its row is that of step 4.
    best = float(numbers.previous_NBH[1][4, 0].max())
    assert fields["previous_token_attention"][1] == pytest.approx(best)
    assert fields["rauq_layers"][1] == pytest.approx(rauq_score([0.52, 0.53], [best], 0.5))


def test_the_last_token_is_never_fed_and_is_left_out() -> None:
    numbers = readings(4, 4)
    whole = head_fields(numbers, asked([0, 1, 2, 3], 4, [1]), 4)
    without = head_fields(numbers, asked([0, 1, 2], 4, [1]), 4)
    assert whole["rauq_layers"] == without["rauq_layers"]
    assert whole["attention_score"] == without["attention_score"]
    alone = asked([3], 4, [1])
    fields = head_fields(numbers, alone, 4)
    assert fields["rauq_layers"][1] == pytest.approx(-math.log(0.53))
    assert fields["attention_score"] is None
    assert fields["previous_token_attention"][1] is None
    reasons = explain(fields, alone, 4)
    assert "fed to the model" in reasons["attention_score"]
    assert "single token" in reasons["previous_token_attention"]


def test_only_the_middle_third_counts_for_the_whole_answer() -> None:
    numbers = readings(5, 9)
    request = asked([0, 1, 2], 5, list(range(9)))
    fields = head_fields(numbers, request, 9)
    assert fields["rauq"] == max(fields["rauq_layers"][3:6])
    outside = asked([0, 1, 2], 5, [0, 8])
    fields = head_fields(numbers, outside, 9)
    assert fields["rauq"] is None
    assert explain(fields, outside, 9)["rauq"] == (
        "no layer of the middle third (3..5) is watched: add one to attention_layers"
    )
    assert "read in layers 0, 8 only" in explain(fields, outside, 9)["rauq_layers"]
    assert fields["attention_score"] == pytest.approx(float(numbers.own_NB[0][1:4, 0].sum()))  # 0 and 8 are as far


@pytest.mark.parametrize("n_layers", [1, 2, 3, 4, 6, 8, 24, 32, 80])
def test_a_layer_in_the_middle_is_always_watched(n_layers: int) -> None:
    third = middle_third(n_layers)
    assert 0 <= third[0] <= n_layers // 2 <= third[-1] < n_layers or n_layers < 3
    layers = attention_layers(ThoughtCapture(compute_attention_statistics=True), n_layers)
    assert set(layers) & set(third)
    assert set(quarter(n_layers)) <= set(layers)
    assert len(layers) <= len(quarter(n_layers)) + 1
    assert nearest_to_middle(layers, n_layers) in third


def test_a_prompt_of_one_token_has_nothing_to_look_back_to(make_engine: Any) -> None:
    (row,) = read(
        make_engine("llama"), [Request(prompt="", capture=HEADS, sampling=Sampling(max_new_tokens=4))], "slots"
    )
    assert row.trace.lookback_ratio == [None] * 4
    assert "one token" in row.trace.missing["lookback_ratio"]
    assert row.trace.rauq is not None


@pytest.mark.parametrize("path", ["left", "right", "slots"])
def test_statistics_of_a_text_answer_leave_its_edges_out(path: str, make_engine: Any) -> None:
    """The span of the values decides; here a text's, without the spaces around it."""
    model = build("llama")
    engine = make_engine("llama", model=model, padding_side="right" if path == "right" else "left")
    requests = [
        Request(prompt=prompt, answer_format="text", capture=HEADS, sampling=Sampling(max_new_tokens=12))
        for prompt in ("one", "another prompt", "the third")
    ]
    for row in read(engine, requests, path):
        value = row.trace.field_confidences[""]
        tokens = list(range(value.start, value.stop))
        want = statistics(reference(eager_twin(model), row.prompt, row.answer), len(row.prompt), tokens, 0.5)
        assert row.trace.rauq_layers == pytest.approx(want.rauq, rel=1e-5)
        assert row.trace.lookback_ratio == pytest.approx(want.lookback, rel=1e-5)


def known(values: list[float | None]) -> list[float]:
    return [-1.0 if value is None else value for value in values]


def test_neighbours_with_other_wishes_change_nothing(make_engine: Any) -> None:
    engine = make_engine("mistral")
    requests = [
        Request(prompt=prompt, capture=capture, sampling=Sampling(max_new_tokens=count))
        for prompt, capture, count in (
            ("a longer one of these", HEADS, 9),
            ("short", ThoughtCapture(), 5),
            ("medium size", ThoughtCapture(compute_attention_statistics=True, attention_layers=[2]), 12),
        )
    ]
    alone = [read(engine, [request], "slots")[0].trace for request in requests]
    together = [row.trace for row in read(engine, requests, "slots")]
    for one, other in zip(alone, together, strict=True):
        assert known([one.rauq, one.attention_score]) == pytest.approx(known([other.rauq, other.attention_score]))
        assert known(one.lookback_ratio) == pytest.approx(known(other.lookback_ratio), rel=1e-5)
    assert alone[1].rauq is None
    assert [layer for layer, value in enumerate(alone[2].rauq_layers) if value is not None] == [2]


def test_a_model_whose_attention_cannot_be_read_says_so(make_engine: Any) -> None:
    (row,) = read(make_engine("falcon"), [Request(prompt="hi", capture=HEADS, sampling=Sampling(max_new_tokens=3))])
    assert row.trace.rauq is None
    assert "interface" in row.trace.missing["rauq"]
    assert "interface" in row.trace.missing["lookback_ratio"]
