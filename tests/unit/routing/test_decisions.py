"""Decisions: what is taken, what goes to a person, and what is recorded."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wonder.errors import LoopLimit, NoTrace, TableError
from wonder.routing.context import Context
from wonder.routing.decision import RouteDecision
from wonder.routing.table import DEFAULT_MAX_VISITS, TransitionTable
from wonder.routing.transition import Transition
from wonder.trace.schema import ThoughtTrace

C = "thought_trace.overall_confidence"
LEGAL = "thought_trace.active_concepts.legal_risk"


def row(to: Any, condition: str, **settings: Any) -> Transition:
    return Transition(from_="classify", to=to, condition=condition, **settings)


ROWS = [
    row("legal_review", f"{LEGAL} > 0.8", name="legal"),
    row("human_review", f"{C} < 0.7", name="unsure"),
    row("resolve", "otherwise"),
]


def context(confidence: Any = 0.9, legal_risk: Any = 0.1, *, times: int = 1, **fields: Any) -> Context:
    concepts = {} if legal_risk is None else {"legal_risk": legal_risk}
    # Not validated, so that a number that must never arrive can be tried too.
    trace = ThoughtTrace.model_construct(
        action="classify", model="m", overall_confidence=confidence, active_concepts=concepts, **fields
    )
    return Context.model_construct(
        state={}, thought_traces=[trace] * times, outputs={}, decisions=[], prior_thought_state=None
    )


def decide(rows: list[Transition], ctx: Context, **settings: Any) -> RouteDecision:
    return TransitionTable(rows, **settings).decide(ctx, after="classify")


def test_the_first_true_row_decides() -> None:
    assert decide(ROWS, context(0.5, 0.9)).to == "legal_review"
    assert decide(ROWS, context(0.5, 0.1)).to == "human_review"
    assert decide(ROWS, context(0.9, 0.9)).to == "legal_review"


def test_no_true_row_goes_to_otherwise() -> None:
    decision = decide(ROWS, context(0.93, 0.02))
    assert (decision.to, decision.reason, decision.row) == ("resolve", "otherwise", "row 3")
    assert decision.explanation == "no condition held (legal_risk 0.02, overall_confidence 0.93): on to resolve"


@pytest.mark.parametrize("confidence", [math.nan, math.inf, -math.inf, None, "0.9", [0.9]])
def test_a_confidence_that_is_no_number_goes_to_on_unknown(confidence: Any) -> None:
    decision = decide(ROWS, context(confidence), on_unknown="ask")
    assert (decision.to, decision.reason, decision.row) == ("ask", "unknown", "unsure")
    assert [item.outcome for item in decision.rows] == ["false", "unknown", "false"]


def test_a_concept_that_was_not_probed_goes_to_on_unknown() -> None:
    decision = decide(ROWS, context(0.99, None))
    assert (decision.to, decision.reason) == ("human_review", "unknown")
    assert decision.explanation == (
        "legal is unknown because of legal_risk (no probe for 'legal_risk' was run): on to human_review"
    )
    assert decision.rows[0].unknown == {LEGAL: "no probe for 'legal_risk' was run"}
    assert decision.rows[0].readings == {LEGAL: None}


def test_an_unknown_row_above_a_true_one_is_not_skipped() -> None:
    decision = decide(ROWS, context(0.5, math.nan), on_unknown="ask")
    assert (decision.to, decision.reason, decision.row) == ("ask", "unknown", "legal")


def test_an_unknown_row_below_a_true_one_changes_nothing() -> None:
    decision = decide(ROWS, context(None, 0.9))
    assert (decision.to, decision.reason) == ("legal_review", "condition")
    assert decision.rows[1].outcome == "unknown"


def test_a_row_may_say_itself_where_unknown_goes() -> None:
    rows = [row("legal_review", f"{LEGAL} > 0.8", on_unknown="legal_review"), *ROWS[1:]]
    decision = decide(rows, context(0.9, None))
    assert (decision.to, decision.reason) == ("legal_review", "unknown")


def test_every_row_is_recorded_with_what_it_read() -> None:
    table = TransitionTable(ROWS, name="triage v1")
    decision = table.decide(context(0.62, 0.1), after="classify")
    assert decision.explanation == "overall_confidence 0.62 is below 0.7: on to human_review"
    assert [(item.name, item.outcome, item.readings) for item in decision.rows] == [
        ("legal", "false", {LEGAL: 0.1}),
        ("unsure", "true", {C: 0.62}),
        ("row 3", "false", {}),
    ]
    assert [item.condition for item in decision.rows] == [f"{LEGAL} > 0.8", f"{C} < 0.7", "otherwise"]
    assert (decision.table, decision.table_digest, decision.visit) == ("triage v1", table.digest, 1)
    assert RouteDecision.model_validate_json(decision.model_dump_json()) == decision


@pytest.mark.parametrize(
    ("confidence", "shown"),
    [(0.62, "0.62 is below"), (0.69999, "0.69999 is below"), (0.7 - 1e-12, "0.699999999999 is")],
)
def test_explanations_never_round_a_number_onto_the_bound(confidence: float, shown: str) -> None:
    assert shown in decide(ROWS, context(confidence)).explanation


@pytest.mark.parametrize(
    ("condition", "explanation"),
    [
        (f"0.5 < {C} < 0.7", "0.5 is below overall_confidence 0.6 and overall_confidence 0.6 is below 0.7"),
        (f"{C} < 0.7 and {LEGAL} > 0.05", "overall_confidence 0.6 is below 0.7 and legal_risk 0.1 is above 0.05"),
        (f"{C} < 0.5 or {LEGAL} > 0.05", "legal_risk 0.1 is above 0.05"),
        (f"not {C} >= 0.7", "overall_confidence 0.6 is below 0.7"),
        (f"not ({C} >= 0.7 or {LEGAL} > 0.5)", "overall_confidence 0.6 is below 0.7 and legal_risk 0.1 is at most 0.5"),
        ("thought_trace.finish_reason in ['length']", 'finish_reason "length" is in ["length"]'),
        ("'fraud' not in thought_trace.active_concepts", '"fraud" is not in active_concepts'),
        ("state.vip", "state.vip is true"),
        ("not known(output)", "known(output) is false"),
        (f"{C} < {LEGAL} * 7", "overall_confidence 0.6 is below thought_trace.active_concepts.legal_risk * 7 0.7"),
        ("state.name == 'Müller'", 'state.name "Müller" is "Müller"'),
        (f"{C} < 0.7 if state.vip else {C} < 0.2", "overall_confidence 0.6 is below 0.7"),
    ],
)
def test_explanations_name_what_decided(condition: str, explanation: str) -> None:
    ctx = context(0.6, 0.1, finish_reason="length")
    ctx.state.update(vip=True, name="Müller")
    decision = decide([row("human_review", condition), ROWS[-1]], ctx)
    assert decision.explanation == f"{explanation}: on to human_review"


def test_all_fires_every_true_row_and_on_unknown_beside_them() -> None:
    decision = decide(ROWS, context(0.5, 0.9), hit_policy="all")
    assert (decision.to, decision.targets) == ("legal_review", ["legal_review", "human_review"])
    decision = decide(ROWS, context(None, 0.9), hit_policy="all", on_unknown="ask")
    assert (decision.targets, decision.reason) == (["legal_review", "ask"], "condition")
    decision = decide(ROWS, context(None, 0.1), hit_policy="all", on_unknown="ask")
    assert (decision.targets, decision.reason) == (["ask"], "unknown")
    assert decide(ROWS, context(0.9, 0.1), hit_policy="all").targets == ["resolve"]


def test_unique_asks_where_two_rows_are_true_or_one_is_unknown() -> None:
    decision = decide(ROWS, context(0.5, 0.9), hit_policy="unique", on_unknown="ask")
    assert (decision.to, decision.reason) == ("ask", "unknown")
    assert decision.explanation == "legal and unsure are all true, and only one may be: on to ask"
    assert decide(ROWS, context(0.5, 0.1), hit_policy="unique").to == "human_review"
    assert decide(ROWS, context(None, 0.9), hit_policy="unique", on_unknown="ask").to == "ask"
    assert decide(ROWS, context(0.9, 0.1), hit_policy="unique").to == "resolve"


def test_one_row_may_have_many_targets() -> None:
    rows = [row(["legal_review", "human_review"], f"{LEGAL} > 0.8"), ROWS[-1]]
    decision = decide(rows, context(0.9, 0.9))
    assert (decision.to, decision.targets) == ("legal_review", ["legal_review", "human_review"])
    assert decision.explanation == "legal_risk 0.9 is above 0.8: on to legal_review and human_review"


@pytest.mark.parametrize(
    ("status", "required", "outcome"),
    [
        ("calibrated", "calibrated", "false"),
        ("uncalibrated", "calibrated", "unknown"),
        ("unknown", "calibrated", "unknown"),
        ("uncalibrated", "uncalibrated", "false"),
        ("unknown", "uncalibrated", "unknown"),
    ],
)
def test_a_row_that_requires_a_status_is_unknown_without_it(status: str, required: str, outcome: str) -> None:
    rows = [row("ask_expert", f"{C} < 0.7", requires_status=required), ROWS[-1]]
    decision = decide(rows, context(0.99, confidence_status=status))
    assert decision.rows[0].outcome == outcome
    assert decision.to == ("resolve" if outcome == "false" else "human_review")
    if outcome == "unknown":
        assert f"confidence_status ({status!r}, where {required!r} is required)" in decision.explanation


def test_an_otherwise_may_require_a_status_too() -> None:
    rows = [*ROWS[:2], row("resolve", "otherwise", requires_status="calibrated")]
    assert decide(rows, context(0.99, confidence_status="calibrated")).reason == "otherwise"
    decision = decide(rows, context(0.99, confidence_status="uncalibrated"))
    assert (decision.to, decision.reason) == ("human_review", "unknown")
    # Where another row decides, nothing is asked of it.
    decision = decide(rows, context(0.5, confidence_status="uncalibrated"))
    assert (decision.reason, decision.rows[-1].outcome) == ("condition", "false")


def test_what_cannot_be_written_to_a_history_is_not() -> None:
    rows = [row("a", "state.text == 'x' or state.big > 3 or len(state.text) > 2"), ROWS[-1]]
    ctx = context()
    ctx.state.update(text="\ud800" + "é" * 500, big=10**5000)
    decision = decide(rows, ctx)
    assert decision.to == "a"
    assert len(decision.model_dump_json()) < 1500


def test_a_threshold_without_a_certificate_goes_to_on_unknown() -> None:
    table = TransitionTable(
        [row("human_review", f'{C} < threshold("classify", risk=0.05)'), ROWS[-1]], on_unknown="ask"
    )
    assert table.decide(context(0.9), after="classify", thresholds={("classify", 0.05): 0.8}).to == "resolve"
    assert table.decide(context(0.7), after="classify", thresholds={("classify", 0.05): 0.8}).to == "human_review"
    decision = table.decide(context(0.7), after="classify", thresholds={("classify", 0.05): None})
    assert decision.to == "ask"
    assert "no certified threshold" in decision.explanation
    assert table.decide(context(0.7), after="classify").to == "ask"
    recorded = table.evaluate(context(0.9), "classify", {("classify", 0.05): 0.8}).rows[0].readings
    assert recorded['threshold("classify", risk=0.05)'] == 0.8


def test_state_output_and_visits_are_read_from_the_context() -> None:
    rows = [row("a", "state.vip and output.team == 'billing' and visits == 2"), ROWS[-1]]
    ctx = context(times=2)
    ctx.state["vip"] = True
    ctx.outputs["classify"] = {"team": "billing"}
    assert decide(rows, ctx).to == "a"


def test_decide_appends_to_the_context_and_evaluate_does_not() -> None:
    table, ctx = TransitionTable(ROWS), context()
    pure = table.evaluate(ctx, "classify")
    assert ctx.decisions == []
    assert table.decide(ctx, after="classify") == pure
    assert ctx.decisions == [pure]


def test_an_action_that_has_not_run_cannot_be_decided_on() -> None:
    with pytest.raises(NoTrace, match="'classify' has no trace in this context \\(traces: none\\): run the action"):
        TransitionTable(ROWS).decide(Context(), after="classify")


def test_a_misspelt_action_is_pointed_out() -> None:
    with pytest.raises(TableError, match="no row follows 'clasify': did you mean 'classify'\\?"):
        TransitionTable(ROWS).decide(context(), after="clasify")


LOOP = [row("classify", f"{C} < 0.7", name="again"), ROWS[-1]]


def test_a_loop_ends_at_its_guard_and_goes_to_on_unknown() -> None:
    table = TransitionTable(LOOP)
    assert table.decide(context(0.5, times=DEFAULT_MAX_VISITS), after="classify").to == "classify"
    decision = table.decide(context(0.5, times=DEFAULT_MAX_VISITS + 1), after="classify")
    assert (decision.to, decision.reason, decision.row) == ("human_review", "loop_limit", None)
    assert decision.explanation == "'classify' has run 11 times, and the table allows 10: on to human_review"
    assert decision.rows[0].outcome == "true"


def test_a_loop_through_other_actions_and_through_on_unknown_is_guarded() -> None:
    def other(after: str, to: str, **settings: Any) -> Transition:
        return Transition(from_=after, to=to, condition="otherwise", **settings)

    far = TransitionTable([other("classify", "draft"), other("draft", "judge"), other("judge", "classify")])
    assert far.evaluate(context(times=11), "classify").reason == "loop_limit"
    unknown = TransitionTable([*ROWS, other("escalate", "classify")], on_unknown="escalate")
    assert unknown.evaluate(context(times=11), "classify").reason == "loop_limit"
    none = TransitionTable(ROWS)
    assert none.evaluate(context(times=11), "classify").reason == "otherwise"


def test_the_guard_can_be_set_and_can_raise() -> None:
    assert decide(LOOP, context(0.5, times=3), max_visits=3).to == "classify"
    assert decide(LOOP, context(0.5, times=4), max_visits=3).reason == "loop_limit"
    with pytest.raises(LoopLimit, match="has run 4 times, and the table allows 3"):
        decide(LOOP, context(0.5, times=4), max_visits=3, on_loop_limit="raise")


def test_a_row_is_taken_only_as_often_as_it_allows() -> None:
    rows = [row("classify", f"{C} < 0.7", name="again", max_visits=2, on_unknown="larger_model"), ROWS[-1]]
    assert decide(rows, context(0.5, times=2)).to == "classify"
    decision = decide(rows, context(0.5, times=3))
    assert (decision.to, decision.reason, decision.row) == ("larger_model", "loop_limit", "again")
    assert decide(rows, context(0.9, times=3)).to == "resolve"


# Properties

anything = st.one_of(
    st.floats(),
    st.none(),
    st.integers(),
    st.just(10**400),
    st.booleans(),
    st.text(st.characters(), max_size=3),
    st.lists(st.floats(), max_size=2),
)
values = st.one_of(st.floats(0, 1), anything)
wild_traces = st.fixed_dictionaries(
    {},
    optional={
        "overall_confidence": values,
        "confidence_status": st.one_of(st.sampled_from(["calibrated", "uncalibrated", "unknown"]), anything),
        "active_concepts": st.one_of(st.dictionaries(st.sampled_from(["legal_risk", "fraud"]), values), anything),
        "attention_entropy": st.one_of(st.lists(values, max_size=2), anything),
        "tokens": anything,
        "missing": anything,
        "confidence_reason": anything,
    },
)
WIDE = [
    row(
        "legal_review",
        f"{LEGAL} > 0.8 or thought_trace.active_concepts.fraud * 2 > {LEGAL}",
        requires_status="calibrated",
    ),
    row("human_review", f"1 / {C} > 1.5 and not thought_trace.attention_entropy[0] < 0.3"),
    row("classify", "len(thought_trace.tokens) > 2 or output in ['a', 1] or 'x' in state.seen", max_visits=2),
    row("ask", f"(min({C}, state.a) if state.b else abs(state.a)) < threshold('t', risk=0.1)"),
    ROWS[-1],
]
TABLES = {policy: TransitionTable(WIDE, hit_policy=policy) for policy in ("first", "all", "unique")}


@settings(max_examples=300, deadline=None)
@given(
    wild_traces, st.dictionaries(st.sampled_from(["a", "b", "seen"]), anything), anything, anything, st.integers(1, 12)
)
def test_a_table_never_raises_and_decides_alike_twice(
    fields: dict[str, Any], state: dict[str, Any], output: Any, threshold: Any, times: int
) -> None:
    trace = ThoughtTrace.model_construct(action="classify", **fields)
    ctx = Context.model_construct(
        state=state,
        thought_traces=[trace] * times,
        outputs={"classify": output},
        decisions=[],
        prior_thought_state=None,
    )
    for table in TABLES.values():
        first = table.evaluate(ctx, "classify", {("t", 0.1): threshold})
        assert first.to in table.nodes
        assert table.evaluate(ctx, "classify", {("t", 0.1): threshold}) == first
        assert RouteDecision.model_validate_json(first.model_dump_json()) == first
        if first.reason == "otherwise":
            assert {item.outcome for item in first.rows[:-1]} == {"false"}


@settings(max_examples=200, deadline=None)
@given(
    st.floats(0.01, 0.99),
    st.floats(0.01, 0.99),
    st.lists(st.floats(0, 1), min_size=2, max_size=2),
    st.floats(0, 1),
    st.sampled_from(["first", "all", "unique"]),
)
def test_raising_confidence_never_turns_acceptance_into_review(
    bound: float, legal_bound: float, confidences: list[float], legal: float, policy: Any
) -> None:
    rows = [row("legal_review", f"{LEGAL} > {legal_bound!r}"), row("human_review", f"{C} < {bound!r}"), ROWS[-1]]
    table = TransitionTable(rows, hit_policy=policy)
    accepted = [table.evaluate(context(value, legal), "classify").to == "resolve" for value in sorted(confidences)]
    assert accepted == sorted(accepted)
    assert table.evaluate(context(math.nan, legal), "classify").to != "resolve"
