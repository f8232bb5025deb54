"""Ladders, routed errors and joins in real runs, on the real engine."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from pydantic import BaseModel
from temporalio import workflow
from temporalio.client import Client
from temporalio.common import RetryPolicy
from temporalio.worker import Replayer, Worker

from tests.integration.workflows import ACTIONS, PROMPT, SOON, Ask, Sorted
from wonder import (
    ActionDef,
    Context,
    RouteDecision,
    Sampling,
    Transition,
    TransitionTable,
    WonderError,
    WonderPlugin,
    act,
)
from wonder.actions.fan_out import Joined, join
from wonder.engine import TraceEngine
from wonder.names import gpu_queue
from wonder.routing.budget import Budget
from wonder.routing.join import Join
from wonder.routing.retry import Retry

pytestmark = pytest.mark.usefixtures("workers")

QUEUE = "cascades"
DOUBTFUL = "Qorvex brumbles the zint."

classify = ActionDef(name="classify", prompt="{history}" + PROMPT, output=Sorted)
unserved = ActionDef(name="classify", prompt="{history}" + PROMPT, output=Sorted, model="no-such-model", activity=SOON)
hurried = ActionDef(
    name="classify",
    prompt="{history}" + PROMPT,
    output=Sorted,
    sampling=Sampling(max_new_tokens=900, temperature=10.0, seed=3),
    activity={"start_to_close_timeout": timedelta(seconds=0.05), "retry_policy": RetryPolicy(maximum_attempts=1)},
)
ladder = TransitionTable(
    [
        Transition(
            from_=classify,
            to="person",
            condition="thought_trace.overall_confidence < 2 * 0.4995",
            name="unsure",
            escalate_to=[Retry(samples=3), "larger-desk", Retry(context={"history": "customer.history"})],
        ),
        Transition(
            from_=classify, to="person", on_error=["RequestError", "ModelError", "WorkerMissing"], name="failed"
        ),
        Transition(from_=classify, to="done", condition="otherwise"),
    ],
    budget=Budget(tokens=5000),
    ends=["person", "done"],
    on_unknown="person",
)


class Outcome(BaseModel):
    decisions: list[RouteDecision]
    models: list[str]
    prompts: list[int]


@workflow.defn(name="test.Cascade")
class Cascade:
    @workflow.run
    async def run(self, ask: Ask) -> Outcome:
        ctx = Context(state={"customer": {"history": "Two parcels were late. "}})
        step: RouteDecision | None = None
        while step is None or step.to == "classify":
            first = {"unserved": unserved, "hurried": hurried}.get(ask.how, classify)
            action = first.changed_by(step.retry if step else None)
            error: WonderError | None = None
            try:
                await act(ctx, action, text=ask.text, history="")
            except WonderError as found:
                error = found
            step = ladder.decide(ctx, after=classify, error=error)
        traces = ctx.thought_traces
        return Outcome(
            decisions=ctx.decisions,
            models=[trace.model for trace in traces],
            prompts=[trace.prompt_tokens for trace in traces],
        )


class Joining(BaseModel):
    need: str
    slow_s: float = 0.0


@workflow.defn(name="test.Joining")
class JoiningBranches:
    @workflow.run
    async def run(self, given: Joining) -> tuple[bool, list[str], dict[str, str]]:
        ctx = Context()

        async def slow() -> None:
            await workflow.sleep(given.slow_s)

        how = Join.model_validate({"at": "combine", "need": int(given.need) if given.need.isdigit() else given.need})
        joined: Joined = await join(
            how,
            {
                "typed": act(ctx, ACTIONS["typed"], text=DOUBTFUL),
                "mistyped": act(ctx, ACTIONS["mistyped"], text=DOUBTFUL),
                "slow": slow(),
            },
        )
        return joined.met, joined.arrived, joined.lost


@pytest.fixture(scope="module")
async def cascades(client: Client, address: str) -> AsyncIterator[Worker]:
    large = TraceEngine.load()
    served = await Client.connect(
        address, plugins=[WonderPlugin(roles=["gpu"], engine=lambda: large, model="larger-desk")]
    )
    async with (
        Worker(served, task_queue=gpu_queue("larger-desk")),
        Worker(client, task_queue=QUEUE, workflows=[Cascade, JoiningBranches], max_cached_workflows=0) as running,
    ):
        yield running


async def test_a_doubtful_answer_climbs_to_more_samples_a_larger_model_and_more_context(
    client: Client, cascades: Worker, unique: str
) -> None:
    run = await client.start_workflow(Cascade.run, Ask(text=DOUBTFUL), id=unique, task_queue=QUEUE)
    outcome = await run.result()
    assert [(item.to, item.reason, item.rung) for item in outcome.decisions] == [
        ("classify", "escalation", 0),
        ("classify", "escalation", 1),
        ("classify", "escalation", 2),
        ("person", "condition", 3),
    ]
    costs = [item.cost for item in outcome.decisions]
    assert all(cost is not None for cost in costs)
    assert [cost.calls for cost in costs if cost] == [1, 4, 1, 1]
    assert outcome.prompts[3] > outcome.prompts[2] == outcome.prompts[0]
    (last,) = outcome.decisions[-1:]
    assert last.budget is not None
    assert (
        last.budget.spent.tokens == sum(cost.tokens for cost in costs if cost) == 5000 - (last.budget.tokens_left or 0)
    )
    history = await run.fetch_history()
    queues = [
        event.activity_task_scheduled_event_attributes.task_queue.name
        for event in history.events
        if event.HasField("activity_task_scheduled_event_attributes")
    ]
    assert queues == [gpu_queue("support-desk")] * 2 + [gpu_queue("larger-desk"), gpu_queue("support-desk")]
    await Replayer(workflows=[Cascade], plugins=[WonderPlugin()]).replay_workflow(history)


async def test_an_action_that_nobody_serves_goes_where_its_error_row_says(
    client: Client, cascades: Worker, unique: str
) -> None:
    outcome: Outcome = await client.execute_workflow(
        Cascade.run, Ask(text=DOUBTFUL, how="unserved"), id=unique, task_queue=QUEUE
    )
    (decision,) = outcome.decisions
    assert (decision.to, decision.reason, decision.error, decision.visit) == ("person", "error", "WorkerMissing", 1)


async def test_a_call_that_takes_too_long_fails_under_its_own_name(
    client: Client, cascades: Worker, unique: str
) -> None:
    outcome: Outcome = await client.execute_workflow(
        Cascade.run, Ask(text=DOUBTFUL, how="hurried"), id=unique, task_queue=QUEUE
    )
    (decision,) = outcome.decisions
    assert (decision.to, decision.row, decision.error) == ("person", "failed", "ModelTimedOut")


async def test_a_join_waits_for_as_many_branches_as_it_needs(client: Client, cascades: Worker, unique: str) -> None:
    cases = {
        "any": ("any", 900.0, True, ["typed"]),
        "two": ("2", 0.01, True, ["slow", "typed"]),
        "all": ("all", 900.0, False, None),
    }
    found = await asyncio.gather(
        *(
            client.execute_workflow(
                JoiningBranches.run,
                Joining(need=need, slow_s=slow_s),
                id=f"{unique}-{name}",
                task_queue=QUEUE,
                run_timeout=timedelta(seconds=150),
            )
            for name, (need, slow_s, _, _) in cases.items()
        )
    )
    for (met, arrived, lost), (_, _, wanted, who) in zip(found, cases.values(), strict=True):
        assert met is wanted
        assert who is None or sorted(arrived) == who
        assert set(lost) <= {"mistyped"}
    assert found[2][2]["mistyped"].startswith("AnswerDoesNotParse: ")
