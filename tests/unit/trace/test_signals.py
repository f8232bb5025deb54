import math
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wonder.trace.capture import ConfidenceMethod
from wonder.trace.confidence import product
from wonder.trace.schema import FieldConfidence, LensLayer, ThoughtTrace, TokenAlternative
from wonder.trace.signals import SIGNALS, read_signal, read_signals
from wonder.trace.size import fit

OVER_TOKENS = [name for name, signal in SIGNALS.items() if "token_confidences" in signal.reads]


def trace(p: list[float | None], h: list[float | None] | None = None, /, **more: Any) -> ThoughtTrace:
    """A trace of these tokens, whose values are all of them unless `at` says otherwise."""
    at = more.pop("at", {"a": (0, len(p))})
    return ThoughtTrace.model_construct(
        action="a",
        model="m",
        tokens=["x"] * len(p),
        token_confidences=p,
        token_margins=more.pop("token_margins", [None if x is None else x / 2 for x in p]),
        top5_negentropy=[None if x is None else x * x for x in p],
        self_certainty=[None if x is None else 3 * x for x in p],
        boosted_probs=p,
        logits_entropy=h or [0.5] * len(p),
        vocabulary_size=100,
        layer_norms=[1.0, 3.0],
        representation_shifts=[0.25],
        field_confidences={
            path: FieldConfidence(start=a, stop=b, confidence=product(p[a:b])) for path, (a, b) in at.items()
        },
        **more,
    )


def test_every_method_is_a_signal_and_every_signal_a_method() -> None:
    assert set(SIGNALS) == set(get_args(ConfidenceMethod))


def test_the_signals_are_their_formulas() -> None:
    numbers = trace([0.5, 0.8, 0.125, 0.9], [1.0, 2.0, 0.5, 0.1], at={"a": (1, 3)})
    expected = {
        "value_probability": 0.8 * 0.125,
        "mean_value_probability": math.sqrt(0.8 * 0.125),
        "min_value_probability": 0.125,
        "first_value_probability": 0.8,
        "mean_probability": (0.5 * 0.8 * 0.125 * 0.9) ** 0.25,
        "min_probability": 0.125,
        "mean_margin": (0.4 + 0.0625) / 2,
        "min_margin": 0.0625,
        "min_relative_margin": 0.5,
        "mean_top5_negentropy": (0.64 + 0.015625) / 2,
        "min_top5_negentropy": 0.015625,
        "self_certainty": 1.3875 / 2.3875,
        "boosted_probability": (0.8 + 0.125) / 2,
        "mean_entropy": math.exp(-1.25),
        "max_entropy": math.exp(-2),
        "normalized_entropy": 1 - 0.9 / math.log(100),
        "hidden_norm": 0.75,
        "state_stability": 0.8,
    }
    found = read_signals(numbers)
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_the_signals_of_single_heads_and_of_layers_are_their_formulas() -> None:
    found = read_signals(
        trace(
            [0.5],
            rauq=0.7,
            attention_score=-3.0,
            lookback_ratio=[None, 0.25, 0.75],
            attention_entropy_normalized=[None, 0.2],
            logit_lens=[
                LensLayer(layer=1, log_probability=math.log(0.5), first_share=0.25, top_token="x"),
                LensLayer(layer=2, log_probability=math.log(0.25), first_share=0.75, top_token="x"),
            ],
        )
    )
    expected = {
        "rauq": math.exp(-0.7),
        "attention_score": 0.25,
        "lookback_ratio": 0.5,
        "attention_narrowness": 0.8,
        "logit_lens_agreement": 0.5,
        "logit_lens_probability": 0.375,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_the_runner_up_is_measured_against_the_likeliest_token_not_the_drawn_one() -> None:
    both = [TokenAlternative(token="a", probability=0.5), TokenAlternative(token="b", probability=0.4)]
    drawn = trace([0.4], token_margins=[0.1], generation_probs=[0.4], top_alternatives=[both])
    assert read_signal("min_relative_margin", drawn).value == pytest.approx(0.2)
    unknown = read_signal("min_relative_margin", drawn.model_copy(update={"top_alternatives": []}))
    assert unknown.value is None
    assert "top_alternatives=0" in str(unknown.reason)


def test_only_value_tokens_count_by_default() -> None:
    found = read_signal("value_probability", trace([0.01, 0.9, 0.5, 0.01], at={"a": (1, 3)}))
    assert found.value == pytest.approx(0.45)
    assert found.reason is None


def test_a_token_shared_by_two_fields_counts_once() -> None:
    shared = trace([0.5, 0.5, 0.5], at={"a": (0, 2), "b": (1, 3)})
    assert read_signal("value_probability", shared).value == pytest.approx(0.125)


def test_chosen_fields_and_everything_below_them_count() -> None:
    nested = trace([0.5, 0.25, 0.125], at={"items.0.name": (0, 1), "items.1.name": (1, 2), "note": (2, 3)})
    assert read_signal("value_probability", nested, ["items"]).value == pytest.approx(0.125)
    assert read_signal("value_probability", nested, ["note"]).value == pytest.approx(0.125)


def test_a_field_that_the_answer_lacks_makes_it_unknown() -> None:
    found = read_signal("value_probability", trace([0.5], at={"team": (0, 1)}), ["tema"])
    assert found.value is None
    assert found.reason == "the answer has no field 'tema'; it has team"


def test_an_answer_without_values_is_unknown_and_says_why() -> None:
    found = read_signal("value_probability", trace([0.9], at={}, missing={"field_confidences": "no JSON document"}))
    assert (found.value, found.reason) == (None, "no JSON document")


@pytest.mark.parametrize("method", OVER_TOKENS)
@pytest.mark.parametrize("broken", [None, math.nan])
def test_a_number_that_is_not_finite_makes_it_unknown(method: str, broken: float | None) -> None:
    found = read_signal(method, trace([broken, 0.9], [broken, 0.1]))
    assert found.value is None
    assert found.reason


@pytest.mark.parametrize("method", SIGNALS)
def test_no_token_is_unknown(method: str) -> None:
    assert read_signal(method, trace([])).value is None


@pytest.mark.parametrize("method", SIGNALS)
def test_an_empty_trace_is_unknown_and_says_why(method: str) -> None:
    found = read_signal(method, ThoughtTrace(action="a", model="m", tokens=["x"]))
    assert found.value is None
    assert found.reason


def test_normalized_entropy_calls_a_coin_flip_confident_which_is_why_it_is_not_the_default() -> None:
    flip = trace([0.5], [math.log(2)]).model_copy(update={"vocabulary_size": 128_256})
    assert read_signal("normalized_entropy", flip).value == pytest.approx(0.941, abs=1e-3)
    assert read_signal("value_probability", flip).value == pytest.approx(0.5)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=300))
def test_every_signal_stays_between_0_and_1(p: list[float]) -> None:
    found = read_signals(trace(p, [-math.log(x) if x > 0 else 0.0 for x in p]))
    assert set(OVER_TOKENS) <= set(found)
    assert all(0 <= value <= 1 for value in found.values())
    assert found["value_probability"] <= found["min_value_probability"] * (1 + 1e-9)


@given(st.lists(st.floats(0.01, 0.99), min_size=1, max_size=20), st.data())
def test_a_less_likely_token_never_raises_a_signal(p: list[float], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(p) - 1))
    lower = [*p[:at], p[at] / 2, *p[at + 1 :]]
    before, after = read_signals(trace(p)), read_signals(trace(lower))
    assert all(after[name] <= before[name] + 1e-12 for name in OVER_TOKENS)


def test_signals_outlive_the_lists_they_were_made_of() -> None:
    whole = trace([0.5] * 3000, at={"a": (0, 4)})
    read = whole.model_copy(update={"signals": read_signals(whole)})
    small, moved = fit(ThoughtTrace.model_validate(read.model_dump()), limit=8192)
    assert "token_confidences" in moved
    assert read_signal("value_probability", small).value == pytest.approx(0.5**4)
    assert read_signal("min_margin", small).value == pytest.approx(0.25)
