"""`RouteDecision`: where a run goes next, with everything needed to explain it and to take it again."""

from typing import Literal

from pydantic import Field

from wonder.wire import WireModel, WireRecord

Truth = Literal["true", "false", "unknown"]
Reading = float | int | bool | str | None


class RowOutcome(WireRecord):
    """What one row of the table said."""

    name: str
    to: list[str]
    condition: str
    digest: str
    """Of the condition's canonical form: equal digests mean the same condition."""
    outcome: Truth
    readings: dict[str, Reading] = Field(default_factory=dict)
    """Path → the number or text that was read; None where it was unknown."""
    unknown: dict[str, str] = Field(default_factory=dict)
    """Path → why it was unknown."""


class RouteDecision(WireModel):
    """The transition taken, those that were not, and why."""

    after: str
    """The action that had just run."""
    to: str
    """Where the run goes; the first of `targets`."""
    targets: list[str]
    """All targets: more than one when the rows fan out."""
    reason: Literal["condition", "otherwise", "unknown", "loop_limit", "audit"]
    """`condition`: a row was true. `otherwise`: none was. `unknown`: something needed could not be known."""
    explanation: str
    """One sentence for a person."""
    row: str | None
    """Name of the deciding row."""
    rows: list[RowOutcome]
    """Every row that starts at `after`, in the order in which they are looked at, evaluated."""
    visit: int
    """How often the action has run, this time included."""
    propensity: float = Field(default=1.0, ge=0.0, le=1.0)
    """Chance that this decision would have sent the item where it went (1 unless an audit draw was involved)."""
    table_digest: str
    """Of the whole table: equal digests decide alike."""
    table: str = ""
    """The table's name and version, if it has one."""
