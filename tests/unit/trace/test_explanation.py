"""What may be asked of a lens, and what becomes of its guesses where a trace has to be small."""

from typing import Any

import pytest
from pydantic import ValidationError

from wonder.trace.capture import ThoughtCapture
from wonder.trace.detail import binned
from wonder.trace.explanation import Explain, Explanation, Fidelity
from wonder.trace.schema import ThoughtTrace
from wonder.trace.size import encoded_bytes, fit, strip_to_scalars


@pytest.mark.parametrize("short", ["last", "values", [0, 3]])
def test_short_forms_mean_the_same_in_python_and_on_the_wire(short: Any) -> None:
    made = ThoughtCapture(explain=short)
    assert made.explain == Explain(positions=short)
    assert ThoughtCapture.model_validate_json(made.model_dump_json()) == made
    assert ThoughtCapture.model_validate({"explain": short}) == made


@pytest.mark.parametrize(
    "wrong",
    [
        "middle",
        [-1],
        {"positions": "last", "lense": "tiny"},
        {"max_positions": 0},
        {"max_positions": 65},
        {"positions": [0.5]},
        3,
    ],
)
def test_what_cannot_be_asked_is_refused(wrong: Any) -> None:
    with pytest.raises(ValidationError):
        ThoughtCapture(explain=wrong)


def test_an_older_client_asks_for_nothing() -> None:
    assert ThoughtCapture.model_validate_json("{}").explain is None
    assert ThoughtTrace.model_validate_json('{"action": "a", "model": "m"}').explanations == []


def trace(count: int, text: str = "a guess") -> ThoughtTrace:
    found = [
        Explanation(
            position=at,
            token="x",
            text=text,
            layer=1,
            reconstruction=0.123456789,
            fidelity=Fidelity(value=0.8, low=0.7, high=0.9, rows=100),
            lens="tiny@0123456789ab",
        )
        for at in range(count)
    ]
    return ThoughtTrace(action="a", model="m", tokens=["x"] * count, explanations=found)


def test_guesses_that_do_not_fit_go_whole_and_leave_a_reason() -> None:
    small, moved = fit(trace(8))
    assert [found.reconstruction for found in small.explanations] == [0.1235] * 8
    assert not moved
    large, moved = fit(trace(64, "word " * 400), 16_384)
    assert encoded_bytes(large) <= 16_384
    assert large.explanations == []
    assert len(moved["explanations"]) == 64
    assert "64 entries moved to the artifact" in large.missing["explanations"]


def test_guesses_stay_in_a_binned_trace_and_leave_one_of_scalars() -> None:
    assert len(binned(trace(3)).explanations) == 3
    scalars = strip_to_scalars(trace(3), "are in the artifact")
    assert scalars.explanations == []
    assert "are in the artifact" in scalars.missing["explanations"]
