"""`ReviewClient`: the review queue for programs: list, look, claim, decide."""

import asyncio
import uuid
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

from pydantic import JsonValue, ValidationError
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.client import (
    Client,
    WorkflowExecution,
    WorkflowQueryFailedError,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.service import RPCError, RPCStatusCode

from wonder.errors import (
    AlreadyDecided,
    ClaimConflict,
    DeadlinePassed,
    DecisionInvalid,
    NotAllowed,
    ReviewError,
    ReviewNotFound,
)
from wonder.names import HUMAN_REVIEW
from wonder.review import failures
from wonder.review.types import (
    SUMMARY_MEMO,
    ClaimInput,
    CommentInput,
    DecideInput,
    ReleaseInput,
    RenewInput,
    ReviewOutcome,
    ReviewSummary,
    ReviewView,
    Status,
    Verdict,
)
from wonder.wire import WireModel

M = TypeVar("M", bound=WireModel)

ANSWER_TIMEOUT_S = 15.0
"""How long a call waits for a worker."""
ITEMS_LIMIT = 5_000
"""Items that one list reads at most."""


class ReviewClient:
    """Works on reviews through any connected Temporal client that has Wonder's data converter.

    Lists come from Temporal's visibility store, which lags a little behind (tens of milliseconds, more under load).
    They may show an item that was just decided; the call on it is refused then, so nothing is ever decided twice.
    """

    def __init__(self, client: Client, *, answer_timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        """Work through this client.

        Args:
            client: A connected client.
            answer_timeout_s: How long a call waits for a worker.
        """
        self._client = client
        self._answer_timeout_s = answer_timeout_s
        self._has_queue_attribute: bool | None = None

    async def ls(
        self,
        queue: str | None = None,
        status: Status | Literal["all"] | None = None,
        *,
        assignee: str | None = None,
        limit: int | None = None,
    ) -> list[ReviewSummary]:
        """The items, most urgent first: overdue ones, then by confidence (unknown first), then by deadline.

        Args:
            queue: Only this queue.
            status: Only this one; by default those that wait (`open` and `claimed`).
            assignee: Only those held by this person.
            limit: At most so many.

        Raises:
            ServerNotReachable: The server does not answer.
        """
        rows, now = [], datetime.now(UTC)
        try:
            async for execution in self._client.list_workflows(await self._query(queue, status), limit=ITEMS_LIMIT):
                rows.append(await _row(execution, now))
        except RPCError as error:
            raise failures.unreachable(error, "list") or error from error
        rows = [
            row
            for row in rows
            if (queue is None or row.queue == queue)
            and (status in (None, "all") or row.status == status)
            and (status is not None or row.status in ("open", "claimed"))
            and (assignee is None or row.assignee == assignee)
        ]
        rows.sort(key=lambda row: (row.due_at > now, -1.0 if row.confidence is None else row.confidence, row.due_at))
        return rows[:limit]

    async def show(self, id: str) -> ReviewView:
        """Everything about an item; works on closed ones too, while Temporal keeps them.

        Raises:
            ReviewNotFound: There is no such review.
            WorkerMissing: No worker that knows reviews answers.
        """
        handle = self._client.get_workflow_handle(id)
        try:
            async with asyncio.timeout(self._answer_timeout_s):
                view: ReviewView = await handle.query("view", result_type=ReviewView)
                return view
        except TimeoutError:
            raise failures.no_worker(id) from None
        except WorkflowQueryFailedError as error:
            raise ReviewNotFound(f"{id} does not answer as a review does ({error.message})") from error
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                raise ReviewNotFound(f"there is no review {id}: `wonder review ls` shows those that wait") from error
            raise failures.unreachable(error, id) or error from error

    async def next(
        self, reviewer: str, queue: str | None = None, *, lease_s: float | None = None
    ) -> ReviewSummary | None:
        """Claim the most urgent item that nobody holds, or return the one this person holds already.

        Returns:
            The claimed item, or None if there is nothing to do.
        """
        waiting = await self.ls(queue)
        if mine := [row for row in waiting if row.assignee == reviewer]:
            return mine[0]
        for row in waiting:
            if row.status == "open":
                try:
                    return await self.claim(row.id, reviewer, lease_s=lease_s)
                except (ClaimConflict, AlreadyDecided, DeadlinePassed, NotAllowed, ReviewNotFound):
                    continue  # somebody was faster, or it is not for this person: take the next one
        return None

    async def claim(
        self, id: str, reviewer: str, *, lease_s: float | None = None, expected_version: int | None = None
    ) -> ReviewSummary:
        """Take an item, so that nobody else works on it.

        Raises:
            ClaimConflict: Somebody else holds it, or it is not at the expected version.
            AlreadyDecided: Somebody decided it.
            DeadlinePassed: It is too late.
            NotAllowed: It is not for this person.
            ReviewNotFound: There is no such review.
        """
        call = _input(ClaimInput, reviewer=reviewer, lease_s=lease_s, expected_version=expected_version)
        return await self._update(id, "claim", call)

    async def renew(self, id: str, reviewer: str, *, lease_s: float | None = None) -> ReviewSummary:
        """Keep an item for longer; refused as `claim` is."""
        return await self._update(id, "renew", _input(RenewInput, reviewer=reviewer, lease_s=lease_s))

    async def release(self, id: str, reviewer: str) -> ReviewSummary:
        """Give an item back; refused as `claim` is."""
        return await self._update(id, "release", _input(ReleaseInput, reviewer=reviewer))

    async def comment(self, id: str, reviewer: str, text: str) -> ReviewSummary:
        """Say something about an item; refused as `claim` is."""
        return await self._update(id, "comment", _input(CommentInput, reviewer=reviewer, text=text))

    async def decide(
        self,
        id: str,
        verdict: Verdict,
        reviewer: str,
        *,
        value: JsonValue = None,
        comment: str = "",
        seconds: float | None = None,
        decision_id: str | None = None,
        expected_version: int | None = None,
    ) -> ReviewSummary:
        """Decide an item; `value` is the corrected answer of an `edit`.

        Repeating a call with the same `decision_id` (one is made up if there is none) gives the same result.

        Raises:
            DecisionInvalid: The edit does not fit the answer's type.
            AlreadyDecided: Somebody decided first; the message says who, what and when.
            ClaimConflict: Somebody else holds it, or it is not at the expected version.
            DeadlinePassed: It is too late.
            NotAllowed: It is not for this person, or the verdict is not on offer.
            ReviewNotFound: There is no such review.
        """
        decision_id = decision_id or uuid.uuid4().hex
        edited = {"value": value} if verdict == "edit" or value is not None else {}
        call = _input(
            DecideInput,
            verdict=verdict,
            reviewer=reviewer,
            comment=comment,
            seconds=seconds,
            decision_id=decision_id,
            expected_version=expected_version,
            **edited,
        )
        return await self._update(id, "decide", call, update_id=decision_id)

    async def _update(self, id: str, update: str, call: WireModel, *, update_id: str | None = None) -> ReviewSummary:
        handle = self._client.get_workflow_handle(id)
        try:
            async with asyncio.timeout(self._answer_timeout_s):
                answer: ReviewSummary = await handle.execute_update(
                    update, call, id=update_id or uuid.uuid4().hex, result_type=ReviewSummary
                )
                return answer
        except (TimeoutError, WorkflowUpdateRPCTimeoutOrCancelledError):
            raise failures.no_worker(id) from None
        except WorkflowUpdateFailedError as error:
            if (refused := failures.refusal(error)) is not None:
                raise refused from error
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise failures.unreachable(error, id) or error from error
        return await self._closed(id, update_id)

    async def _closed(self, id: str, decision_id: str | None) -> ReviewSummary:
        """The item is closed: give a repeated decision its result again, and refuse everything else."""
        handle = self._client.get_workflow_handle(id, result_type=ReviewOutcome)
        try:
            async with asyncio.timeout(self._answer_timeout_s):
                outcome = await failures.why_closed(handle)
        except TimeoutError:
            raise failures.no_worker(id) from None
        if isinstance(outcome, ReviewError):
            raise outcome
        if decision_id is None or decision_id != outcome.decision_id:
            raise failures.decided(id, outcome)
        described = await handle.describe()
        return await described.memo_value(SUMMARY_MEMO, type_hint=ReviewSummary)

    async def _query(self, queue: str | None, status: str | None) -> str:
        parts = [f"WorkflowType = '{HUMAN_REVIEW}'"]
        if status in (None, "open", "claimed"):
            parts.append("ExecutionStatus = 'Running'")
        if queue is not None and await self._queue_is_indexed():
            # Items that were started without search attributes have none: they are filtered here, not by the server.
            quoted = queue.replace("\\", "\\\\").replace("'", "\\'")
            parts.append(f"(WonderQueue = '{quoted}' OR WonderQueue IS NULL)")
        return " AND ".join(parts)

    async def _queue_is_indexed(self) -> bool:
        if self._has_queue_attribute is None:
            request = ListSearchAttributesRequest(namespace=self._client.namespace)
            try:
                answer = await self._client.operator_service.list_search_attributes(request)
                self._has_queue_attribute = "WonderQueue" in answer.custom_attributes
            except RPCError:  # not allowed to look: do without
                self._has_queue_attribute = False
        return self._has_queue_attribute


async def _row(execution: WorkflowExecution, now: datetime) -> ReviewSummary:
    """An item's summary, from its memo: no worker is asked."""
    row: ReviewSummary | None = await execution.memo_value(SUMMARY_MEMO, None, type_hint=ReviewSummary)
    if row is None:
        title, time = "(no worker has opened this item yet)", execution.start_time
        return ReviewSummary(
            id=execution.id, status="open", opened_at=time, due_at=time, version=0, title=title, queue=""
        )
    if row.status == "claimed" and row.lease_until is not None and row.lease_until <= now:
        return row.model_copy(update={"status": "open", "assignee": "", "lease_until": None})
    return row


def _input(kind: type[M], **fields: Any) -> M:
    """What is sent, checked before it is sent."""
    try:
        return kind(**fields)
    except ValidationError as error:
        said = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors())
        raise DecisionInvalid(f"the call is incomplete ({said}): correct it and send it again") from None
