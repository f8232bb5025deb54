"""`Transition`: one row of a table, and `TableSpec`: a whole table as data."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, ModelWrapValidatorHandler, PrivateAttr, field_validator, model_validator

from wonder.routing.budget import Budget
from wonder.routing.expression import Expression
from wonder.routing.join import Join
from wonder.routing.retry import Retry
from wonder.routing.schema import Action
from wonder.wire import Settings

OTHERWISE = "otherwise"
"""The condition of the row that is taken when no other is true."""

HitPolicy = Literal["first", "all", "unique"]
"""`first`: the first row that is not false decides. `all`: every true row fires. `unique`: exactly one may be true."""

OnLoopLimit = Literal["route", "raise"]

Node = Annotated[str, Field(min_length=1, pattern=r"^\S(.*\S)?$")]
"""The name of an action, a review queue or an end."""

Rate = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
"""A share, in [0, 1]."""


class Transition(Settings):
    """Where a run goes after an action, if a condition holds.

    `from_` (in JSON and YAML: `from`) and `to` may be given as actions instead of names; then the checks know what
    the action reads and answers. `condition` may be given as an operator expression (`E(…)`).
    """

    model_config = ConfigDict(serialize_by_alias=True)

    from_: Node = Field(serialization_alias="from")
    """The action that has just run."""
    to: Node | Annotated[list[Node], Field(min_length=1)]
    """Where to go; a list goes to all of them at once."""
    condition: str = ""
    """A condition (see `docs/conditions.md`), or `otherwise`; only a row with `on_error` may go without."""
    name: str = ""
    """Shown in decisions; by default `row 1`, `row 2`, …"""
    priority: int | None = None
    """Rows with a higher number are looked at first; without one the order in the table counts (as 0)."""
    on_unknown: Node | None = None
    """Where to go when this row is unknown; by default the table's `on_unknown`."""
    requires_status: Literal["calibrated", "uncalibrated"] | None = None
    """The least `confidence_status` a trace needs; with a lower one the row is unknown, not skipped."""
    max_visits: int | None = Field(default=None, ge=1)
    """This row is taken only while the action has not run more often than this; then `on_unknown` is."""
    audit_rate: Rate | None = None
    """Share of the answers accepted by this row that a person looks at as well; by default the table's."""
    holds_until: str | None = None
    """Hysteresis: once taken, the row holds at the action's next visits until this condition is true."""
    retry_with: Retry | None = None
    """What is changed when `to` runs."""
    escalate_to: list[Retry] = Field(default_factory=list)
    """A ladder: each time the row is true the action runs again on the next rung; after the last one, on to `to`."""
    on_error: Annotated[list[str], Field(min_length=1)] | None = None
    """Names of errors (see `wonder.errors`): the row is looked at when the action fails with one of them, or with one
    below it in the tree, and never otherwise."""
    join: Join | None = None
    """Where several targets meet again, and how many of them must arrive."""

    _actions: list[Any] = PrivateAttr(default_factory=list)

    if TYPE_CHECKING:
        # What pydantic cannot say about its own __init__: actions and expressions are accepted too.
        def __init__(
            self,
            *,
            from_: str | Action,
            to: str | Action | Sequence[str | Action],
            condition: str | Expression = "",
            name: str = "",
            priority: int | None = None,
            on_unknown: str | Action | None = None,
            requires_status: Literal["calibrated", "uncalibrated"] | None = None,
            max_visits: int | None = None,
            audit_rate: float | None = None,
            holds_until: str | Expression | None = None,
            retry_with: Retry | str | None = None,
            escalate_to: Sequence[Retry | str] = (),
            on_error: str | Sequence[str] | None = None,
            join: Join | None = None,
        ) -> None: ...

    @model_validator(mode="wrap")
    @classmethod
    def _accept_actions(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(value, dict):
            return handler(value)
        found: list[Any] = []
        # `from` is a keyword of Python: data says `from`, code says `from_`.
        plain = {"from_" if key == "from" else key: item for key, item in value.items()}
        for key in ("from_", "to", "on_unknown"):
            if key in plain:
                plain[key] = _names(plain[key], found)
        row = handler(plain)
        row._actions = found
        return row

    @field_validator("condition", "holds_until", mode="before")
    @classmethod
    def _spell(cls, value: Any) -> Any:
        return str(value) if isinstance(value, Expression) else value

    @field_validator("on_error", mode="before")
    @classmethod
    def _one_error_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _has_a_condition(self) -> Self:
        if not self.condition.strip() and self.on_error is None:
            raise ValueError(f"a row needs a condition, {OTHERWISE!r} or on_error")
        return self

    @property
    def targets(self) -> tuple[str, ...]:
        """`to` as a tuple, without repetitions."""
        return (self.to,) if isinstance(self.to, str) else tuple(dict.fromkeys(self.to))

    @property
    def is_otherwise(self) -> bool:
        """Whether this is the row taken when no other is true."""
        return self.on_error is None and self.condition.strip() == OTHERWISE

    @property
    def actions(self) -> tuple[Action, ...]:
        """The actions this row was given as objects."""
        return tuple(self._actions)


def _names(value: Any, found: list[Any]) -> Any:
    if isinstance(value, list | tuple):
        return [_names(item, found) for item in value]
    if hasattr(value, "thought_capture") and hasattr(value, "name"):
        found.append(value)
        return value.name
    return value


class TableSpec(Settings):
    """A transition table as data, for JSON, YAML and workflow inputs."""

    schema_version: int = 1
    rows: list[Transition]
    name: str = ""
    ends: list[Node] | None = None
    """Targets that are not followed by rows; None: every target without rows is one."""
    hit_policy: HitPolicy | dict[str, HitPolicy] = "first"
    """For the whole table, or by action."""
    on_unknown: Node = "human_review"
    """Where to go when something a decision needs is unknown."""
    max_visits: int | None = Field(default=None, ge=1)
    """How often an action may run; None: 10 times where it lies on a loop, without limit elsewhere."""
    on_loop_limit: OnLoopLimit = "route"
    """`route`: to `on_unknown`. `raise`: `LoopLimit`."""
    audit_rate: Rate = 0.0
    """Share of the accepted answers that a person looks at as well, while the run goes on."""
    reviews: list[Node] | None = None
    """The targets at which a person looks, which are never audited; None: those that unknown goes to."""
    budget: Budget | None = None
    """What a run may use."""
    on_exhausted: Node | None = None
    """Where to go when the next call would go over the budget; None: `on_unknown`."""
