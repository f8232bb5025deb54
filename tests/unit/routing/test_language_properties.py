"""Random conditions agree with an independent interpreter, and no text at all breaks the reader."""

import contextlib
import itertools
import math
import operator
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from wonder.errors import ConditionError
from wonder.routing import compiler
from wonder.routing.condition import Condition
from wonder.routing.env import Env
from wonder.routing.parser import parse
from wonder.routing.regions import TooComplexError, where
from wonder.routing.syntax import canonical, digest
from wonder.trace.schema import ThoughtTrace

# A condition here is a nested tuple; `spell` writes it, `meaning` computes it, and neither knows Wonder's tree.
NUMBERS = ["a", "b", "c", "d"]
BOOLS = ["p", "q"]
COMPARE = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
UNKNOWN = "unknown"

constants = st.one_of(st.integers(-3, 3), st.sampled_from([0.5, 0.7, -0.25, 1e300]))


def numeric(deeper: Any) -> Any:
    return st.one_of(
        st.tuples(st.just("path"), st.sampled_from(NUMBERS)),
        st.tuples(st.just("const"), constants),
        st.tuples(st.just("neg"), deeper),
        st.tuples(st.just("abs"), deeper),
        st.tuples(st.sampled_from(["min", "max"]), deeper, deeper),
        st.tuples(st.sampled_from(["+", "-", "*", "/"]), deeper, deeper),
    )


numbers = st.recursive(
    st.one_of(st.tuples(st.just("path"), st.sampled_from(NUMBERS)), st.tuples(st.just("const"), constants)),
    numeric,
    max_leaves=4,
)
atoms = st.one_of(
    st.tuples(
        st.just("cmp"), numbers, st.lists(st.tuples(st.sampled_from(list(COMPARE)), numbers), min_size=1, max_size=2)
    ),
    st.tuples(st.just("bool"), st.sampled_from(BOOLS)),
    st.tuples(st.just("truth"), st.booleans()),
    st.tuples(st.just("known"), numbers),
    st.tuples(st.just("in"), numbers, st.lists(constants, min_size=1, max_size=3)),
    st.tuples(st.just("inlist"), numbers),
)
conditions = st.recursive(
    atoms,
    lambda deeper: st.one_of(
        st.tuples(st.just("and"), deeper, deeper),
        st.tuples(st.just("or"), deeper, deeper),
        st.tuples(st.just("not"), deeper),
        st.tuples(st.just("if"), deeper, deeper, deeper),
    ),
    max_leaves=8,
)
weird = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([0.5, 0.7, -0.25, 1e300, math.nan, math.inf, -math.inf, None, "text", True, [1], 10**400]),
)
states = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(NUMBERS, weird),
        **dict.fromkeys(BOOLS, st.sampled_from([True, False, None, math.nan, 1, "true"])),
        "list": st.one_of(st.lists(weird, max_size=3), st.none()),
    },
)


def spell(tree: Any) -> str:
    match tree:
        case ("path" | "bool", name):
            return f"state.{name}"
        case ("const", value):
            return repr(value)
        case ("truth", value):
            return str(value)
        case ("neg", inner):
            return f"-({spell(inner)})"
        case ("not", inner):
            return f"!({spell(inner)})"
        case ("abs" | "known" as name, inner):
            return f"{name}({spell(inner)})"
        case ("min" | "max" as name, left, right):
            return f"{name}({spell(left)}, {spell(right)})"
        case ("cmp", first, links):
            return f"({spell(first)})" + "".join(f" {op} ({spell(right)})" for op, right in links)
        case ("in", item, values):
            return f"({spell(item)}) in {values!r}"
        case ("inlist", item):
            return f"({spell(item)}) in state.list"
        case ("if", test, then, other):
            return f"({spell(then)}) if ({spell(test)}) else ({spell(other)})"
        case (op, left, right):
            return f"({spell(left)}) {op} ({spell(right)})"
    raise AssertionError(tree)


def number(value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or abs(value) > 1.7976931348623157e308 or value != value:
        return UNKNOWN
    return value


def is_wild(value: float) -> bool:
    return not isinstance(value, bool) and is_unknown(number(value))


def settle(found: list[Any]) -> Any:
    """Kleene's `and`, by counting."""
    return False if False in found else UNKNOWN if UNKNOWN in found else True


def negated(value: Any) -> Any:
    return {True: False, False: True, UNKNOWN: UNKNOWN}[value]


def equal(left: Any, right: Any) -> Any:
    return UNKNOWN if UNKNOWN in (number(left), number(right)) else left == right


def meaning(tree: Any, state: dict[str, Any]) -> Any:
    match tree:
        case ("path", name):
            value = state.get(name)
            return UNKNOWN if value is None or (isinstance(value, int | float) and is_wild(value)) else value
        case ("bool", name):
            return state[name] if isinstance(state.get(name), bool) else UNKNOWN
        case ("const" | "truth", value):
            return value
        case ("neg", inner):
            return calculate(lambda x: -x, inner, state=state)
        case ("abs", inner):
            return calculate(abs, inner, state=state)
        case ("min", left, right):
            return calculate(min, left, right, state=state)
        case ("max", left, right):
            return calculate(max, left, right, state=state)
        case ("known", inner):
            return not is_unknown(meaning(inner, state))
        case ("cmp", first, links):
            sides = [meaning(side, state) for side in (first, *(right for _, right in links))]
            ops = [op for op, _ in links]
            pairs = zip(ops, itertools.pairwise(sides), strict=True)
            return settle([compare(op, left, right) for op, (left, right) in pairs])
        case ("in", item, values):
            found = meaning(item, state)
            return negated(settle([negated(same(found, value)) for value in values]))
        case ("inlist", item):
            found, entries = meaning(item, state), state.get("list")
            if is_unknown(found) or isinstance(found, list) or not isinstance(entries, list):
                return UNKNOWN
            return negated(settle([negated(same(found, entry)) for entry in entries]))
        case ("not", inner):
            return negated(meaning(inner, state))
        case ("and", left, right):
            return settle([meaning(left, state), meaning(right, state)])
        case ("or", left, right):
            return negated(settle([negated(meaning(left, state)), negated(meaning(right, state))]))
        case ("if", test, then, other):
            chosen = meaning(test, state)
            return UNKNOWN if is_unknown(chosen) else meaning(then if chosen else other, state)
        case ("+", left, right):
            return calculate(operator.add, left, right, state=state)
        case ("-", left, right):
            return calculate(operator.sub, left, right, state=state)
        case ("*", left, right):
            return calculate(operator.mul, left, right, state=state)
        case ("/", left, right):
            return calculate(operator.truediv, left, right, state=state)
    raise AssertionError(tree)


def is_unknown(value: Any) -> bool:
    return isinstance(value, str) and value == UNKNOWN


def family(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number" if not is_unknown(number(value)) else UNKNOWN
    return "text" if isinstance(value, str) and not is_unknown(value) else UNKNOWN


def same(left: Any, right: Any) -> Any:
    return UNKNOWN if family(left) != family(right) or UNKNOWN in (family(left), family(right)) else left == right


def compare(op: str, left: Any, right: Any) -> Any:
    kinds = {family(left), family(right)}
    if len(kinds) > 1 or UNKNOWN in kinds or (kinds == {"bool"} and op not in ("==", "!=")):
        return UNKNOWN
    return COMPARE[op](left, right)


def calculate(function: Any, *parts: Any, state: dict[str, Any]) -> Any:
    values = [number(meaning(part, state)) for part in parts]
    if any(is_unknown(value) for value in values):
        return UNKNOWN
    try:
        return number(function(*values))
    except ArithmeticError:
        return UNKNOWN


@settings(max_examples=400, deadline=None)
@given(conditions, states)
def test_conditions_mean_what_an_independent_interpreter_says(tree: Any, state: dict[str, Any]) -> None:
    found = compiler.predicate(parse(spell(tree)))(Env(state=state))
    expected = meaning(tree, state)
    assert found is (None if is_unknown(expected) else expected), spell(tree)


@settings(max_examples=80, deadline=None)
@given(conditions, conditions, conditions, states)
def test_the_laws_of_three_valued_logic_hold(a: Any, b: Any, c: Any, state: dict[str, Any]) -> None:
    def value(tree: Any) -> bool | None:
        return compiler.predicate(parse(spell(tree)))(Env(state=state))

    assert value(("not", ("not", a))) is value(a)
    assert value(("not", ("and", a, b))) is value(("or", ("not", a), ("not", b)))
    assert value(("not", ("or", a, b))) is value(("and", ("not", a), ("not", b)))
    for op in ("and", "or"):
        assert value((op, a, b)) is value((op, b, a))
        assert value((op, a, a)) is value(a)
        assert value((op, a, (op, b, c))) is value((op, (op, a, b), c))
    assert value(("and", a, ("or", b, c))) is value(("or", ("and", a, b), ("and", a, c)))


@settings(max_examples=150, deadline=None)
@given(conditions)
def test_the_canonical_form_reads_back_as_itself(tree: Any) -> None:
    node = parse(spell(tree))
    again = parse(canonical(node))
    assert again == node
    assert canonical(again) == canonical(node)
    assert digest(canonical(again)) == digest(canonical(node))


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=40))
def test_every_string_survives_the_canonical_form(text: str) -> None:
    quoted = "".join(f"\\U{ord(char):08x}" for char in text)
    node = parse(f'state.x == "{quoted}"')
    assert compiler.predicate(node)(Env(state={"x": text})) is True
    assert parse(canonical(node)) == node
    assert canonical(node).isascii()


WORDS = """thought_trace . overall_confidence active_concepts state x ( ) [ ] , < == == and or not in if else && ||
! - + * / 0.7 1 "a" 'b' true known len min threshold risk = None lambda _x é \\ 1e999"""
pieces = st.sampled_from([*WORDS.split(), " ", "\n", "\t", "\x00"])


@settings(max_examples=500, deadline=None)
@given(
    st.one_of(
        st.text(max_size=60), st.lists(pieces, max_size=25).map(" ".join), st.lists(pieces, max_size=25).map("".join)
    )
)
@example("\ud800")
@example("state.x == '\ud800'")
@example("((((" * 900)
@example("-" * 4000)
@example("not " * 1000)
@example("state" + ".x" * 2000)
@example("state.x" + "+1" * 2000)
@example("1 if 1 else " * 300 + "1")
@example("1 < " * 1000 + "1")
@example("state.a or " * 300 + "state.b")
@example(" and ".join(f"(state.a{i} or state.b{i})" for i in range(60)))
def test_any_text_is_a_condition_or_a_condition_error(text: str) -> None:
    try:
        condition = Condition.compile(text)
    except ConditionError:
        return
    env = Env(ThoughtTrace(action="a", model="m"), state={"x": math.nan})
    assert condition.evaluate(env) in (True, False, None)
    condition.readings(env)
    condition.because(env)
    assert parse(condition.canonical) == condition.node


@settings(max_examples=200, deadline=None)
@given(conditions, st.fixed_dictionaries({**dict.fromkeys(NUMBERS, constants), **dict.fromkeys(BOOLS, st.booleans())}))
def test_what_is_called_constant_is_constant(tree: Any, state: dict[str, Any]) -> None:
    """The solver may miss that a condition is constant, but never claims it wrongly."""
    node = parse(spell(tree))
    found = compiler.predicate(node)(Env(state={**state, "list": [1, 2]}))
    if found is None:
        return
    with contextlib.suppress(TooComplexError):
        assert where(node, found, {}), spell(tree)
