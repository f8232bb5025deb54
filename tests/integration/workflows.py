"""Workflows that exist for the tests: each asks the model for something that goes well or wrong in one way."""

from datetime import timedelta
from typing import Literal

from pydantic import BaseModel
from temporalio import workflow

from wonder import (
    ActionDef,
    AgentMessage,
    AnswerDoesNotParse,
    Context,
    Injection,
    Sampling,
    ThoughtCapture,
    ThoughtTrace,
    act,
)


class Ask(BaseModel):
    """What to ask, and how."""

    text: str
    how: str = "text"
    times: int = 1


class Sorted(BaseModel):
    """What the embedded model answers."""

    team: str
    urgency: Literal["low", "normal", "high"]


class Verdict(BaseModel):
    """What it never answers."""

    guilty: bool


PROMPT = "Ticket: {text}\nTriage:"
SOON = {"schedule_to_start_timeout": timedelta(seconds=2)}

ACTIONS: dict[str, ActionDef[object]] = {
    action.name: action
    for action in (
        ActionDef(name="text", prompt=PROMPT),
        ActionDef(name="typed", prompt=PROMPT, output=Sorted, thought_capture=ThoughtCapture(top_alternatives=5)),
        ActionDef(name="mistyped", prompt=PROMPT, output=Verdict),
        ActionDef(name="held", prompt=PROMPT, output=Verdict, constrained=True),
        ActionDef(name="long", prompt=PROMPT, sampling=Sampling(max_new_tokens=512)),
        ActionDef(
            name="unknown_probe", prompt=PROMPT, thought_capture=ThoughtCapture(run_concept_probes=["legal_rsk"])
        ),
        ActionDef(name="probed", prompt=PROMPT, thought_capture=ThoughtCapture(run_concept_probes=["legal_risk"])),
        ActionDef(name="nobody_serves", prompt=PROMPT, model="no-such-model", activity=SOON),
        ActionDef(name="wrong_queue", prompt=PROMPT, model="other", activity={"task_queue": "wonder-gpu.support-desk"}),
        ActionDef(name="missing_variable", prompt="{text} {tone}"),
        ActionDef(
            name="stored",
            prompt=PROMPT,
            output=Sorted,
            thought_capture=ThoughtCapture(capture_hidden_states=True, store_in="both"),
        ),
        ActionDef(name="kept_away", prompt=PROMPT, output=Sorted, thought_capture=ThoughtCapture(store_in="artifact")),
        ActionDef(
            name="drawn_out",
            prompt=PROMPT,
            sampling=Sampling(max_new_tokens=900, temperature=10.0, seed=3),
            activity={"task_queue": "drained"},
        ),
        ActionDef(
            name="handed_back",
            prompt=PROMPT,
            sampling=Sampling(max_new_tokens=900, temperature=10.0, seed=3),
            activity={"heartbeat_timeout": timedelta(seconds=20)},
        ),
        ActionDef(name="remembered", prompt=PROMPT, output=Sorted, thought_capture=ThoughtCapture(compress_state=True)),
        ActionDef(
            name="prompted",
            prompt=PROMPT,
            output=Sorted,
            thought_capture=ThoughtCapture(inject=Injection(kind="soft_prompt")),
        ),
        ActionDef(
            name="steered",
            prompt=PROMPT,
            output=Sorted,
            thought_capture=ThoughtCapture(inject=Injection(kind="steering", layer=1, strength=3.0, mode="all")),
        ),
        ActionDef(
            name="off_the_model",
            prompt=PROMPT,
            thought_capture=ThoughtCapture(inject=Injection(kind="steering", layer=99)),
        ),
        ActionDef(
            name="explained",
            prompt=PROMPT,
            output=Sorted,
            thought_capture=ThoughtCapture(explain="values"),
            activity={"task_queue": "explained"},
        ),
        ActionDef(name="explained_by_nobody", prompt=PROMPT, thought_capture=ThoughtCapture(explain="last")),
        ActionDef(name="seeded", prompt=PROMPT, sampling=Sampling(temperature=1.5, seed=7)),
    )
}


@workflow.defn(name="TestAsk")
class AskWorkflow:
    """Run one action, and give back what it left in the context."""

    @workflow.run
    async def run(self, ask: Ask) -> list[ThoughtTrace]:
        ctx = Context(state={"asked": ask.text})
        for _ in range(ask.times):
            await act(ctx, ACTIONS[ask.how], text=ask.text)
        return ctx.thought_traces


@workflow.defn(name="TestAskKindly")
class AskKindly:
    """Survive an answer that does not parse."""

    @workflow.run
    async def run(self, ask: Ask) -> AgentMessage:
        ctx = Context()
        try:
            await act(ctx, ACTIONS[ask.how], text=ask.text)
        except AnswerDoesNotParse as error:
            return AgentMessage(text=str(error), thought_trace=ctx.thought_traces[-1])
        return AgentMessage(text="it parsed")


@workflow.defn(name="TestHandOver")
class HandOver:
    """Two actions: the second one's prompt says nothing of what the first was asked."""

    @workflow.run
    async def run(self, ask: Ask) -> Context:
        ctx = Context()
        for _ in range(ask.times):
            await act(ctx, ACTIONS["remembered"], text=ask.text)
        await act(ctx, ACTIONS[ask.how], text="Any news on this?")
        return ctx


ALL = [AskWorkflow, AskKindly, HandOver]
