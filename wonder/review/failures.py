"""From Temporal's failures back to Wonder's errors: what was refused, and why an item takes no more calls."""

from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from wonder.errors import (
    AlreadyDecided,
    DeadlinePassed,
    DecisionInvalid,
    NotAllowed,
    ReviewError,
    ReviewNotFound,
    ServerNotReachable,
    WonderError,
    WorkerMissing,
    by_name,
)
from wonder.names import HUMAN_REVIEW
from wonder.review.rules import at, withdrawn
from wonder.review.types import ReviewOutcome

CLOSING = "AcceptedUpdateCompletedWorkflow"
"""The server's word for an update that came while the workflow was ending."""
KNOWN = (NotAllowed, ReviewError)


def refusal(error: WorkflowUpdateFailedError) -> WonderError | None:
    """The error of a refused update, or None if the item closed under it."""
    cause = error.cause
    if not isinstance(cause, ApplicationError):
        return None
    if cause.type == CLOSING:
        return None
    kind = by_name(cause.type or "")
    if kind is not None and issubclass(kind, KNOWN):
        return kind(cause.message)
    if "expected but not found" in cause.message:  # the SDK's words for an update that the workflow does not have
        return ReviewNotFound(f"this workflow is not a review ({cause.message}): `wonder review ls` shows the reviews")
    return DecisionInvalid(cause.message)


def unreachable(error: RPCError, id: str) -> WonderError | None:
    """The error of a call that got no answer, or None if the server did answer."""
    if error.status is RPCStatusCode.UNAVAILABLE:
        return ServerNotReachable(
            f"the Temporal server went away ({error.message}): start it again and repeat the call"
        )
    if error.status in (RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED):
        return no_worker(id)
    if error.status is RPCStatusCode.FAILED_PRECONDITION and "no poller" in error.message:
        return no_worker(id)
    return None


def no_worker(id: str) -> WorkerMissing:
    """That nobody runs the review's code."""
    return WorkerMissing(
        f"no worker answered for review {id}: start one for its task queue (`wonder-cpu-worker`, or your own with "
        "WonderPlugin(roles=['workflow'])); a decision that was sent may still be taken then"
    )


async def why_closed(handle: WorkflowHandle[object, ReviewOutcome]) -> ReviewError | ReviewOutcome:
    """Why an item takes no more calls: its decision, or the error to raise.

    Asks the server only; needs no worker.
    """
    try:
        described = await handle.describe()
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return ReviewNotFound(f"there is no review {handle.id}: `wonder review ls` shows those that wait")
        raise
    if described.workflow_type != HUMAN_REVIEW:
        return ReviewNotFound(f"{handle.id} is a {described.workflow_type}, not a review")
    if described.status in (WorkflowExecutionStatus.CANCELED, WorkflowExecutionStatus.TERMINATED):
        return AlreadyDecided(withdrawn(handle.id, described.close_time))
    try:
        outcome = await handle.result()
    except WorkflowFailureError:
        return DeadlinePassed(
            f"the deadline of review {handle.id} passed at {at(described.close_time)}: nothing was changed"
        )
    if outcome.timed_out:
        return DeadlinePassed(
            f"the deadline of review {handle.id} passed at {at(outcome.closed_at)}, "
            f"and it was closed with {outcome.verdict}, as its author wants: nothing was changed"
        )
    return outcome


def decided(id: str, outcome: ReviewOutcome) -> AlreadyDecided:
    """Who was faster."""
    return AlreadyDecided(
        f"{outcome.reviewer} decided review {id} ({outcome.verdict}) at {at(outcome.closed_at)}: nothing was changed"
    )
