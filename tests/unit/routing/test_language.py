"""What every construct of the condition language means."""

import dataclasses
import enum
import math
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel

from wonder.routing.condition import Condition
from wonder.routing.env import Env
from wonder.trace.schema import KeyAttentionPair, ThoughtTrace

NAN, INF = math.nan, math.inf


class Team(enum.Enum):
    BILLING = "billing"
    TECH = "tech"


class Ticket(BaseModel):
    title: str = "No signal"
    urgent: bool = True
    amount: float | None = None

    @property
    def secret(self) -> int:
        return 1


@dataclasses.dataclass
class Customer:
    name: str
    age: int


def trace(**fields: Any) -> ThoughtTrace:
    known = {"action": "classify", "model": "m", "overall_confidence": 0.62, "active_concepts": {"legal_risk": 0.9}}
    # Not validated, so that what must never arrive (NaN, wrong kinds) can be tried too.
    return ThoughtTrace.model_construct(**{**known, **fields})


def holds(source: str, *, output: Any = None, thresholds: Any = None, visits: int = 1, **state: Any) -> bool | None:
    env = Env(trace(), output, state, visits, thresholds or {})
    return Condition.compile(source).evaluate(env)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("thought_trace.overall_confidence < 0.7", True),
        ("thought_trace.overall_confidence > 0.7", False),
        ("0.7 > thought_trace.overall_confidence", True),
        ("thought_trace.overall_confidence == 0.62", True),
        ("thought_trace.overall_confidence != 0.62", False),
        ("thought_trace.overall_confidence <= 0.62 && thought_trace.overall_confidence >= 0.62", True),
        ("thought_trace.active_concepts.legal_risk > 0.8", True),
        ('thought_trace.active_concepts["legal_risk"] > 0.8', True),
        ("thought_trace.active_concepts['legal_risk'] > .8", True),
        ("0.5 < thought_trace.overall_confidence < 0.7", True),
        ("0.5 < thought_trace.overall_confidence < 0.6", False),
        ("not thought_trace.overall_confidence < 0.7", False),
        ("not (state.a == 1 or state.b)", False),
        ("!(state.a == 1) || state.b", True),
        ("!state.b == false", True),
        ("state.b and state.a == 1", True),
        ("state.a == 2 or state.text == 'x && y'", True),
        ("state.a == 1 if state.b else state.a == 2", True),
        ("(1 if state.b else 2) == state.a", True),
        ("(state.a + 2) * 3 - 4 / 8 == 8.5", True),
        ("-state.a < -0.5", True),
        ("1 - thought_trace.overall_confidence < 0.4", True),
        ("abs(state.minus) == 3 and min(state.a, 7, state.minus) == -3 and max(state.a, 0.5) == 1", True),
        ("len(state.items) == 2 and len(state.map) == 1 and len(state.text) == 6", True),
        ("state.items[1] == 'q'", True),
        ("'q' in state.items", True),
        ("'z' in state.items", False),
        ("'z' not in state.items", True),
        ("'k' in state.map", True),
        ("'legal_risk' in thought_trace.active_concepts", True),
        ("state.a in [1, -2, 3]", True),
        ("state.a not in [2]", True),
        ("state.text in ['x && y']", True),
        ("state.b in [true]", True),
        ("state.b == True and state.b != False", True),
        ("state.text < 'y'", True),
        ('state.map["k"] == 5', True),
        ('state["map"].k == 5', True),
        ("known(state.a)", True),
        ("known(state.nothing)", False),
        ("known(state.nan)", False),
        ("not known(state.nothing) or state.nothing > 3", True),
        ("visits == 1", True),
        ("state.text == \"x \\u0026& y\"", True),
        ("state.a\n  == 1\tand state.b", True),
    ],
)  # fmt: skip
def test_every_construct_means_what_the_reference_says(source: str, expected: bool) -> None:
    state = {
        "a": 1,
        "b": True,
        "minus": -3,
        "items": ["p", "q"],
        "map": {"k": 5},
        "text": "x && y",
        "nan": NAN,
    }
    assert holds(source, **state) is expected


@pytest.mark.parametrize(
    "source",
    [
        "state.nothing > 1",
        "state.nothing.deeper.still == 1",
        "state.nan < 0.7",
        "state.nan == state.a",
        "state.nan != 1",
        "not state.nan < 0.7",
        'state["nan"] < 0.7',
        "state.list[0] < 0.7",
        "state.list[9] < 0.7",
        "state.inf > 1",
        "-state.inf < 1",
        "state.none == 1",
        "state.none != 1",
        "1 / state.zero > 0",
        "state.zero / state.zero > 0",
        "state.big * state.big > 1",
        "state.huge > 1",
        "-state.huge < 1",
        "state.huge / 3 > 1",
        "state.nan + 1 > 0",
        "abs(state.nan) > 0",
        "min(state.a, state.none) < 2",
        "max(state.a, state.nan) > 0",
        "len(state.none) == 0",
        "len(state.a) == 0",
        "state.nan in [1, 2]",
        "3 in state.list",
        "state.a in state.none",
        "state.text < 1",
        "state.a == state.text",
        "state.text + 1 > 2",
        "state.b < state.b2",
        "state.a",
        "state.text",
        "state.a and state.b",
        "state.none and state.b",
        "state.none or state.b2",
        "state.a == 1 if state.none else state.a == 1",
        "state.b.real == 1",
        "state.obj.secret == 1",
        "thought_trace.active_concepts.not_probed > 0.8",
        "thought_trace.attention_entropy[0] > 1",
        "output.team == 'billing'",
        'thought_trace.overall_confidence < threshold("classify", risk=0.05)',
    ],
)
def test_what_cannot_be_known_is_unknown(source: str) -> None:
    state = {"a": 1, "b": True, "b2": False, "nan": NAN, "inf": INF, "none": None, "zero": 0, "big": 1e300}
    state |= {"list": [NAN, 2], "huge": 10**399, "text": "x", "obj": Ticket()}
    assert holds(source, **state) is None


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("state.nan < 1 and state.no", False),
        ("state.no and state.nan < 1", False),
        ("state.yes and state.nan < 1", None),
        ("state.nan < 1 or state.yes", True),
        ("state.no or state.nan < 1", None),
        ("not state.nan < 1", None),
        ("0 < state.nan < 1", None),
        ("5 < state.one < state.nan", False),
        ("state.nan < 1 if state.no else state.yes", True),
        ("2 in state.partly", True),
    ],
)
def test_the_logic_has_three_values(source: str, expected: bool | None) -> None:
    assert holds(source, nan=NAN, yes=True, no=False, one=1, partly=[NAN, 2]) is expected


@pytest.mark.parametrize("value", [NAN, INF, -INF, None, "0.5", True, [0.5], {"x": 1}])
@pytest.mark.parametrize("op", ["<", "<=", ">", ">=", "==", "!="])
def test_a_smuggled_value_is_unknown_wherever_it_is_read(value: object, op: str) -> None:
    smuggled = trace(
        overall_confidence=value,
        active_concepts={"legal_risk": value},
        attention_entropy=[value],
        field_confidences={"team": {"confidence": value}},
    )
    for path in (
        "thought_trace.overall_confidence",
        "thought_trace.active_concepts.legal_risk",
        'thought_trace.active_concepts["legal_risk"]',
        "thought_trace.attention_entropy[0]",
        "thought_trace.field_confidences.team.confidence",
        "state.value",
    ):
        env = Env(smuggled, state={"value": value})
        assert Condition.compile(f"{path} {op} 0.7").evaluate(env) is None, path


def test_a_trace_without_its_fields_is_unknown_rather_than_an_error() -> None:
    env = Env(ThoughtTrace.model_construct())
    assert Condition.compile("thought_trace.action == 'classify'").evaluate(env) is None
    assert Condition.compile("thought_trace.overall_confidence < 0.7").evaluate(env) is None
    assert Condition.compile("thought_trace.overall_confidence < 0.7").evaluate(Env()) is None


@pytest.mark.parametrize(
    "source",
    [
        "len(thought_trace.tokens) < 3",
        "'no' in thought_trace.tokens",
        "'no' not in thought_trace.tokens",
        "len(thought_trace.key_attention_pairs) < 3",
        "thought_trace.tokens[0] == 'x'",
    ],
)
def test_a_list_of_which_something_moved_away_is_unknown_as_a_whole(source: str) -> None:
    moved = "moved to the artifact"
    pair = KeyAttentionPair(layer=1, query=9, key=2, weight=0.4, query_token="a", key_token="b")
    env = Env(trace(key_attention_pairs=[pair], missing={"tokens": moved, "key_attention_pairs": moved}))
    condition = Condition.compile(source)
    assert condition.evaluate(env) is None
    assert set(condition.readings(env).unknown.values()) == {moved}
    assert Condition.compile("thought_trace.key_attention_pairs[0].weight > 0.3").evaluate(env)


def test_a_trace_without_capture_says_so() -> None:
    env = Env(trace(active_concepts={}, tokens=["a"], missing={"trace": "capture is off"}))
    readings = Condition.compile(
        "len(thought_trace.layer_norms) > 3 or thought_trace.active_concepts.x > 0.5"
    ).readings(env)
    assert set(readings.unknown.values()) == {"capture is off"}
    assert Condition.compile("len(thought_trace.tokens) == 1").evaluate(env)


def test_state_and_output_may_be_dicts_models_dataclasses_and_enums() -> None:
    assert holds("state.ticket.urgent", ticket=Ticket())
    assert holds("state.ticket.urgent", ticket={"urgent": True})
    assert holds("state.customer.age > 17 and state.customer.name == 'Ann'", customer=Customer("Ann", 18))
    assert holds("output == 'billing'", output=Team.BILLING)
    assert holds("output.title == 'No signal'", output=Ticket())
    assert holds("state.price > 9.5", price=Decimal("9.99"))
    assert holds("state.price > 9.5", price=Decimal("sNaN")) is None


def test_the_parts_of_the_trace_that_are_lists_of_objects_can_be_read() -> None:
    pair = KeyAttentionPair(layer=1, query=9, key=2, weight=0.4, query_token="a", key_token="b")
    env = Env(trace(key_attention_pairs=[pair]))
    assert Condition.compile("thought_trace.key_attention_pairs[0].weight > 0.3").evaluate(env)


def test_a_threshold_is_the_number_the_policy_gives() -> None:
    source = 'thought_trace.overall_confidence < threshold("classify", risk=0.05)'
    condition = Condition.compile(source)
    assert condition.thresholds == (("classify", 0.05),)
    for number, expected in ((0.9, True), (0.5, False), (None, None), (NAN, None)):
        assert condition.evaluate(Env(trace(), thresholds={("classify", 0.05): number})) is expected
    readings = condition.readings(Env(trace()))
    assert readings.unknown == {'threshold("classify", risk=0.05)': "no certified threshold"}


def test_what_was_read_is_recorded_and_why_it_was_unknown() -> None:
    source = "thought_trace.active_concepts.fraud > 0.5 or state.x / state.y > 1 or len(thought_trace.tokens) > 5"
    env = Env(trace(tokens=["a", "b"], missing={"active_concepts": "probe failed"}), state={"x": 1, "y": 0})
    readings = Condition.compile(source).readings(env)
    assert readings.values == {
        "thought_trace.active_concepts.fraud": None,
        "state.x": 1,
        "state.y": 0,
        "thought_trace.tokens": "2 entries",
    }
    assert readings.unknown == {
        "thought_trace.active_concepts.fraud": "probe failed",
        "state.x / state.y": "no finite result",
    }


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"overall_confidence": None, "confidence_reason": "the answer has no value tokens"}, "no value tokens"),
        ({"overall_confidence": None, "missing": {"overall_confidence": "switched off"}}, "switched off"),
        ({"overall_confidence": None}, "not set"),
        ({"overall_confidence": NAN}, "nan is not a finite number"),
    ],
)
def test_the_trace_says_why_its_confidence_is_unknown(fields: dict[str, Any], reason: str) -> None:
    readings = Condition.compile("thought_trace.overall_confidence < 0.7").readings(Env(trace(**fields)))
    assert reason in readings.unknown["thought_trace.overall_confidence"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("state.a<0.70", "(state.a) < 7e-1"),
        ("state.a == 1.0", "state.a == 1"),
        ("state.a && !state.b", "state.a and not state.b"),
        ("(state.a and state.b) and state.c", "state.a and state.b and state.c"),
        ("state[\"a\"] == 'x'", 'state.a == "x"'),
        ("state.a not in [1]", "not (state.a in [1])"),
        ("state.a == - -1", "state.a == 1"),
        ("state.a == True", "state.a == true"),
    ],
)
def test_spellings_of_one_condition_have_one_digest(one: str, other: str) -> None:
    assert Condition.compile(one) == Condition.compile(other)
    assert Condition.compile(one).digest == Condition.compile(other).digest


def test_digests_never_change() -> None:
    # They are in decision records: a different digest would say that the policy had changed.
    assert Condition.compile("thought_trace.overall_confidence < 0.7").digest == "0c4ab5b51986f9e8"
    long = 'max(state.a, -1.5) < 0.7 if known(state["in"]) else not state.b in ["é", 2]'
    assert Condition.compile(long).canonical == (
        'max(state.a, -1.5) < 0.7 if known(state["in"]) else not state.b in ["\\u00e9", 2]'
    )
    assert Condition.compile(long).digest == "1d3e9fc9da55b9d6"


def test_parentheses_that_change_the_meaning_are_kept() -> None:
    different = ["(state.a or state.b) and state.c", "state.a or state.b and state.c"]
    different += [
        "not (state.a and state.b)",
        "not state.a and state.b",
        "!(state.a == state.b)",
        "!state.a == state.b",
    ]
    different += ["state.a - (state.b - 1) > 0", "state.a - state.b - 1 > 0", "(state.a < 1) == state.b"]
    assert len({Condition.compile(source).digest for source in different}) == len(different)
