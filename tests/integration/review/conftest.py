"""A worker that serves reviews and the workflows that ask for them."""

import uuid
from collections.abc import AsyncIterator

import pytest
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import Worker

from tests.integration.review.business import Business
from wonder.review.client import ReviewClient
from wonder.review.types import ReviewOutcome, ReviewRequest
from wonder.review.workflow import HumanReview

QUEUE = "reviews-under-test"
SCHEMA = {
    "type": "object",
    "properties": {"team": {"enum": ["billing", "legal"]}, "urgency": {"type": "integer", "minimum": 1}},
    "required": ["team", "urgency"],
    "additionalProperties": False,
}


@pytest.fixture(scope="session")
async def worker(client: Client) -> AsyncIterator[Worker]:
    async with Worker(client, task_queue=QUEUE, workflows=[HumanReview, Business]) as running:
        yield running


@pytest.fixture(scope="session")
def reviews(client: Client) -> ReviewClient:
    return ReviewClient(client)


class Opener:
    """Starts reviews of their own, without a business workflow."""

    def __init__(self, client: Client, queue: str) -> None:
        self.client = client
        self.task_queue = queue

    async def __call__(self, *, id: str = "", **changes: object) -> WorkflowHandle[HumanReview, ReviewOutcome]:
        request = {
            "title": "Which team?",
            "answer": {"team": "billing", "urgency": 2},
            "answer_schema": SCHEMA,
            "sla_s": 60,
            "on_timeout": "fail",
            "search_attributes": True,
        } | changes
        return await self.client.start_workflow(
            HumanReview.run,
            ReviewRequest.model_validate(request),
            id=id or f"review/{uuid.uuid4().hex[:8]}/classify/1",
            task_queue=self.task_queue,
        )


@pytest.fixture
async def ask(client: Client, worker: Worker) -> Opener:
    """Open a review; keyword arguments change the request."""
    return Opener(client, worker.task_queue)
