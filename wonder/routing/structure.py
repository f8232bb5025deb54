"""The checks of a whole table: a way out everywhere, no unreachable row, no unknown target; and its loops."""

import difflib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from wonder.errors import TableError
from wonder.routing import regions
from wonder.routing.audit import is_accepted, review_nodes
from wonder.routing.rows import Row
from wonder.routing.source import suggestion
from wonder.routing.transition import HitPolicy, TableSpec

NEAR_MISS = 0.8
"""Similarity from which a target is taken for a misspelt node."""
NEAR_MISS_OF_END = 0.9
"""The same between two targets that both have no rows, which are often alike on purpose (`team_a`, `team_b`)."""


def check_rows(after: str, rows: Sequence[Row], policy: HitPolicy, sources: Collection[str]) -> None:
    """Exactly one `otherwise`, at the end, and no row that cannot be reached.

    Raises:
        TableError: Otherwise.
    """
    ways_out = [row for row in rows if row.condition is None]
    if not ways_out:
        others = difflib.get_close_matches(after, [name for name in sources if name != after], n=1, cutoff=NEAR_MISS)
        misspelt = f" (or is it meant to be {others[0]!r}?)" if others else ""
        raise TableError(
            f"there is no otherwise after {after!r}{misspelt}: "
            f'add Transition(from_={after!r}, to=…, condition="otherwise"), '
            "which says where to go when no condition is true"
        )
    if len(ways_out) > 1:
        raise TableError(f"{ways_out[1].label}: there already is an otherwise after {after!r}: keep one")
    if rows[-1] is not ways_out[0]:
        hidden = rows[rows.index(ways_out[0]) + 1]
        raise TableError(f"{hidden.label} comes after the otherwise and is never looked at: move it up")
    for at, row in enumerate(rows[:-1]):
        _check_reachable(row, rows[:at], policy)


def _check_reachable(row: Row, earlier: Sequence[Row], policy: HitPolicy) -> None:
    for other in earlier:
        if policy == "first" and _covers([other], row):
            raise TableError(
                f"{row.label} can never be taken: wherever {row.text!r} holds, {_told(other)} holds too and comes "
                "first; put the narrower condition first, or remove one"
            )
        if policy == "unique" and (_covers([other], row) or _covers([row], other)):
            raise TableError(
                f"{row.label}: {row.text!r} and {_told(other)} hold together wherever one of them does, "
                "and the hit policy 'unique' allows one true row: make them exclude each other"
            )
        if policy == "unique" and _overlap(other, row):
            raise TableError(
                f"{row.label}: {row.text!r} and {_told(other)} can be true together, "
                "and the hit policy 'unique' allows one true row: make them exclude each other"
            )
        if policy == "all" and other.digest == row.digest and other.transition.targets == row.transition.targets:
            raise TableError(f"{row.label} repeats {_told(other)}: remove one")
    if policy == "first" and len(earlier) > 1 and _covers(earlier, row):
        raise TableError(f"{row.label} can never be taken: wherever {row.text!r} holds, a row before it does")


def _told(row: Row) -> str:
    return f"{row.text!r} ({row.name})"


def _covers(earlier: Sequence[Row], row: Row) -> bool:
    """Whether one of the earlier rows is true wherever a row is, as far as that can be proven."""
    conditions = [other.condition for other in earlier if other.condition]
    if row.condition is None:
        return False
    try:
        outside = [regions.where(condition.node, False, condition.kinds) for condition in conditions]
        return not regions.meet([regions.where(row.condition.node, True, row.condition.kinds), *outside])
    except regions.TooComplexError:
        return False


def _overlap(one: Row, other: Row) -> bool:
    """Whether two conditions that read the same numbers are true for some of them together."""
    if one.condition is None or other.condition is None:
        return False
    a, b = one.condition, other.condition
    try:
        met = regions.meet([regions.where(item.node, True, item.kinds) for item in (a, b)])
        return bool(met) and regions.same_variables(a.node, b.node, a.kinds, b.kinds)
    except regions.TooComplexError:
        return False


def check_targets(spec: TableSpec, sources: Collection[str], actions: Collection[str]) -> None:
    """Every target is an action, has rows of its own, or is an end.

    Raises:
        TableError: One does not, or is suspiciously like another name.
    """
    for number, row in enumerate(spec.rows, start=1):
        if actions and row.from_ not in actions:
            raise TableError(
                f"row {number}: from {row.from_!r} is not one of the table's actions: {suggestion(row.from_, actions)}"
            )
    known = list(dict.fromkeys([*sources, *actions, *(spec.ends or ())]))
    if spec.ends is None:
        known.append(spec.on_unknown)
    for place, target in _targets(spec):
        if target in known:
            continue
        if spec.ends is not None or actions:
            raise TableError(
                f"{place} {target!r} is neither an action nor an end: {suggestion(target, known)}; "
                "if it is where a run ends, list it in ends=[…]"
            )
        _check_spelling(place, target, known, spec)


def check_audits(spec: TableSpec, nodes: Collection[str]) -> None:
    """Audits are drawn among accepted answers, and `reviews` are targets of the table.

    Raises:
        TableError: Otherwise.
    """
    for review in spec.reviews or ():
        if review not in nodes:
            raise TableError(f"reviews: nothing goes to {review!r}: {suggestion(review, nodes)}")
    reviews = review_nodes(spec)
    for number, row in enumerate(spec.rows, start=1):
        if row.audit_rate and not is_accepted(row.from_, row.targets, reviews):
            raise TableError(
                f"row {number} (after {row.from_!r}, condition {row.condition!r}): audit_rate is for accepted answers, "
                f"and this row goes to {' and '.join(row.targets)}: remove it, or put it on the row that accepts"
            )


def _targets(spec: TableSpec) -> Iterable[tuple[str, str]]:
    yield "on_unknown of the table:", spec.on_unknown
    if spec.on_exhausted:
        yield "on_exhausted of the table:", spec.on_exhausted
    for row in spec.rows:
        label = f"after {row.from_!r}, condition {row.condition!r}:"
        for target in row.targets:
            yield f"{label} the target", target
        if row.on_unknown:
            yield f"{label} on_unknown", row.on_unknown
        if row.join is not None:
            yield f"{label} the join at", row.join.at
            if row.join.otherwise:
                yield f"{label} the join's otherwise", row.join.otherwise


def _check_spelling(place: str, target: str, known: Sequence[str], spec: TableSpec) -> None:
    ends = [end for _, end in _targets(spec) if end not in known and end != target]
    for names, similarity in ((known, NEAR_MISS), (ends, NEAR_MISS_OF_END)):
        for name in names:
            numbered_alike = re.sub(r"\d+", "", name) == re.sub(r"\d+", "", target)
            if not numbered_alike and difflib.SequenceMatcher(None, target, name).ratio() >= similarity:
                raise TableError(
                    f"{place} {target!r} is no action with rows here: did you mean {name!r}? "
                    f"If both are meant, list the ends of the table: ends=[{target!r}, …]"
                )


def loops(spec: TableSpec) -> set[str]:
    """The actions that a run can come back to."""
    roads = ways(spec)
    return {start for start in roads if start in reachable(start, roads)}


def ways(spec: TableSpec) -> dict[str, set[str]]:
    """Action → everything that may come right after it."""
    found: dict[str, set[str]] = {}
    for row in spec.rows:
        targets = found.setdefault(row.from_, set())
        targets.update(row.targets, [row.on_unknown or spec.on_unknown])
        if row.escalate_to:
            targets.add(row.from_)
        if row.join is not None:
            targets.update([row.join.at, row.join.otherwise or spec.on_unknown])
        if spec.budget is not None:
            targets.add(spec.on_exhausted or spec.on_unknown)
    return found


def reachable(start: str, ways: Mapping[str, set[str]]) -> set[str]:
    """Everything that may come after a node, however much later."""
    found: set[str] = set()
    todo = [start]
    while todo:
        for target in ways.get(todo.pop(), ()):
            if target not in found:
                found.add(target)
                todo.append(target)
    return found
