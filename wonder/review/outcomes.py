"""What people decided in reviews, as outcomes to learn from; read from Temporal, no worker is asked."""

import asyncio
import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

from temporalio.client import Client, WorkflowExecution, WorkflowFailureError, WorkflowHistoryEventAsyncIterator
from temporalio.service import RPCError

from wonder.calibration.apply import signals
from wonder.calibration.outcomes import LabeledOutcome, Selection
from wonder.names import HUMAN_REVIEW
from wonder.review import failures
from wonder.review.types import ReviewOutcome, ReviewRequest
from wonder.trace.schema import ThoughtTrace

AT_ONCE = 16
"""Reviews that are fetched at the same time."""


@dataclass
class ReadOutcomes:
    """Outcomes, and how many reviews gave none, by reason."""

    outcomes: list[LabeledOutcome] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)


async def read_outcomes(
    client: Client, *, action: str | None = None, since: datetime | None = None, limit: int = 100_000
) -> ReadOutcomes:
    """The outcomes of closed reviews, audits included, as long as Temporal keeps them.

    Args:
        client: With Wonder's data converter.
        action: Only of this one.
        since: Only of reviews that were closed after this.
        limit: At most so many reviews, newest first.

    Raises:
        ServerNotReachable: The server does not answer.
    """
    query = f"WorkflowType = '{HUMAN_REVIEW}' AND ExecutionStatus = 'Completed'"
    if since is not None:
        query += f" AND CloseTime > '{since.isoformat()}'"
    found, places = ReadOutcomes(), asyncio.Semaphore(AT_ONCE)

    async def read(execution: WorkflowExecution) -> None:
        async with places:
            outcome = await _read(client, execution, action)
        if isinstance(outcome, str):
            found.skipped[outcome] += 1
        elif outcome is not None:
            found.outcomes.append(outcome)

    try:
        async with asyncio.TaskGroup() as reads:
            async for execution in client.list_workflows(query, limit=limit):
                reads.create_task(read(execution))
    except* RPCError as errors:
        error = errors.exceptions[0]
        assert isinstance(error, RPCError)
        raise failures.unreachable(error, "reviews") or error from error
    found.outcomes.sort(key=lambda outcome: (outcome.time is not None, outcome.time, outcome.id))
    return found


def outcome_of(request: ReviewRequest, decided: ReviewOutcome, review_id: str) -> LabeledOutcome | str:
    """A review as an outcome, or why it tells nothing.

    Right is what was approved, or edited to what it was; wrong what was edited otherwise or rejected.
    """
    trace, decision, origin = request.trace, request.decision, request.origin
    if decided.timed_out:
        return "nobody decided in time"
    if trace is None:
        return "there is no trace of the answer"
    if request.answer is None:
        return "the model's text was no answer"
    read = {name: value for name, value in signals(trace).items() if value is not None}
    if trace.confidence_method not in read:
        return "its confidence is unknown"
    right = decided.verdict == "approve" or (decided.verdict == "edit" and decided.value == request.answer)
    selection: Selection = "audit" if request.audit else "routed"
    visit = decision.visit if decision else 1
    return LabeledOutcome(
        id="/".join((origin.workflow_id, origin.run_id, trace.action, str(visit))) if origin else review_id,
        action=trace.action,
        model=trace.model,
        model_revision=trace.model_revision,
        model_fingerprint=trace.model_fingerprint,
        signal=trace.confidence_method,
        signals=read,
        right=right,
        # A decision that sent the answer to a person did so surely, whatever its audit rate was.
        propensity=decision.propensity if request.audit and decision and decision.propensity > 0 else 1.0,
        selection=selection,
        input=_digest(request.prompt, trace),
        time=decided.opened_at,
        reviewer=decided.reviewer,
    )


def _digest(prompt: str, trace: ThoughtTrace) -> str:
    """Of what was asked and answered; empty where the review does not hold it."""
    if not prompt or not trace.tokens:
        return ""
    return hashlib.sha256(json.dumps([prompt, "".join(trace.tokens)]).encode()).hexdigest()[:32]


async def _read(client: Client, execution: WorkflowExecution, action: str | None) -> LabeledOutcome | str | None:
    """One closed review; None where it is of another action."""
    handle = client.get_workflow_handle(execution.id, run_id=execution.run_id, result_type=ReviewOutcome)
    request = await _request(client, handle.fetch_history_events(page_size=1))
    if action is not None and (request.trace is None or request.trace.action != action):
        return None
    try:
        decided = await handle.result(follow_runs=False)
    except WorkflowFailureError:
        return "nobody decided in time"
    return outcome_of(request, decided, execution.id)


async def _request(client: Client, events: WorkflowHistoryEventAsyncIterator) -> ReviewRequest:
    async for event in events:
        given = event.workflow_execution_started_event_attributes.input.payloads
        (request,) = await client.data_converter.decode(given, [ReviewRequest])
        assert isinstance(request, ReviewRequest)
        return request
    raise AssertionError("a workflow's history begins with its start")
