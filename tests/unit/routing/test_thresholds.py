from typing import Any

import pytest

from tests.unit.calibration.bundles import bundle, trace
from wonder.calibration.apply import calibrated
from wonder.calibration.certify import count
from wonder.errors import ConditionError
from wonder.routing.condition import Condition
from wonder.routing.context import Context
from wonder.routing.expression import E, threshold
from wonder.routing.table import TransitionTable
from wonder.routing.transition import Transition


def table(wanted: str = 'threshold("classify", risk=0.05)', after: str = "classify") -> TransitionTable:
    return TransitionTable(
        [
            Transition(from_=after, to="human_review", condition=f"thought_trace.overall_confidence < {wanted}"),
            Transition(from_=after, to="resolve", condition="otherwise"),
        ],
        on_unknown="ask",
    )


def context(confidence: float, made: Any = None, **fields: Any) -> Context:
    made = made or bundle()
    found = calibrated(trace(confidence, **fields), made)
    return Context(thought_traces=[found], calibrations={"classify": made})


def test_a_risk_becomes_the_certified_number_of_the_calibration_in_force() -> None:
    made = bundle()
    above, below = (table().decide(context(raw, made), after="classify") for raw in (0.9, 0.54))
    assert (above.to, below.to) == ("resolve", "human_review")
    (used,) = above.thresholds
    assert used.value == made.map.at(0.55).value  # type: ignore[union-attr]
    assert (used.name, used.risk, used.delta, used.bundle) == ("classify", 0.05, 0.1, made.id)
    assert (used.kept, used.wrong, used.share) == (200, 0, 0.5)
    assert above.rows[0].readings['threshold("classify", risk=0.05)'] == used.value


def test_a_stricter_delta_takes_more_labels() -> None:
    made = bundle(certification=count([(0.99, False)] * 60))
    assert table().decide(context(0.99, made), after="classify").to == "resolve"
    strict = table('threshold("classify", risk=0.05, delta=0.01)')
    assert strict.thresholds == (("classify", 0.05, 0.01),)
    decision = strict.decide(context(0.99, made), after="classify")
    assert (decision.to, decision.reason) == ("ask", "unknown")
    assert decision.thresholds[0].more_labels == 30
    assert "at least 30 more labels are needed" in decision.explanation


def test_too_few_labels_are_unknown_and_the_decision_says_how_many_are_missing() -> None:
    decision = table().decide(context(0.99, bundle(certification=count([(0.99, False)] * 20))), after="classify")
    assert (decision.to, decision.reason) == ("ask", "unknown")
    assert "20 of 20 usable labels have signal ≥ 0.98, 0 of them wrong" in decision.explanation
    assert "at least 25 more labels are needed" in decision.explanation
    assert decision.thresholds[0].more_labels == 25


@pytest.mark.parametrize(
    ("ctx", "said"),
    [
        (Context(thought_traces=[trace(0.99)]), "no calibration of this action and model is in force"),
        (context(0.99, bundle(model_fingerprint="a" * 64)), "made on other weights"),
        (Context(thought_traces=[calibrated(trace(0.99), bundle())]), "no calibration of this action"),
        (context(0.99, bundle(certification=None)), "made without counts"),
    ],
    ids=["none", "other weights", "lost", "no counts"],
)
def test_a_number_that_is_not_calibrated_is_never_held_against_a_certified_one(ctx: Context, said: str) -> None:
    decision = table().decide(ctx, after="classify")
    assert (decision.to, decision.reason) == ("ask", "unknown")
    assert said in decision.explanation


def test_the_certificate_of_another_action_does_not_count() -> None:
    ctx = context(0.99)
    ctx.thought_traces.append(trace(0.99, action="draft"))
    decision = table(after="draft").decide(ctx, after="draft")
    assert decision.reason == "unknown"
    assert "'classify' is not the deciding action 'draft'" in decision.explanation


def test_a_number_that_is_handed_in_counts_before_the_certified_one() -> None:
    decision = table().decide(context(0.9), after="classify", thresholds={("classify", 0.05): 0.8})
    assert decision.to == "human_review"
    assert (decision.thresholds[0].value, decision.thresholds[0].bundle) == (0.8, "")


def test_delta_is_part_of_a_conditions_identity_only_where_it_is_not_the_usual_one() -> None:
    plain = Condition.compile('thought_trace.overall_confidence < threshold("c", risk=0.05)')
    usual = Condition.compile('thought_trace.overall_confidence < threshold("c", risk=0.05, delta=0.1)')
    strict = Condition.compile('thought_trace.overall_confidence < threshold("c", risk=0.05, delta=0.01)')
    assert plain == usual != strict
    built = E("thought_trace").overall_confidence < threshold("c", risk=0.05, delta=0.01)
    assert Condition.compile(str(built)) == strict
    assert strict.canonical == 'thought_trace.overall_confidence < threshold("c", risk=0.05, delta=0.01)'


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("risk=0.05, delta=0", "the delta is a number between 0 and 1"),
        ("risk=0.05, delta=visits", "the delta is a number between 0 and 1"),
        ("risk=0.05, delta 0.1", "'=' is missing after delta"),
        ("risk=0.05, delta=0.1, x=1", "')' is missing"),
    ],
)
def test_a_misspelt_delta_is_refused(written: str, said: str) -> None:
    with pytest.raises(ConditionError) as refused:
        Condition.compile(f'thought_trace.overall_confidence < threshold("c", {written})')
    assert said in str(refused.value)
