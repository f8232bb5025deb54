"""Audits: a known share of accepted answers, never instead of a review, the same at every replay."""

import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wonder.errors import TableError
from wonder.routing.audit import draw
from wonder.routing.context import Context
from wonder.routing.decision import RouteDecision
from wonder.routing.table import TransitionTable
from wonder.routing.transition import Transition
from wonder.trace.schema import ThoughtTrace

C = "thought_trace.overall_confidence"
probabilities = st.one_of(st.sampled_from([0.0, 0.02, 0.5, 1.0]), st.floats(0, 1))


def table(rate: float = 0.0, row_rate: float | None = None, **settings: Any) -> TransitionTable:
    return TransitionTable(
        [
            Transition(from_="classify", to="legal_review", condition="thought_trace.active_concepts.legal > 0.8"),
            Transition(from_="classify", to="human_review", condition=f"{C} < 0.7"),
            Transition(from_="classify", to="classify", condition=f"{C} < 0.75"),
            Transition(from_="classify", to="resolve", condition="otherwise", audit_rate=row_rate),
        ],
        **{"audit_rate": rate, "reviews": ["legal_review", "human_review"], **settings},
    )


def context(confidence: float | None = 0.9, legal: float = 0.1, key: str = "seed") -> Context:
    trace = ThoughtTrace(action="classify", model="m", overall_confidence=confidence, active_concepts={"legal": legal})
    return Context(thought_traces=[trace], draw_key=key)


@given(st.one_of(st.none(), probabilities), probabilities, probabilities, probabilities)
def test_an_audit_changes_nothing_but_who_looks(
    confidence: float | None, legal: float, rate: float, number: float
) -> None:
    """Whatever the draw, the targets are those without audits, and what goes to a person is reviewed for certain."""
    ctx = context(confidence, legal)
    plain = table().evaluate(ctx, "classify")
    audited = table(rate).evaluate(ctx, "classify", draw=number)
    assert (audited.targets, audited.reason, audited.row) == (plain.targets, plain.reason, plain.row)
    if audited.to in ("legal_review", "human_review"):
        assert (audited.propensity, audited.audit) == (1.0, False)
    elif audited.to == "resolve":
        assert (audited.propensity, audited.audit) == (rate, number < rate)
    else:
        assert (audited.propensity, audited.audit) == (0.0, False)


def test_the_share_of_audits_is_the_rate_and_the_answer_has_no_part_in_it() -> None:
    keys = [str(n * 7919) for n in range(4000)]
    routes = table(0.05)
    sure = [routes.evaluate(context(0.99, key=key), "classify").audit for key in keys]
    less = [routes.evaluate(context(0.76, key=key), "classify").audit for key in keys]
    assert sure == less
    assert 0.05 * 4000 - 60 < sum(sure) < 0.05 * 4000 + 60  # 4.4 standard deviations


def test_draws_are_uniform_and_differ_between_runs_actions_visits_and_tables() -> None:
    numbers = [draw(str(n), "classify", 1, "digest") for n in range(5000)]
    assert all(0 <= number < 1 for number in numbers)
    deciles = [sum(tenth <= number * 10 < tenth + 1 for number in numbers) for tenth in range(10)]
    assert sum((count - 500) ** 2 / 500 for count in deciles) < 33.7  # χ² with 9 degrees of freedom, p = 1e-4
    assert len({draw("1", "a", 1, "d"), draw("2", "a", 1, "d"), draw("1", "b", 1, "d"), draw("1", "a", 2, "d")}) == 4
    assert draw("1", "a", 1, "d") != draw("1", "a", 1, "e")


def test_the_same_run_draws_the_same_however_often_it_is_replayed() -> None:
    key = str(uuid.uuid4())
    first: RouteDecision = table(0.5).decide(context(key=key), "classify")
    assert all(table(0.5).decide(context(key=key), "classify") == first for _ in range(3))


def test_a_rate_of_a_row_goes_before_that_of_the_table() -> None:
    assert table(0.0, 1.0).evaluate(context(), "classify").audit
    assert not table(1.0, 0.0).evaluate(context(), "classify").audit


def test_where_nobody_drew_the_record_says_so() -> None:
    decision = table(1.0).evaluate(context(key=""), "classify")
    assert (decision.audit, decision.propensity) == (False, 0.0)


def test_an_audited_decision_says_so_to_people() -> None:
    decision = table(1.0).evaluate(context(), "classify")
    assert decision.explanation.endswith(": on to resolve; drawn for an audit (rate 1)")


def test_without_a_list_the_reviews_are_where_unknown_goes() -> None:
    plain = table(1.0, reviews=None)
    assert plain.evaluate(context(0.5), "classify").propensity == 1.0
    assert plain.evaluate(context(0.5), "classify").audit is False
    with pytest.raises(TableError, match=r"reviews: nothing goes to 'legal_reviw': did you mean 'legal_review'\?"):
        table(reviews=["legal_reviw"])


def test_an_audit_of_what_a_person_sees_anyway_is_refused() -> None:
    rows = [
        Transition(from_="a", to="human_review", condition=f"{C} < 0.7", audit_rate=0.1),
        Transition(from_="a", to="done", condition="otherwise"),
    ]
    with pytest.raises(TableError, match=r"row 1 .*audit_rate is for accepted answers.*human_review"):
        TransitionTable(rows)
    with pytest.raises(TableError, match="audit_rate"):
        TransitionTable(rows[1:], audit_rate=1.5)


def test_audits_are_part_of_what_a_table_is_and_old_digests_stay() -> None:
    assert len({table().digest, table(0.1).digest, table(0.0, 0.1).digest}) == 3
    assert table(reviews=None).digest == table().digest
    again = TransitionTable.from_dict(table(0.1, 0.2).to_dict())
    assert again == table(0.1, 0.2)
    assert again.digest == table(0.1, 0.2).digest
