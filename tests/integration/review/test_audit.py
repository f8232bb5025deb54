"""Audits of accepted answers: beside the run, unforeseen, and the same at every replay."""

import random
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from pydantic import BaseModel
from temporalio import workflow
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHandle
from temporalio.worker import Replayer, Worker

from tests.integration.review.polling import eventually, waiting
from wonder import Context, RouteDecision, ThoughtTrace, Transition, TransitionTable, WonderPlugin, audit_review
from wonder.review.client import ReviewClient
from wonder.review.workflow import HumanReview

QUEUE = "audits-under-test"


class Item(BaseModel):
    rate: float
    queue: str = "audit"
    linger_s: float = 0.0
    audited: bool = True


class Accepted(BaseModel):
    decision: RouteDecision
    review_id: str | None
    seed: int
    next_number: float
    """What the author draws afterwards."""


def accept(item: Item) -> tuple[Context, RouteDecision]:
    """What `act` and `decide` do, without a model."""
    trace = ThoughtTrace(action="classify", model="m", overall_confidence=0.9, confidence_status="calibrated")
    ctx = Context(thought_traces=[trace], draw_key=str(workflow.random_seed()))
    rows = [
        Transition(from_="classify", to="human_review", condition="thought_trace.overall_confidence < 0.7"),
        Transition(from_="classify", to="resolve", condition="otherwise"),
    ]
    return ctx, TransitionTable(rows, audit_rate=item.rate).decide(ctx, after="classify")


@workflow.defn(name="test.Audited")
class Audited:
    @workflow.run
    async def run(self, item: Item) -> Accepted:
        ctx, decision = accept(item)
        review = await audit_review(
            ctx, "billing", queue=item.queue, sla=timedelta(minutes=1), search_attributes=True, task_queue=QUEUE
        )
        if item.linger_s:
            await workflow.sleep(item.linger_s)
        return Accepted(
            decision=decision, review_id=review, seed=workflow.random_seed(), next_number=workflow.random().random()
        )


@workflow.defn(name="test.Audited")
class NotYetAudited:
    """The same workflow before audits were turned on."""

    @workflow.run
    async def run(self, item: Item) -> Accepted:
        _, decision = accept(item)
        await workflow.sleep(item.linger_s)
        return Accepted(
            decision=decision, review_id=None, seed=workflow.random_seed(), next_number=workflow.random().random()
        )


@pytest.fixture(scope="module")
async def audits(client: Client) -> AsyncIterator[Worker]:
    async with Worker(client, task_queue=QUEUE, workflows=[HumanReview, Audited], max_cached_workflows=0) as running:
        yield running


async def start(client: Client, item: Item, id: str = "") -> WorkflowHandle[Audited, Accepted]:
    return await client.start_workflow(Audited.run, item, id=id or f"audited-{uuid.uuid4().hex[:8]}", task_queue=QUEUE)


def replayer(kind: type) -> Replayer:
    return Replayer(workflows=[kind], plugins=[WonderPlugin()])


async def test_the_run_ends_while_the_audit_waits_and_a_person_decides_it_afterwards(
    client: Client, audits: Worker, unique: str
) -> None:
    reviews = ReviewClient(client)
    run = await start(client, Item(rate=1.0, queue=unique))
    accepted = await run.result()
    assert accepted.review_id == f"audit/{run.id}/classify/1"
    assert (accepted.decision.to, accepted.decision.audit, accepted.decision.propensity) == ("resolve", True, 1.0)
    (row,) = await waiting(reviews, unique)
    assert row.id == accepted.review_id
    view = await reviews.show(row.id)
    assert view.request.audit
    assert view.request.decision == accepted.decision
    assert row.why.startswith("audit of an accepted answer: no condition held")
    await reviews.decide(row.id, "edit", "ana", value="returns")
    decided = await reviews.show(row.id)
    assert (decided.verdict, decided.decided_by) == ("edit", "ana")


async def test_a_cancelled_run_leaves_its_audit_open(client: Client, audits: Worker, unique: str) -> None:
    run = await start(client, Item(rate=1.0, queue=unique, linger_s=60))
    (row,) = await waiting(ReviewClient(client), unique)
    await run.cancel()
    await eventually(run.describe, lambda found: found.status == WorkflowExecutionStatus.CANCELED)
    assert (await ReviewClient(client).show(row.id)).status == "open"


async def test_nobody_foresees_a_draw_and_every_replay_meets_it_again(
    client: Client, audits: Worker, unique: str
) -> None:
    """Twenty runs of one id and one input: who starts them has nothing to choose by."""
    drawn = []
    for _ in range(20):
        run = await start(client, Item(rate=0.5, queue=unique), id=f"audited-{unique}")
        drawn.append((await run.result()).decision.audit)
        await replayer(Audited).replay_workflow(await run.fetch_history())
    assert set(drawn) == {True, False}


async def test_audits_leave_the_numbers_that_an_author_draws_alone(client: Client, audits: Worker, unique: str) -> None:
    run = await start(client, Item(rate=1.0, queue=unique))
    accepted = await run.result()
    assert accepted.review_id is not None
    assert accepted.next_number == random.Random(accepted.seed).random()


async def test_runs_from_before_audits_were_turned_on_replay_with_them(client: Client, unique: str) -> None:
    queue = f"before-{unique}"
    async with Worker(client, task_queue=queue, workflows=[NotYetAudited]):
        run = await client.start_workflow(
            NotYetAudited.run, Item(rate=1.0, linger_s=0.1), id=f"before-{unique}", task_queue=queue
        )
        await run.result()
    await replayer(Audited).replay_workflow(await run.fetch_history())
