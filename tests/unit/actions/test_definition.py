"""Actions and prompts are wrong where they are written, not where they run."""

import enum
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from wonder import ActionDef, Sampling, ThoughtCapture
from wonder.actions import prompts
from wonder.errors import DefinitionError, PromptError


class Team(enum.Enum):
    BILLING = "billing"
    SALES = "sales"


class Triage(BaseModel):
    team: Literal["billing", "sales"]
    urgent: bool = False


def test_a_template_says_what_it_needs() -> None:
    assert prompts.variables("{text} for {{braces}} and {tone}") == {"text", "tone"}
    assert prompts.render("{text}: {{x}} {tone}", {"text": "a", "tone": 2}) == "a: {x} 2"


@pytest.mark.parametrize(
    "template",
    ["{", "}", "{text", "{0}", "{}", "{text.secret}", "{text[0]}", "{text!r}", "{text:>10}", '{"team": "billing"}'],
)
def test_a_template_that_is_more_than_plain_names_is_refused(template: str) -> None:
    with pytest.raises(PromptError, match="prompt template"):
        ActionDef(name="a", prompt=template)


def test_a_missing_variable_is_named_with_the_call_that_would_work() -> None:
    with pytest.raises(PromptError, match=r"needs text, which was not given: call act\(ctx, action, text=…, tone=…\)"):
        prompts.render("{text} {tone}", {"tone": "kind"})


def test_a_variable_that_the_template_does_not_have_is_refused() -> None:
    with pytest.raises(PromptError, match="no variable txt; it has text"):
        prompts.render("{text}", {"text": "a", "txt": "b"})


@given(st.text(), st.text())
def test_values_are_never_read_as_templates(first: str, second: str) -> None:
    assert prompts.render("{a}|{b}", {"a": first, "b": second}) == f"{first}|{second}"


@pytest.mark.parametrize("name", ["", "1st", "a b", "a-b", "a.b", "_a"])
def test_a_name_that_could_not_be_a_node_is_refused(name: str) -> None:
    with pytest.raises(DefinitionError, match="action name"):
        ActionDef(name=name, prompt="x")


def test_an_output_that_is_no_type_is_refused() -> None:
    class Opaque:
        pass

    with pytest.raises(DefinitionError, match="output type"):
        ActionDef(name="a", prompt="x", output=Opaque)


@pytest.mark.parametrize(
    ("output", "text", "expected"),
    [
        (str, "any words", "any words"),
        (int, "12", 12),
        (float, "0.5", 0.5),
        (bool, "true", True),
        (Team, "billing", Team.BILLING),
        (Literal["a", "b"], "b", "b"),
    ],
)
def test_a_plain_answer_becomes_its_type(output: type, text: str, expected: object) -> None:
    action = ActionDef(name="a", prompt="x", output=output)
    assert not action.writes_json
    assert action.parse(text) == expected


def test_a_model_a_list_and_a_union_of_models_are_written_as_json() -> None:
    assert ActionDef(name="a", prompt="x", output=Triage).parse('{"team": "sales"}') == Triage(team="sales")
    assert ActionDef(name="a", prompt="x", output=list[Triage]).writes_json
    assert ActionDef(name="a", prompt="x", output=Triage | None).writes_json  # type: ignore[arg-type]


def test_what_is_wrong_with_an_answer_is_listed() -> None:
    with pytest.raises(ValueError, match=r"team: Input should be 'billing' or 'sales'; urgent: "):
        ActionDef(name="a", prompt="x", output=Triage).parse('{"team": "legal", "urgent": "perhaps"}')


def test_the_queue_follows_the_model_unless_it_is_named() -> None:
    assert ActionDef(name="a", prompt="x", model="Org/Model-7B").task_queue == "wonder-gpu.org-model-7b"
    assert ActionDef(name="a", prompt="x", activity={"task_queue": "mine"}).task_queue == "mine"


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": -1},
        {"temperature": float("nan")},
        {"max_new_tokens": 0},
        {"max_new_tokens": 10**9},
        {"top_p": 0},
        {"top_p": 2},
        {"top_k": -1},
        {"temprature": 1},
    ],
)
def test_sampling_that_makes_no_sense_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        Sampling(**settings)  # type: ignore[arg-type]


def test_a_misspelt_setting_is_refused_in_python_and_ignored_from_a_newer_client() -> None:
    with pytest.raises(ValueError, match="no setting run_concept_probe"):
        ThoughtCapture(run_concept_probe=["legal_risk"])  # type: ignore[call-arg]
    newer = '{"capture_attention": true, "invented_next_year": 1}'
    assert ThoughtCapture.model_validate_json(newer) == ThoughtCapture(capture_attention=True)


def test_a_constraint_that_would_do_nothing_is_refused() -> None:
    assert ActionDef(name="a", prompt="x", output=Team, constrained=True).constrained
    assert not ActionDef(name="a", prompt="x", output=Team).constrained
    for output in (str, Annotated[str, Field(description="anything")]):
        with pytest.raises(DefinitionError, match="constrained=True would do nothing"):
            ActionDef(name="a", prompt="x", output=output, constrained=True)
    ActionDef(name="a", prompt="x", output=Annotated[str, Field(max_length=3)], constrained=True)


@pytest.mark.parametrize("output", [list[Literal[9007199254741505]], Annotated[int, Field(ge=-(2**63))]])
def test_a_constraint_that_cannot_be_kept_to_the_last_digit_is_refused(output: Any) -> None:
    with pytest.raises(DefinitionError, match=r"beyond ±2⁵³.*make it a string"):
        ActionDef(name="a", prompt="x", output=output, constrained=True)
    assert ActionDef(name="a", prompt="x", output=output).output_schema
    assert ActionDef(name="a", prompt="x", output=Literal[9007199254741505, 7], constrained=True).constrained


@pytest.mark.parametrize(("output", "text", "value"), [(Literal[1, 2], "2", 2), (Literal[True], "true", True)])
def test_numbers_and_flags_of_a_literal_are_read_from_plain_text(output: Any, text: str, value: object) -> None:
    assert ActionDef(name="a", prompt="x", output=output).parse(text) == value


def test_a_quoted_word_is_not_the_word() -> None:
    with pytest.raises(ValueError, match="billing"):
        ActionDef(name="a", prompt="x", output=Team).parse('"billing"')
