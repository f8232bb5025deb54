"""How far a condition was from firing: for every comparison in it, how much its reading would have to move."""

from collections.abc import Mapping
from typing import Final

from wonder.errors import ConditionError
from wonder.routing.decision import Reading, RowOutcome, ThresholdUsed
from wonder.routing.parser import parse
from wonder.routing.syntax import Compare, CompareOp, Node, Number, Path, Threshold, canonical, walk
from wonder.wire import WireRecord

_TURNED: Final[Mapping[CompareOp, CompareOp]] = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}


class Distance(WireRecord):
    """One comparison of a reading with a number."""

    path: str
    op: str
    bound: float
    value: float
    holds: bool
    gap: float
    """By how much the value would have to move for the comparison to turn, ≥ 0, in the units of the value."""


def distances(row: RowOutcome, thresholds: list[ThresholdUsed]) -> list[Distance]:
    """The comparisons of a row's condition with numbers, in the order in which they stand.

    Args:
        row: As it is kept in a decision.
        thresholds: Of the same decision.
    """
    try:
        node = parse(row.condition)
    except ConditionError:  # `otherwise`, or a construct of another version
        return []
    bounds = {(used.name, used.risk, used.delta): used.value for used in thresholds}
    found = []
    for part in walk(node):
        if isinstance(part, Compare):
            for left, op, right in part.pairs():
                found += _distance(left, op, right, row.readings, bounds)
                found += _distance(right, _TURNED[op], left, row.readings, bounds)
    return found


def _distance(
    node: Node,
    op: CompareOp,
    other: Node,
    readings: Mapping[str, Reading],
    bounds: Mapping[tuple[str, float, float], float | None],
) -> list[Distance]:
    if not isinstance(node, Path):
        return []
    path = canonical(node)
    value = readings.get(path)
    if isinstance(other, Number):
        bound: float | None = other.value
    elif isinstance(other, Threshold):
        bound = bounds.get((other.name, other.risk, other.delta))
    else:
        return []
    if bound is None or isinstance(value, bool) or not isinstance(value, int | float):
        return []
    holds = {
        "<": value < bound,
        "<=": value <= bound,
        ">": value > bound,
        ">=": value >= bound,
        "==": value == bound,
        "!=": value != bound,
    }[op]
    return [Distance(path=path, op=op, bound=bound, value=value, holds=holds, gap=abs(value - bound))]
