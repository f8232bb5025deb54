"""`RouteDecision`: where a run goes next, with everything needed to explain it and to take it again."""

from typing import Literal

from pydantic import Field

from wonder.routing.budget import BudgetState, Spent
from wonder.routing.join import Join
from wonder.routing.retry import Retry
from wonder.wire import WireModel, WireRecord

Truth = Literal["true", "false", "unknown"]
Reading = float | int | bool | str | None


Reason = Literal["condition", "otherwise", "unknown", "loop_limit", "audit", "escalation", "budget", "error"]


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
    held: bool = False
    """True only because the row was taken before and `holds_until` is not true yet."""


class ThresholdUsed(WireRecord):
    """A `threshold(…)` of a condition, and what it rests on."""

    name: str
    risk: float
    delta: float
    """Chance, over the draw of the labels, that the risk is exceeded."""
    value: float | None = None
    """The calibrated probability from which answers are accepted; None: unknown."""
    bundle: str = ""
    """Id of the calibration it was certified with; empty where the caller gave the number."""
    kept: int | None = None
    """Labelled answers that lay at or above it."""
    wrong: int | None = None
    share: float | None = None
    """Share of the labelled answers that lay at or above it."""
    more_labels: int | None = None
    """How many more labels it takes at least, where it could not be certified."""
    reason: str = ""
    """Why there is no number."""


class RouteDecision(WireModel):
    """The transition taken, those that were not, and why."""

    schema_version: int = 2
    after: str
    """The action that had just run."""
    to: str
    """Where the run goes; the first of `targets`."""
    targets: list[str]
    """All targets: more than one when the rows fan out."""
    reason: Reason
    """`condition`: a row was true. `otherwise`: none was. `unknown`: something needed could not be known.
    `escalation`: the next rung of the row's ladder. `budget`: the next call would not fit. `error`: the action failed.
    `audit` is not used: see the field of that name."""
    explanation: str
    """One sentence for a person."""
    row: str | None
    """Name of the deciding row."""
    rows: list[RowOutcome]
    """Every row that starts at `after`, in the order in which they are looked at, evaluated."""
    visit: int
    """How often the action has run, this time included."""
    propensity: float = Field(default=1.0, ge=0.0, le=1.0)
    """Chance that a person looks at this answer: 1 where the decision sends it to one, the audit rate where it is
    accepted, 0 where it is superseded. What is learned from reviews is weighted by its inverse. Version 1: always 1."""
    audit: bool = False
    """Drawn for an audit: the targets are what they are, and a person looks at the answer as well."""
    table_digest: str
    """Of the whole table: equal digests decide alike."""
    table: str = ""
    """The table's name and version, if it has one."""
    thresholds: list[ThresholdUsed] = Field(default_factory=list)
    """Every `threshold(…)` of the rows, with what it rests on."""
    retry: Retry | None = None
    """What is changed when the target runs: `act(ctx, action.changed_by(decision.retry), …)`."""
    rung: int = 0
    """How often the answer that was judged here had been tried again before."""
    cost: Spent | None = None
    """What the answer that was judged here has used on this rung, all its samples together."""
    budget: BudgetState | None = None
    """What the run has used and has left, where the table has a budget."""
    error: str = ""
    """Name of the error that the action failed with."""
    join: Join | None = None
    """Where the targets meet again."""
