"""`GraphSpec`: a whole run as data, and what `wonder.Graph` takes and gives back."""

import re
from datetime import timedelta
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, ConfigDict, Field, JsonValue, ValidationError, field_validator

from wonder.names import EMBEDDED_MODEL
from wonder.review.types import OnTimeout, Verdict
from wonder.routing.budget import Budget, Spent
from wonder.routing.context import Context
from wonder.routing.retry import Retry
from wonder.routing.transition import HitPolicy, Node, Rate, TableSpec, Transition
from wonder.trace.capture import ThoughtCapture
from wonder.trace.sampling import Sampling
from wonder.wire import Probability, Settings, WireModel, WireRecord

_UNITS_S = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}


def _duration(value: Any) -> Any:
    """`1h30m`, `45s`, `7d`; seconds and ISO 8601 are read by pydantic."""
    if isinstance(value, str) and re.fullmatch(r"(\d+[dhms])+", value):
        return timedelta(seconds=sum(int(n) * _UNITS_S[unit] for n, unit in re.findall(r"(\d+)([dhms])", value)))
    return value


Duration = Annotated[timedelta, BeforeValidator(_duration), Field(gt=timedelta(0), le=timedelta(days=3660))]
"""A time, such as `4h`, `1h30m` or `7d`; a bare number counts seconds."""


class GraphAction(Settings):
    """One model call."""

    prompt: str
    """Template with `{variables}`."""
    output: JsonValue = "string"
    """The answer's type: see `wonder.graph.types`."""
    model: str = EMBEDDED_MODEL
    variables: dict[str, str] = Field(default_factory=dict)
    """Variable of the prompt → where it comes from: `input.text`, or `classify.team` for an earlier answer. One that is
    not named here is the input's field of that name."""
    sampling: Sampling = Sampling()
    thought_capture: ThoughtCapture = ThoughtCapture()
    constrained: bool = False
    """Hold the answer to its type while it is written."""
    worker_within: Duration = timedelta(minutes=5)
    """How long a worker may take to pick it up; then it fails with `WorkerMissing`."""
    finish_within: Duration = timedelta(minutes=10)


class GraphReview(Settings):
    """A person looks at the latest answer."""

    queue: str = "default"
    sla: Duration = timedelta(days=1)
    on_timeout: OnTimeout = "fail"
    title: str = ""
    """Template with the same variables as a prompt."""
    prompt: str = ""
    """What the reviewer reads; a template as well."""
    allowed: list[Verdict] = Field(default=["approve", "edit", "reject"], min_length=1)
    reviewers: list[str] = Field(default_factory=list)
    then: dict[Verdict, Node] = Field(default_factory=dict)
    """Verdict → where the run goes; it ends here after a verdict that is not named."""


class GraphAudits(Settings):
    """Where audited answers are looked at."""

    queue: str = "audit"
    sla: Duration = timedelta(days=7)


class GraphSpec(Settings):
    """Actions, the rows between them, and the people who are asked: everything a run needs, as data."""

    schema_version: int = 1
    name: str = ""
    """Name and version, for the records."""
    input: dict[str, JsonValue] = Field(default_factory=dict)
    """Field → its type. Conditions read the input as `state.…`; without this, whatever is given is taken."""
    start: Node | None = None
    """The first action; by default the first one listed."""
    actions: dict[Node, GraphAction] = Field(min_length=1)
    rows: list[Transition] = Field(min_length=1)
    reviews: dict[Node, GraphReview] = Field(default_factory=dict)
    ends: list[Node] = Field(default_factory=list)
    on_unknown: Node | None = None
    """Where to go when something a decision needs is unknown; by default the only review there is."""
    hit_policy: HitPolicy | dict[str, HitPolicy] = "first"
    max_visits: int | None = Field(default=None, ge=1)
    budget: Budget | None = None
    on_exhausted: Node | None = None
    audit_rate: Rate = 0.0
    audits: GraphAudits = GraphAudits()
    max_steps: int = Field(default=1000, ge=1)
    """Actions and reviews of one run, over everything."""
    continue_after: int = Field(default=200, ge=1)
    """Steps after which the run continues as a new one with a fresh history (earlier where Temporal asks for it)."""

    def table(self) -> TableSpec:
        """The rows as a table."""
        return TableSpec(
            rows=self.rows,
            name=self.name,
            ends=[*self.ends, *self.reviews],
            hit_policy=self.hit_policy,
            on_unknown=self.unknown,
            max_visits=self.max_visits,
            audit_rate=self.audit_rate,
            reviews=list(self.reviews),
            budget=self.budget,
            on_exhausted=self.on_exhausted,
        )

    @property
    def unknown(self) -> str:
        """Where unknown goes."""
        return self.on_unknown or (next(iter(self.reviews)) if len(self.reviews) == 1 else "human_review")

    @property
    def first(self) -> str:
        """The first action."""
        return self.start or next(iter(self.actions))


class Place(WireRecord):
    """Where a branch of a run stands."""

    node: str
    retry: Retry | None = None
    """What is changed when the node runs."""
    action: str = ""
    """The action whose answer this branch carries."""
    answer: JsonValue = None
    decided_by: str = "model"
    verdict: Verdict | None = None


class Resume(WireRecord):
    """What is carried into the next run of a long graph."""

    place: Place
    ctx: Context
    route: list[str]
    steps: int


EXAMPLE: Final[dict[str, Any]] = {
    "graph": {
        "actions": {"answer": {"prompt": "Ticket: {text}\nTriage:"}},
        "rows": [
            {"from": "answer", "to": "person", "condition": "thought_trace.overall_confidence < 0.7"},
            {"from": "answer", "to": "done", "condition": "otherwise"},
        ],
        "reviews": {"person": {"sla": "4h"}},
        "ends": ["done"],
    },
    "input": {"text": "I was charged twice"},
}
"""Stands in the schema, so that whoever starts a graph by hand has something that runs."""


class GraphRun(WireModel):
    """The input of `wonder.Graph`."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    graph: GraphSpec
    input: dict[str, JsonValue] = Field(default_factory=dict)
    resume: Resume | None = None
    """Set by the workflow itself when it continues as a new run."""

    @field_validator("graph", mode="before")
    @classmethod
    def _with_every_name_known(cls, value: Any) -> Any:
        """Settings forgive unknown names on the wire; what a person writes here must not be forgiven."""
        if not isinstance(value, dict):
            return value
        try:
            return GraphSpec.model_validate(value)
        except ValidationError as error:
            raise ValueError(problems(error)) from None


class GraphResult(WireModel):
    """What came of a run."""

    graph: str
    end: str
    """Where the run ended; the first, in the order of the table, where it fanned out without a join."""
    ends: list[str]
    answer: JsonValue
    """The answer that counts: corrected where a person edited it, None where one rejected it."""
    answers: dict[str, JsonValue]
    """Action → its latest answer."""
    decided_by: str
    """`model`, the reviewer, or `deadline`."""
    verdict: Verdict | None
    confidence: Probability | None
    """Of the action that gave the answer; None where it is unknown."""
    route: list[str]
    """Every action, review and end in the order in which the run came to them."""
    spent: Spent


def problems(error: ValidationError) -> str:
    """What is wrong, one clause for each mistake."""
    return "; ".join(f"{'.'.join(map(str, item['loc'])) or 'the graph'}: {item['msg']}" for item in error.errors())
