import pytest

from lens_training.schedules import Schedule
from wonder.errors import SpecError


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0.3", {0: 0.3, 50: 0.3, 99: 0.3}),
        ("1 -> 0.5", {0: 1.0, 50: 0.75, 100: 0.5}),
        ("1 -> 0 over 0.5f", {25: 0.5, 50: 0.0, 80: 0.0}),
        ("0 for 20s then 1 -> 0", {0: 0.0, 19: 0.0, 20: 1.0, 60: 0.5, 100: 0.0}),
        ("0 -> 1 over 2e", {5: 0.25, 20: 1.0, 90: 1.0}),
        ("1 -> 0.01 [geometric]", {50: 0.1, 100: 0.01}),
        ("1 -> 0 [cosine]", {0: 1.0, 50: 0.5, 100: 0.0}),
        ("0 -> 2e-3 over 10s then 2e-3 -> 2e-4 [cosine]", {5: 1e-3, 10: 2e-3, 100: 2e-4}),
    ],
)
def test_a_schedule_is_what_it_reads(text: str, values: dict[int, float]) -> None:
    made = Schedule.parse(text)
    assert {step: made.at(step, 100, 10) for step in values} == pytest.approx(values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fast", "is not a piece of one; write"),
        ("1 -> ", "is not a piece"),
        ("1 -> 0 over 5x", "is not a piece"),
        ("1 then 2", "needs a length"),
        ("1 -> 0 [geometric]", "not zero"),
        ("1 -> 0 over 0s", "more than 0"),
        ("", "is not a piece"),
    ],
)
def test_what_is_no_schedule_is_refused_with_the_forms(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Schedule.parse(text)
