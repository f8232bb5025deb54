"""Where conditions are true: enough of a solver to prove that a row can never be reached.

A condition becomes a union of boxes; a box gives each variable the set of values it may take. A variable is the
canonical text of whatever is compared with a constant; what cannot be analysed is a variable of its own that is true
or false. Treating variables as independent only ever adds points, so "no point is left" is always right.

Proofs are about known values. They carry over to unknown ones: the logic is monotone, so where every completion of a
state makes an earlier row true, that row is not false in the state itself, and `first` stops there.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from wonder.routing.kinds import NUMBER, Kind
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
    walk,
)

MAX_BOXES = 256


class TooComplexError(Exception):
    """There are more boxes than are worth looking at; nothing is claimed then."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Numbers between two bounds; open where the bound itself is left out."""

    low: float = -math.inf
    low_open: bool = False
    high: float = math.inf
    high_open: bool = False


@dataclass(frozen=True, slots=True)
class Spans:
    """A set of numbers, as a union of intervals."""

    intervals: tuple[Interval, ...]
    whole: bool = False

    def __and__(self, other: "Spans") -> "Spans":
        whole = self.whole or other.whole
        met = (_meet(a, b, whole) for a in self.intervals for b in other.intervals)
        return Spans(tuple(interval for interval in met if interval), whole)

    def empty(self) -> bool:
        return not self.intervals


@dataclass(frozen=True, slots=True)
class Picks:
    """A set of strings or bools: those listed, or all but those listed."""

    values: frozenset[object]
    excluded: bool = False

    def __and__(self, other: "Picks") -> "Picks":
        if self.excluded and other.excluded:
            return Picks(self.values | other.values, excluded=True)
        if self.excluded or other.excluded:
            kept, gone = (other, self) if self.excluded else (self, other)
            return Picks(kept.values - gone.values)
        return Picks(self.values & other.values)

    def empty(self) -> bool:
        return not self.excluded and not self.values


Box = Mapping[str, Spans | Picks]


def where(node: Node, is_true: bool, kinds: Mapping[int, Kind]) -> list[Box]:
    """The boxes in which a condition is true, or is false.

    Raises:
        TooComplexError: There are too many.
    """
    match node:
        case Bool(value):
            return [{}] if value == is_true else []
        case Not(operand):
            return where(operand, not is_true, kinds)
        case And(parts) | Or(parts):
            regions = [where(part, is_true, kinds) for part in parts]
            if isinstance(node, And) == is_true:
                return meet(regions)
            return _limited([box for region in regions for box in region])
        case If(test, then, other):
            yes = meet([where(test, True, kinds), where(then, is_true, kinds)])
            no = meet([where(test, False, kinds), where(other, is_true, kinds)])
            return _limited([*yes, *no])
        case Compare():
            links = [_link(left, op, right, is_true, kinds) for left, op, right in node.pairs()]
            return meet(links) if is_true else _limited([box for link in links for box in link])
        case In(item, Items() as items):
            return _among(item, items, is_true, kinds)
        case _:
            return [{canonical(node): Picks(frozenset({is_true}))}]


def same_variables(one: Node, other: Node, kinds: Mapping[int, Kind], others: Mapping[int, Kind]) -> bool:
    """Whether two conditions constrain the same values, each read straight from a path, and nothing else.

    Only then does a common point of their boxes stand for values that can really occur together.

    Raises:
        TooComplexError: There are too many boxes to tell.
    """
    paths = {canonical(node) for tree in (one, other) for node in walk(tree) if isinstance(node, Path)}
    variables = [
        {name for verdict in (True, False) for box in where(tree, verdict, known) for name in box}
        for tree, known in ((one, kinds), (other, others))
    ]
    return variables[0] == variables[1] and variables[0] <= paths


def meet(regions: Sequence[Sequence[Box]]) -> list[Box]:
    """The boxes that lie in all regions."""
    found: list[Box] = [{}]
    for region in regions:
        found = _limited(box for a in found for b in region if (box := _meet_boxes(a, b)) is not None)
    return found


def _limited(boxes: Iterable[Box]) -> list[Box]:
    found: list[Box] = []
    for box in boxes:
        found.append(box)
        if len(found) > MAX_BOXES:
            raise TooComplexError
    return found


def _meet_boxes(a: Box, b: Box) -> Box | None:
    met = dict(a)
    for variable, values in b.items():
        mine, common = met.get(variable), values
        if isinstance(mine, Spans) and isinstance(values, Spans):
            common = mine & values
        if isinstance(mine, Picks) and isinstance(values, Picks):
            common = mine & values
        # An unchecked variable may meet strings here and numbers there; the later set contains what is common.
        if common.empty():
            return None
        met[variable] = common
    return met


def _meet(a: Interval, b: Interval, whole: bool) -> Interval | None:
    low = max(a.low, b.low)
    low_open = any(side.low_open for side in (a, b) if side.low == low)
    high = min(a.high, b.high)
    high_open = any(side.high_open for side in (a, b) if side.high == high)
    if whole and math.isfinite(low):
        low, low_open = (math.floor(low) + 1 if low_open else math.ceil(low)), False
    if whole and math.isfinite(high):
        high, high_open = (math.ceil(high) - 1 if high_open else math.floor(high)), False
    if low > high or (low == high and (low_open or high_open)):
        return None
    return Interval(low, low_open, high, high_open)


def _intervals(op: CompareOp, bound: float) -> tuple[Interval, ...]:
    match op:
        case "<":
            return (Interval(high=bound, high_open=True),)
        case "<=":
            return (Interval(high=bound),)
        case ">":
            return (Interval(low=bound, low_open=True),)
        case ">=":
            return (Interval(low=bound),)
        case "==":
            return (Interval(low=bound, high=bound),)
        case "!=":
            return (*_intervals("<", bound), *_intervals(">", bound))


_OPPOSITE: Mapping[CompareOp, CompareOp] = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}
_MIRRORED: Mapping[CompareOp, CompareOp] = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}


def _link(left: Node, op: CompareOp, right: Node, is_true: bool, kinds: Mapping[int, Kind]) -> list[Box]:
    op = op if is_true else _OPPOSITE[op]
    literals = Number | Text | Bool
    if isinstance(left, literals) or (not isinstance(right, literals) and canonical(left) > canonical(right)):
        left, op, right = right, _MIRRORED[op], left
    kind = kinds.get(id(left), NUMBER)
    if isinstance(right, Number):
        return _one(canonical(left), _within(kind) & Spans(_intervals(op, right.value)))
    if isinstance(right, Text | Bool) and op in ("==", "!="):
        return _one(canonical(left), _possible(kind) & Picks(frozenset({right.value}), excluded=op == "!="))
    # Two changing sides: the variable is how they are ordered, as the sign of their difference.
    return _one(f"{canonical(left)} - ({canonical(right)})", Spans((Interval(),)) & Spans(_intervals(op, 0)))


def _among(item: Node, items: Items, is_true: bool, kinds: Mapping[int, Kind]) -> list[Box]:
    kind, values = kinds.get(id(item), NUMBER), [literal.value for literal in items.values]
    if all(isinstance(value, str) for value in values):
        return _one(canonical(item), _possible(kind) & Picks(frozenset(values), excluded=not is_true))
    equal: list[list[Box]] = [_link(item, "==", literal, is_true, kinds) for literal in items.values]
    return _limited([box for part in equal for box in part]) if is_true else meet(equal)


def _one(variable: str, values: Spans | Picks) -> list[Box]:
    return [] if values.empty() else [{variable: values}]


def _within(kind: Kind) -> Spans:
    if kind.name != "number":
        return Spans((Interval(),))
    if kind.members is not None:
        numbers = [member for member in kind.members if isinstance(member, int | float)]
        return Spans(tuple(Interval(number, high=number) for number in numbers))
    return Spans((Interval(kind.low, kind.low_open, kind.high, kind.high_open),), kind.whole)


def _possible(kind: Kind) -> Picks:
    if kind.name == "bool":
        return Picks(frozenset({True, False}))
    if kind.name == "text" and kind.members is not None:
        return Picks(frozenset(kind.members))
    return Picks(frozenset(), excluded=True)
