"""`act()` against a real server and the real engine."""

import json
from pathlib import Path

import pytest
from temporalio.client import Client, WorkflowHandle

from examples.ticket_triage.workflow import Resolution, Ticket, TicketTriage
from tests.integration.shell import run
from tests.integration.workflows import Ask, AskKindly, AskWorkflow
from wonder import AgentMessage, Context, ThoughtTrace
from wonder.names import CONTEXT_QUERY, WORKFLOW_QUEUE
from wonder.trace.store import DirectoryStore

pytestmark = pytest.mark.usefixtures("workers")

CLEAR = "I was charged twice for my invoice."


async def ask(client: Client, unique: str, how: str, text: str = CLEAR, times: int = 1) -> list[ThoughtTrace]:
    return await client.execute_workflow(
        AskWorkflow.run, Ask(text=text, how=how, times=times), id=unique, task_queue=WORKFLOW_QUEUE
    )


async def test_a_typed_answer_brings_a_trace_with_the_confidence_of_its_values(client: Client, unique: str) -> None:
    (trace,) = await ask(client, unique, "typed")
    assert trace.action == "typed"
    assert trace.model == "support-desk"
    assert set(trace.field_confidences) == {"team", "urgency"}
    product = 1.0
    for found in trace.field_confidences.values():
        assert found.confidence is not None
        product *= found.confidence
    assert trace.overall_confidence == pytest.approx(product, abs=1e-3)
    assert trace.confidence_status == "uncalibrated"
    assert len(trace.tokens) == len(trace.token_confidences) == len(trace.logits_entropy) == len(trace.top_alternatives)


async def test_a_concept_is_read_where_it_was_asked_for(client: Client, unique: str) -> None:
    (calm,) = await ask(client, unique + "a", "probed")
    (grave,) = await ask(client, unique + "b", "probed", "My lawyer will sue you over the burns from your heater.")
    assert calm.active_concepts["legal_risk"] < 0.5 < grave.active_concepts["legal_risk"]
    assert calm.bundles["legal_risk"].startswith("legal_risk@")


async def test_a_stored_trace_can_be_fetched_and_is_what_it_says(
    client: Client, unique: str, store: DirectoryStore
) -> None:
    (trace,) = await ask(client, unique, "stored")
    kinds = {ref.format for ref in trace.artifacts}
    assert kinds == {"safetensors", "json"}
    for ref in trace.artifacts:
        assert len(store.get(ref)) == ref.bytes
    whole = next(ref for ref in trace.artifacts if ref.format == "json")
    assert ThoughtTrace.model_validate_json(store.get(whole)).tokens == trace.tokens


async def test_a_trace_kept_in_the_store_leaves_its_scalars_behind(client: Client, unique: str) -> None:
    (trace,) = await ask(client, unique, "kept_away")
    assert trace.tokens == []
    assert trace.overall_confidence is not None
    assert [ref.format for ref in trace.artifacts] == ["json"]


async def test_a_seeded_draw_repeats_itself_whatever_else_runs(client: Client, unique: str) -> None:
    first, second = await ask(client, unique, "seeded", times=2)
    assert first.tokens == second.tokens
    assert first.generation_probs is not None
    assert first.generation_probs != first.token_confidences


async def test_an_answer_that_does_not_parse_leaves_a_trace_of_unknown_confidence(client: Client, unique: str) -> None:
    message: AgentMessage = await client.execute_workflow(
        AskKindly.run, Ask(text=CLEAR, how="mistyped"), id=unique, task_queue=WORKFLOW_QUEUE
    )
    assert "is not a Verdict" in message.text
    assert message.thought_trace is not None
    assert message.thought_trace.overall_confidence is None
    assert message.thought_trace.confidence_status == "unknown"
    assert "guilty" in (message.thought_trace.confidence_reason or "")


async def test_an_answer_held_to_its_type_parses_and_is_no_surer_for_it(client: Client, unique: str) -> None:
    (trace,) = await ask(client, unique, "held")
    assert json.loads("".join(trace.tokens).removesuffix("</s>"))["guilty"] in (True, False)
    assert trace.overall_confidence is not None
    assert trace.overall_confidence < 0.1


async def test_a_sure_ticket_is_resolved_by_the_model_alone(client: Client, unique: str) -> None:
    resolution: Resolution = await client.execute_workflow(
        TicketTriage.run, Ticket(id="1", text=CLEAR), id=unique, task_queue=WORKFLOW_QUEUE
    )
    assert resolution.route == "resolve"
    assert resolution.decided_by == "model"
    assert resolution.triage is not None
    assert resolution.triage.team == "billing"


async def test_every_run_tells_what_the_model_was_thinking(client: Client, unique: str) -> None:
    handle: WorkflowHandle[TicketTriage, Resolution] = await client.start_workflow(
        TicketTriage.run, Ticket(id="1", text=CLEAR), id=unique, task_queue=WORKFLOW_QUEUE
    )
    await handle.result()
    ctx = Context.model_validate(await handle.query(CONTEXT_QUERY))
    assert [trace.action for trace in ctx.thought_traces] == ["classify"]
    assert [decision.to for decision in ctx.decisions] == ["resolve"]
    assert ctx.decisions[0].rows[0].outcome == "false"


async def test_the_temporal_cli_starts_a_run_with_plain_json(temporal_cli: Path, address: str, unique: str) -> None:
    done = await run(
        *(temporal_cli, "workflow", "execute", "--address", address, "--type", "TicketTriage"),
        *("--task-queue", WORKFLOW_QUEUE, "--workflow-id", unique, "--output", "json"),
        *("--input", json.dumps({"id": "1", "text": CLEAR})),
    )
    assert done.code == 0, done.err
    assert json.loads(done.out)["result"]["triage"]["team"] == "billing"
