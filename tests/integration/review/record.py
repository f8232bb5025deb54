"""Records the histories that `tests/unit/review/test_replay.py` replays: `python -m tests.integration.review.record`.

Run it only to add a history. Those that exist stay as they are: they stand for reviews that are open in somebody's
namespace while the code changes.
"""

import asyncio
import json
import sys
import tempfile
import uuid
from pathlib import Path

from temporalio.client import Client, WorkflowHandle
from temporalio.common import SearchAttributeKey
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from tests.integration.review.conftest import SCHEMA
from tests.integration.review.polling import eventually
from wonder.dev.server import find_binary
from wonder.names import SEARCH_ATTRIBUTES
from wonder.plugin import WonderPlugin
from wonder.review.client import ReviewClient
from wonder.review.types import ReviewOutcome, ReviewRequest
from wonder.review.workflow import HumanReview

FOLDER = Path(__file__).parents[2] / "histories"
QUEUE = "recording"


def request(**changes: object) -> ReviewRequest:
    """A request with a trace, as a business workflow makes it."""
    trace = {
        "action": "classify",
        "model": "support-desk",
        "tokens": ["bill", "ing"],
        "token_confidences": [0.41, 0.99],
        "overall_confidence": 0.41,
        "confidence_status": "calibrated",
        "active_concepts": {"legal_risk": 0.83},
    }
    fields = {
        "title": "Which team?",
        "queue": "support",
        "answer": {"team": "billing", "urgency": 2},
        "answer_schema": SCHEMA,
        "prompt": "Ticket: where is my money?",
        "trace": trace,
        "why": "the model was not sure",
        "sla_s": 60,
        "on_timeout": "fail",
        "search_attributes": True,
    }
    return ReviewRequest.model_validate(fields | changes)


async def approve(reviews: ReviewClient, id: str) -> None:
    """A lease that ends, a claim, a renewal, a comment, an approval."""
    await reviews.claim(id, "bob", lease_s=1)
    await asyncio.sleep(1.3)
    await reviews.claim(id, "ana")
    await reviews.renew(id, "ana")
    await reviews.comment(id, "ana", "looks right")
    await reviews.decide(id, "approve", "ana", comment="checked with billing")


async def edit(reviews: ReviewClient, id: str) -> None:
    """A claim, a release, a correction by somebody else."""
    await reviews.claim(id, "bob")
    await reviews.release(id, "bob")
    await reviews.decide(id, "edit", "ana", value={"team": "legal", "urgency": 4})


async def nobody(reviews: ReviewClient, id: str) -> None:
    """Nobody comes."""


async def withdraw(reviews: ReviewClient, id: str) -> None:
    """The business workflow is cancelled."""
    await reviews.claim(id, "ana")


SCENES = {
    "approve": (approve, request()),
    "edit": (edit, request(search_attributes=False)),
    "timeout": (nobody, request(sla_s=0.5, on_timeout="reject")),
    "withdrawn": (withdraw, request()),
}


async def main() -> None:
    """Record the scenes that have no file yet."""
    kinds = {"Keyword": "keyword", "Double": "float", "Datetime": "datetime", "KeywordList": "keyword_list"}
    keys = [getattr(SearchAttributeKey, f"for_{kinds[kind]}")(name) for name, kind in SEARCH_ATTRIBUTES.items()]
    with tempfile.TemporaryDirectory() as folder:
        binary = await find_binary(Path(folder))
        async with (
            await WorkflowEnvironment.start_local(
                dev_server_existing_path=str(binary),
                search_attributes=keys,
                plugins=[WonderPlugin(roles=["workflow"])],
                identity="recorder",
            ) as environment,
            Worker(environment.client, task_queue=QUEUE),
        ):
            for name in SCENES:
                path = FOLDER / f"human_review_{name}.json"
                if not path.exists():
                    path.write_text(await record(environment.client, name))
                    sys.stdout.write(f"recorded {path.name}\n")


async def record(client: Client, name: str) -> str:
    """Play one scene; its history as JSON."""
    play, asked = SCENES[name]
    handle: WorkflowHandle[HumanReview, ReviewOutcome] = await client.start_workflow(
        HumanReview.run, asked, id=f"review/{uuid.uuid4().hex[:8]}/classify/1", task_queue=QUEUE
    )
    await play(ReviewClient(client), handle.id)
    if name == "withdrawn":
        await handle.cancel()
    await eventually(handle.describe, lambda described: described.close_time is not None)
    history = await handle.fetch_history()
    return json.dumps(json.loads(history.to_json()), indent=1) + "\n"


if __name__ == "__main__":
    asyncio.run(main())
