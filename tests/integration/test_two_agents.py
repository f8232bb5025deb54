"""Traces that pass between workflows: as a child's result, and over Nexus."""

from pathlib import Path

import nexusrpc
import pytest
from nexusrpc.handler import service_handler
from temporalio import nexus, workflow
from temporalio.client import Client
from temporalio.worker import Worker

from examples.two_agents.workflow import Dispatch, DispatchAgent, Ticket, TriageAgent, trust
from tests.integration.shell import run
from wonder import AgentMessage, Context
from wonder.embedded.world import tickets
from wonder.names import WORKFLOW_QUEUE
from wonder.plugin import WonderPlugin

pytestmark = pytest.mark.usefixtures("workers")


async def dispatched(client: Client, name: str, text: str) -> Dispatch:
    return await client.execute_workflow(
        DispatchAgent.run, Ticket(id=name, text=text), id=f"dispatch-{name}", task_queue=WORKFLOW_QUEUE
    )


async def test_the_second_agent_trusts_the_first_only_where_its_trace_allows(client: Client, unique: str) -> None:
    found = tickets(200, seed=5, split="held_out")
    clear = next(ticket for ticket in found if ticket.kind == "clear")
    sure = await dispatched(client, f"{unique}-clear", clear.text)
    assert (sure.route, sure.team) == ("dispatch", clear.team)
    assert len(sure.because) == 1
    unsure = [
        await dispatched(client, f"{unique}-{at}", ticket.text)
        for at, ticket in enumerate([ticket for ticket in found if ticket.kind == "unseen"][:4])
    ]
    assert all(dispatch.route == "person" and dispatch.team is None for dispatch in unsure)


@nexusrpc.service
class Triages:
    """What a team offers to others: a question in, an agent's message out."""

    triage: nexusrpc.Operation[Ticket, AgentMessage]


@service_handler(service=Triages)
class TriageService:
    """Serves it from this queue."""

    @nexus.workflow_run_operation
    async def triage(
        self, ctx: nexus.WorkflowRunOperationContext, ticket: Ticket
    ) -> nexus.WorkflowHandle[AgentMessage]:
        return await ctx.start_workflow(TriageAgent.run, ticket, id=f"nexus-{ticket.id}")


@workflow.defn(name="FarDispatch")
class FarDispatch:
    """Asks the agent of another team, over Nexus, and routes on its trace."""

    @workflow.run
    async def run(self, endpoint: str) -> str:
        client = workflow.create_nexus_client(service=Triages, endpoint=endpoint)
        ticket = Ticket(id=endpoint, text="I was charged twice for my invoice.")
        message = await client.execute_operation(Triages.triage, ticket)
        ctx = Context()
        ctx.receive(message, sender="triage")
        decision = trust.decide(ctx, after="triage")
        return f"{decision.to} {ctx.outputs['triage']['team']}"


async def test_a_message_with_its_trace_passes_over_nexus(
    client: Client, address: str, unique: str, temporal_cli: Path
) -> None:
    endpoint, queue = f"triage-{unique}", f"far-{unique}"
    made = await run(
        *(temporal_cli, "operator", "nexus", "endpoint", "create", "--address", address, "--name", endpoint),
        *("--target-namespace", "default", "--target-task-queue", queue),
    )
    assert made.code == 0, made.err
    flows = await Client.connect(address, plugins=[WonderPlugin(roles=["workflow"])])
    async with Worker(
        flows, task_queue=queue, workflows=[TriageAgent, FarDispatch], nexus_service_handlers=[TriageService()]
    ):
        found = await client.execute_workflow(FarDispatch.run, endpoint, id=f"far-{unique}", task_queue=queue)
    assert found == "dispatch billing"
