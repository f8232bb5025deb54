"""`wonder.HumanReview`: one item waiting for a person, with its claims, its clocks and its one decision."""

import asyncio
import contextlib
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from wonder.names import HUMAN_REVIEW
from wonder.review import attributes, rules
from wonder.review.details import markdown
from wonder.review.summary import summarize, why
from wonder.review.types import (
    SUMMARY_MEMO,
    ClaimInput,
    CommentInput,
    DecideInput,
    LogEntry,
    ReleaseInput,
    RenewInput,
    ReviewComment,
    ReviewDecision,
    ReviewOutcome,
    ReviewRequest,
    ReviewState,
    ReviewSummary,
    ReviewView,
    Status,
)

LOG_LIMIT = 400
"""Entries of the log that are kept; the first one stays."""


@workflow.defn(name=HUMAN_REVIEW)
class HumanReview:
    """Waits for one decision about one answer.

    Updates are checked before they are recorded: a refused one leaves no trace in the history. The handlers
    themselves never wait and never fail, so two calls cannot interleave, and of many racing claims one wins.
    """

    @workflow.init
    def __init__(self, request: ReviewRequest) -> None:
        info = workflow.info()
        self._request = request
        self._opened_at = info.workflow_start_time
        self._due_at = self._opened_at + timedelta(seconds=request.sla_s)
        self._status: Status = "open"
        self._assignee = ""
        self._lease_until: datetime | None = None
        self._closed_at: datetime | None = None
        self._decision: ReviewDecision | None = None
        self._comments: list[ReviewComment] = []
        self._version = 1
        self._log = [LogEntry(time=self._opened_at, actor="wonder", what="opened", note=why(request))]

    @workflow.run
    async def run(self, _request: ReviewRequest) -> ReviewOutcome:
        """Wait for the decision, or for the deadline.

        Returns:
            The decision, or what the author wants on timeout.

        Raises:
            ReviewTimedOut: Nobody decided in time, and the author chose `fail`.
        """
        self._publish(opening=True)
        try:
            await self._closed()
        except asyncio.CancelledError:
            if self._status in ("open", "claimed"):
                self._close("withdrawn")
                self._changed("wonder", "withdrawn")
            raise
        await workflow.wait_condition(workflow.all_handlers_finished)
        return self._outcome()

    async def _closed(self) -> None:
        """Run the clocks: give the item back when a lease ends, close it at the deadline."""
        while self._status in ("open", "claimed"):
            now, wake_at = workflow.now(), self._wake_at()
            if now >= self._due_at:
                self._close("timed_out")
                self._changed("wonder", "timed_out", self._request.on_timeout)
            elif now >= wake_at:
                lapsed, self._assignee, self._lease_until, self._status = self._assignee, "", None, "open"
                self._changed("wonder", "lease_expired", lapsed)
            else:
                await self._until(wake_at)

    async def _until(self, wake_at: datetime) -> None:
        """Sleep until then, unless the item is decided or the clocks change first."""
        name = "deadline" if wake_at == self._due_at else f"lease of {self._assignee}"
        with contextlib.suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: self._status not in ("open", "claimed") or self._wake_at() != wake_at,
                timeout=wake_at - workflow.now(),
                timeout_summary=name,
            )

    def _wake_at(self) -> datetime:
        return min(self._due_at, self._lease_until or self._due_at)

    # Reviewers' calls ---------------------------------------------------------------------------------------------

    @workflow.update(description='Take the item for a while: {"reviewer": "ana", "lease_s": 900}')
    def claim(self, input: ClaimInput) -> ReviewSummary:
        """Hold the item, or hold it anew."""
        self._hold(input)
        self._changed(input.reviewer, "claimed", f"until {rules.at(self._lease_until)}")
        return self._summary()

    @claim.validator
    def _check_claim(self, input: ClaimInput) -> None:
        state = self._check(input.reviewer, input.expected_version)
        rules.check_not_held_by_another(state, input.reviewer, workflow.now())

    @workflow.update(description='Keep the item for longer: {"reviewer": "ana", "lease_s": 900}')
    def renew(self, input: RenewInput) -> ReviewSummary:
        """Let the lease begin anew."""
        self._hold(input)
        self._changed(input.reviewer, "renewed", f"until {rules.at(self._lease_until)}")
        return self._summary()

    @renew.validator
    def _check_renew(self, input: RenewInput) -> None:
        rules.check_held_by(self._check(input.reviewer, input.expected_version), input.reviewer, workflow.now())

    @workflow.update(description='Give the item back: {"reviewer": "ana"}')
    def release(self, input: ReleaseInput) -> ReviewSummary:
        """Let others have it."""
        self._assignee, self._lease_until, self._status = "", None, "open"
        self._changed(input.reviewer, "released")
        return self._summary()

    @release.validator
    def _check_release(self, input: ReleaseInput) -> None:
        rules.check_held_by(self._check(input.reviewer, input.expected_version), input.reviewer, workflow.now())

    @workflow.update(description='Say something without deciding: {"reviewer": "ana", "text": "…"}')
    def comment(self, input: CommentInput) -> ReviewSummary:
        """Keep a remark."""
        self._comments.append(ReviewComment(time=workflow.now(), reviewer=input.reviewer, text=input.text))
        self._changed(input.reviewer, "commented")
        return self._summary()

    @comment.validator
    def _check_comment(self, input: CommentInput) -> None:
        rules.check_comments(self._check(input.reviewer, None), len(self._comments))

    @workflow.update(
        description='Decide: {"reviewer": "ana", "verdict": "approve"}, or "reject", or "edit" with a corrected "value"'
    )
    def decide(self, input: DecideInput) -> ReviewSummary:
        """Take the decision; an item that nobody holds may be decided without claiming it."""
        if self._decision is None:
            fields = set(ReviewDecision.model_fields) & input.model_fields_set
            self._decision = ReviewDecision(**input.model_dump(include=fields))
            self._close("decided")
            self._changed(input.reviewer, "decided", input.verdict)
        return self._summary()

    @decide.validator
    def _check_decide(self, input: DecideInput) -> None:
        if rules.repeats(self._decision, input):
            return
        state = self._check(input.reviewer, input.expected_version)
        rules.check_not_held_by_another(state, input.reviewer, workflow.now())
        rules.check_decision(state, self._request, input)

    @workflow.query(description="Everything about the item")
    def view(self) -> ReviewView:
        """The item, its state, comments, log and decision."""
        return ReviewView(
            **self._state().model_dump(),
            request=self._request,
            comments=self._comments,
            log=self._log,
            decision=self._decision,
        )

    # State --------------------------------------------------------------------------------------------------------

    def _check(self, reviewer: str, expected_version: int | None) -> ReviewState:
        """What every call has to pass."""
        state = self._state()
        rules.check_open(state, workflow.now())
        rules.check_reviewer(state, self._request, reviewer)
        rules.check_version(state, expected_version)
        return state

    def _hold(self, input: ClaimInput) -> None:
        lease = timedelta(seconds=input.lease_s or self._request.lease_s)
        self._assignee, self._status = input.reviewer, "claimed"
        self._lease_until = min(workflow.now() + lease, self._due_at)

    def _close(self, status: Status) -> None:
        self._status, self._assignee, self._lease_until = status, "", None
        self._closed_at = workflow.now()

    def _changed(self, actor: str, what: str, note: str = "") -> None:
        entry = LogEntry.model_validate({"time": workflow.now(), "actor": actor, "what": what, "note": note})
        self._log.append(entry)
        if len(self._log) > LOG_LIMIT:
            del self._log[1]
        self._version += 1
        self._publish()

    def _publish(self, *, opening: bool = False) -> None:
        """Show the state where Temporal shows it: memo (for lists), details (for the UI), search attributes."""
        summary = self._summary()
        workflow.upsert_memo({SUMMARY_MEMO: summary})
        workflow.set_current_details(markdown(self.view(), summary))
        if self._request.search_attributes:
            updates = attributes.on_open(summary) if opening else attributes.on_change(summary)
            workflow.upsert_search_attributes(updates)

    def _state(self) -> ReviewState:
        return ReviewState(
            id=workflow.info().workflow_id,
            status=self._status,
            assignee=self._assignee,
            lease_until=self._lease_until,
            opened_at=self._opened_at,
            due_at=self._due_at,
            closed_at=self._closed_at,
            verdict=self._decision.verdict if self._decision else None,
            decided_by=self._decision.reviewer if self._decision else "",
            version=self._version,
        )

    def _summary(self) -> ReviewSummary:
        return summarize(self._request, self._state(), comments=len(self._comments))

    def _outcome(self) -> ReviewOutcome:
        decision, closed_at = self._decision, self._closed_at or workflow.now()
        if decision is not None:
            return ReviewOutcome(
                verdict=decision.verdict,
                value=decision.value if decision.verdict == "edit" else self._request.answer,
                reviewer=decision.reviewer,
                comment=decision.comment,
                seconds=decision.seconds,
                decision_id=decision.decision_id,
                opened_at=self._opened_at,
                closed_at=closed_at,
            )
        if self._request.on_timeout == "fail":
            raise ApplicationError(
                f"nobody decided review {workflow.info().workflow_id} by {rules.at(self._due_at)}, and its author "
                "chose to fail then: start the workflow again with a longer sla, or choose another on_timeout",
                type="ReviewTimedOut",
                non_retryable=True,
            )
        return ReviewOutcome(
            verdict=self._request.on_timeout,
            value=self._request.answer,
            timed_out=True,
            opened_at=self._opened_at,
            closed_at=closed_at,
        )
