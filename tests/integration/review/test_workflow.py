"""One item on a real server: claims, clocks, decisions, refusals."""

import asyncio
import uuid
from collections.abc import Awaitable
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from tests.integration.review.conftest import Opener
from tests.integration.review.polling import eventually
from wonder.errors import (
    AlreadyDecided,
    ClaimConflict,
    DeadlinePassed,
    DecisionInvalid,
    NotAllowed,
    ReviewNotFound,
    WorkerMissing,
)
from wonder.review.client import ReviewClient
from wonder.review.types import OnTimeout, ReviewOutcome, ReviewSummary
from wonder.review.workflow import HumanReview

Handle = WorkflowHandle[HumanReview, ReviewOutcome]


async def outcome_of(call: Awaitable[ReviewSummary]) -> ReviewSummary | Exception:
    try:
        return await call
    except Exception as error:
        return error


async def events(handle: Handle) -> int:
    return len((await handle.fetch_history()).events)


async def test_an_item_is_claimed_discussed_and_approved(ask: Opener, reviews: ReviewClient) -> None:
    handle = await ask()
    claimed = await reviews.claim(handle.id, "ana", lease_s=30)
    assert (claimed.status, claimed.assignee) == ("claimed", "ana")
    renewed = await reviews.renew(handle.id, "ana", lease_s=50)
    assert claimed.lease_until is not None
    assert renewed.lease_until is not None
    assert renewed.lease_until > claimed.lease_until
    await reviews.comment(handle.id, "bob", "looks like billing to me")
    await reviews.decide(handle.id, "approve", "ana", comment="yes", seconds=3.5)

    outcome = await handle.result()
    assert (outcome.verdict, outcome.reviewer, outcome.comment, outcome.seconds) == ("approve", "ana", "yes", 3.5)
    assert outcome.value == {"team": "billing", "urgency": 2}
    view = await reviews.show(handle.id)
    assert [entry.what for entry in view.log] == ["opened", "claimed", "renewed", "commented", "decided"]
    assert [comment.text for comment in view.comments] == ["looks like billing to me"]
    assert view.decision is not None
    assert view.version == 5


async def test_a_released_item_is_anybodys_again(ask: Opener, reviews: ReviewClient) -> None:
    handle = await ask()
    await reviews.claim(handle.id, "ana")
    released = await reviews.release(handle.id, "ana")
    assert (released.status, released.assignee) == ("open", "")
    assert (await reviews.claim(handle.id, "bob")).assignee == "bob"


async def test_only_the_holder_renews_and_releases(ask: Opener, reviews: ReviewClient) -> None:
    handle = await ask()
    with pytest.raises(ClaimConflict, match="ana does not hold"):
        await reviews.renew(handle.id, "ana")
    await reviews.claim(handle.id, "ana")
    with pytest.raises(ClaimConflict, match="ana holds"):
        await reviews.release(handle.id, "bob")


async def test_of_fifty_racing_claims_one_wins(ask: Opener, reviews: ReviewClient) -> None:
    handle = await ask()
    results = await asyncio.gather(*(outcome_of(reviews.claim(handle.id, f"racer-{n}")) for n in range(50)))
    winners = [result for result in results if isinstance(result, ReviewSummary)]
    assert len(winners) == 1
    assert all(isinstance(result, ReviewSummary | ClaimConflict) for result in results)
    view = await reviews.show(handle.id)
    assert view.assignee == winners[0].assignee
    assert view.version == 2


async def test_of_racing_decisions_one_wins_and_the_others_learn_whose(ask: Opener, reviews: ReviewClient) -> None:
    handle = await ask()
    racers = [outcome_of(reviews.decide(handle.id, "approve", f"racer-{n}")) for n in range(20)]
    results = await asyncio.gather(*racers)
    winners = [result for result in results if isinstance(result, ReviewSummary)]
    assert len(winners) == 1
    assert (await handle.result()).reviewer == winners[0].decided_by
    for result in results:
        if not isinstance(result, ReviewSummary):
            assert isinstance(result, AlreadyDecided), result
            assert winners[0].decided_by in str(result)


async def test_the_second_person_to_decide_is_told_who_was_first(ask: Opener, reviews: ReviewClient) -> None:
    handle = await ask()
    await reviews.decide(handle.id, "reject", "ana")
    with pytest.raises(AlreadyDecided, match=r"ana decided review .* \(reject\) at 2"):
        await reviews.decide(handle.id, "approve", "bob")
    with pytest.raises(AlreadyDecided, match="ana"):
        await reviews.claim(handle.id, "bob")


async def test_nobody_decides_what_somebody_else_holds(ask: Opener, reviews: ReviewClient) -> None:
    handle = await ask()
    await reviews.claim(handle.id, "ana")
    with pytest.raises(ClaimConflict, match="ana holds"):
        await reviews.decide(handle.id, "approve", "bob")


async def test_an_unclaimed_item_is_decided_in_one_step(ask: Opener, reviews: ReviewClient) -> None:
    handle = await ask()
    assert (await reviews.decide(handle.id, "approve", "ana")).decided_by == "ana"


async def test_a_decision_made_on_an_older_version_is_refused(ask: Opener, reviews: ReviewClient) -> None:
    handle = await ask()
    seen = await reviews.claim(handle.id, "ana")
    await reviews.comment(handle.id, "bob", "wait, this is legal")
    with pytest.raises(ClaimConflict, match="you saw version 2, it is at 3"):
        await reviews.decide(handle.id, "approve", "ana", expected_version=seen.version)


async def test_the_same_decision_sent_again_gives_the_same_result(ask: Opener, reviews: ReviewClient) -> None:
    handle = await ask()
    first = await reviews.decide(handle.id, "approve", "ana", decision_id="click-1")
    again = await reviews.decide(handle.id, "approve", "ana", decision_id="click-1")
    assert again == first
    await handle.result()
    assert await reviews.decide(handle.id, "approve", "ana", decision_id="click-1") == first


async def test_the_same_update_id_gives_the_same_result_from_any_client(ask: Opener) -> None:
    handle = await ask()
    call = {"reviewer": "ana"}
    first, again = [await handle.execute_update("claim", call, id="one", result_type=ReviewSummary) for _ in range(2)]
    assert first == again
    assert first.version == 2


async def test_a_lease_that_ends_gives_the_item_back(ask: Opener, reviews: ReviewClient) -> None:
    handle = await ask()
    await reviews.claim(handle.id, "ana", lease_s=300)
    with pytest.raises(ClaimConflict):
        await reviews.claim(handle.id, "bob")
    await reviews.renew(handle.id, "ana", lease_s=1)
    view = await eventually(lambda: reviews.show(handle.id), lambda view: view.status != "claimed")
    assert (view.status, view.assignee, view.lease_until) == ("open", "", None)
    assert (view.log[-1].what, view.log[-1].note) == ("lease_expired", "ana")
    with pytest.raises(ClaimConflict, match="does not hold"):
        await reviews.renew(handle.id, "ana")
    assert (await reviews.claim(handle.id, "bob")).assignee == "bob"


@pytest.mark.parametrize("on_timeout", ["approve", "reject"])
async def test_at_the_deadline_the_author_s_choice_happens(
    ask: Opener, reviews: ReviewClient, on_timeout: OnTimeout
) -> None:
    handle = await ask(sla_s=0.5, on_timeout=on_timeout)
    outcome = await handle.result()
    assert (outcome.verdict, outcome.timed_out, outcome.reviewer) == (on_timeout, True, "")
    assert outcome.value == {"team": "billing", "urgency": 2}
    with pytest.raises(DeadlinePassed, match=f"closed with {on_timeout}"):
        await reviews.decide(handle.id, "approve", "ana")
    assert (await reviews.show(handle.id)).status == "timed_out"


async def test_at_the_deadline_the_review_fails_if_its_author_wants_so(ask: Opener, reviews: ReviewClient) -> None:
    handle = await ask(sla_s=0.5, on_timeout="fail")
    with pytest.raises(WorkflowFailureError) as failure:
        await handle.result()
    assert isinstance(failure.value.cause, ApplicationError)
    assert failure.value.cause.type == "ReviewTimedOut"
    with pytest.raises(DeadlinePassed, match="the deadline of review"):
        await reviews.decide(handle.id, "approve", "ana")


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ({"team": "marketing", "urgency": 2}, 'team must be one of "billing", "legal", not "marketing"'),
        ({"team": "legal"}, "urgency is missing"),
        ({"team": "legal", "urgency": "2"}, 'urgency must be an integer, not "2"'),
    ],
)
async def test_an_edit_that_does_not_fit_is_refused_and_leaves_no_trace(
    ask: Opener, reviews: ReviewClient, value: dict[str, object], complaint: str
) -> None:
    handle = await ask()
    await reviews.claim(handle.id, "ana")
    before = await events(handle)
    with pytest.raises(DecisionInvalid, match=complaint):
        await reviews.decide(handle.id, "edit", "ana", value=value)  # type: ignore[arg-type]
    assert await events(handle) == before
    assert (await reviews.show(handle.id)).status == "claimed"


async def test_an_edit_that_fits_is_the_result(ask: Opener, reviews: ReviewClient) -> None:
    handle = await ask()
    await reviews.decide(handle.id, "edit", "ana", value={"team": "legal", "urgency": 4})
    assert (await handle.result()).value == {"team": "legal", "urgency": 4}


async def test_an_edit_without_a_value_and_a_value_without_an_edit_are_refused(
    ask: Opener, reviews: ReviewClient
) -> None:
    handle = await ask()
    with pytest.raises(DecisionInvalid, match="takes no value"):
        await reviews.decide(handle.id, "approve", "ana", value={"team": "legal", "urgency": 4})
    refused = await outcome_of(handle.execute_update("decide", {"verdict": "edit", "reviewer": "ana"}))
    assert "an edit needs the corrected answer" in str(refused.__cause__)


async def test_verdicts_and_people_that_were_not_asked_for_are_refused(ask: Opener, reviews: ReviewClient) -> None:
    handle = await ask(allowed=["approve", "reject"], reviewers=["ana", "bob"])
    with pytest.raises(NotAllowed, match="allows approve or reject, not edit"):
        await reviews.decide(handle.id, "edit", "ana", value=1)
    with pytest.raises(NotAllowed, match="is for ana, bob, not for eve"):
        await reviews.claim(handle.id, "eve")


async def test_what_is_no_review_is_not_found(reviews: ReviewClient, worker: Worker) -> None:
    with pytest.raises(ReviewNotFound, match="there is no review nowhere"):
        await reviews.claim("nowhere", "ana")
    with pytest.raises(ReviewNotFound):
        await reviews.show("nowhere")


async def test_a_malformed_call_is_a_sentence(ask: Opener, reviews: ReviewClient) -> None:
    handle = await ask()
    with pytest.raises(DecisionInvalid, match="reviewer"):
        await reviews.claim(handle.id, "  ")
    refused = await outcome_of(handle.execute_update("decide", {"verdict": "yes", "reviewer": "ana"}))
    assert "verdict" in str(refused.__cause__)


async def test_the_number_of_comments_is_bounded(
    ask: Opener, reviews: ReviewClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wonder.review.rules.COMMENTS_LIMIT", 2)
    handle = await ask()
    for _ in range(2):
        await reviews.comment(handle.id, "ana", "hm")
    with pytest.raises(DecisionInvalid, match="has 2 comments already"):
        await reviews.comment(handle.id, "ana", "hm")


async def test_a_worker_without_a_cache_replays_every_step(client: Client, reviews: ReviewClient) -> None:
    queue = f"uncached-{uuid.uuid4().hex[:8]}"
    async with Worker(client, task_queue=queue, workflows=[HumanReview], max_cached_workflows=0):
        handle = await Opener(client, queue)()
        await reviews.claim(handle.id, "ana", lease_s=1)
        await eventually(lambda: reviews.show(handle.id), lambda view: view.status != "claimed")
        await reviews.claim(handle.id, "bob")
        await reviews.comment(handle.id, "bob", "mine now")
        await reviews.decide(handle.id, "edit", "bob", value={"team": "legal", "urgency": 1})
        assert (await handle.result()).reviewer == "bob"
        what = [entry.what for entry in (await reviews.show(handle.id)).log]
    assert what == ["opened", "claimed", "lease_expired", "claimed", "commented", "decided"]


async def test_without_a_worker_the_item_is_listed_and_a_call_says_what_to_start(client: Client, unique: str) -> None:
    reviews = ReviewClient(client, answer_timeout_s=1)
    handle = await Opener(client, f"nobody-{unique}")()
    rows = await eventually(reviews.ls, lambda rows: handle.id in [row.id for row in rows])
    assert "no worker" in next(row.title for row in rows if row.id == handle.id)
    with pytest.raises(WorkerMissing, match="no worker answered"):
        await reviews.claim(handle.id, "ana")
    with pytest.raises(WorkerMissing, match="no worker answered"):
        await reviews.show(handle.id)
    await handle.terminate()


async def test_a_deadline_nobody_can_count_to_is_refused_at_the_start(ask: Opener) -> None:
    with pytest.raises(ValidationError, match="sla_s"):
        await ask(sla_s=1e300)


async def test_a_decision_on_the_stroke_of_the_deadline_is_either_taken_or_refused(
    ask: Opener, reviews: ReviewClient
) -> None:
    handles = [await ask(sla_s=1.0, on_timeout="reject") for _ in range(15)]

    async def late(handle: Handle, early_s: float) -> ReviewSummary | Exception:
        opened_at = (await handle.describe()).start_time
        await asyncio.sleep((opened_at - datetime.now(UTC)).total_seconds() + 1.0 - early_s)
        return await outcome_of(reviews.decide(handle.id, "approve", "ana"))

    results = await asyncio.gather(*(late(handle, n * 0.008 - 0.04) for n, handle in enumerate(handles)))
    for handle, result in zip(handles, results, strict=True):
        outcome = await handle.result()
        assert outcome.timed_out == isinstance(result, DeadlinePassed), result
        assert (outcome.reviewer == "ana") == isinstance(result, ReviewSummary), result
