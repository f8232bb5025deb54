import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from wonder.calibration.maps import BetaMap, CalibrationMap, IsotonicMap, SignalMap, StackedMap, VennAbersMap, mapped

CHANCE = st.floats(0, 1)
SLOPES = st.floats(0, 20)


@st.composite
def knots(draw: st.DrawFn, columns: int) -> list[list[float]]:
    x = sorted(draw(st.sets(CHANCE, min_size=1, max_size=12)))
    return [x, *(sorted(draw(st.lists(CHANCE, min_size=len(x), max_size=len(x)))) for _ in range(columns))]


@st.composite
def maps(draw: st.DrawFn) -> SignalMap:
    kind = draw(st.sampled_from(["beta", "isotonic", "venn_abers"]))
    if kind == "beta":
        return BetaMap(a=draw(SLOPES), b=draw(SLOPES), c=draw(st.floats(-20, 20)))
    if kind == "isotonic":
        x, y = draw(knots(1))
        return IsotonicMap(x=x, y=y)
    x, one, other = draw(knots(2))
    pairs = list(zip(one, other, strict=True))
    return VennAbersMap(x=x, p0=[min(pair) for pair in pairs], p1=[max(pair) for pair in pairs])


@given(maps(), CHANCE, CHANCE)
def test_a_map_of_one_signal_keeps_its_order_also_where_it_is_flat(by: SignalMap, a: float, b: float) -> None:
    low, high = sorted((a, b))
    if by.at(low).value >= by.at(high).value:
        # What a double cannot tell apart once a millionth of it has been added.
        assert high - low < 1e-8
    assert 0 <= by.at(a).value <= 1


@given(maps(), CHANCE)
def test_an_interval_holds_its_value(by: SignalMap, signal: float) -> None:
    found = by.at(signal)
    if found.low is not None and found.high is not None:
        assert 0 <= found.low <= found.value <= found.high <= 1


@given(maps())
def test_a_map_survives_json_to_the_bit(by: SignalMap) -> None:
    kind: TypeAdapter[CalibrationMap] = TypeAdapter(CalibrationMap)
    again = kind.validate_json(kind.dump_json(by))
    assert again == by


def test_beta_with_unit_slopes_changes_nothing_and_one_half_flattens() -> None:
    for p in (1e-6, 0.2, 0.5, 0.93):
        assert BetaMap(a=1, b=1, c=0).at(p).value == pytest.approx(p, rel=1e-9)
    assert BetaMap(a=0.5, b=0.5, c=0).at(0.9).value == pytest.approx(0.75, abs=1e-6)


def test_isotonic_goes_straight_from_knot_to_knot_and_flat_outside() -> None:
    by = IsotonicMap(x=[0.2, 0.6], y=[0.1, 0.5])
    assert [round(by.at(x).value, 4) for x in (0.0, 0.2, 0.4, 0.6, 1.0)] == [0.1, 0.1, 0.3, 0.5, 0.5]


def test_venn_abers_merges_its_two_fits_and_widens_between_knots() -> None:
    by = VennAbersMap(x=[0.2, 0.6], p0=[0.1, 0.5], p1=[0.3, 0.7])
    at = by.at(0.6)
    assert at.value == pytest.approx(0.7 / (1 - 0.5 + 0.7), abs=1e-6)
    assert (at.low, at.high) == (0.5, 0.7)
    assert (by.at(0.4).low, by.at(0.4).high) == (0.1, 0.7)


def test_a_stack_weighs_standardised_log_odds() -> None:
    by = StackedMap(signals=["a", "b"], mean=[0.0, 1.0], scale=[1.0, 2.0], weight=[1.0, -1.0], bias=0.5)
    found = mapped(by, "stacked", {"a": 0.9, "b": 0.5, "c": math.nan})
    assert not isinstance(found, str)
    assert found.value == pytest.approx(1 / (1 + math.exp(-(math.log(9) + 1 / 2 + 1 / 2))))


@pytest.mark.parametrize("value", [None, math.nan, math.inf, 1.5, -0.1])
def test_a_signal_that_is_not_there_gives_a_reason_instead_of_a_number(value: float | None) -> None:
    said = mapped(BetaMap(a=1, b=1, c=0), "value_probability", {"value_probability": value})
    assert isinstance(said, str)
    assert "value_probability" in said


@pytest.mark.parametrize(
    "broken",
    [
        {"kind": "beta", "a": -0.1, "b": 1, "c": 0},
        {"kind": "beta", "a": 1, "b": 1, "c": math.inf},
        {"kind": "isotonic", "x": [0.5, 0.5], "y": [0, 1]},
        {"kind": "isotonic", "x": [0.1, 0.5], "y": [1, 0]},
        {"kind": "isotonic", "x": [0.1, 0.5], "y": [1]},
        {"kind": "stacked", "signals": ["a"], "mean": [0], "scale": [0], "weight": [1], "bias": 0},
        {"kind": "stacked", "signals": ["a"], "mean": [0, 1], "scale": [1], "weight": [1], "bias": 0},
        {"kind": "pickle"},
    ],
)
def test_a_map_that_falls_or_does_not_fit_together_is_refused(broken: dict[str, object]) -> None:
    kind: TypeAdapter[CalibrationMap] = TypeAdapter(CalibrationMap)
    with pytest.raises(ValidationError):
        kind.validate_json(json.dumps(broken))
