"""What the language shares with CEL means the same there; and no slip in a name gets past the building of a table."""

import math
from typing import Any

import pytest

from benchmarks._cel import Case, Cel, compare, wonder
from benchmarks._mutants import survey
from wonder.routing.env import Env
from wonder.trace.schema import ThoughtTrace


def test_random_conditions_are_decided_as_google_decides_them() -> None:
    found = compare(seed=7, conditions=1500)
    assert not found.disagreements, found.first
    assert min(found.unknown, found.true, found.cases - found.true - found.unknown) > found.cases // 5


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_hundred_thousand_cases_are_decided_as_google_decides_them() -> None:
    found = compare(seed=20261120, conditions=20_000)
    assert found.cases >= 100_000
    assert not found.disagreements, found.first


def test_a_slip_in_any_name_is_refused_when_the_table_is_built() -> None:
    tried, survived, wrongly = survey(every=10)
    assert tried > 500
    assert survived == []
    assert wrongly == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_slip_in_every_name_is_refused() -> None:
    tried, survived, wrongly = survey()
    assert tried > 5000
    assert (survived, wrongly) == ([], [])


def both(ours: str, theirs: str, **values: Any) -> tuple[bool | None, bool | None]:
    trace = ThoughtTrace.model_construct(action="classify", model="m", **values)
    data = {"thought_trace": values, "state": {}, "output": "", "visits": 3}
    case = Case(ours, theirs, [(Env(trace, "", {}, 3), data)])
    return wonder(case)[0], Cel().decide(case)[0]


C = "thought_trace.overall_confidence"


@pytest.mark.parametrize(
    ("ours", "theirs", "values", "said"),
    [
        (f"{C} < 0.7", f"{C} < 0.7", {"overall_confidence": math.nan}, (None, False)),
        (f"{C} < 0.7", f"{C} < 0.7", {"overall_confidence": -math.inf}, (None, True)),
        (f"1.0 / {C} > 2.0", f"1.0 / {C} > 2.0", {"overall_confidence": 0.0}, (None, True)),
        ("visits / 2 > 1", "visits / 2 > 1", {}, (True, False)),
        (f"{C} == 0.7", f"{C} == 0.7", {"overall_confidence": None}, (None, False)),
        (f"{C} * 2 > 1", f"{C} * 2 > 1", {"overall_confidence": 0.9}, (True, None)),
        ("!visits == 3", "!visits == 3", {}, (None, None)),
    ],
    ids=["NaN", "infinity", "division by zero", "whole division", "None", "mixed arithmetic", "! of a number"],
)
def test_the_differences_are_those_that_the_page_lists(
    ours: str, theirs: str, values: dict[str, Any], said: tuple[bool | None, bool | None]
) -> None:
    assert both(ours, theirs, **values) == said
