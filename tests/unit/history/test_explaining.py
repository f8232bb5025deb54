"""An explanation names the signals, the number, the rule that fired and those that did not, and how far they were."""

import pytest

from tests.unit.history.world import table
from wonder.history.explaining import explain_run
from wonder.history.explanation_page import page
from wonder.history.explanation_text import text
from wonder.routing.budget import BudgetState, Spent
from wonder.routing.context import Context
from wonder.routing.decision import RowOutcome, ThresholdUsed
from wonder.routing.distance import distances
from wonder.routing.retry import Retry
from wonder.trace.schema import ThoughtTrace


def row(condition: str, **readings: float | str | None) -> RowOutcome:
    paths = {f"thought_trace.{name.replace('__', '.')}": value for name, value in readings.items()}
    return RowOutcome(name="r", to=["x"], condition=condition, digest="d", outcome="false", readings=paths)


@pytest.fixture
def ctx() -> Context:
    ctx = Context(
        thought_traces=[
            ThoughtTrace(
                action="classify",
                model="support-desk",
                model_fingerprint="8fcb62764417e174",
                dtype="float32",
                overall_confidence=0.72,
                confidence_status="uncalibrated",
                signals={"value_probability": 0.72, "min_margin": 0.5},
                active_concepts={"legal_risk": 0.11},
                bundles={"legal_risk": "b" * 64},
            )
        ],
        outputs={"classify": {"team": "<billing>"}},
    )
    table(0.7, "triage v3").decide(ctx, after="classify", draw=0.5)
    return ctx


def test_a_distance_is_how_far_the_reading_would_have_to_move() -> None:
    (found,) = distances(row("thought_trace.overall_confidence < 0.7", overall_confidence=0.72), [])
    assert (found.op, found.bound, found.value, found.holds) == ("<", 0.7, 0.72, False)
    assert found.gap == pytest.approx(0.02)


def test_every_comparison_counts_on_either_side_and_in_a_chain() -> None:
    condition = "0.2 < thought_trace.overall_confidence <= 0.7 or not thought_trace.signals.min_margin > 0.4"
    found = distances(row(condition, overall_confidence=0.9, signals__min_margin=0.5), [])
    assert [(item.path.rsplit(".", 1)[1], item.op, item.bound, item.holds) for item in found] == [
        ("overall_confidence", ">", 0.2, True),
        ("overall_confidence", "<=", 0.7, False),
        ("min_margin", ">", 0.4, True),
    ]


def test_a_certified_threshold_is_the_bound_and_an_unknown_one_is_none() -> None:
    condition = 'thought_trace.overall_confidence < threshold("classify", risk=0.05)'
    used = ThresholdUsed(name="classify", risk=0.05, delta=0.1, value=0.83)
    (found,) = distances(row(condition, overall_confidence=0.8), [used])
    assert (found.bound, found.holds) == (0.83, True)
    assert distances(row(condition, overall_confidence=0.8), [used.model_copy(update={"value": None})]) == []
    assert distances(row("otherwise"), []) == []


def test_the_text_tells_all_that_an_auditor_asks(ctx: Context) -> None:
    told = text(explain_run("triage-1", ctx))
    for part in (
        "run triage-1",
        '{"team": "<billing>"}',
        "0.72 by value_probability, uncalibrated",
        "min_margin 0.5",
        "legal_risk 0.11",
        "○ thought_trace.overall_confidence < 0.7 → human_review   false",
        "overall_confidence 0.72 < 0.7 did not hold, by 0.02",
        "● otherwise → resolve   true",
        "the chance that a person would look at this answer was 10%",
        "model support-desk",
        "weights 8fcb62764417e174",
        "table triage v3",
        "bundle legal_risk bbbbbbbbbbbbbbbb",
    ):
        assert part in told, f"{part!r} is not in\n{told}"


def test_the_page_tells_the_same_and_escapes_what_it_shows(ctx: Context) -> None:
    told = page(explain_run("<triage-1>", ctx))
    assert "&lt;billing&gt;" in told
    assert "<billing>" not in told
    assert "<triage-1>" not in told
    assert "did not hold, by 0.02" in told
    assert 'class="fired"' in told


def test_a_run_that_visits_an_action_twice_gets_each_its_own_decision(ctx: Context) -> None:
    ctx.thought_traces.append(ctx.thought_traces[0].model_copy(update={"overall_confidence": 0.3}))
    table(0.7).decide(ctx, after="classify")
    first, second = explain_run("r", ctx).steps
    assert (first.visit, second.visit) == (1, 2)
    assert first.decision is not None
    assert second.decision is not None
    assert (first.decision.to, second.decision.to) == ("resolve", "human_review")
    assert second.rules[0].fired


def test_a_run_without_a_model_call_says_so() -> None:
    assert "no model call yet" in text(explain_run("r", Context()))


def test_a_cascade_tells_its_rung_and_what_is_left_of_the_budget() -> None:
    spent = Spent(calls=1, tokens=412, seconds=0.5, money=0.01)
    ctx = Context(thought_traces=[ThoughtTrace(action="classify", model="m", overall_confidence=0.3)])
    decision = table(0.7).decide(ctx, after="classify")
    ctx.decisions[0] = decision.model_copy(
        update={
            "rung": 1,
            "retry": Retry(model="large"),
            "budget": BudgetState(spent=spent, tokens_left=588, money_left=0.04),
        }
    )
    told = text(explain_run("r", ctx))
    assert "rung 1; next with the model large" in told
    assert "spent 412 tokens, 0.5 s, money 0.01; left tokens 588, money 0.04" in told
