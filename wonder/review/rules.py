"""Who may do what to an item, and when: pure checks that run before anything is recorded."""

from datetime import datetime

from wonder.errors import (
    AlreadyDecided,
    ClaimConflict,
    DeadlinePassed,
    DecisionInvalid,
    NotAllowed,
)
from wonder.review.json_schema import problems
from wonder.review.types import COMMENTS_LIMIT, DecideInput, ReviewDecision, ReviewRequest, ReviewState


def check_open(state: ReviewState, now: datetime) -> None:
    """Refuse what comes too late.

    Raises:
        AlreadyDecided: Somebody decided, or the business workflow withdrew the item.
        DeadlinePassed: The deadline is over, whether its timer has fired yet or not.
    """
    if state.status == "decided":
        raise AlreadyDecided(already_decided(state))
    if state.status == "withdrawn":
        raise AlreadyDecided(withdrawn(state.id, state.closed_at))
    if state.status == "timed_out" or now >= state.due_at:
        raise DeadlinePassed(deadline_passed(state.id, state.due_at))


def check_version(state: ReviewState, expected: int | None) -> None:
    """Refuse a call that was made looking at an older state.

    Raises:
        ClaimConflict: The item has changed since.
    """
    if expected is not None and expected != state.version:
        raise ClaimConflict(
            f"review {state.id} changed: you saw version {expected}, it is at {state.version} now: "
            f"look again with `wonder review show {state.id}`"
        )


def check_reviewer(state: ReviewState, request: ReviewRequest, reviewer: str) -> None:
    """Refuse people who were not asked.

    Raises:
        NotAllowed: The item names its reviewers, and this is none of them.
    """
    if request.reviewers and reviewer not in request.reviewers:
        raise NotAllowed(f"review {state.id} is for {', '.join(request.reviewers)}, not for {reviewer}")


def check_not_held_by_another(state: ReviewState, reviewer: str, now: datetime) -> None:
    """Refuse what only the holder may do, if there is one.

    Raises:
        ClaimConflict: Somebody else holds the item.
    """
    holder = holder_at(state, now)
    if holder and holder != reviewer:
        raise ClaimConflict(
            f"{holder} holds review {state.id} until {at(state.lease_until)}: "
            "take another item, or wait until it is released"
        )


def check_held_by(state: ReviewState, reviewer: str, now: datetime) -> None:
    """Refuse to renew or release what one does not hold.

    Raises:
        ClaimConflict: Nobody or somebody else holds the item.
    """
    check_not_held_by_another(state, reviewer, now)
    if not holder_at(state, now):
        raise ClaimConflict(f"{reviewer} does not hold review {state.id} (no more, if ever): claim it first")


def check_comments(state: ReviewState, count: int) -> None:
    """Keep the item's history bounded.

    Raises:
        DecisionInvalid: There are as many comments as an item may have.
    """
    if count >= COMMENTS_LIMIT:
        raise DecisionInvalid(
            f"review {state.id} has {count} comments already, and {COMMENTS_LIMIT} is the most: decide it"
        )


def check_decision(state: ReviewState, request: ReviewRequest, decision: DecideInput) -> None:
    """Refuse a decision that the business workflow could not use.

    Raises:
        NotAllowed: The verdict is not on offer for this item.
        DecisionInvalid: An edit without a value or with one that does not fit; a value without an edit.
    """
    if decision.verdict not in request.allowed:
        raise NotAllowed(f"review {state.id} allows {' or '.join(request.allowed)}, not {decision.verdict}")
    if decision.verdict == "edit":
        if "value" not in decision.model_fields_set:
            raise DecisionInvalid('an edit needs the corrected answer: add "value" to the decision')
        if found := problems(decision.value, request.answer_schema):
            raise DecisionInvalid(
                f"the edited answer does not fit its type: {'; '.join(found)}: correct it and decide again"
            )
    elif decision.value is not None and decision.value != request.answer:
        raise DecisionInvalid(f'{decision.verdict} takes no value: leave "value" out, or use the verdict edit')


def holder_at(state: ReviewState, now: datetime) -> str:
    """Who holds the item; a lease that is over counts for nothing even before its timer fires."""
    return state.assignee if state.lease_until is not None and now < state.lease_until else ""


def repeats(accepted: ReviewDecision | None, decision: ReviewDecision) -> bool:
    """Whether this is the accepted decision, sent again."""
    return accepted is not None and bool(decision.decision_id) and decision.decision_id == accepted.decision_id


def already_decided(state: ReviewState) -> str:
    """Who decided, what and when."""
    return (
        f"{state.decided_by} decided review {state.id} ({state.verdict}) at {at(state.closed_at)}: nothing was changed"
    )


def withdrawn(id: str, closed_at: datetime | None) -> str:
    """That nobody needs the answer any more."""
    return f"review {id} was withdrawn at {at(closed_at)}, because the workflow that asked was cancelled or ended"


def deadline_passed(id: str, due_at: datetime) -> str:
    """That it is too late."""
    return f"the deadline of review {id} passed at {at(due_at)}: nothing was changed"


def at(time: datetime | None) -> str:
    """A time for a person, in UTC to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC") if time else "an unknown time"
