"""Interval arithmetic over kinds: what can be said of a number before it is read.

Floating-point operations are monotone in each argument, so the bounds computed here hold for the rounded results too.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from wonder.routing.kinds import NUMBER, Kind
from wonder.routing.syntax import ArithOp, CompareOp


def negative(kind: Kind) -> Kind:
    """The kind of `-x`."""
    return Kind("number", -kind.high, -kind.low, kind.high_open, kind.low_open, kind.whole)


def absolute(kind: Kind) -> Kind:
    """The kind of `abs(x)`."""
    if kind.low >= 0:
        return replace(kind, members=None)
    if kind.high <= 0:
        return negative(kind)
    return Kind("number", 0.0, max(-kind.low, kind.high), whole=kind.whole)


def extreme(function: Literal["min", "max"], kinds: Sequence[Kind]) -> Kind:
    """The kind of `min(…)` or `max(…)`."""
    pick = min if function == "min" else max
    low, high = pick(kind.low for kind in kinds), pick(kind.high for kind in kinds)
    return Kind("number", low, high, whole=all(kind.whole for kind in kinds))


def arithmetic(op: ArithOp, left: Kind, right: Kind) -> Kind:
    """The kind of `left op right`; bounds that cannot be told are infinite."""
    if op == "-":
        return arithmetic("+", left, negative(right))
    whole = left.whole and right.whole and op != "/"
    if op == "/" and right.low <= 0 <= right.high:
        return NUMBER
    corners = [_apply(op, a, b) for a in (left.low, left.high) for b in (right.low, right.high)]
    if op == "+":
        corners = [corners[0], corners[3]]
    if any(math.isnan(corner) for corner in corners):
        return Kind("number", whole=whole)
    return Kind("number", min(corners), max(corners), whole=whole)


def _apply(op: ArithOp, a: float, b: float) -> float:
    a, b = float(a), float(b)
    if op == "+":
        return a + b
    if op == "*":
        # 0 · ∞ at a corner: the unbounded side is finite in every actual value, so the product there is 0.
        return 0.0 if 0.0 in (a, b) else a * b
    return math.nan if math.isinf(a) and math.isinf(b) else a / b


def compare(left: Kind, op: CompareOp, right: Kind) -> bool | None:
    """The outcome of a comparison where the bounds alone decide it, else None."""
    match op:
        case "<":
            return _below(left, right)
        case ">":
            return _below(right, left)
        case "<=":
            return _not(_below(right, left))
        case ">=":
            return _not(_below(left, right))
        case "==":
            return _equal(left, right)
        case "!=":
            return _not(_equal(left, right))


def _not(verdict: bool | None) -> bool | None:
    return None if verdict is None else not verdict


def _below(left: Kind, right: Kind) -> bool | None:
    touching_open = left.high_open or right.low_open
    if left.high < right.low or (left.high == right.low and touching_open):
        return True
    return False if left.low >= right.high else None


def _equal(left: Kind, right: Kind) -> bool | None:
    if _below(left, right) or _below(right, left):
        return False
    if left.constant is not None and left.constant == right.constant:
        return True
    for kind, other in ((left, right), (right, left)):
        if kind.constant is not None and other.members is not None and kind.constant not in other.members:
            return False
        if kind.constant is not None and not float(kind.constant).is_integer() and other.whole:
            return False
    return None
