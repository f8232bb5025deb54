"""`wonder show`: what the model was thinking in a run, step by step, and why the run went where it went."""

import argparse
import json
import sys
from typing import Any

from temporalio.client import Client

from wonder.actions.overview import concepts, percent
from wonder.history.reading import context_of
from wonder.routing.context import Context
from wonder.routing.decision import RouteDecision
from wonder.trace.explanation import guesses
from wonder.trace.injection import InjectionRecord
from wonder.trace.schema import ThoughtTrace


def add_commands(commands: "argparse._SubParsersAction[Any]", server: argparse.ArgumentParser) -> None:
    """Add `show`."""
    show = commands.add_parser("show", parents=[server], help="what the model was thinking in a run, and its route")
    show.add_argument("workflow_id")
    show.add_argument("--json", action="store_true", help="the whole context, traces included")
    show.set_defaults(handler=run_show, needs_client=True)


async def run_show(arguments: argparse.Namespace, client: Client) -> int:
    """Query the run and print it."""
    ctx = await context_of(client, arguments.workflow_id)
    if arguments.json:
        sys.stdout.write(json.dumps(ctx.model_dump(mode="json"), ensure_ascii=False) + "\n")
    else:
        sys.stdout.write("\n".join(lines(ctx)) + "\n")
    return 0


def lines(ctx: Context) -> list[str]:
    """The run for a terminal."""
    told: list[str] = []
    for trace, decision in ctx.steps():
        if trace is not None:
            told += step(trace, ctx.outputs.get(trace.action) if trace is ctx.trace(trace.action) else None)
        elif decision is not None:
            told.append(f"{decision.after} · no answer")
        if decision is not None:
            told += route(decision)
    return told or ["no model call yet"]


def step(trace: ThoughtTrace, answer: Any) -> list[str]:
    """One action; its parsed answer where that is still known, else the raw text."""
    told = [
        f"{trace.action} · {trace.model}",
        f"  answer      {''.join(trace.tokens).strip() if answer is None else json.dumps(answer, ensure_ascii=False)}",
        f"  confidence  {percent(trace.overall_confidence)} ({trace.confidence_method}, {trace.confidence_status})"
        + (f": {trace.confidence_reason}" if trace.confidence_reason else ""),
    ]
    if len(trace.field_confidences) > 1:
        fields = ", ".join(f"{path} {percent(found.confidence)}" for path, found in trace.field_confidences.items())
        told.append(f"  fields      {fields}")
    if trace.injection is not None:
        told.append(f"  put in      {put_in(trace.injection)}")
    if trace.active_concepts:
        told.append(f"  concepts    {concepts(trace)}")
    told += [f"  in words    {line}" for line in guesses(trace.explanations)]
    doubtful = sorted(
        (index for index, sure in enumerate(trace.token_confidences) if sure is not None and sure < 0.9),
        key=lambda index: trace.token_confidences[index] or 0.0,
    )[:3]
    for index in doubtful:
        if index < len(trace.top_alternatives) and trace.top_alternatives[index]:
            rivals = " · ".join(
                f"{option.token!r} {option.probability:.0%}" for option in trace.top_alternatives[index]
            )
            told.append(f"  wavered at  {rivals}")
    for doubt in trace.least_certain[:3]:
        if doubt.alternatives and doubt.confidence is not None and doubt.confidence < 0.9:
            rivals = " · ".join(f"{option.token!r} {option.probability:.0%}" for option in doubt.alternatives)
            told.append(f"  wavered at  {rivals}")
    return told


def put_in(record: InjectionRecord) -> str:
    """What stood in the model beside the prompt."""
    origin = "the prior state" if record.source == "prior_state" else "a vector of the caller's"
    if record.kind == "soft_prompt":
        return f"{origin}, as {record.soft_tokens} soft tokens"
    clamped = ", clamped" if record.clamped else ""
    return f"{origin}, steering layer {record.layer} (strength {record.strength:g}{clamped}; {record.mode} positions)"


def route(decision: RouteDecision) -> list[str]:
    """One decision, and every row it looked at."""
    told = [f"  → {decision.explanation}"]
    for row in decision.rows:
        read = ", ".join(f"{path} = {_short(value)}" for path, value in row.readings.items())
        told.append(f"      {row.outcome:<7} {row.condition}" + (f"   [{read}]" if read else ""))
    return told


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
