"""A workflow that routes by risk, on a worker of its own."""

from temporalio import workflow
from temporalio.workflow import ActivityConfig

from tests.integration.workflows import PROMPT, Sorted
from wonder import ActionDef, Context, Transition, TransitionTable, act
from wonder.wire import WireModel

by_risk = TransitionTable(
    [
        Transition(
            from_="sort",
            to="human_review",
            condition='thought_trace.overall_confidence < threshold("sort", risk=0.05)',
            requires_status="calibrated",
        ),
        Transition(from_="sort", to="resolve", condition="otherwise"),
    ],
    name="by risk",
)


class Asked(WireModel):
    """What to ask, and whom."""

    text: str
    queue: str


@workflow.defn(name="TestByRisk")
class ByRisk:
    """Sort one ticket and say where it went."""

    @workflow.run
    async def run(self, asked: Asked) -> Context:
        ctx = Context()
        options = ActivityConfig(task_queue=asked.queue)
        await act(ctx, ActionDef(name="sort", prompt=PROMPT, output=Sorted, activity=options), text=asked.text)
        by_risk.decide(ctx, after="sort")
        return ctx
