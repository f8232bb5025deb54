"""A table's rows made ready: named, ordered, compiled; and the errors that name them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wonder.errors import ConditionError, TableError, by_name
from wonder.routing.condition import Condition
from wonder.routing.schema import Action, Schema
from wonder.routing.transition import OTHERWISE, TableSpec, Transition


@dataclass(frozen=True, slots=True)
class Row:
    """A transition with its condition compiled; None for `otherwise`."""

    name: str
    label: str
    """How errors call it: `row 2 after 'classify'`."""
    transition: Transition
    condition: Condition | None
    until: Condition | None = None
    """`holds_until`, compiled."""

    @property
    def text(self) -> str:
        """The condition as written."""
        return self.condition.source if self.condition else ERROR if self.transition.on_error else OTHERWISE

    @property
    def digest(self) -> str:
        """Of the condition; `otherwise` is its own."""
        return self.condition.digest if self.condition else ERROR if self.transition.on_error else OTHERWISE


ERROR = "error"
"""What stands for the condition of a row that is taken at its errors, whatever else."""


def lineage(error: str) -> frozenset[str]:
    """The name of an error and of everything above it in the tree of `wonder.errors`."""
    kind = by_name(error)
    return frozenset({error}) if kind is None else frozenset(found.__name__ for found in kind.__mro__)


def prepare(spec: TableSpec, actions: Mapping[str, Action], state: Any) -> dict[str, tuple[Row, ...]]:
    """Action → its rows in the order in which they are looked at.

    Raises:
        ConditionError: A condition is wrong; the message names the row.
        TableError: Two rows of an action have one name.
    """
    groups: dict[str, list[Row]] = {}
    schemas: dict[str, Schema] = {}
    for transition in spec.rows:
        after = transition.from_
        rows = groups.setdefault(after, [])
        if after not in schemas:
            schemas[after] = Schema.of(actions.get(after), state=state)
        rows.append(_row(len(rows) + 1, transition, schemas[after]))
    return {after: _ordered(rows) for after, rows in groups.items()}


def _row(number: int, transition: Transition, schema: Schema) -> Row:
    label = f"row {number} after {transition.from_!r}" + (f" ({transition.name!r})" if transition.name else "")
    condition = until = None
    if transition.condition.strip() and not transition.is_otherwise:
        condition = _compile(label, transition.condition, schema)
    if transition.holds_until is not None:
        until = _compile(f"{label}, holds_until", transition.holds_until, schema)
    return Row(transition.name or f"row {number}", label, transition, condition, until)


def _compile(label: str, text: str, schema: Schema) -> Condition:
    try:
        return Condition.compile(text, schema)
    except ConditionError as error:
        hint = ""
        if str(error).startswith("always true"):
            hint = f'\n  A row that is always taken has the condition "{OTHERWISE}".'
        raise ConditionError(f"{label}: {error}{hint}") from None


def _ordered(rows: Sequence[Row]) -> tuple[Row, ...]:
    names = [row.name for row in rows]
    for row in rows:
        if names.count(row.name) > 1:
            raise TableError(f"{row.label}: another row after {row.transition.from_!r} is called {row.name!r} too")
    if all(row.transition.priority is None for row in rows):
        return tuple(rows)
    # Python's sort is stable, so rows of one priority stay in the order of the table.
    return tuple(sorted(rows, key=lambda row: (row.transition.is_otherwise, -(row.transition.priority or 0))))
