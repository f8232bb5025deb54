"""What a picture of a table shows: its nodes, and one labelled arrow for each way a run can take."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from wonder.routing.audit import review_nodes
from wonder.routing.transition import TableSpec, Transition

NodeKind = Literal["action", "review", "end"]
ArrowKind = Literal["row", "otherwise", "unknown", "error", "ladder", "budget"]

LABEL_WIDTH = 38
"""Characters after which a label is broken into another line."""
_PREFIXES = ("thought_trace.active_concepts.", "thought_trace.")


@dataclass(frozen=True)
class Node:
    """An action, a review or an end."""

    name: str
    kind: NodeKind


@dataclass(frozen=True)
class Arrow:
    """A way from one node to another."""

    source: str
    target: str
    kind: ArrowKind
    label: tuple[str, ...]
    """Lines."""


def nodes(spec: TableSpec) -> list[Node]:
    """Every node, actions first, in the order in which the table names them."""
    sources = dict.fromkeys(row.from_ for row in spec.rows)
    reviews = review_nodes(spec)
    names = dict.fromkeys([*sources, *(end for arrow in arrows(spec) for end in (arrow.source, arrow.target))])
    return [Node(name, "action" if name in sources else "review" if name in reviews else "end") for name in names]


def arrows(spec: TableSpec) -> list[Arrow]:
    """Every way, row by row; ways on which unknown goes come once for each action and target."""
    found: list[Arrow] = []
    numbers: dict[str, int] = {}
    for row in spec.rows:
        number = 0
        if row.on_error is None:
            number = numbers[row.from_] = numbers.get(row.from_, 0) + 1
        found += _of_row(row, number)
    unknown = dict.fromkeys(
        (row.from_, row.on_unknown or spec.on_unknown)
        for row in spec.rows
        if row.condition.strip() and not row.is_otherwise
    )
    found += [Arrow(source, target, "unknown", ("unknown",)) for source, target in unknown]
    if spec.budget is not None:
        target = spec.on_exhausted or spec.on_unknown
        calls = dict.fromkeys(row.from_ for row in spec.rows if row.escalate_to or row.retry_with)
        found += [Arrow(source, target, "budget", ("budget spent",)) for source in calls]
    return found


def _of_row(row: Transition, number: int) -> Iterator[Arrow]:
    condition = " ".join(row.condition.split())
    for prefix in _PREFIXES:
        condition = condition.replace(prefix, "")
    text = " and ".join(part for part in (" or ".join(row.on_error or ()), condition) if part)
    lines = [f"{number}  {text}" if number else text]
    if row.holds_until:
        until = row.holds_until
        for prefix in _PREFIXES:
            until = until.replace(prefix, "")
        lines.append(f"held until {until}")
    if row.audit_rate:
        lines.append(f"audited: {row.audit_rate:.3g}")
    if row.retry_with is not None:
        lines.append(f"with {row.retry_with}")
    kind: ArrowKind = "error" if row.on_error else "otherwise" if row.is_otherwise else "row"
    if row.escalate_to:
        rungs = [f"{at}. with {rung}" for at, rung in enumerate(row.escalate_to, start=1)]
        yield Arrow(row.from_, row.from_, "ladder", _broken([*lines, *rungs]))
        lines.append("after the last rung")
    if row.join is not None:
        need = row.join.need if isinstance(row.join.need, str) else f"{row.join.need} of {len(row.targets)}"
        lines.append(f"{need} must reach {row.join.at}")
        if row.join.otherwise:
            yield Arrow(row.from_, row.join.otherwise, kind, (f"{number}  too few reach {row.join.at}",))
    for target in row.targets:
        yield Arrow(row.from_, target, kind, _broken(lines))


def _broken(lines: list[str]) -> tuple[str, ...]:
    """Lines no longer than `LABEL_WIDTH`, broken at spaces; what follows a break is indented."""
    found: list[str] = []
    for line in lines:
        rest, indent = line, ""
        while len(rest) > LABEL_WIDTH:
            at = rest.rfind(" ", len(indent) + 1, LABEL_WIDTH + 1)
            at = LABEL_WIDTH if at <= len(indent) else at
            found.append(rest[:at].rstrip())
            indent = "   "
            rest = indent + rest[at:].lstrip()
        found.append(rest)
    return tuple(found)
