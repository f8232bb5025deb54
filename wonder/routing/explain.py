"""Why a condition held, in words a person reads: `overall_confidence 0.62 is below 0.7`."""

from collections.abc import Mapping, Sequence, Set
from typing import Any

from wonder.routing import compiler
from wonder.routing.decision import Reading
from wonder.routing.env import Env
from wonder.routing.syntax import (
    And,
    Bool,
    Compare,
    CompareOp,
    If,
    In,
    Items,
    Node,
    Not,
    Number,
    Or,
    Path,
    Text,
    canonical,
    number_text,
)

_WORDS: Mapping[CompareOp, str] = {
    "<": "is below",
    "<=": "is at most",
    ">": "is above",
    ">=": "is at least",
    "==": "is",
    "!=": "is not",
}
_OPPOSITE: Mapping[CompareOp, CompareOp] = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}
_PREFIXES = ("thought_trace.active_concepts.", "thought_trace.")
_LONGEST = 80
"""Characters of a text that are quoted in a record or an explanation."""


def holding(node: Node, env: Env, is_true: bool = True) -> str:
    """Why a condition is true (or false), naming the parts that decided it and what they read."""
    match node:
        case And(parts) | Or(parts):
            if isinstance(node, And) == is_true:
                return " and ".join(holding(part, env, is_true) for part in parts)
            deciding = [part for part in parts if compiler.predicate(part)(env) is is_true]
            return " and ".join(holding(part, env, is_true) for part in deciding) or canonical(node)
        case Not(operand):
            return holding(operand, env, not is_true)
        case Compare():
            links = [link for link in node.pairs() if is_true or compiler.predicate(_single(*link))(env) is False]
            return " and ".join(_link(left, op if is_true else _OPPOSITE[op], right, env) for left, op, right in links)
        case In(item, container):
            among = (
                f"[{', '.join(canonical(value) for value in container.values)}]"
                if isinstance(container, Items)
                else (short(container))
            )
            return f"{_named(item, env)} is {'' if is_true else 'not '}in {among}"
        case If(test, then, other):
            chosen = then if compiler.predicate(test)(env) else other
            return holding(chosen, env, is_true)
        case _:
            return f"{short(node)} is {str(is_true).lower()}"


def _single(left: Node, op: CompareOp, right: Node) -> Compare:
    return Compare(left, ((op, right),))


def _link(left: Node, op: CompareOp, right: Node, env: Env) -> str:
    return f"{_named(left, env, right)} {_WORDS[op]} {_named(right, env, left)}"


def _named(node: Node, env: Env, other: Node | None = None) -> str:
    """A side of a comparison: a literal as it is, anything else with its name and its value."""
    if isinstance(node, Number | Text | Bool):
        return figure(node.value, node.value)
    against = compiler.value(other)(env) if other is not None else None
    return f"{short(node)} {figure(compiler.value(node)(env), against)}"


def short(node: Node) -> str:
    """The canonical text, a path without the roots that go without saying."""
    return short_text(canonical(node)) if isinstance(node, Path) else canonical(node)


def short_text(path: str) -> str:
    """A path without the roots that go without saying."""
    for prefix in _PREFIXES:
        path = path.removeprefix(prefix)
    return path


def figure(found: Any, against: Any = None) -> str:
    """A value in few digits, but in enough of them that it still lies on its side of what it is compared with."""
    if isinstance(found, bool):
        return str(found).lower()
    if isinstance(found, int | float):
        for digits in (3, 4, 6, 9):
            rounded = float(f"{found:.{digits}g}")
            if not isinstance(against, int | float) or (rounded < against, rounded > against) == (
                found < against,
                found > against,
            ):
                return number_text(rounded)
        return number_text(found)
    if isinstance(found, str):
        return f'"{spelled(found)}"'
    return str(spelled(found))


def spelled(found: Any) -> Reading:
    """A value as a record keeps it: numbers, bools and short texts as they are, the rest by its size."""
    if isinstance(found, str):
        short = found if len(found) <= _LONGEST else found[:_LONGEST] + "…"
        # A lone surrogate cannot be written to a history.
        return short.encode(errors="replace").decode()
    if found is None or isinstance(found, int | float):
        return found
    if isinstance(found, Sequence | Mapping | Set):
        return f"{len(found)} entries"
    return type(found).__name__
