"""Business workflows that ask a person, as a user of Wonder writes them."""

from datetime import timedelta
from enum import Enum
from typing import Any, Literal

from pydantic import BaseModel, Field, field_validator
from temporalio import workflow

from wonder.review.ask import human_review
from wonder.review.types import OnTimeout
from wonder.routing.context import Context
from wonder.trace.schema import ThoughtTrace


class Team(Enum):
    BILLING = "billing"
    LEGAL = "legal"


class Triage(BaseModel):
    team: Team
    urgency: int = Field(ge=1, le=5)
    note: str = ""

    @field_validator("note")
    @classmethod
    def _polite(cls, note: str) -> str:
        if "damn" in note:
            raise ValueError("be polite")
        return note


ANSWERS: dict[str, object] = {
    "model": Triage(team=Team.BILLING, urgency=2),
    "enum": Team.BILLING,
    "number": 3,
    "text": "billing",
    "nothing": None,
}


class Ask(BaseModel):
    kind: Literal["model", "enum", "number", "text", "nothing"] = "model"
    queue: str = "default"
    sla_s: float = 60
    on_timeout: OnTimeout = "fail"
    times: int = 1


class Given(BaseModel):
    type: str
    value: Any
    verdict: str
    reviewer: str
    timed_out: bool
    review_id: str


@workflow.defn(name="test.Business")
class Business:
    @workflow.run
    async def run(self, asked: Ask) -> list[Given]:
        ctx = Context()
        ctx.thought_traces.append(
            ThoughtTrace(
                action="classify",
                model="support-desk",
                tokens=["bill", "ing"],
                token_confidences=[0.41, 0.99],
                overall_confidence=0.41,
                confidence_status="calibrated",
                active_concepts={"legal_risk": 0.83},
            )
        )
        given = []
        for _ in range(asked.times):
            reviewed = await human_review(
                ctx,
                ANSWERS[asked.kind],
                output=Triage if asked.kind == "nothing" else None,
                queue=asked.queue,
                sla=timedelta(seconds=asked.sla_s),
                on_timeout=asked.on_timeout,
                prompt="Ticket: where is my money?",
                why="the model was not sure",
                task_queue=workflow.info().task_queue,
            )
            given.append(
                Given(
                    type=type(reviewed.value).__name__,
                    value=reviewed.value,
                    verdict=reviewed.verdict,
                    reviewer=reviewed.reviewer,
                    timed_out=reviewed.timed_out,
                    review_id=reviewed.review_id,
                )
            )
        return given
