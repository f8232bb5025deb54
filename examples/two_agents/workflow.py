"""A `TriageAgent` says where a ticket belongs; a `DispatchAgent` asks it, and looks at how it came to say so."""

from typing import Literal

from pydantic import BaseModel
from temporalio import workflow

from wonder import ActionDef, AgentMessage, Context, Sampling, ThoughtCapture, Transition, TransitionTable, act

Team = Literal["billing", "shipping", "accounts", "technical", "sales", "returns"]


class Ticket(BaseModel):
    """What a customer wrote."""

    id: str = ""
    text: str


class Triage(BaseModel):
    """Who should handle it, and how soon."""

    team: Team
    urgency: Literal["low", "normal", "high"]


class Dispatch(BaseModel):
    """What the second agent did with the word of the first."""

    ticket: str
    team: Team | None
    """None: a person decides."""
    route: str
    because: list[str]
    """The explanation of each decision."""


triage = ActionDef(
    name="triage",
    prompt="Ticket: {text}\nTriage:",
    output=Triage,
    thought_capture=ThoughtCapture(value_fields=["team"]),
)

ask_again = ActionDef(
    name="ask_again",
    prompt="Ticket: {text}\nTriage:",
    output=Triage,
    sampling=Sampling(seed=1),
    thought_capture=ThoughtCapture(value_fields=["team"], samples=8, confidence_method="self_consistency"),
)

trust = TransitionTable(
    [
        Transition(from_=triage, to="dispatch", condition="thought_trace.overall_confidence >= 0.9"),
        Transition(from_=triage, to=ask_again, condition="thought_trace.signals.min_margin >= 0.2"),
        Transition(from_=triage, to="person", condition="otherwise"),
        Transition(from_=ask_again, to="dispatch", condition="thought_trace.samples.agreement >= 0.75"),
        Transition(from_=ask_again, to="person", condition="otherwise"),
    ],
    on_unknown="person",
)


@workflow.defn(name="TriageAgent")
class TriageAgent:
    """The first agent: an answer, and what was read while it was thought."""

    @workflow.run
    async def run(self, ticket: Ticket) -> AgentMessage:
        """Say where a ticket belongs."""
        ctx = Context()
        await act(ctx, triage, text=ticket.text)
        return ctx.message("triage")


@workflow.defn(name="DispatchAgent")
class DispatchAgent:
    """The second agent: believes the first one, asks again, or leaves it to a person."""

    @workflow.run
    async def run(self, ticket: Ticket) -> Dispatch:
        """Dispatch a ticket."""
        ctx = Context()
        message = await workflow.execute_child_workflow(
            TriageAgent.run, ticket, id=f"{workflow.info().workflow_id}/triage"
        )
        ctx.receive(message, sender="triage")
        step = trust.decide(ctx, after="triage")
        if step.to == "ask_again":
            await act(ctx, ask_again, text=ticket.text)
            step = trust.decide(ctx, after="ask_again")
        team = None if step.to == "person" else Triage.model_validate(ctx.outputs[step.after]).team
        return Dispatch(
            ticket=ticket.id, team=team, route=step.to, because=[made.explanation for made in ctx.decisions]
        )
