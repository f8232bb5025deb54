import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wonder.trace.confidence import TokenReadings, field_confidence, overall_confidence

METHODS = ("value_probability", "mean_probability", "min_probability", "normalized_entropy")


def readings(p: list[float | None], h: list[float | None] | None = None, **fields: tuple[int, int]) -> TokenReadings:
    return TokenReadings(p, h or [0.0] * len(p), 100, fields)


def test_only_value_tokens_count_by_default() -> None:
    found = overall_confidence("value_probability", readings([0.01, 0.9, 0.5, 0.01], a=(1, 3)))
    assert found.value == pytest.approx(0.45)
    assert found.reason is None


def test_a_token_shared_by_two_fields_counts_once() -> None:
    shared = readings([0.5, 0.5, 0.5], a=(0, 2), b=(1, 3))
    assert overall_confidence("value_probability", shared).value == pytest.approx(0.125)
    assert field_confidence(shared, (0, 2)) == pytest.approx(0.25)


def test_chosen_fields_and_everything_below_them_count() -> None:
    nested = readings([0.5, 0.25, 0.125], **{"items.0.name": (0, 1), "items.1.name": (1, 2), "note": (2, 3)})
    assert overall_confidence("value_probability", nested, ["items"]).value == pytest.approx(0.125)
    assert overall_confidence("value_probability", nested, ["note"]).value == pytest.approx(0.125)


def test_a_field_that_the_answer_lacks_makes_it_unknown() -> None:
    found = overall_confidence("value_probability", readings([0.5], team=(0, 1)), ["tema"])
    assert found.value is None
    assert found.reason == "the answer has no field 'tema'; it has team"


def test_an_answer_without_values_is_unknown_and_says_why() -> None:
    found = overall_confidence("value_probability", TokenReadings([0.9], [0.1], 100, {}, "no JSON document"))
    assert (found.value, found.reason) == (None, "no JSON document")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("broken", [None, math.nan])
def test_a_number_that_is_not_finite_makes_it_unknown(method: str, broken: float | None) -> None:
    found = overall_confidence(method, readings([0.9, broken], [0.1, broken], a=(0, 2)))  # type: ignore[arg-type]
    assert found.value is None
    assert found.reason


@pytest.mark.parametrize("method", METHODS)
def test_no_token_is_unknown(method: str) -> None:
    assert overall_confidence(method, readings([])).value is None  # type: ignore[arg-type]


def test_the_other_methods_are_their_formulas() -> None:
    numbers = readings([0.5, 0.125], [1.0, 2.0])
    assert overall_confidence("mean_probability", numbers).value == pytest.approx(0.25)
    assert overall_confidence("min_probability", numbers).value == pytest.approx(0.125)
    assert overall_confidence("normalized_entropy", numbers).value == pytest.approx(1 - 1.5 / math.log(100))


def test_normalized_entropy_calls_a_coin_flip_confident_which_is_why_it_is_not_the_default() -> None:
    flip = TokenReadings([0.5], [math.log(2)], 128_256, {"a": (0, 1)})
    assert overall_confidence("normalized_entropy", flip).value == pytest.approx(0.941, abs=1e-3)
    assert overall_confidence("value_probability", flip).value == pytest.approx(0.5)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=300))
def test_every_method_stays_between_0_and_1(p: list[float]) -> None:
    numbers = TokenReadings(p, [-math.log(x) if x > 0 else 0.0 for x in p], 50, {"a": (0, len(p))})
    values = [overall_confidence(method, numbers).value for method in METHODS]  # type: ignore[arg-type]
    assert all(value is not None and 0 <= value <= 1 for value in values)
    assert values[0] <= values[2] * (1 + 1e-9)  # type: ignore[operator]
