"""From a tree to closures: `evaluate(env)` gives a value, or None where it is unknown (three-valued logic)."""

import math
import operator
from collections.abc import Callable, Mapping, Sequence, Set
from operator import attrgetter
from typing import Any

from wonder.routing.env import Env, guard, read
from wonder.routing.syntax import (
    And,
    Arithmetic,
    ArithOp,
    Bool,
    Call,
    Compare,
    CompareOp,
    If,
    In,
    Items,
    Negative,
    Node,
    Not,
    Number,
    Or,
    Path,
    Text,
    Threshold,
    is_plain,
)

Run = Callable[[Env], Any]
Predicate = Callable[[Env], bool | None]

_COMPARE: Mapping[CompareOp, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
_MIRRORED: Mapping[CompareOp, CompareOp] = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}
_ARITHMETIC: Mapping[ArithOp, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}


def predicate(node: Node) -> Predicate:
    """A whole condition: True, False, or None for unknown. A value that is not a bool is unknown. Never raises."""
    return _truth(node)


def value(node: Node) -> Run:
    """Any expression: its guarded value, or None for unknown. Never raises."""
    match node:
        case Number(constant) | Text(constant) | Bool(constant):
            return lambda _env: constant
        case Path():
            return _path(node)
        case Negative(operand):
            return _numeric(lambda parts: -parts[0], [operand])
        case Arithmetic(op, left, right):
            return _arithmetic(op, left, right)
        case If(test, then, other):
            return _if(_truth(test), value(then), value(other))
        case Threshold():
            key = node.key
            return lambda env: _number(env.thresholds.get(key))
        case Call("known", (argument,)):
            inner = value(argument)
            return lambda env: inner(env) is not None
        case Call("len", (argument,)):
            return _length(value(argument))
        case Call("abs", arguments):
            return _numeric(lambda parts: abs(parts[0]), arguments)
        case Call("min", arguments):
            return _numeric(min, arguments)
        case Call("max", arguments):
            return _numeric(max, arguments)
        case _:
            return _truth(node)


def _truth(node: Node) -> Predicate:
    match node:
        case And(parts):
            return _and([_truth(part) for part in parts])
        case Or(parts):
            return _or([_truth(part) for part in parts])
        case Not(operand):
            return _not(_truth(operand))
        case Compare():
            links = [_link(left, op, right) for left, op, right in node.pairs()]
            return links[0] if len(links) == 1 else _and(links)
        case In(item, container):
            return _in(value(item), container)
        case If(test, then, other):
            return _if(_truth(test), _truth(then), _truth(other))
        case _:
            return _only_bool(value(node))


def _only_bool(run: Run) -> Predicate:
    def checked(env: Env) -> bool | None:
        found = run(env)
        return found if found is True or found is False else None

    return checked


# Reads


def _getter(path: Path) -> Callable[[Any], Any] | None:
    """The quick way to a field of the trace; it may raise, or give what `guard` would not let pass."""
    if path.root != "thought_trace" or not path.steps or not is_plain(str(path.steps[0])):
        return None
    field = attrgetter(f"thought_trace.{path.steps[0]}")
    if len(path.steps) == 1:
        return field
    if len(path.steps) > 2:
        return None
    key = path.steps[1]
    return (lambda env: field(env)[key]) if path.steps[0] == "active_concepts" else None


def _path(path: Path) -> Run:
    return lambda env: read(env, path)


# Logic


def _and(parts: Sequence[Predicate]) -> Predicate:
    def run(env: Env) -> bool | None:
        unknown = False
        for part in parts:
            found = part(env)
            if found is False:
                return False
            unknown = unknown or found is None
        return None if unknown else True

    return run


def _or(parts: Sequence[Predicate]) -> Predicate:
    def run(env: Env) -> bool | None:
        unknown = False
        for part in parts:
            found = part(env)
            if found is True:
                return True
            unknown = unknown or found is None
        return None if unknown else False

    return run


def _not(operand: Predicate) -> Predicate:
    def run(env: Env) -> bool | None:
        found = operand(env)
        return None if found is None else not found

    return run


def _if(test: Predicate, then: Run, other: Run) -> Run:
    def run(env: Env) -> Any:
        found = test(env)
        if found is None:
            return None
        return then(env) if found else other(env)

    return run


# Comparisons


def _link(left: Node, op: CompareOp, right: Node) -> Predicate:
    if isinstance(left, Number) and not isinstance(right, Number):
        left, op, right = right, _MIRRORED[op], left
    if isinstance(right, Number) and isinstance(left, Path) and (get := _getter(left)):
        return _quick_link(get, _COMPARE[op], right.value, _general_link(left, op, right))
    return _general_link(left, op, right)


def _quick_link(
    get: Callable[[Any], Any], compare: Callable[[Any, Any], bool], constant: float, general: Predicate
) -> Predicate:
    """A finite float against a constant, in one closure; whatever else it may be goes the general way."""
    low, high = -math.inf, math.inf

    def run(env: Env) -> bool | None:
        try:
            found = get(env)
        except (AttributeError, KeyError, TypeError):
            return general(env)
        if found.__class__ is float and low < found < high:
            return compare(found, constant)
        return general(env)

    return run


def _general_link(left: Node, op: CompareOp, right: Node) -> Predicate:
    first, second, compare = value(left), value(right), _COMPARE[op]
    ordered = op not in ("==", "!=")

    def run(env: Env) -> bool | None:
        a, b = first(env), second(env)
        kind = _kind(a)
        if kind is None or kind != _kind(b) or (ordered and kind is bool):
            return None
        return compare(a, b)

    return run


def _kind(found: Any) -> type | None:
    """What a value may be compared with: numbers, strings and bools each with their own; nothing with the rest."""
    if isinstance(found, bool):
        return bool
    if isinstance(found, int | float):
        return float
    return str if isinstance(found, str) else None


def _same(a: Any, b: Any) -> bool | None:
    kind = _kind(a)
    return None if kind is None or kind != _kind(b) else bool(a == b)


def _in(item: Run, container: Node | Items) -> Predicate:
    if isinstance(container, Items):
        literals = [literal.value for literal in container.values]
        return lambda env: _among(item(env), literals)
    look = value(container)

    def run(env: Env) -> bool | None:
        wanted, found = item(env), look(env)
        if _kind(wanted) is None:
            return None
        if isinstance(found, Mapping):
            return wanted in found
        if isinstance(found, Sequence | Set) and not isinstance(found, str | bytes | bytearray):
            return _among(wanted, [guard(entry) for entry in found])
        return None

    return run


def _among(wanted: Any, entries: Sequence[Any]) -> bool | None:
    """Whether one entry equals the value: an `or` of equalities, so an unknown entry leaves a miss unknown."""
    outcomes = [_same(wanted, entry) for entry in entries]
    if True in outcomes:
        return True
    return None if None in outcomes or wanted is None else False


# Numbers


def _number(found: Any) -> Any:
    """The guarded value if it is a number, else None."""
    found = guard(found)
    return found if _kind(found) is float else None


def _numeric(function: Callable[[list[Any]], Any], arguments: Sequence[Node]) -> Run:
    runs = [value(argument) for argument in arguments]

    def run(env: Env) -> Any:
        parts = [_number(part(env)) for part in runs]
        return None if None in parts else guard(function(parts))

    return run


def _arithmetic(op: ArithOp, left: Node, right: Node) -> Run:
    first, second, apply = value(left), value(right), _ARITHMETIC[op]

    def run(env: Env) -> Any:
        a, b = _number(first(env)), _number(second(env))
        if a is None or b is None:
            return None
        try:
            return guard(apply(a, b))
        except (ZeroDivisionError, OverflowError):
            return None

    return run


def _length(run: Run) -> Run:
    def length(env: Env) -> int | None:
        found = run(env)
        if isinstance(found, Sequence | Mapping | Set) and not isinstance(found, bytes | bytearray):
            return len(found)
        return None

    return length
