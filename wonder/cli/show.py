"""`wonder show`: what the model was thinking in a run, step by step, and why the run went where it went."""

import argparse
import json
import sys
from typing import Any

from temporalio.client import Client, WorkflowQueryFailedError
from temporalio.service import RPCError, RPCStatusCode

from wonder.actions.overview import concepts, percent
from wonder.errors import RequestError, WorkerMissing
from wonder.names import CONTEXT_QUERY
from wonder.routing.context import Context
from wonder.routing.decision import RouteDecision
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


async def context_of(client: Client, workflow_id: str) -> Context:
    """The context of a run, running or ended.

    Raises:
        RequestError: No such run, or one that never called `act`.
        WorkerMissing: No worker that knows the workflow is there to answer.
    """
    try:
        found = await client.get_workflow_handle(workflow_id).query(CONTEXT_QUERY)
    except WorkflowQueryFailedError as error:
        raise RequestError(
            f"the run {workflow_id!r} has no model call to show yet (it answers no {CONTEXT_QUERY}: {error})"
        ) from error
    except RPCError as error:
        if error.status == RPCStatusCode.NOT_FOUND:
            raise RequestError(f"there is no run {workflow_id!r} in namespace {client.namespace!r}") from error
        raise WorkerMissing(
            f"no worker answered for the run {workflow_id!r} ({error}): start the one that hosts its workflow"
        ) from error
    return Context.model_validate(found)


def lines(ctx: Context) -> list[str]:
    """The run for a terminal."""
    told: list[str] = []
    decisions = list(ctx.decisions)
    for trace in ctx.thought_traces:
        told += step(trace, ctx.outputs.get(trace.action) if trace is ctx.trace(trace.action) else None)
        decision = next((found for found in decisions if found.after == trace.action), None)
        if decision is not None:
            decisions.remove(decision)
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
    if trace.active_concepts:
        told.append(f"  concepts    {concepts(trace)}")
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
    return told


def route(decision: RouteDecision) -> list[str]:
    """One decision, and every row it looked at."""
    told = [f"  → {decision.explanation}"]
    for row in decision.rows:
        read = ", ".join(f"{path} = {_short(value)}" for path, value in row.readings.items())
        told.append(f"      {row.outcome:<7} {row.condition}" + (f"   [{read}]" if read else ""))
    return told


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
