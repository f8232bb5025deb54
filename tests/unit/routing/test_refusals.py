"""Conditions that cannot mean what they say are refused, and the message says what to write."""

import enum
from typing import Annotated, Literal, NotRequired

import pytest
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from wonder.actions.definition import ActionDef
from wonder.errors import ConditionError
from wonder.routing.condition import Condition
from wonder.routing.lexer import MAX_LENGTH
from wonder.routing.schema import Schema
from wonder.trace.capture import ThoughtCapture
from wonder.trace.schema import ThoughtTrace

CONFIDENCE = "thought_trace.overall_confidence"


class Tier(enum.StrEnum):
    LOW = "low"
    HIGH = "high"


class Extra(TypedDict):
    note: NotRequired[str]


class Answer(BaseModel):
    team: Literal["billing", "tech"]
    tier: Tier = Tier.LOW
    risk_tier: str = ""
    stars: Annotated[int, Field(ge=1, lt=6)] = 1
    share: float | None = Field(default=None, gt=0, le=1)
    done: bool = False
    extra: Extra = Extra()
    scores: dict[Literal["a", "b"], float] = Field(default_factory=dict)
    tags: list[str] = Field(default_factory=list)
    labels: list[Literal["new", "old"]] = Field(default_factory=list)
    level: Literal[1, 2, 5] = 1


def action(**capture: object) -> ActionDef[Answer]:
    return ActionDef(
        name="classify", prompt="{text}", output=Answer, thought_capture=ThoughtCapture.model_validate(capture)
    )


def refused(source: str, schema: Schema | None = None) -> str:
    with pytest.raises(ConditionError) as caught:
        Condition.compile(source, schema)
    message, *shown = str(caught.value).split("\n")
    # Every message shows a line of the source with carets under part of it.
    assert len(shown) == 2
    assert shown[0].strip() in source
    assert set(shown[1].strip()) == {"^"}
    return message


def pointed_at(source: str) -> str:
    with pytest.raises(ConditionError) as caught:
        Condition.compile(source)
    _, line, carets = str(caught.value).split("\n")
    return "".join(char for char, mark in zip(line, carets, strict=False) if mark == "^")


def test_a_misspelt_field_is_refused_with_the_right_name_and_carets() -> None:
    with pytest.raises(ConditionError) as caught:
        Condition.compile("thought_trace.overal_confidence < 0.7")
    assert str(caught.value) == (
        "ThoughtTrace has no field 'overal_confidence'; did you mean 'overall_confidence'?\n"
        "  thought_trace.overal_confidence < 0.7\n"
        "                ^^^^^^^^^^^^^^^^^"
    )


@pytest.mark.parametrize(
    ("source", "message"),
    [
        # names
        ("trace.overall_confidence < 0.7", "did you mean 'thought_trace'?"),
        ("overall_confidence < 0.7", "write thought_trace.overall_confidence"),
        ("xyz > 1", "there are thought_trace, output, state, visits"),
        ("thought_trace.zzzzzzzz > 1", "there are schema_version, action"),
        ("thought_trace.timings.total > 1", "did you mean 'total_s'?"),
        ("thought_trace.key_attention_pairs[0].weigth > 1", "did you mean 'weight'?"),
        ("thought_trace.attention_entropy.mean > 1", "its entries are read as [0], [1]"),
        ("thought_trace.active_concepts[0] > 1", 'write ["0"]'),
        ("thought_trace.overall_confidence.value > 1", "a number has no parts"),
        ("thought_trace.model_dump == 1", "has no field 'model_dump'"),
        # kinds
        ("thought_trace.model > 0.5", "cannot compare a string with a number"),
        (f"{CONFIDENCE} == 'high'", "cannot compare a number with a string"),
        (f"{CONFIDENCE} == true", "cannot compare a number with a bool"),
        ("thought_trace.tokens > 3", "a list cannot be compared"),
        ("thought_trace.active_concepts == 3", "a map cannot be compared"),
        ("thought_trace.timings == 3", "a value of type Timings cannot be compared"),
        ("abs(thought_trace.model) < 1", "abs(…) takes a number, this is a string"),
        ("min(visits, 'a') < 1", "min(…) takes numbers, this is a string"),
        ("len(visits) < 1", "len(…) takes a list, a map or a string, this is a number"),
        ("thought_trace.model + 1 > 2", "+ takes numbers, this is a string"),
        ("-thought_trace.model > 2", "a minus sign takes a number"),
        (f"{CONFIDENCE} and state.ok", "and, or take conditions, this is a number"),
        (f"not {CONFIDENCE}", "not takes a condition, this is a number"),
        (f"!{CONFIDENCE} < 0.5", "not takes a condition"),
        ("!state.ok < 0.5", "! binds tighter than a comparison"),
        (CONFIDENCE, "a condition is true or false, this is a number"),
        ("'yes'", "a condition is true or false, this is a string"),
        ("thought_trace.tokens", "this is a list"),
        ("state.ok < true", "a bool is neither smaller nor larger"),
        ("(1 if state.ok else 'a') == 1", "one branch of 'if' is a number, the other a string"),
        ("state.ok if visits else state.no", "the test of 'if' is a condition"),
        ("'a' in thought_trace.model", "'in' looks into a list or the keys of a map"),
        ("3 in thought_trace.tokens", "'in' looks for a string here, this is a number"),
        ("3 in thought_trace.active_concepts", "'in' looks for a string here"),
        ("thought_trace.tokens in state.x", "'in' looks for a single value"),
        ("visits in [1, 'two']", "cannot compare a number with a string"),
        # bounds
        (f"{CONFIDENCE} < 7", "always true: the value lies in [0, 1]"),
        (f"{CONFIDENCE} <= 1", "always true: the value lies in [0, 1]"),
        (f"{CONFIDENCE} >= 0", "always true"),
        (f"{CONFIDENCE} < 0", "always false"),
        (f"{CONFIDENCE} > 1", "always false"),
        (f"{CONFIDENCE} == 7", "always false"),
        (f"{CONFIDENCE} != 7", "always true"),
        (f"7 > {CONFIDENCE}", "always true"),
        (f"-{CONFIDENCE} < -1", "always false: the value lies in [-1, 0]"),
        (f"{CONFIDENCE} * 100 + 1 > 101", "always false: the value lies in [1, 101]"),
        (f"1 - {CONFIDENCE} > 1", "always false"),
        (f"{CONFIDENCE} / 2 > 0.5", "always false"),
        (f"abs({CONFIDENCE} - 1) > 1", "always false"),
        (f"min({CONFIDENCE}, visits) > 1", "always false"),
        (f"max({CONFIDENCE}, thought_trace.active_concepts.x) > 1", "always false"),
        (f"({CONFIDENCE} if state.ok else 0) > 1", "always false"),
        (f"0 <= {CONFIDENCE} < 0.5", "always true"),
        (f"{CONFIDENCE} in [0.5, 3]", "always false: the value lies in [0, 1]"),
        (f"(visits - 1) * {CONFIDENCE} < 0", "always false"),
        ("thought_trace.active_concepts.x > 1", "always false"),
        ('thought_trace.active_concepts["x"] > 1', "always false"),
        ("thought_trace.attention_entropy[0] < 0", "always false"),
        ("visits > 0", "always true: the value lies in [1, inf)"),
        ("visits == 1.5", "always false"),
        ("len(thought_trace.tokens) >= 0", "always true"),
        ("thought_trace.finish_reason == 'stopped'", "never equal: did you mean 'stop'?"),
        ("thought_trace.confidence_status in ['calibrated', 'uncalibratd']", "did you mean 'uncalibrated'?"),
        ("'a' == 'b'", "never equal"),
        ("'a' == 'a'", "both sides are the same"),
        ("1 < 2", "always true: both sides are constants"),
        ("state.x == state.x", "both sides are the same"),
        ("state.x / 0 > 1", "division by zero is always unknown"),
        ("known(visits)", "always true: this is never unknown"),
        # constant as a whole
        ("true", "always true"),
        ("state.x > 1 or true", "always true"),
        ("state.x > 1 and false", "always false"),
        (f"{CONFIDENCE} < 0.5 or {CONFIDENCE} >= 0.5", "always true"),
        (f"{CONFIDENCE} < 0.3 and {CONFIDENCE} > 0.7", "always false"),
        ("state.x or not state.x", "always true"),
        ("state.a < state.b and state.b < state.a", "always false"),
        ("state.x == 'a' and state.x == 'b'", "always false"),
        ("thought_trace.finish_reason in ['stop', 'length']", "always true"),
        ("visits > 1 and visits < 2", "always false"),
    ],
)
def test_what_cannot_be_meant_is_refused(source: str, message: str) -> None:
    assert message in refused(source)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "the condition is empty"),
        ("  \n ", "the condition is empty"),
        ("otherwise", "unknown name 'otherwise'"),
        ("state.x >", "the condition ends too early: a value was expected"),
        ("(state.x > 1", "')' is missing"),
        ("state.x > 1)", "unexpected ')'"),
        ("state.x > 1 state.y", "an operator such as and, or, < was expected"),
        ("state.x = 1", "write =="),
        ("state.x === 1", "write =="),
        ("state.x => 1", "write >="),
        ("state.x =< 1", "write <="),
        ("state.x <> 1", "write !="),
        ("state.x & state.y", "write and"),
        ("state.x | state.y", "write or"),
        ("~state.x", "write not"),
        ("state.x is None", "compare with =="),
        ("state.x == None", "known(…)"),
        ("state.x != null", "known(…)"),
        ("lambda: 1", "functions cannot be defined"),
        ("[1, 2]", "a list can only stand to the right of 'in'"),
        ("x in [x for x in state.y]", "comprehensions are not part"),
        ("any(state.x, 2)", "there is no function 'any'"),
        ("state.x ? 1 : 2", "… if … else …"),
        ("state.x ** 2 > 1", "powers are not part"),
        ("state.x % 2 == 0", "remainders are not part"),
        ("state.x // 2 == 0", "whole division is not part"),
        ("(x := 1) > 0", "assignment is not part"),
        ("state.x[1:2] == 1", "index"),
        ("state.x[visits] == 1", "cannot be computed"),
        ("state.x[-1] == 1", "one whole number from 0"),
        ("state.x[1.5] == 1", "one whole number from 0"),
        ("state.x[true] == 1", "one whole number from 0"),
        ("state.x.lower() == 'a'", "methods cannot be called"),
        ("state.f(1) == 'a'", "methods cannot be called"),
        ("lenn(state.x) == 1", "there is no function 'lenn': did you mean 'len'?"),
        ("len() == 1", "len(…) needs an argument"),
        ("abs(1, 2) == 1", "abs(…) takes one argument, found 2"),
        ("min(state.x, key=1) == 1", "has no named arguments"),
        ("f'{state.x}' == 1", "prefixed strings"),
        ("state._x == 1", "private"),
        ("state.__class__ == 1", "private"),
        ('state["__class__"] == 1', "private"),
        ("__import__('os')", "private"),
        ("state.in == 1", 'write ["in"]'),
        ("state.x.5 == 1", "unexpected '.5'"),
        ("state.. x == 1", "a field name must follow the dot"),
        ("(state.x).y == 1", "only a name can be followed by"),
        ("len(state.x).y == 1", "only a name can be followed by"),
        ("'abc'[0] == 'a'", "only a name can be followed by"),
        ("{1: 2}", "maps and sets"),
        ("state.x == 1; state.y", "one expression"),
        ("state.x == 'abc", "the string is not closed"),
        ("state.x == 'a\nb'", "the string is not closed"),
        ("state.x == 'a\\q'", "unknown escape"),
        ("state.x == '\\u12'", "unknown escape"),
        ("state.x == 1_000", "is not a number"),
        ("state.x == 0x10", "is not a number"),
        ("state.x == 1e999", "too large"),
        ("state.x == 5.", "only a name can be followed by"),
        ("state.é == 1", "'é' is not part of the language"),
        ("state.x == $y", "'$' is not part of the language"),
        ("a if b", "'else' is missing"),
        ("1 < 2 in [3]", "'in' cannot be chained"),
        ("1 in [3] < 2", "'in' cannot be chained"),
        ("1 not 2", "'in' is missing after 'not'"),
        ("1 in []", "the list needs a literal"),
        ("1 in [-'a']", "only a number can be negative"),
        ("1 in [state.x]", "a list holds numbers"),
        ("state.x == not state.y", "put it in parentheses"),
        ("threshold() > 1", "a name in quotes"),
        ("threshold(classify, risk=0.05) > 1", "a name in quotes"),
        ("threshold('c') > 1", "is missing after the name"),
        ("threshold('c', 0.05) > 1", "risk=…"),
        ("threshold('c', risk=5) > 1", "between 0 and 1"),
        ("threshold('c', risk=visits) > 1", "between 0 and 1"),
        ("threshold('c', risk=0.05, x=1) > 1", "')' is missing"),
    ],
)
def test_foreign_syntax_is_refused_by_name(source: str, message: str) -> None:
    assert message in refused(source)


def test_carets_stand_under_the_words_meant() -> None:
    assert pointed_at("state.a && state.b || visits > 0") == "visits > 0"
    assert pointed_at("state.text == '&& ||' and visits < 'a'") == "visits < 'a'"
    assert pointed_at("state.a and\n\tthought_trace.tokns == 1") == "tokns"
    assert pointed_at('thought_trace["tokns"] == 1') == '"tokns"'
    assert pointed_at("state.a if state.b else\n  abs(thought_trace.model) > 1") == "thought_trace.model"


@pytest.mark.parametrize("concept", [".legal_rsk", '["legal_rsk"]', "['legal_rsk']"])
def test_a_concept_the_action_does_not_probe_is_refused_however_it_is_read(concept: str) -> None:
    schema = Schema.of(action(run_concept_probes=["legal_risk", "fraud"]))
    message = refused(f"thought_trace.active_concepts{concept} > 0.8", schema)
    assert "action 'classify' does not probe 'legal_rsk': did you mean 'legal_risk'?" in message
    assert "does not probe" in refused("'legal_rsk' in thought_trace.active_concepts", schema)
    Condition.compile("thought_trace.active_concepts.legal_risk > 0.8", schema)


@pytest.mark.parametrize(
    ("condition", "setting"),
    [
        (f"{CONFIDENCE} < 0.7", "compute_confidence=True"),
        ('thought_trace.field_confidences["team"].confidence < 0.7', "compute_confidence=True"),
        ("thought_trace.attention_entropy[0] > 1", "compute_attention_entropy=True"),
        ("len(thought_trace.key_attention_pairs) > 1", "capture_attention=True"),
        ("thought_trace.attention_sink_mass[0] > 0.5", "compute_attention_entropy=True"),
        ('thought_trace.expert_distribution["0"][0] > 0.5', "capture_expert_routing=True"),
        ("known(thought_trace.compressed_state)", "compress_state=True"),
        ("thought_trace.logit_lens[0].first_share > 0.5", "logit_lens=True"),
        ("thought_trace.explanations[0].reconstruction > 0.5", 'explain="last"'),
        ("thought_trace.active_concepts.legal_risk > 0.5", "run_concept_probes=[…]"),
    ],
)
def test_a_signal_that_is_switched_off_is_refused_with_the_switch(condition: str, setting: str) -> None:
    schema = Schema.of(action(compute_confidence=False))
    message = refused(condition, schema)
    assert "action 'classify' does not read" in message
    assert f"give it ThoughtCapture({setting})" in message
    on = action(
        compute_attention_entropy=True,
        capture_attention=True,
        capture_expert_routing=True,
        compress_state=True,
        logit_lens=True,
        explain="last",
        run_concept_probes=["legal_risk"],
    )
    Condition.compile(condition, Schema.of(on))
    assert "enabled=True" in refused(condition, Schema.of(action(enabled=False, run_concept_probes=["legal_risk"])))


def test_what_was_put_in_can_be_asked_of_an_action_that_puts_something_in() -> None:
    condition = "known(thought_trace.injection) and thought_trace.injection.strength > 0.5"
    for nothing in (action(), action(enabled=False)):
        assert "give it ThoughtCapture(inject=Injection(…))" in refused(condition, Schema.of(nothing))
    for steered in (action(inject={"kind": "steering"}), action(inject={"kind": "steering"}, enabled=False)):
        Condition.compile(condition, Schema.of(steered))


def test_attention_of_a_layer_that_is_not_read_is_refused() -> None:
    listed = Schema.of(action(compute_attention_entropy=True, attention_layers=[2, 5]))
    assert "attention_entropy of layer 3" in refused("thought_trace.attention_entropy[3] > 1", listed)
    Condition.compile("thought_trace.attention_entropy[5] > 1", listed)
    quarter = Schema.of(action(compute_attention_entropy=True))
    assert "attention_layers=[8]" in refused("thought_trace.attention_entropy[8] > 1", quarter)
    Condition.compile("thought_trace.attention_entropy[0] > 1 or thought_trace.attention_entropy[7] > 1", quarter)
    Condition.compile("thought_trace.attention_entropy[8] > 1", Schema.of())
    every = Schema.of(action(compute_attention_entropy=True, attention_layers="all"))
    Condition.compile("thought_trace.attention_entropy[8] > 1", every)


def test_what_a_binned_trace_does_not_carry_is_refused() -> None:
    schema = Schema.of(action(detail="binned", capture_attention=True))
    for condition in ("thought_trace.token_confidences[0] < 0.5", "len(thought_trace.key_attention_pairs) > 1"):
        assert "does not keep" in refused(condition, schema)
        assert 'ThoughtCapture(detail="full")' in refused(condition, schema)
    Condition.compile("thought_trace.overall_confidence < 0.5 or thought_trace.layer_norms[0] > 3", schema)
    assert 'detail="binned"' in refused("known(thought_trace.time_bins)", Schema.of(action()))


def test_what_stays_in_the_artifact_is_refused() -> None:
    schema = Schema.of(action(store_in="artifact", run_concept_probes=["legal_risk"]))
    message = refused("thought_trace.token_confidences[0] < 0.5", schema)
    assert "does not keep token_confidences" in message
    assert 'ThoughtCapture(store_in="both")' in message
    Condition.compile("thought_trace.overall_confidence < 0.5 and thought_trace.active_concepts.legal_risk > 0", schema)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("output.tem == 'billing'", "Answer has no field 'tem'; did you mean 'team'?"),
        ("output.team == 'biling'", "did you mean 'billing'?"),
        ("output.tier == 'hihg'", "did you mean 'high'?"),
        ("output.risk_tier > 0.5", "cannot compare a string with a number"),
        ("output.stars > 5", "always false"),
        ("output.stars < 6", "always true: the value lies in [1, 6)"),
        ("output.share <= 0", "always false: the value lies in (0, 1]"),
        ("output.done == 'yes'", "cannot compare a bool with a string"),
        ("output.extra.nte == 'x'", "did you mean 'note'?"),
        ("output.scores.c > 1", "the map has no key 'c'"),
        ("'c' in output.scores", "there never is 'c' here: there are a, b"),
        ("'cold' in output.labels", "did you mean 'old'?"),
        ("output.level == 3", "always false: the value is one of 1, 2, 5"),
        ("output.level in [1, 4]", "always false: the value is one of 1, 2, 5"),
        ("output.level == 1 or output.level == 2 or output.level > 4", "always true"),
        ("output.tags[0] == 3", "cannot compare a string with a number"),
        ("'x' in output.tier", "this is a string"),
    ],
)
def test_conditions_on_the_answer_are_checked_against_its_type(source: str, message: str) -> None:
    assert message in refused(source, Schema.of(action()))


def test_conditions_on_the_answer_that_fit_its_type_pass() -> None:
    schema = Schema.of(action())
    for source in (
        "output.team == 'billing' and output.tier in ['low']",
        "output.stars >= 5 or output.share < 0.5 or output.done",
        "output.extra.note == 'x' and output.scores.a > 1 and 'vip' in output.tags",
    ):
        Condition.compile(source, schema)


def test_state_is_checked_only_where_its_type_is_given() -> None:
    Condition.compile("state.anything.at.all > 3")
    assert "did you mean 'stars'?" in refused("state.star > 3", Schema.of(state=Answer))


def test_what_is_too_long_or_too_deep_is_refused() -> None:
    with pytest.raises(ConditionError, match=f"at most {MAX_LENGTH} characters"):
        Condition.compile("1" * (MAX_LENGTH + 1))
    for deep in ("(" * 500, "not " * 500 + "state.x", "-" * 500 + "1", "!" * 500 + "state.x", "abs(" * 500):
        assert "deep" in refused(deep)
    assert "arithmetic operators" in refused("state.x" + " + 1" * 500 + " > 3")


FIELDS = [name for name in ThoughtTrace.model_fields if name != "schema_version"]


@pytest.mark.parametrize("field", FIELDS)
def test_every_misspelling_by_one_character_of_every_field_is_refused(field: str) -> None:
    letters = "es_0"
    mutants = {field[:at] + field[at + 1 :] for at in range(len(field))}
    mutants |= {field[:at] + char + field[at + 1 :] for at in range(len(field)) for char in letters}
    mutants |= {field[:at] + char + field[at:] for at in range(len(field) + 1) for char in letters}
    mutants |= {field[:at] + field[at + 1] + field[at] + field[at + 2 :] for at in range(len(field) - 1)}
    for mutant in mutants - {field}:
        with pytest.raises(ConditionError):
            Condition.compile(f"known(thought_trace.{mutant})")
    Condition.compile(f"known(thought_trace.{field})")


def test_a_signal_that_does_not_exist_or_is_not_read_is_refused() -> None:
    with pytest.raises(ConditionError, match="did you mean 'min_margin'"):
        Condition.compile("thought_trace.signals.min_margn < 0.2", Schema.of())
    action = ActionDef(name="a", prompt="x")
    with pytest.raises(ConditionError, match=r"ThoughtCapture\(compute_attention_entropy=True\)"):
        Condition.compile("thought_trace.signals.attention_narrowness < 0.2", Schema.of(action))
    assert Condition.compile("thought_trace.signals.min_margin < 0.2", Schema.of(action))
