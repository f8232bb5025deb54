"""A graph is checked completely before its first step, and every mistake is told in a sentence."""

import enum
import json
import re
from pathlib import Path
from typing import Any, Literal, get_args

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from examples.ticket_triage.workflow import routes
from wonder.errors import DefinitionError, GraphError
from wonder.graph.carry import carried
from wonder.graph.files import read
from wonder.graph.plan import plan
from wonder.graph.spec import GraphRun, GraphSpec
from wonder.graph.types import type_of
from wonder.routing.budget import total
from wonder.routing.context import Context
from wonder.routing.retry import Retry
from wonder.routing.table import TransitionTable
from wonder.routing.transition import Transition
from wonder.trace.schema import ThoughtTrace

EXAMPLES = Path(__file__).parents[3] / "examples" / "graph"
C = "thought_trace.overall_confidence"


def graph(**changes: Any) -> dict[str, Any]:
    return {
        "input": {"text": "string", "amount": "number?", "past": "string?"},
        "actions": {
            "classify": {"prompt": "{history}{text}", "output": {"team": ["a", "b"], "note": "string?"}},
            "draft": {"prompt": "{text} for {team}", "variables": {"team": "classify.team"}},
        },
        "rows": [
            {"from": "classify", "to": "person", "condition": f"{C} < 0.7",
                "escalate_to": [{"context": {"history": "past"}}]},
            {"from": "classify", "to": "draft", "condition": "otherwise"},
            {"from": "draft", "to": "done", "condition": "otherwise"},
        ],
        "reviews": {"person": {"sla": "1h30m", "on_timeout": "reject", "title": "{text}"}},
        "ends": ["done"],
    } | changes  # fmt: skip


def built(**changes: Any) -> Any:
    return plan(GraphRun.model_validate_json(json.dumps({"graph": graph(**changes)})).graph)


def test_a_graph_becomes_actions_a_table_and_the_sources_of_every_variable() -> None:
    found = built()
    assert found.actions["classify"].output.model_fields.keys() == {"team", "note"}
    assert found.table.spec.reviews == ["person"]
    assert found.sources["draft"] == {"text": ("input", "text"), "team": ("classify", "team")}
    assert found.spec.reviews["person"].sla.total_seconds() == 5400
    filled = found.variables("classify", {"text": "hi"}, {})
    assert filled == {"history": "", "text": "hi"}
    assert found.variables("draft", {"text": "hi"}, {"classify": {"team": "b"}})["team"] == "b"


def test_the_example_is_the_coded_triage() -> None:
    assert plan(read(EXAMPLES / "ticket_triage.yaml")).table.digest == routes.digest


@pytest.mark.parametrize("name", ["ticket_triage", "second_opinion"])
def test_an_example_survives_the_journey_as_json(name: str) -> None:
    spec = read(EXAMPLES / f"{name}.yaml")
    for text in (spec.model_dump_json(by_alias=True), spec.model_dump_json(by_alias=True, exclude_defaults=True)):
        again = GraphRun.model_validate_json(f'{{"graph": {text}}}').graph
        assert plan(again).table.digest == plan(spec).table.digest
        assert again == spec


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("unknown name", {"acitons": {}}, "GraphSpec has no setting acitons"),
    ("unknown name inside", {"reviews": {"person": {"quue": "x"}}}, "reviews.person: Value error, GraphReview has no"),
    ("unknown name of a row", {"rows": [{"from": "classify", "too": "x"}]}, "Transition has no setting too"),
    ("no duration", {"reviews": {"person": {"sla": "soon"}}}, "reviews.person.sla"),
    ("no type", {"input": {"text": "strng"}}, "input.text: there is no type 'strng': did you mean 'string'?"),
    ("YAML's yes", {"input": {"text": [True, "no"]}}, "quote words that YAML takes for something else"),
    ("no field name", {"input": {"two words": "string"}}, "no field can be called 'two words'"),
    ("no such start", {"start": "clasify"}, "start: there is no action 'clasify': did you mean 'classify'?"),
    ("two things", {"ends": ["done", "draft"]}, "'draft' is an end and something else too"),
    ("unknown goes nowhere", {"on_unknown": "persn"}, "on_unknown: 'persn' is neither a review nor an end"),
    ("a review leads nowhere", {"reviews": {"person": {"then": {"edit": "drft"}}}}, "then: 'drft' is not in the graph"),
    ("a verdict not on offer", {"reviews": {"person": {"allowed": ["approve"], "then": {"edit": "done"}}}},
        "then: edit"),
    ("nothing leads there", {"ends": ["done", "never"]}, "nothing leads to 'never' from 'classify'"),
    ("no way on", {"rows": [{"from": "classify", "to": "draft", "condition": "otherwise"}]}, "goes after 'draft'"),
    ("a variable too many", {"actions": {**graph()["actions"], "classify": {"prompt": "{history}{text}",
        "variables": {"txt":
        "input.text"}}}}, "the prompt has no variable {txt}: did you mean 'text'?"),
    ("no such field", {"actions": {**graph()["actions"], "draft": {"prompt": "{team}", "variables": {"team":
        "classify.taem"}}}}, "classify has no field 'taem': did you mean 'team'?"),
    ("no such action", {"actions": {**graph()["actions"], "draft": {"prompt": "{team}", "variables": {"team":
        "clasify.team"}}}}, "'clasify' is neither the input nor an action: did you mean 'classify'?"),
    ("nothing to fill a retry with", {"input": {"text": "string"}}, "escalate_to fills {history} from 'past'"),
    ("nothing to fill with", {"input": {"txt": "string", "past": "string"}},
        "the input has no field 'text' to fill {text} with"),
    ("a condition", {"rows": [{"from": "classify", "to": "draft",
        "condition": "output.taem == 'a'"}, *graph()["rows"]]},
        "did you mean 'team'?"),
    ("a condition on the input", {"rows": [{"from": "classify", "to": "draft", "condition": "state.amnt > 1"},
        *graph()["rows"]]}, "did you mean 'amount'?"),
    ("a prompt", {"actions": {**graph()["actions"], "draft": {"prompt": "{text!r}"}}},
        "action 'draft': prompt template"),
    ("an action called input", {"actions": {**graph()["actions"], "input": {"prompt": "x"}}},
        "cannot be called 'input'"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "told"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_a_mistake_is_told_in_a_sentence(changes: dict[str, Any], told: str) -> None:
    with pytest.raises((DefinitionError, ValidationError)) as caught:
        built(**changes)
    assert told in str(caught.value)


def test_the_input_is_checked_against_its_type() -> None:
    found = built()
    assert found.check_input({"text": "hi"}) == {"text": "hi", "amount": None, "past": None}
    for given, told in (
        ({}, "text: Field required"),
        ({"text": "hi", "amuont": 3}, "no field 'amuont': did you mean 'amount'?"),
        ({"text": "hi", "amount": "much"}, "amount: Input should be a valid number"),
    ):
        with pytest.raises(GraphError, match=told.replace("?", r"\?")):
            found.check_input(given)
    with pytest.raises(GraphError, match="the input lacks text"):
        built(input={}, actions={**graph()["actions"], "classify": {"prompt": "{text}", "output": {"team": "string"}}},
              rows=graph()["rows"][1:]).check_input({"txt": 1})  # fmt: skip


def test_types_are_what_they_are_written_as() -> None:
    assert TypeAdapter(type_of("string[]", "x")).validate_python(["a"]) == ["a"]
    assert TypeAdapter(type_of("integer?", "x")).validate_python(None) is None
    assert get_args(type_of(["low", "high"], "x")) == get_args(Literal["low", "high"])
    nested = type_of({"who": {"name": "string", "tags": "string[]?"}, "sure": "boolean"}, "answer")
    value = TypeAdapter(nested).validate_python({"who": {"name": "ana"}, "sure": True})
    assert value.who.name == "ana"
    assert not isinstance(nested, enum.EnumMeta)


def test_the_graph_of_the_page_is_the_coded_triage() -> None:
    page = (EXAMPLES.parents[1] / "docs" / "graph.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```yaml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert plan(GraphSpec.model_validate(yaml.safe_load(block))).table.digest == routes.digest


def test_files_say_what_is_wrong_with_them(tmp_path: Path) -> None:
    for name, text, told in (
        ("a.yaml", "actions: [", "is not YAML"),
        ("a.json", "{", "is not JSON"),
        ("b.yaml", "- 1", "holds no graph"),
        ("c.yaml", "name: x", "actions: Field required; rows: Field required"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(GraphError, match=told):
            read(tmp_path / name)
    with pytest.raises(GraphError, match="there is no file"):
        read(tmp_path / "none.yaml")


def test_what_is_carried_into_a_new_run_decides_as_the_whole_would() -> None:
    rows = [
        Transition(from_="a", to="b", condition=f"{C} < 0.7", escalate_to=[Retry(model=f"m{n}") for n in range(6)]),
        Transition(from_="a", to="b", condition="otherwise"),
        Transition(from_="b", to="a", condition="visits < 9"),
        Transition(from_="b", to="end", condition="otherwise"),
    ]
    table, whole, cut = TransitionTable(rows, max_visits=50), Context(), Context()
    for number in range(12):
        for action, confidence in (("a", 0.5), ("b", 0.9)):
            trace = ThoughtTrace(
                action=action, model="m", prompt_tokens=7, tokens=["x"] * number, overall_confidence=confidence
            )
            for ctx in (whole, cut):
                ctx.thought_traces.append(trace)
                table.decide(ctx, action)
            assert cut.decisions[-1] == whole.decisions[-1]
        cut = carried(cut)
        assert len(cut.thought_traces) == 2
        assert total(cut.used(), None) == total(whole.used(), None)
    assert whole.visits("a") == cut.visits("a") == 12


def test_a_graph_needs_at_least_an_action_and_a_row() -> None:
    with pytest.raises(ValidationError):
        GraphSpec.model_validate({"actions": {}, "rows": []})
