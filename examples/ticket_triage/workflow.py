"""`TicketTriage`: sort one support ticket, and know when to ask."""

from datetime import timedelta
from typing import Literal

from pydantic import BaseModel
from temporalio import workflow

from wonder import (
    ActionDef,
    AnswerDoesNotParse,
    Context,
    ThoughtCapture,
    Transition,
    TransitionTable,
    act,
    audit_review,
    human_review,
)

Team = Literal["billing", "shipping", "accounts", "technical", "sales", "returns"]


class Ticket(BaseModel):
    """What a customer wrote."""

    id: str = ""
    text: str


class Triage(BaseModel):
    """Who should handle it, and how soon."""

    team: Team
    urgency: Literal["low", "normal", "high"]


class Resolution(BaseModel):
    """Where the ticket went, and who decided that."""

    ticket: str
    triage: Triage | None
    route: str
    decided_by: str
    confidence: float | None


classify = ActionDef(
    name="classify",
    prompt="Ticket: {text}\nTriage:",
    output=Triage,
    thought_capture=ThoughtCapture(
        capture_attention=True, compute_attention_entropy=True, run_concept_probes=["legal_risk"]
    ),
)

routes = TransitionTable(
    [
        Transition(from_=classify, to="legal_review", condition="thought_trace.active_concepts.legal_risk > 0.8"),
        Transition(from_=classify, to="human_review", condition="thought_trace.overall_confidence < 0.7"),
        Transition(from_=classify, to="resolve", condition="otherwise"),
    ],
    ends=["legal_review", "human_review", "resolve"],
    on_unknown="human_review",
    reviews=["legal_review", "human_review"],
    audit_rate=0.05,
)

QUEUES = {"legal_review": "legal", "human_review": "support"}


@workflow.defn(name="TicketTriage")
class TicketTriage:
    """One ticket."""

    @workflow.run
    async def run(self, ticket: Ticket) -> Resolution:
        """Classify, decide, and wait for a person where the decision says so."""
        ctx = Context(state={"ticket": ticket.model_dump()})
        answer: Triage | None
        try:
            answer = await act(ctx, classify, text=ticket.text)
        except AnswerDoesNotParse:
            answer = None  # its confidence is unknown, so the table sends it to a person
        step = routes.decide(ctx, after="classify")
        await audit_review(ctx, answer, title=ticket.text, prompt=ticket.text)
        decided_by = "model"
        if step.to in QUEUES:
            review = await human_review(
                ctx,
                answer,
                output=Triage,
                queue=QUEUES[step.to],
                title=ticket.text,
                prompt=ticket.text,
                sla=timedelta(hours=4),
                on_timeout="reject",
            )
            answer = None if review.verdict == "reject" else review.value
            decided_by = review.reviewer or "deadline"
        return Resolution(
            ticket=ticket.id,
            triage=answer,
            route=step.to,
            decided_by=decided_by,
            confidence=ctx.thought_traces[-1].overall_confidence,
        )
