"""The parts of `wonder review` that need no server."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from wonder.cli import review, review_text
from wonder.errors import DecisionInvalid
from wonder.review.types import ReviewSummary
from wonder.trace.schema import ThoughtTrace

NOW = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("answer", "changes", "expected"),
    [
        ({"team": "billing"}, ["team=legal"], {"team": "legal"}),
        ({"code": "17"}, ["code=18"], {"code": "18"}),
        ({"urgency": 2}, ["urgency=5"], {"urgency": 5}),
        ({"a": {"b": [1, 2]}}, ["a.b.1=7"], {"a": {"b": [1, 7]}}),
        (None, ["team=legal", "urgency=3"], {"team": "legal", "urgency": 3}),
        ({}, ['tags=["x"]', "note=a = b"], {"tags": ["x"], "note": "a = b"}),
    ],
)
def test_set_changes_one_place_and_keeps_its_type(answer: Any, changes: list[str], expected: Any) -> None:
    before = repr(answer)
    assert review.changed(answer, changes) == expected
    assert repr(answer) == before


@pytest.mark.parametrize("change", ["team", "=x", "a.b.c=1", "list.9=1", "list.x=1", "team.x=1"])
def test_a_change_that_leads_nowhere_is_refused(change: str) -> None:
    with pytest.raises(DecisionInvalid, match="--set"):
        review.changed({"team": "billing", "list": [1]}, [change])


def row(**changes: Any) -> ReviewSummary:
    fields: dict[str, Any] = {
        "id": "review/t/classify/1",
        "status": "open",
        "opened_at": NOW,
        "due_at": NOW + timedelta(hours=3, minutes=12),
        "version": 1,
        "title": "Which team?",
        "queue": "support",
        "confidence": 0.41,
        "why": "not sure",
    }
    return ReviewSummary.model_validate(fields | changes)


def test_the_table_is_aligned_and_says_what_is_due() -> None:
    overdue = row(id="review/other/classify/12", due_at=NOW - timedelta(seconds=90), confidence=None)
    lines = review_text.table([row(), overdue], NOW)
    assert lines[0].index("TITLE") == lines[1].index("Which team?") == lines[2].index("Which team?")
    assert "██░░░  41%  3 h 12 min" in lines[1]
    assert "overdue 1 min 30 s" in lines[2]


def test_an_empty_list_says_so() -> None:
    assert review_text.table([], NOW) == ["nothing waits"]


def test_doubtful_tokens_stand_out_with_and_without_colour() -> None:
    trace = ThoughtTrace(action="a", model="m", tokens=["le", "gal", "!"], token_confidences=[0.3, 0.7, None])
    assert review_text.strip(trace, colour=False) == "le[30%]gal[70%]!"
    assert review_text.strip(trace, colour=True) == "\x1b[31;4mle\x1b[0m\x1b[33mgal\x1b[0m!"


def test_what_a_model_wrote_does_not_steer_the_terminal() -> None:
    assert review_text.clean("a\x1b[2Jb\nc\u202e") == "a\\x1b[2Jb⏎c\\x202e"
    lines = review_text.table([row(title="\x1b]0;owned\x07", why="\x1b[31m")], NOW)
    assert "\x1b" not in "".join(lines)
