"""What one action was thinking, put into the next one, through a real server and a real worker."""

import json
from typing import Any

import pytest
from temporalio.client import Client, WorkflowFailureError

from tests.integration.workflows import Ask, HandOver
from wonder import Context
from wonder.cli.show import lines
from wonder.names import WORKFLOW_QUEUE
from wonder.trace.injection import NO_PRIOR_STATE

pytestmark = pytest.mark.usefixtures("workers")

SHIPPING = "My parcel has not arrived and the courier says it was lost."


async def hand_over(client: Client, unique: str, how: str, times: int = 1, text: str = SHIPPING) -> Context:
    return await client.execute_workflow(
        HandOver.run, Ask(text=text, how=how, times=times), id=unique, task_queue=WORKFLOW_QUEUE
    )


async def test_the_second_action_answers_about_what_only_the_first_was_shown(client: Client, unique: str) -> None:
    ctx = await hand_over(client, unique, "prompted")
    first, second = ctx.thought_traces
    assert first.compressed_state == ctx.prior_thought_state
    assert second.injection is not None
    assert (second.injection.kind, second.injection.source) == ("soft_prompt", "prior_state")
    assert second.injection.bundle == second.bundles["soft_prompt"]
    assert second.injection.soft_tokens > 0
    assert ctx.outputs["remembered"]["team"] == "shipping"
    assert ctx.outputs["prompted"]["team"] == "shipping"
    other = await hand_over(client, unique + "b", "prompted", text="I was charged twice for my invoice.")
    assert other.outputs["prompted"]["team"] == "billing"


async def test_a_steered_action_says_how_it_was_steered(client: Client, unique: str) -> None:
    ctx = await hand_over(client, unique, "steered")
    record = ctx.thought_traces[-1].injection
    assert record is not None
    assert (record.layer, record.mode, record.strength, record.clamped) == (1, "all", 1.0, True)
    assert ctx.prior_thought_state is not None
    assert record.bundle == ctx.prior_thought_state.basis
    shown = "\n".join(lines(ctx))
    assert "put in      the prior state, steering layer 1 (strength 1, clamped; all positions)" in shown


@pytest.mark.parametrize("how", ["prompted", "steered"])
async def test_without_an_earlier_state_an_action_runs_plain_and_its_trace_says_so(
    how: str, client: Client, unique: str
) -> None:
    (trace,) = (await hand_over(client, unique, how, times=0)).thought_traces
    assert trace.injection is None
    assert trace.missing["injection"] == NO_PRIOR_STATE


async def test_the_state_travels_in_the_request_only_where_it_is_asked_for(client: Client, unique: str) -> None:
    await hand_over(client, unique, "prompted")
    history = await client.get_workflow_handle(unique).fetch_history()
    sent: list[dict[str, Any]] = [
        json.loads(event.activity_task_scheduled_event_attributes.input.payloads[0].data)
        for event in history.events
        if event.HasField("activity_task_scheduled_event_attributes")
    ]
    assert [request.get("prior_state") is not None for request in sent] == [False, True]


async def test_a_layer_that_is_not_there_ends_the_workflow_with_a_sentence(client: Client, unique: str) -> None:
    with pytest.raises(WorkflowFailureError) as caught:
        await hand_over(client, unique, "off_the_model")
    cause: Any = caught.value.cause
    assert "layer 99, this model has layers 0..3" in str(cause)
    assert cause.type == "InjectionRefused"
