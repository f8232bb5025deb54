"""A table that has a hole, an unreachable row or an unknown target cannot be built."""

import json
from typing import Any, Literal

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from wonder.actions.definition import ActionDef
from wonder.errors import ConditionError, TableError
from wonder.routing.expression import E
from wonder.routing.table import TransitionTable
from wonder.routing.transition import TableSpec, Transition
from wonder.trace.capture import ThoughtCapture

C = "thought_trace.overall_confidence"
LEGAL = "thought_trace.active_concepts.legal_risk"


class Answer(BaseModel):
    team: Literal["billing", "tech"]


class State(BaseModel):
    tries: int = 0


CLASSIFY = ActionDef(
    name="classify", prompt="{text}", output=Answer, thought_capture=ThoughtCapture(run_concept_probes=["legal_risk"])
)


def row(to: Any, condition: Any, after: Any = "classify", **settings: Any) -> Transition:
    return Transition(from_=after, to=to, condition=condition, **settings)


RESOLVE = row("resolve", "otherwise")


def refused(*rows: Transition, **settings: Any) -> str:
    with pytest.raises((TableError, ConditionError)) as caught:
        TransitionTable(rows, **settings)
    return str(caught.value)


def test_the_smallest_useful_table_is_short() -> None:
    table = TransitionTable(
        [
            Transition(from_="classify", to="legal_review", condition="thought_trace.active_concepts.legal_risk > 0.8"),
            Transition(from_="classify", to="human_review", condition="thought_trace.overall_confidence < 0.7"),
            Transition(from_="classify", to="resolve", condition="otherwise"),
        ]
    )
    assert table.sources == ("classify",)
    assert table.nodes == ("classify", "legal_review", "human_review", "resolve")


def test_a_table_without_otherwise_is_refused() -> None:
    message = refused(row("human_review", f"{C} < 0.7"))
    assert "there is no otherwise after 'classify'" in message
    assert 'condition="otherwise"' in message
    assert "meant to be 'classify'" in refused(RESOLVE, row("resolve", f"{C} < 0.7", after="clasify"))
    assert "at least one row" in refused()


def test_two_otherwise_are_refused() -> None:
    assert "there already is an otherwise" in refused(RESOLVE, row("human_review", "otherwise"))


def test_a_row_after_the_otherwise_is_refused() -> None:
    assert "row 2 after 'classify' comes after the otherwise" in refused(RESOLVE, row("human_review", f"{C} < 0.7"))


@pytest.mark.parametrize(
    "conditions",
    [
        (f"{C} < 0.7", f"{C} < 0.5"),
        (f"{C} < 0.7", f"{C} < 0.7"),
        (f"{C} < 0.7", f"0.7 > {C}"),
        (f"{C} < 0.7", f"not {C} >= 0.7"),
        (f"{C} < 0.7", f"{C} == 0.3"),
        (f"{C} < 0.7", f"{C} in [0.1, 0.2]"),
        (f"{C} < 0.7", f"{C} < 0.5 and thought_trace.active_concepts.legal_risk > 0.8"),
        (f"{C} < 0.7 or {LEGAL} > 0.8", f"{LEGAL} > 0.9"),
        (f"{C} < 0.5", f"{C} > 0.4", f"0.3 <= {C} <= 0.6"),
        (f"{C} < 0.7", f"{C} >= 0.7", "thought_trace.active_concepts.legal_risk > 0.8"),
        ("visits > 1", "visits >= 2"),
        ("state.team != 'a'", "state.team == 'b'"),
        ("state.team in ['a', 'b']", "state.team == 'b'"),
        ("state.ok", "state.ok == true"),
        ("state.a < state.b", "state.b > state.a"),
        ("thought_trace.finish_reason == 'stop'", "thought_trace.finish_reason == 'length'", f"{C} < 0.5"),
        ("known(state.x)", "known(state.x) and state.x > 3"),
        (f'{C} < threshold("t", risk=0.1)', f'{C} < threshold("t", risk=0.1) and visits > 2'),
    ],
)  # fmt: skip
def test_a_row_that_an_earlier_one_always_hides_is_refused(conditions: tuple[str, ...]) -> None:
    rows = [row(f"end{at}", condition) for at, condition in enumerate(conditions)]
    assert f"row {len(rows)} after 'classify' can never be taken" in refused(*rows, RESOLVE)


@pytest.mark.parametrize(
    "conditions",
    [
        (f"{C} < 0.5", f"{C} < 0.7"),
        (f"{C} < 0.7", f"{C} <= 0.7"),
        (f"{C} < 0.7", "thought_trace.active_concepts.legal_risk > 0.8"),
        (f"{C} < 0.7 and thought_trace.active_concepts.legal_risk > 0.8", f"{C} < 0.5"),
        (f"{C} < 0.4", f"{C} > 0.6", f"0.4 <= {C} < 0.61"),
        ("visits > 2", "visits >= 2"),
        ("state.a < state.b", "state.b < state.a", "state.a == state.b"),
        ("known(state.x)", "not known(state.x) and visits > 3"),
    ],
)
def test_a_row_that_some_value_reaches_is_accepted(conditions: tuple[str, ...]) -> None:
    TransitionTable([*(row(f"end{at}", condition) for at, condition in enumerate(conditions)), RESOLVE])


def test_hiding_depends_on_the_hit_policy() -> None:
    wide, narrow = row("human_review", f"{C} < 0.7"), row("legal_review", f"{C} < 0.5")
    assert "can never be taken" in refused(wide, narrow, RESOLVE)
    assert "can never be taken" in refused(wide, narrow, RESOLVE, hit_policy={"classify": "first"})
    TransitionTable([wide, narrow, RESOLVE], hit_policy="all")
    assert "repeats" in refused(wide, wide, RESOLVE, hit_policy="all")
    assert "make them exclude each other" in refused(wide, narrow, RESOLVE, hit_policy="unique")
    assert "make them exclude each other" in refused(narrow, wide, RESOLVE, hit_policy="unique")
    TransitionTable([wide, row("archive", f"{C} >= 0.9"), RESOLVE], hit_policy="unique")
    assert "no row follows 'clasify': did you mean 'classify'?" in refused(RESOLVE, hit_policy={"clasify": "all"})
    assert "this is not a transition table: hit_policy" in refused(RESOLVE, hit_policy="any")


def test_priorities_order_rows_wherever_they_stand() -> None:
    wide, narrow = (
        row("human_review", f"{C} < 0.7", name="wide"),
        row("legal_review", f"{C} < 0.5", name="narrow", priority=1),
    )
    table = TransitionTable([RESOLVE, wide, narrow])
    assert [item.name for item in table.rows("classify")] == ["narrow", "wide", "row 1"]


def test_a_wrong_condition_names_its_row_and_points_at_the_place() -> None:
    message = refused(row("a", f"{C} < 0.1"), row("b", "thought_trace.tokns == 1", name="odd"), RESOLVE)
    assert message.startswith(
        "row 2 after 'classify' ('odd'): ThoughtTrace has no field 'tokns'; did you mean 'tokens'?"
    )
    assert message.endswith("\n  thought_trace.tokns == 1\n                ^^^^^")


def test_constant_conditions_are_refused() -> None:
    assert 'has the condition "otherwise"' in refused(row("a", "true"), RESOLVE)
    assert "always true" in refused(row("a", f"{C} <= 1"), RESOLVE)
    assert "always false" in refused(row("a", f"{C} < 0"), RESOLVE)


def test_a_target_must_be_an_action_or_one_of_the_ends() -> None:
    low = row("human_review", f"{C} < 0.7")
    TransitionTable([low, RESOLVE], ends=["human_review", "resolve"])
    assert "the target 'resolve' is neither an action nor an end" in refused(low, RESOLVE, ends=["human_review"])
    assert "did you mean 'human_review'?" in refused(
        row("human_reveiw", f"{C} < 0.7"), RESOLVE, ends=["human_review", "resolve"]
    )
    assert "on_unknown of the table: 'human_review' is neither" in refused(RESOLVE, ends=["resolve"])
    TransitionTable([RESOLVE], ends=["resolve"], on_unknown="resolve")
    assert "on_unknown 'nowhere' is neither" in refused(
        row("resolve", f"{C} < 0.7", on_unknown="nowhere"), RESOLVE, ends=["human_review", "resolve"]
    )
    assert "the target 'resolve' is neither" in refused(RESOLVE, actions=[CLASSIFY])
    TransitionTable([RESOLVE], actions=[CLASSIFY], ends=["resolve", "human_review"])
    assert "from 'clasify' is not one of the table's actions: did you mean 'classify'?" in refused(
        row("resolve", "otherwise", after="clasify"), actions=[CLASSIFY], ends=["resolve", "human_review"]
    )


@pytest.mark.parametrize("target", ["clasify", "classify2x", "human_reveiw", "human-review", "humanreview", "resolved"])
def test_without_listed_ends_a_near_miss_of_a_name_is_refused(target: str) -> None:
    message = refused(row(target, f"{C} < 0.7"), RESOLVE)
    assert "did you mean" in message
    assert "ends=[" in message


def test_without_listed_ends_names_that_differ_on_purpose_are_accepted() -> None:
    rows = [row(name, f"visits == {at}") for at, name in enumerate(["team_a", "team_b", "stage_1", "stage_2"], start=2)]
    TransitionTable([*rows, RESOLVE])


def test_an_action_given_as_an_object_is_checked_against_what_it_reads() -> None:
    known = [row("legal_review", "thought_trace.active_concepts.legal_risk > 0.8", after=CLASSIFY), RESOLVE]
    TransitionTable(known)
    assert "does not probe 'legal_rsk': did you mean 'legal_risk'?" in refused(
        row("legal_review", "thought_trace.active_concepts.legal_rsk > 0.8", after=CLASSIFY), RESOLVE
    )
    assert "ThoughtCapture(compute_attention_entropy=True)" in refused(
        row("human_review", "thought_trace.attention_entropy[0] > 2", after=CLASSIFY), RESOLVE
    )
    assert "did you mean 'billing'?" in refused(row("a", "output.team == 'biling'", after=CLASSIFY), RESOLVE)
    # The same where the rows name it, and the table lists it.
    assert "did you mean 'legal_risk'?" in refused(
        row("a", "thought_trace.active_concepts.legal_rsk > 0.8"), RESOLVE, actions=[CLASSIFY]
    )
    # And a row that goes to an action knows it too.
    assert row(CLASSIFY, "otherwise", after="draft").to == "classify"
    assert row([CLASSIFY, "audit"], "otherwise", after="draft").targets == ("classify", "audit")


def test_the_type_of_the_state_can_be_given() -> None:
    assert "did you mean 'tries'?" in refused(row("a", "state.tris > 3"), RESOLVE, state=State)
    TransitionTable([row("a", "state.tries > 3"), RESOLVE], state=State)


def test_rows_of_one_action_need_different_names() -> None:
    assert "is called 'x' too" in refused(row("a", f"{C} < 0.5", name="x"), row("b", f"{C} < 0.6", name="x"), RESOLVE)


@pytest.mark.parametrize(
    "settings",
    [{"too": "x"}, {"max_visits": 0}, {"requires_status": "good"}, {"to": []}, {"to": ""}, {"condition": True}],
)
def test_a_malformed_row_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Transition(**{"from_": "classify", "to": "a", "condition": "otherwise", **settings})


def test_both_spellings_of_from_are_accepted_and_from_is_written() -> None:
    assert Transition(**{"from": "a", "to": "b", "condition": "otherwise"}).from_ == "a"
    written = Transition(from_="a", to="b", condition="otherwise").model_dump(exclude_defaults=True)
    assert written == {"from": "a", "to": "b", "condition": "otherwise"}


def full_table() -> TransitionTable:
    return TransitionTable(
        [
            row(["legal_review", "audit"], "thought_trace.active_concepts.legal_risk > 0.8", name="legal", priority=2),
            row("human_review", E("thought_trace").overall_confidence < 0.7, requires_status="calibrated"),
            row("classify", f'{C} < threshold("classify", risk=0.05)', max_visits=2, on_unknown="audit"),
            RESOLVE,
            row("resolve", "otherwise", after="legal_review"),
        ],
        name="triage v3",
        hit_policy={"classify": "all"},
        on_unknown="human_review",
        max_visits=7,
        on_loop_limit="raise",
        ends=["human_review", "resolve", "audit"],
    )


def test_a_table_survives_json_and_yaml() -> None:
    table = full_table()
    for text, read in ((json.dumps(table.to_dict()), json.loads), (yaml.safe_dump(table.to_dict()), yaml.safe_load)):
        again = TransitionTable.from_dict(read(text))
        assert again == table
        assert again.digest == table.digest
        assert again.to_dict() == table.to_dict()
    assert table.to_dict()["rows"][0]["from"] == "classify"
    assert table.thresholds == (("classify", 0.05),)


def test_a_table_travels_as_the_input_of_a_workflow() -> None:
    table = full_table()
    text = table.spec.model_dump_json()
    assert '"from":"classify"' in text
    assert TransitionTable.from_spec(TableSpec.model_validate_json(text)).digest == table.digest
    # A newer client may send settings that this worker does not know yet.
    newer = json.loads(text) | {"not_yet": 3}
    newer["rows"][0]["retry"] = 2
    assert TransitionTable.from_spec(TableSpec.model_validate_json(json.dumps(newer))).digest == table.digest


def test_a_table_file_with_a_misspelt_key_is_refused() -> None:
    data = full_table().to_dict()
    with pytest.raises(TableError, match="has no setting on_unknwon"):
        TransitionTable.from_dict({**data, "on_unknwon": "x"})
    with pytest.raises(TableError, match="has no setting conditon"):
        TransitionTable.from_dict({"rows": [{"from": "a", "to": "b", "conditon": "otherwise"}]})


def test_the_digest_tells_tables_that_decide_differently_apart() -> None:
    def table(first: Transition, **settings: Any) -> str:
        return TransitionTable([first, RESOLVE], **settings).digest

    low = row("human_review", f"{C} < 0.7")
    assert table(low) == table(row("human_review", f"({C}) < .70", name="low"), name="triage")
    others = [
        table(row("human_review", f"{C} < 0.8")),
        table(row("audit", f"{C} < 0.7")),
        table(row("human_review", f"{C} < 0.7", on_unknown="audit")),
        table(row("human_review", f"{C} < 0.7", requires_status="calibrated")),
        table(row("human_review", f"{C} < 0.7", max_visits=3)),
        table(low, on_unknown="audit"),
        table(low, hit_policy="all"),
        table(low, max_visits=3),
        table(low, on_loop_limit="raise"),
    ]
    assert len({table(low), *others}) == len(others) + 1


def test_a_table_can_be_drawn() -> None:
    drawn = TransitionTable([row("human_review", 'state.x == "a|b"'), RESOLVE]).to_mermaid()
    assert drawn.splitlines() == [
        "flowchart TD",
        '    n0["classify"]',
        '    n1(["human_review"])',
        '    n2(["resolve"])',
        '    n0 -->|"state.x == #quot;a#124;b#quot;"| n1',
        '    n0 -->|"otherwise"| n2',
        '    n0 -.->|"unknown"| n1',
    ]
