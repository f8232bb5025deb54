"""What `act()` costs over a hand-written activity that calls the same engine, and how large a triage's history is."""

import asyncio
import sys
import time
import uuid
from datetime import timedelta
from statistics import median

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

with workflow.unsafe.imports_passed_through():
    from benchmarks._results import Row, arguments, report
    from examples.ticket_triage.workflow import Ticket, TicketTriage, classify
    from wonder import Context, act
    from wonder.actions import prompts
    from wonder.actions.contracts import ThinkRequest
    from wonder.names import WORKFLOW_QUEUE, gpu_queue
    from wonder.plugin import WonderPlugin

CALLS = 5
"""Model calls in one workflow."""
TEXT = "My parcel has not arrived and the invoice is wrong as well."


@workflow.defn(name="BareCalls")
class BareCalls:
    """What a careful person would write without Wonder."""

    @workflow.run
    async def run(self, ticket: Ticket) -> int:
        for _ in range(CALLS):
            prompt = prompts.render(classify.prompt, {"text": ticket.text})
            await workflow.execute_activity(
                "bare", prompt, result_type=str, start_to_close_timeout=timedelta(minutes=1), task_queue="bare"
            )
        return CALLS


@workflow.defn(name="ActCalls")
class ActCalls:
    """The same calls through `act`."""

    @workflow.run
    async def run(self, ticket: Ticket) -> int:
        ctx = Context()
        for _ in range(CALLS):
            await act(ctx, classify, text=ticket.text)
        return len(ctx.thought_traces)


async def measure(pairs: int) -> list[Row]:
    """Alternate the two workflows on one server with one engine."""
    import torch  # noqa: PLC0415 - not in the sandbox

    from wonder.dev.server import installed  # noqa: PLC0415
    from wonder.engine import TraceEngine  # noqa: PLC0415

    torch.set_num_threads(1)  # as the GPU worker does for so small a model
    engine = TraceEngine.load()

    @activity.defn(name="bare")
    async def bare(prompt: str) -> str:
        request = ThinkRequest(
            action=classify.name,
            model=classify.model,
            prompt=prompt,
            sampling=classify.sampling,
            capture=classify.thought_capture,
            answer_format="json",
        )
        answer = (await asyncio.to_thread(engine.generate, [request]))[0]
        if isinstance(answer, Exception):
            raise answer
        return answer.text

    environment = await WorkflowEnvironment.start_local(
        dev_server_existing_path=str(installed()), dev_server_log_level="error"
    )
    target = environment.client.service_client.config.target_host
    plain = await Client.connect(target, plugins=[WonderPlugin()])
    served = await Client.connect(target, plugins=[WonderPlugin(roles=["gpu"], engine=lambda: engine)])
    reviewed = await Client.connect(target, plugins=[WonderPlugin(roles=["workflow"])])
    flows = [BareCalls, ActCalls, TicketTriage]
    async with (
        Worker(reviewed, task_queue=WORKFLOW_QUEUE, workflows=flows),
        Worker(plain, task_queue="bare", activities=[bare]),
        Worker(served, task_queue=gpu_queue(classify.model)),
    ):
        seconds: dict[str, list[float]] = {"BareCalls": [], "ActCalls": []}
        busy: dict[str, list[float]] = {"BareCalls": [], "ActCalls": []}
        for turn in range(pairs + 1):
            for kind in ("BareCalls", "ActCalls") if turn % 2 else ("ActCalls", "BareCalls"):
                begun, begun_busy = time.perf_counter(), time.process_time()
                await plain.execute_workflow(kind, Ticket(text=TEXT), id=uuid.uuid4().hex, task_queue=WORKFLOW_QUEUE)
                if turn:  # the first pair warms up
                    seconds[kind].append(time.perf_counter() - begun)
                    busy[kind].append(time.process_time() - begun_busy)
        ratios = [a / b for a, b in zip(seconds["ActCalls"], seconds["BareCalls"], strict=True)]
        work = [a / b for a, b in zip(busy["ActCalls"], busy["BareCalls"], strict=True)]
        history = await history_bytes(plain)
    await environment.shutdown()
    how = f"median of {pairs} paired workflows of {CALLS} model calls each, in turn, same engine and capture"
    return [
        Row("act() over a bare activity, time ratio", median(ratios), "x", "<= 1.10", how),
        Row(
            "act() over a bare activity, processor time ratio",
            median(work),
            "x",
            "<= 1.10",
            how + "; processor time of client, workers and engine, so that the server's own latency dilutes nothing",
        ),
        Row("one model call through act()", median(seconds["ActCalls"]) / CALLS * 1000, "ms", "", how),
        Row(
            "workflow history of one reviewed triage run",
            history / 1024,
            "KB",
            "<= 200",
            "all events of parent and review as protobuf bytes, after a claim, a comment and an edit",
        ),
    ]


async def history_bytes(client: Client) -> int:
    """Encoded size of the histories of a triage that a person decided: the run and its review together."""
    from wonder.review.client import ReviewClient  # noqa: PLC0415

    parent = f"history-{uuid.uuid4().hex}"
    handle = await client.start_workflow(
        TicketTriage.run, Ticket(text="Blorptang zumfel? Qindle!"), id=parent, task_queue=WORKFLOW_QUEUE
    )
    review = f"review/{parent}/classify/1"
    reviews = ReviewClient(client)
    for _ in range(200):
        description = await handle.describe()
        if description.raw_description.pending_children:
            break
        await asyncio.sleep(0.1)
    await reviews.claim(review, "ana")
    await reviews.comment(review, "ana", "looks odd")
    await reviews.decide(review, "edit", "ana", value={"team": "sales", "urgency": "low"})
    await handle.result()
    total = 0
    for found in (parent, review):
        async for event in client.get_workflow_handle(found).fetch_history_events():
            total += event.ByteSize()
    return total


if __name__ == "__main__":
    quick = arguments().quick
    report("act", asyncio.run(measure(5 if quick else 40)), sys.argv[1:])
