"""Ladders, hysteresis, errors, budgets and joins: pure functions of what has happened so far."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wonder.actions.definition import ActionDef
from wonder.errors import AnswerDoesNotParse, DefinitionError, PromptTooLong, RoutingError, WorkerMissing
from wonder.routing.budget import Budget, Price, Usage
from wonder.routing.context import Context
from wonder.routing.decision import RouteDecision
from wonder.routing.join import Join
from wonder.routing.retry import Retry
from wonder.routing.table import TransitionTable
from wonder.routing.transition import Transition
from wonder.trace.schema import SampleSummary, ThoughtTrace, Timings

C = "thought_trace.overall_confidence"
LARGE = Retry(model="large")
MANY = Retry(samples=4, sampling={"max_new_tokens": 8})


def row(to: Any, condition: str = "", **more: Any) -> Transition:
    return Transition(from_="classify", to=to, condition=condition, **more)


DONE = row("done", "otherwise")
LADDER = [row("human_review", f"{C} < 0.7", name="unsure", escalate_to=[MANY, LARGE]), DONE]


def visit(
    ctx: Context, confidence: float | None = 0.5, *, model: str = "small", tokens: int = 10, samples: int = 0
) -> None:
    """What `act` leaves behind: 30 tokens of prompt, two seconds."""
    beside = {"count": samples, "equivalence": "values", "agreement": 1.0, "semantic_entropy_nats": 0.0, "distinct": 1}
    ctx.thought_traces.append(
        ThoughtTrace(
            action="classify",
            model=model,
            prompt_tokens=30,
            tokens=["x"] * tokens,
            overall_confidence=confidence,
            timings=Timings(total_s=2.0),
            samples=SampleSummary(**beside, generated_tokens=samples * tokens) if samples else None,
        )
    )


def run(table: TransitionTable, *confidences: float | None) -> list[RouteDecision]:
    ctx = Context()
    for confidence in confidences:
        visit(ctx, confidence)
        table.decide(ctx, "classify")
    return ctx.decisions


# Ladders --------------------------------------------------------------------------------------------------------------


def test_a_ladder_is_climbed_rung_by_rung_and_ends_at_the_target() -> None:
    found = run(TransitionTable(LADDER), 0.5, 0.5, 0.5)
    assert [(item.to, item.reason, item.retry, item.rung) for item in found] == [
        ("classify", "escalation", MANY, 0),
        ("classify", "escalation", LARGE, 1),
        ("human_review", "condition", None, 2),
    ]
    assert found[0].explanation == (
        "overall_confidence 0.5 is below 0.7: again with 4 samples and max_new_tokens 8 (rung 1 of 2)"
    )
    assert found[1].propensity == 0.0
    assert found[2].propensity == 1.0


def test_an_answer_that_is_sure_enough_leaves_the_ladder_at_any_rung() -> None:
    assert [item.to for item in run(TransitionTable(LADDER), 0.5, 0.9)] == ["classify", "done"]


def test_a_later_round_starts_at_the_foot_of_the_ladder_again() -> None:
    rows = [*LADDER, Transition(from_="done", to="classify", condition="visits < 3"), _otherwise("done", "end")]
    found = run(TransitionTable(rows), 0.5, 0.9, 0.5)
    assert [(item.to, item.retry, item.rung) for item in found] == [
        ("classify", MANY, 0),
        ("done", None, 1),
        ("classify", MANY, 0),
    ]


def _otherwise(after: str, to: str) -> Transition:
    return Transition(from_=after, to=to, condition="otherwise")


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=1, max_size=12), st.integers(0, 4))
def test_however_the_confidence_moves_a_ladder_never_approves_and_always_ends(
    confidences: list[float | None], rungs: int
) -> None:
    table = TransitionTable(
        [row("human_review", f"{C} < 0.7", escalate_to=[Retry(model=f"m{at}") for at in range(rungs)]), DONE]
    )
    ctx = Context()
    for at, confidence in enumerate(confidences):
        visit(ctx, confidence)
        decision = table.decide(ctx, "classify")
        if decision.to == "done":
            assert confidence is not None
            assert confidence >= 0.7
        if decision.to != "classify":
            break
        assert at < rungs
        assert decision.retry == Retry(model=f"m{at}")
    assert sum(item.retry is not None for item in ctx.decisions) <= rungs


def test_another_action_can_be_run_with_changes() -> None:
    rows = [row("draft", "otherwise", retry_with="large"), _otherwise("draft", "done")]
    (decision,) = run(TransitionTable(rows), 0.9)
    assert (decision.to, decision.retry) == ("draft", LARGE)


# Hysteresis -----------------------------------------------------------------------------------------------------------

HOLDING = TransitionTable(
    [row("classify", f"{C} < 0.7", name="unsure", holds_until=f"{C} >= 0.8", retry_with=LARGE, max_visits=99), DONE],
    max_visits=99,
)


def test_a_row_is_entered_at_one_number_and_left_at_another() -> None:
    assert [item.to for item in run(HOLDING, 0.75)] == ["done"]
    found = run(HOLDING, 0.65, 0.75, 0.85)
    assert [item.to for item in found] == ["classify", "classify", "done"]
    assert [item.rows[0].held for item in found] == [False, True, False]
    assert found[1].explanation == (
        "overall_confidence 0.75 is below 0.8, and unsure holds since it was taken: on to classify"
    )


def test_what_is_unknown_neither_enters_nor_leaves() -> None:
    found = run(HOLDING, 0.65, None, 0.75)
    assert [(item.to, item.reason) for item in found] == [
        ("classify", "condition"),
        ("human_review", "unknown"),
        ("done", "otherwise"),
    ]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_hysteresis_is_the_switch_of_the_textbook(numbers: list[float]) -> None:
    on, wanted = False, []
    for number in numbers:
        on = number < 0.8 if on else number < 0.7
        wanted.append(on)
    assert [item.to == "classify" for item in run(HOLDING, *numbers)] == wanted


# Errors ---------------------------------------------------------------------------------------------------------------

FAILING = TransitionTable(
    [
        row("classify", "visits < 2", on_error="AnswerDoesNotParse", retry_with=LARGE),
        row("shorten", on_error=["PromptTooLong"]),
        row("human_review", on_error=["RequestError", "WorkerMissing"], name="cannot"),
        row("human_review", f"{C} < 0.7", name="unsure"),
        DONE,
    ]
)


def test_errors_go_where_their_rows_say_by_class_or_by_branch() -> None:
    ctx = Context()
    visit(ctx, None)
    first = FAILING.decide(ctx, "classify", error=AnswerDoesNotParse("no JSON"))
    assert (first.to, first.reason, first.error, first.retry) == ("classify", "error", "AnswerDoesNotParse", LARGE)
    visit(ctx, None)
    assert FAILING.decide(ctx, "classify", error="AnswerDoesNotParse").row == "cannot"
    assert FAILING.decide(ctx, "classify", error=PromptTooLong("!")).to == "shorten"
    assert FAILING.decide(ctx, "classify", error=PromptTooLong("!")).explanation == "PromptTooLong: on to shorten"


def test_an_action_that_never_answered_can_be_routed_and_counts_as_a_visit() -> None:
    ctx = Context()
    ctx.use(Usage(action="classify", model="small", visits=1, visit=1))
    decision = FAILING.decide(ctx, "classify", error=WorkerMissing("nobody"))
    assert (decision.to, decision.visit, decision.rows[2].outcome) == ("human_review", 1, "true")


def test_an_error_that_no_row_is_about_is_raised_again() -> None:
    ctx = Context()
    visit(ctx)
    table = TransitionTable([row("human_review", on_error="WorkerMissing"), DONE])
    with pytest.raises(AnswerDoesNotParse, match="no JSON"):
        table.decide(ctx, "classify", error=AnswerDoesNotParse("no JSON"))
    with pytest.raises(RoutingError, match="no row of 'classify' is about OutOfMemory"):
        table.decide(ctx, "classify", error="OutOfMemory")
    assert table.decide(ctx, "classify").to == "done"


def test_steps_tell_traces_and_decisions_in_order_failed_calls_and_those_left_behind_included() -> None:
    ctx = Context()
    table = TransitionTable([row("classify", on_error="WorkerMissing"), row("classify", "visits < 9"), DONE])
    ctx.use(Usage(action="classify", model="small", visits=2))  # left behind when the run continued
    visit(ctx, 0.3)
    table.decide(ctx, "classify")
    ctx.use(Usage(action="classify", model="small", visits=1, visit=4))
    table.decide(ctx, "classify", error="WorkerMissing")
    ctx.thought_traces.append(ThoughtTrace(action="other", model="m"))
    visit(ctx, 0.4)
    table.decide(ctx, "classify")
    visit(ctx, 0.5)
    told = [
        (trace.overall_confidence if trace else "none", decision.visit if decision else "undecided")
        for trace, decision in ctx.steps()
    ]
    assert told == [(0.3, 3), ("none", 4), (None, "undecided"), (0.4, 5), (0.5, "undecided")]


# Budgets --------------------------------------------------------------------------------------------------------------


def spending(**limits: Any) -> TransitionTable:
    prices = {"small": Price(per_million_tokens=100.0), "large": Price(per_million_tokens=1000.0, per_second=0.5)}
    return TransitionTable(LADDER, budget=Budget(prices=prices, **limits), on_exhausted="later", ends=None)


def test_a_rung_that_no_longer_fits_is_not_begun() -> None:
    """One call uses 40 tokens and 2 seconds; an answer with four samples would use 200 more, in the same time."""
    (decision,) = run(spending(tokens=239), 0.5)
    assert (decision.to, decision.reason, decision.retry) == ("later", "budget", None)
    assert decision.explanation == "the run has used 40 of 239 tokens, and the next call needs about 200: on to later"
    assert run(spending(tokens=240), 0.5)[0].retry == MANY
    assert run(spending(seconds=3.9), 0.5)[0].to == "later"
    assert run(spending(seconds=4.0), 0.5)[0].retry == MANY


def test_money_is_counted_at_the_price_of_each_model() -> None:
    ctx = Context()
    visit(ctx, 0.5, samples=4)
    decision = spending(money=10.0).decide(ctx, "classify")
    assert decision.cost is not None
    assert decision.budget is not None
    assert (decision.cost.calls, decision.cost.tokens, decision.cost.seconds) == (5, 200, 2.0)
    assert decision.cost.money == pytest.approx(50 * 100 / 1e6)
    assert decision.budget.money_left == pytest.approx(10 - 0.005)
    visit(ctx, 0.5, model="large")
    assert spending(money=1.5).evaluate(ctx, "classify").reason == "budget"
    decision = spending(money=10.0).decide(ctx, "classify")
    assert decision.cost is not None
    assert decision.cost.money == pytest.approx(10 * 1000 / 1e6 + 2 * 0.5)
    assert decision.retry == LARGE


def test_a_model_without_a_price_leaves_the_money_unknown_and_nothing_more_is_begun() -> None:
    ctx = Context()
    visit(ctx, 0.5, model="unheard_of")
    decision = spending(money=1e9).decide(ctx, "classify")
    assert (decision.reason, decision.explanation) == (
        "budget",
        "a model that was used has no price in the budget: on to later",
    )


def test_what_ends_a_run_needs_no_budget() -> None:
    (decision,) = run(spending(tokens=1), 0.9)
    assert (decision.to, decision.budget and decision.budget.tokens_left) == ("done", -39)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 2000),
    st.lists(st.tuples(st.floats(0, 0.6), st.integers(0, 40)), min_size=1, max_size=10),
)
def test_a_run_of_like_calls_never_goes_over_its_budget(limit: int, calls: list[tuple[float, int]]) -> None:
    rungs = [Retry(model=f"m{at}") for at in range(9)]
    table = TransitionTable([row("human_review", f"{C} < 0.7", escalate_to=rungs), DONE], budget=Budget(tokens=limit))
    ctx = Context()
    size = calls[0][1]
    for confidence, _ in calls:
        visit(ctx, confidence, tokens=size)
        decision = table.decide(ctx, "classify")
        if decision.retry is None:
            break
        used = sum(trace.prompt_tokens + len(trace.tokens) for trace in ctx.thought_traces)
        assert used + 30 + size <= limit


# Joins ----------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 6), st.sampled_from(["all", "any", 1, 2, 3]), st.lists(st.booleans(), max_size=6))
def test_a_join_is_met_by_enough_branches_and_lost_as_soon_as_they_cannot_be_enough(
    branches: int, need: Any, came: list[bool]
) -> None:
    join = Join(at="combine", need=need)
    came = came[:branches]
    needed = {"all": branches, "any": 1}.get(need, need)
    tally = join.tally(branches, came.count(True), came.count(False))
    if came.count(True) >= needed:
        assert tally == "met"
    else:
        rest = branches - len(came)
        assert tally == ("open" if came.count(True) + rest >= needed else "lost")


def test_a_fan_out_carries_its_join() -> None:
    rows = [
        row(["fraud", "tone"], "otherwise", join=Join(at="combine", need="any")),
        _otherwise("fraud", "combine"),
        _otherwise("tone", "combine"),
        _otherwise("combine", "done"),
    ]
    (decision,) = run(TransitionTable(rows), 0.9)
    assert decision.targets == ["fraud", "tone"]
    assert decision.join == Join(at="combine", need="any")


# What is refused ------------------------------------------------------------------------------------------------------

ACTION = ActionDef(name="classify", prompt="{text}")
BRANCHES = [_otherwise("a", "combine"), _otherwise("b", "combine"), _otherwise("combine", "done")]
REFUSED: list[tuple[str, list[Transition], dict[str, Any], str]] = [
    ("unknown error", [row("x", on_error="AnswerDoesntParse"), DONE], {}, "did you mean 'AnswerDoesNotParse'"),
    ("a mistake is no route", [row("x", on_error="PromptError"), DONE], {}, "a mistake to mend"),
    ("hidden error", [row("x", on_error="RequestError"), row("y", on_error="PromptTooLong"), DONE], {},
        "row 2 after 'classify' can never be taken: row 1 takes every PromptTooLong"),
    ("only errors", [row("x", on_error="WorkerMissing")], {}, "add the rows for when 'classify' goes well"),
    ("no condition", [], {"raw": {"from": "classify", "to": "x"}}, "a row needs a condition"),
    ("nothing changes", [row("x", f"{C} < 0.7", escalate_to=[Retry()]), DONE], {}, "rung 1 of escalate_to changes not"),
    ("same rung", [row("x", f"{C} < 0.7", escalate_to=["m", "m"]), DONE], {}, "rung 2 of escalate_to is rung 1 again"),
    ("bad sampling", [], {"raw": {"from": "classify", "to": "x", "condition": "otherwise",
        "retry_with": {"sampling": {"temprature": 1}}}}, "Sampling has no setting temprature"),
    ("no variable", [row("x", f"{C} < 0.7", escalate_to=[Retry(context={"history": "past"})]), DONE],
        {"actions": [ACTION], "ends": ["x", "done", "human_review"]}, "the prompt of 'classify' has no {history}"),
    ("too few visits", [row("x", f"{C} < 0.7", escalate_to=["a", "b"], max_visits=2), DONE], {}, "at least 3"),
    ("retry under all", [row("x", f"{C} < 0.7", escalate_to=["a"]), DONE], {"hit_policy": "all"}, "'all'"),
    ("two targets", [row(["x", "y"], f"{C} < 0.7", retry_with="a"), DONE], {}, "changes one target, and there are 2"),
    ("hysteresis inside", [row("x", f"{C} < 0.7", holds_until=f"{C} >= 0.6"), DONE], {}, "can be true together"),
    ("hysteresis alone", [row("x", "otherwise", holds_until=f"{C} >= 0.6")], {}, "belongs to a row with a condition"),
    ("hysteresis misspelt", [row("x", f"{C} < 0.7", holds_until="thought_trace.overal_confidence >= 0.8"), DONE], {},
        "holds_until: ThoughtTrace has no field 'overal_confidence'"),
    ("exhausted, no budget", [DONE], {"on_exhausted": "later"}, "on_exhausted without a budget"),
    ("exhausted action", [DONE], {"on_exhausted": "classify", "budget": Budget(tokens=1)}, "go over"),
    ("no price",
        [row("x", f"{C} < 0.7", escalate_to=["large"]), DONE], {"budget": Budget(money=1)}, "no price for the"),
    ("join of one", [row("a", "otherwise", join=Join(at="combine")), *BRANCHES], {}, "needs several targets"),
    ("join too large", [row(["a", "b"], "otherwise", join=Join(at="combine", need=3)), *BRANCHES], {}, "at most 2"),
    ("join not met",
        [row(["a", "x"], "otherwise", join=Join(at="combine")), *BRANCHES], {},
        "the branch 'x' never arrives at the join 'combine'"),
    ("join in itself", [row(["a", "combine"], "otherwise", join=Join(at="combine")), *BRANCHES], {}, "own branches"),
    ("overlap", [row("x", f"{C} < 0.7"), row("y", f"{C} > 0.5"), DONE], {"hit_policy": "unique"}, "be true together"),
    ("never ends", [row("classify", f"{C} < 0.7"), _otherwise("classify", "classify")],
        {"on_unknown": "classify"}, "never ends"),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "more", "reason"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_cannot_work_is_refused_when_the_table_is_built(
    rows: list[Transition], more: dict[str, Any], reason: str
) -> None:
    data = {"rows": [more["raw"]]} if "raw" in more else None
    with pytest.raises(DefinitionError) as caught:
        TransitionTable(rows, **more) if data is None else TransitionTable.from_dict(data)
    assert reason in str(caught.value)


def test_conditions_on_different_signals_may_overlap_under_unique() -> None:
    rows = [row("x", f"{C} < 0.7"), row("y", "visits > 1"), DONE]
    assert TransitionTable(rows, hit_policy="unique").policy("classify") == "unique"


def test_everything_travels_as_data_and_counts_in_the_digest() -> None:
    full = TransitionTable(
        [
            row("human_review", f"{C} < 0.7", escalate_to=[MANY, "large"], holds_until=f"{C} >= 0.8"),
            row("shorten", on_error="PromptTooLong", retry_with=LARGE),
            row(["a", "b"], "otherwise", join=Join(at="combine", need=2, otherwise="dropped")),
            *BRANCHES,
        ],
        budget=Budget(tokens=100, seconds=3.0),
        on_exhausted="human_review",
    )
    data = full.to_dict()
    again = TransitionTable.from_dict(data)
    assert (again, again.digest) == (full, full.digest)
    data["rows"][0]["holds_until"] = f"{C} >= 0.85"
    assert TransitionTable.from_dict(data).digest != full.digest


def test_digests_of_tables_from_before_are_what_they_were() -> None:
    rows = [
        Transition(from_="a", to="x", condition=f"{C} < 0.7", max_visits=2),
        Transition(from_="a", to=["a", "y"], condition=f"{C} < 0.8", requires_status="calibrated"),
        Transition(from_="a", to="z", condition="otherwise"),
    ]
    assert TransitionTable(rows).digest == "c0c77b4f35d19647"
