"""`human_review` inside business workflows: typed answers, deadlines, withdrawal."""

import uuid
from typing import Any

import pytest
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError, CancelledError
from temporalio.worker import Worker

from tests.integration.review.business import Ask, Business, Given
from tests.integration.review.conftest import Opener
from tests.integration.review.polling import eventually, waiting
from wonder.errors import AlreadyDecided, ReviewNotFound
from wonder.review.client import ReviewClient

Run = WorkflowHandle[Business, list[Given]]


async def start(client: Client, worker: Worker, **asked: Any) -> Run:
    return await client.start_workflow(
        Business.run, Ask(**asked), id=f"triage-{uuid.uuid4().hex[:8]}", task_queue=worker.task_queue
    )


@pytest.mark.parametrize(
    ("kind", "edited", "type_name", "value"),
    [
        (
            "model",
            {"team": "legal", "urgency": 5, "note": ""},
            "Triage",
            {"team": "legal", "urgency": 5, "note": ""},
        ),
        ("enum", "legal", "Team", "legal"),
        ("number", 4, "int", 4),
        ("text", "the legal team", "str", "the legal team"),
    ],
)
async def test_an_edited_answer_comes_back_as_the_type_that_was_asked_about(
    client: Client,
    worker: Worker,
    reviews: ReviewClient,
    unique: str,
    kind: str,
    edited: Any,
    type_name: str,
    value: Any,
) -> None:
    run = await start(client, worker, kind=kind, queue=unique)
    (row,) = await waiting(reviews, unique)
    await reviews.decide(row.id, "edit", "ana", value=edited)
    (given,) = await run.result()
    assert (given.type, given.value, given.verdict, given.reviewer) == (type_name, value, "edit", "ana")


async def test_the_reviewer_sees_the_trace_the_question_and_the_reason(
    client: Client, worker: Worker, reviews: ReviewClient, unique: str
) -> None:
    run = await start(client, worker, queue=unique)
    (row,) = await waiting(reviews, unique)
    assert row.id == f"review/{run.id}/classify/1"
    assert (row.confidence, row.step, row.why) == (0.41, "classify", "the model was not sure")
    view = await reviews.show(row.id)
    assert view.request.trace is not None
    assert view.request.trace.tokens == ["bill", "ing"]
    assert view.request.prompt == "Ticket: where is my money?"
    assert view.request.answer == {"team": "billing", "urgency": 2, "note": ""}
    assert view.request.title == 'classify: {"team": "billing", "urgency": 2, "note": ""}'
    await run.cancel()


async def test_a_rejected_answer_is_returned_with_its_verdict(
    client: Client, worker: Worker, reviews: ReviewClient, unique: str
) -> None:
    run = await start(client, worker, queue=unique, kind="text")
    (row,) = await waiting(reviews, unique)
    await reviews.decide(row.id, "reject", "ana")
    (given,) = await run.result()
    assert (given.verdict, given.value, given.timed_out) == ("reject", "billing", False)


async def test_each_review_of_a_step_has_its_own_number(
    client: Client, worker: Worker, reviews: ReviewClient, unique: str
) -> None:
    run = await start(client, worker, queue=unique, times=2, kind="text")
    for n in (1, 2):
        (row,) = await waiting(reviews, unique, n=n)
        await reviews.decide(row.id, "approve", "ana")
    assert [given.review_id for given in await run.result()] == [f"review/{run.id}/classify/{n}" for n in (1, 2)]


async def test_an_edit_that_only_the_type_refuses_is_put_to_the_reviewers_again(
    client: Client, worker: Worker, reviews: ReviewClient, unique: str
) -> None:
    run = await start(client, worker, queue=unique)
    (row,) = await waiting(reviews, unique)
    await reviews.decide(row.id, "edit", "ana", value={"team": "legal", "urgency": 1, "note": "damn"})
    (row,) = await waiting(reviews, unique, n=2)
    assert "ana's edit" in row.why
    assert "be polite" in row.why
    await reviews.decide(row.id, "edit", "ana", value={"team": "legal", "urgency": 1, "note": "please"})
    (given,) = await run.result()
    assert given.value == {"team": "legal", "urgency": 1, "note": "please"}


@pytest.mark.parametrize("on_timeout", ["approve", "reject"])
async def test_an_unanswered_question_gives_the_author_s_choice(
    client: Client, worker: Worker, unique: str, on_timeout: str
) -> None:
    run = await start(client, worker, queue=unique, sla_s=0.5, on_timeout=on_timeout)
    (given,) = await run.result()
    assert (given.verdict, given.timed_out, given.type) == (on_timeout, True, "Triage")


async def test_an_unanswered_question_fails_the_run_if_its_author_wants_so(
    client: Client, worker: Worker, unique: str
) -> None:
    run = await start(client, worker, queue=unique, sla_s=0.5)
    with pytest.raises(WorkflowFailureError) as failure:
        await run.result()
    assert isinstance(failure.value.cause, ApplicationError)
    assert failure.value.cause.type == "ReviewTimedOut"
    assert "nobody decided review" in failure.value.cause.message


async def test_a_cancelled_business_workflow_withdraws_its_review(
    client: Client, worker: Worker, reviews: ReviewClient, unique: str
) -> None:
    run = await start(client, worker, queue=unique)
    (row,) = await waiting(reviews, unique)
    await reviews.claim(row.id, "ana")
    await run.cancel()
    with pytest.raises(WorkflowFailureError) as failure:
        await run.result()
    assert isinstance(failure.value.cause, CancelledError)
    view = await reviews.show(row.id)
    assert (view.status, view.assignee) == ("withdrawn", "")
    with pytest.raises(AlreadyDecided, match="was withdrawn"):
        await reviews.decide(row.id, "approve", "ana")


async def test_a_terminated_business_workflow_withdraws_its_review(
    client: Client, worker: Worker, reviews: ReviewClient, unique: str
) -> None:
    run = await start(client, worker, queue=unique)
    (row,) = await waiting(reviews, unique)
    await run.terminate()
    await eventually(lambda: reviews.show(row.id), lambda view: view.status == "withdrawn")


async def test_an_open_review_of_an_earlier_run_does_not_stand_in_the_way(
    ask: Opener, client: Client, worker: Worker, reviews: ReviewClient, unique: str
) -> None:
    await ask(id=f"review/{unique}/classify/1")
    run = await client.start_workflow(
        Business.run, Ask(queue=unique), id=unique, task_queue=worker.task_queue, result_type=list[Given]
    )
    (row,) = await waiting(reviews, unique)
    assert row.id == f"review/{run.id}/classify/2"


async def test_a_business_workflow_is_not_taken_for_a_review(
    client: Client, worker: Worker, reviews: ReviewClient, unique: str
) -> None:
    run = await start(client, worker, queue=unique)
    for call in (reviews.claim(run.id, "ana"), reviews.show(run.id)):
        with pytest.raises(ReviewNotFound):
            await call
    await run.cancel()


async def test_a_person_gives_the_answer_where_the_model_gave_none(
    client: Client, worker: Worker, reviews: ReviewClient, unique: str
) -> None:
    run = await start(client, worker, queue=unique, kind="nothing", on_timeout="approve")
    (row,) = await waiting(reviews, unique)
    view = await reviews.show(row.id)
    assert (view.request.allowed, view.request.on_timeout) == (["edit", "reject"], "fail")
    await reviews.decide(row.id, "edit", "ana", value={"team": "legal", "urgency": 1})
    (given,) = await run.result()
    assert (given.type, given.value["team"]) == ("Triage", "legal")
