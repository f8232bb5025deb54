"""Records the histories that `test_replay.py` replays: `python -m tests.integration.record_histories`.

Run it after a deliberate change of a shipped workflow's commands, and keep the old files as long as such runs live.
"""

import asyncio
from pathlib import Path
from typing import Any

from temporalio.client import Client, WorkflowHandle
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from examples.hello.workflow import Hello, Question
from examples.ticket_triage.workflow import Resolution, Ticket, TicketTriage
from wonder.dev.server import installed
from wonder.engine import TraceEngine
from wonder.graph.files import read
from wonder.graph.spec import GraphRun
from wonder.graph.workflow import Graph
from wonder.names import EMBEDDED_MODEL, WORKFLOW_QUEUE, gpu_queue, review_id
from wonder.plugin import WonderPlugin
from wonder.review.client import ReviewClient

HISTORIES = Path(__file__).parent.parent / "histories"

TICKETS = {
    "resolved": ("I was charged twice for my invoice.", None),
    "approved": ("Qorvex brumbles the zint.", "approve"),
    "edited": ("Something is wrong with Faxenid again.", "edit"),
    "legal": ("My lawyer will sue you over the burns from your heater.", "reject"),
}


async def main() -> None:
    """Run each kind of triage once, and keep its events."""
    environment = await WorkflowEnvironment.start_local(dev_server_existing_path=str(installed()))
    target = environment.client.service_client.config.target_host
    engine = TraceEngine.load()
    served = await Client.connect(target, plugins=[WonderPlugin(roles=["gpu"], engine=lambda: engine)])
    client = await Client.connect(target, plugins=[WonderPlugin(roles=["workflow"])])
    async with (
        Worker(served, task_queue=gpu_queue(EMBEDDED_MODEL)),
        Worker(client, task_queue=WORKFLOW_QUEUE, workflows=[TicketTriage, Hello]),
    ):
        for name, (text, verdict) in TICKETS.items():
            handle: WorkflowHandle[TicketTriage, Resolution] = await client.start_workflow(
                TicketTriage.run, Ticket(id=name, text=text), id=f"ticket_triage_{name}", task_queue=WORKFLOW_QUEUE
            )
            if verdict is not None:
                await decide(client, handle, verdict)
            await handle.result()
            await keep(handle)
        hello = await client.start_workflow(Hello.run, Question(text="hi"), id="hello", task_queue=WORKFLOW_QUEUE)
        await hello.result()
        await keep(hello)
        await graph(client)
    await environment.shutdown()


async def graph(client: Client) -> None:
    """A graph with a ladder, a fan-out and a join, on a ticket that nobody could sort."""
    spec = read(Path(__file__).parents[2] / "examples" / "graph" / "second_opinion.yaml")
    handle: WorkflowHandle[Any, Any] = await client.start_workflow(
        Graph.run, GraphRun(graph=spec, input={"text": TICKETS["approved"][0]}), id="graph", task_queue=WORKFLOW_QUEUE
    )
    await decide(client, handle, "approve")
    await handle.result()
    await keep(handle)


async def decide(client: Client, handle: WorkflowHandle[Any, Any], verdict: str) -> None:
    """Wait for the run's review, and decide it."""
    while not (await handle.describe()).raw_description.pending_children:  # noqa: ASYNC110 - the server decides
        await asyncio.sleep(0.1)
    value = {"team": "sales", "urgency": "low"} if verdict == "edit" else None
    await ReviewClient(client).decide(review_id(handle.id, "classify", 1), verdict, "ana", value=value)


async def keep(handle: WorkflowHandle[Any, Any]) -> None:
    """Write a history down."""
    HISTORIES.mkdir(exist_ok=True)
    (HISTORIES / f"{handle.id}.json").write_text((await handle.fetch_history()).to_json() + "\n")


if __name__ == "__main__":
    asyncio.run(main())
