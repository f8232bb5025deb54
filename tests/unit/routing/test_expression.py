"""Conditions written with Python's operators become the same text that a person would write."""

import math
from typing import Any

import pytest

from wonder.errors import ConditionError
from wonder.routing.condition import Condition
from wonder.routing.expression import (
    E,
    Expression,
    absolute,
    is_in,
    known,
    largest,
    length,
    smallest,
    threshold,
)
from wonder.routing.transition import Transition

trace, state, output, visits = E("thought_trace"), E("state"), E("output"), E("visits")


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        (trace.overall_confidence < 0.7, "thought_trace.overall_confidence < 0.7"),
        (trace.overall_confidence >= 0.5, "thought_trace.overall_confidence >= 0.5"),
        (trace.active_concepts["legal_risk"] >= 0.8, "thought_trace.active_concepts.legal_risk >= 0.8"),
        (state["two words"] == "x", 'state["two words"] == "x"'),
        (trace.attention_entropy[0] <= 1, "thought_trace.attention_entropy[0] <= 1"),
        (output.team != "billing", 'output.team != "billing"'),
        ((visits > 1) & (visits < 5) & state.ok, "visits > 1 and visits < 5 and state.ok"),
        ((visits > 1) | (visits < 5) & state.ok, "visits > 1 or visits < 5 and state.ok"),
        (((visits > 1) | (visits == 9)) & state.ok, "(visits > 1 or visits == 9) and state.ok"),
        (~(state.a & state.b), "not (state.a and state.b)"),
        (~state.a & state.b, "not state.a and state.b"),
        (1 - state.a * 2 > -state.b, "1 - state.a * 2 > -state.b"),
        ((1 + state.a) * (state.b - 3) / 2 > 0, "(1 + state.a) * (state.b - 3) / 2 > 0"),
        (state.a - (state.b - 1) > 2 / state.c, "state.a - (state.b - 1) > 2 / state.c"),
        (3 * state.a + 1 - state.b > 0, "3 * state.a + 1 - state.b > 0"),
        (known(state.a) & (absolute(state.a) > 1), "known(state.a) and abs(state.a) > 1"),
        (length(trace.tokens) > 3, "len(thought_trace.tokens) > 3"),
        (smallest(state.a, 0.5) < largest(state.b, state.c), "min(state.a, 0.5) < max(state.b, state.c)"),
        (is_in(output.team, ["a", 2, True]), 'output.team in ["a", 2, true]'),
        (is_in("legal_risk", trace.active_concepts), '"legal_risk" in thought_trace.active_concepts'),
        (
            trace.overall_confidence < threshold("classify", risk=0.05),
            'thought_trace.overall_confidence < threshold("classify", risk=0.05)',
        ),
        ((state.a < 1) == state.b, "(state.a < 1) == state.b"),
    ],
)
def test_operators_spell_conditions(expression: Expression, text: str) -> None:
    assert str(expression) == text
    assert repr(expression) == f"Expression({text!r})"
    assert Condition.compile(text).canonical == text


def test_a_transition_takes_an_expression() -> None:
    row = Transition(from_="classify", to="human_review", condition=trace.overall_confidence < 0.7)
    assert row.condition == "thought_trace.overall_confidence < 0.7"


def test_what_python_would_decide_itself_fails_loudly() -> None:
    with pytest.raises(ConditionError, match="join with & \\| ~"):
        bool(trace.overall_confidence < 0.7)
    with pytest.raises(ConditionError, match="join with & \\| ~"):
        _ = state.a and state.b
    with pytest.raises(ConditionError, match="join with & \\| ~"):
        _ = not state.a
    with pytest.raises(ConditionError, match="chained comparison"):
        _ = 0.2 < trace.overall_confidence < 0.7
    with pytest.raises(ConditionError, match=r"write is_in\(legal_risk, thought_trace.active_concepts\)"):
        _ = "legal_risk" in trace.active_concepts
    with pytest.raises(ConditionError, match="no loops"):
        list(state.a)
    with pytest.raises(ConditionError, match="write == to compare"):
        state.a = 3
    with pytest.raises(TypeError):
        hash(state.a)


@pytest.mark.parametrize(
    "build",
    [
        lambda: state.a < None,
        lambda: state.a < math.nan,
        lambda: state.a < math.inf,
        lambda: state.a == [1],
        lambda: state[-1] == 1,
        lambda: state[True] == 1,
        lambda: state[1.5] == 1,
        lambda: (state.a + 1).b == 1,
    ],
)
def test_what_the_language_does_not_have_is_refused(build: Any) -> None:
    with pytest.raises(ConditionError):
        build()


def test_private_names_cannot_be_read() -> None:
    with pytest.raises(AttributeError):
        _ = state._secret
