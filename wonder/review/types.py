"""What travels to, from and about a review: plain JSON, so that any Temporal client can take part."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, JsonValue, StringConstraints

from wonder.routing.decision import RouteDecision
from wonder.trace.schema import ConfidenceStatus, ThoughtTrace
from wonder.wire import NonNegative, Probability, WireModel, WireRecord

Verdict = Literal["approve", "edit", "reject"]
OnTimeout = Literal["approve", "reject", "fail"]
Status = Literal["open", "claimed", "decided", "timed_out", "withdrawn"]
"""`open` waits for anybody, `claimed` is held by one person; the other three are final."""

Reviewer = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=120)]
SlaSeconds = Annotated[float, Field(gt=0, le=10 * 366 * 86_400, allow_inf_nan=False)]
"""At most ten years: a date that Python cannot represent would block the review for ever."""
LeaseSeconds = Annotated[float, Field(ge=1, le=86_400, allow_inf_nan=False)]

DEFAULT_LEASE_S = 900.0
COMMENT_LIMIT = 4_000
"""Characters of one comment."""
COMMENTS_LIMIT = 100
"""Comments of one item."""
PROMPT_LIMIT = 20_000
"""Characters of the prompt that travel with an item."""
SUMMARY_MEMO = "wonder_review"
"""Memo field under which a review keeps its `ReviewSummary`, so that a list needs no worker."""

Comment = Annotated[str, StringConstraints(max_length=COMMENT_LIMIT)]


class Origin(WireRecord):
    """The business workflow that asks."""

    workflow_id: str
    run_id: str = ""
    workflow_type: str = ""
    step: str = ""
    n: int = 1


class ReviewRequest(WireModel):
    """One item for a person: an answer, what was read while it was thought, and what may be done with it."""

    title: Annotated[str, StringConstraints(max_length=200)] = ""
    queue: Annotated[str, StringConstraints(min_length=1, max_length=120)] = "default"
    answer: JsonValue
    answer_schema: dict[str, JsonValue] = Field(default_factory=dict)
    """JSON schema that an edited answer must fit; empty allows any JSON."""
    allowed: list[Verdict] = Field(default=["approve", "edit", "reject"], min_length=1)
    reviewers: list[Reviewer] = Field(default_factory=list)
    """Who may handle the item; empty means everybody. Names are taken on trust here: whoever may send updates to
    Temporal can claim any name."""
    prompt: str = ""
    """What the model was asked, at most `PROMPT_LIMIT` characters."""
    trace: ThoughtTrace | None = None
    decision: RouteDecision | None = None
    """The routing decision that led here."""
    why: Annotated[str, StringConstraints(max_length=500)] = ""
    """One sentence for a person: why this item is here."""
    sla_s: SlaSeconds
    """From the start of the review until `on_timeout` happens."""
    on_timeout: OnTimeout
    """What happens when nobody decides in time; there is no default on purpose."""
    lease_s: LeaseSeconds = DEFAULT_LEASE_S
    """How long a claim lasts unless the claim says otherwise."""
    origin: Origin | None = None
    audit: bool = False
    """Nobody waits for the decision: the answer was accepted, and drawn at random to see how good such answers are."""
    search_attributes: bool = False
    """Whether the namespace has Wonder's search attributes; setting one that is missing blocks the review."""


class ClaimInput(WireModel):
    """Take the item, so that nobody else works on it."""

    reviewer: Reviewer
    lease_s: LeaseSeconds | None = None
    """The item's own default if left out."""
    expected_version: int | None = None


class RenewInput(ClaimInput):
    """Keep the item for longer."""


class ReleaseInput(WireModel):
    """Give the item back."""

    reviewer: Reviewer
    expected_version: int | None = None


class CommentInput(WireModel):
    """Say something about the item without deciding it."""

    reviewer: Reviewer
    text: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=COMMENT_LIMIT)]


class ReviewDecision(WireModel):
    """What a person decided."""

    verdict: Verdict
    reviewer: Reviewer
    value: JsonValue = None
    """The corrected answer; only with `edit`."""
    comment: Comment = ""
    seconds: NonNegative | None = None
    """How long the person looked at the item, if the client measured it."""
    decision_id: str = ""
    """Chosen by the client; the same id again gives the same result instead of `AlreadyDecided`."""


class DecideInput(ReviewDecision):
    """A decision as it is sent."""

    expected_version: int | None = None
    """Refuse if the item changed since the version the person saw."""


class ReviewComment(WireRecord):
    """A comment as it is kept."""

    time: datetime
    reviewer: str
    text: str


class LogEntry(WireRecord):
    """One thing that happened to the item."""

    time: datetime
    actor: str
    """A person, or `wonder`."""
    what: Literal[
        "opened", "claimed", "renewed", "released", "lease_expired", "commented", "decided", "timed_out", "withdrawn"
    ]
    note: str = ""


class ReviewState(WireModel):
    """Where an item stands."""

    id: str
    status: Status
    assignee: str = ""
    lease_until: datetime | None = None
    opened_at: datetime
    due_at: datetime
    closed_at: datetime | None = None
    verdict: Verdict | None = None
    decided_by: str = ""
    version: int
    """Counts the changes of the item."""


class ReviewSummary(ReviewState):
    """An item as a row of a list; every update answers with it."""

    title: str
    queue: str
    step: str = ""
    model: str = ""
    confidence: Probability | None = None
    confidence_status: ConfidenceStatus = "unknown"
    concepts: dict[str, Probability] = Field(default_factory=dict)
    """The strongest ones."""
    why: str = ""
    comments: int = 0
    """How many."""


class ReviewView(ReviewState):
    """Everything about an item, as the query `view` returns it."""

    request: ReviewRequest
    comments: list[ReviewComment] = Field(default_factory=list)
    log: list[LogEntry] = Field(default_factory=list)
    """Oldest first."""
    decision: ReviewDecision | None = None


class ReviewOutcome(WireModel):
    """The result of the review workflow."""

    verdict: Verdict
    value: JsonValue
    """The answer that counts: the corrected one after `edit`, else the original (also after `reject`)."""
    reviewer: str = ""
    """Empty when nobody decided in time."""
    comment: str = ""
    timed_out: bool = False
    seconds: float | None = None
    decision_id: str = ""
    opened_at: datetime
    closed_at: datetime
