"""Reading past runs from Temporal: their context by query, or by what their histories hold."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowExecution, WorkflowQueryFailedError
from temporalio.converter import DataConverter
from temporalio.service import RPCError, RPCStatusCode

from wonder.actions.contracts import ThinkAnswer, ThinkRequest
from wonder.calibration.apply import calibrated, is_applied
from wonder.errors import RequestError, RoutingError, WorkerMissing
from wonder.history.record import DecisionRecord, records_of
from wonder.names import CONTEXT_QUERY, HUMAN_REVIEW, THINK
from wonder.review.outcomes import read_outcomes
from wonder.routing.context import Context
from wonder.routing.table import TransitionTable
from wonder.trace.spans import value_spans

AT_ONCE: Final = 16
"""Runs that are asked at the same time."""


@dataclass
class Past:
    """Decisions of many runs, and how many runs gave none, by reason."""

    records: list[DecisionRecord] = field(default_factory=list)
    runs: int = 0
    skipped: Counter[str] = field(default_factory=Counter)


async def read_past(
    client: Client,
    *,
    workflow_type: str | None = None,
    since: datetime | None = None,
    where: str | None = None,
    limit: int = 100_000,
    table: TransitionTable | None = None,
    whole: bool = False,
) -> Past:
    """The decisions of past runs, with what people said of the answers.

    Each run is asked for its context, which needs a worker that knows its workflow. Given `table`, no worker is needed:
    the model's answers are read from the history, and the decisions are taken again by that table.

    Args:
        client: With Wonder's data converter.
        workflow_type: Only runs of this type.
        since: Only runs that started after this.
        where: A further condition in Temporal's list filter language.
        limit: At most so many runs, newest first.
        table: Today's, to read histories instead of asking workers.
        whole: Keep per-token lists.

    Raises:
        ServerNotReachable: The server does not answer.
    """
    judged = await read_outcomes(client, since=since)
    right: dict[str, dict[tuple[str, int], bool]] = {}
    for outcome in judged.outcomes:
        run, _, rest = outcome.id.rpartition("/" + outcome.action + "/")
        if run and rest.isdigit() and outcome.right is not None:
            right.setdefault(run, {})[(outcome.action, int(rest))] = outcome.right
    found, places = Past(), asyncio.Semaphore(AT_ONCE)

    async def read(execution: WorkflowExecution) -> None:
        async with places:
            try:
                ctx = await (
                    context_of(client, execution.id, execution.run_id)
                    if table is None
                    else context_from_history(client, execution, table)
                )
            except RequestError:
                found.skipped["no model call to read"] += 1
                return
            except (WorkerMissing, RoutingError) as error:
                found.skipped[str(error).partition(":")[2].strip() or str(error)] += 1
                return
        found.runs += 1
        found.records += records_of(
            ctx,
            run=execution.id,
            run_id=execution.run_id,
            workflow_type=execution.workflow_type,
            at=execution.start_time,
            right=right.get(f"{execution.id}/{execution.run_id}"),
            whole=whole,
        )

    async with asyncio.TaskGroup() as reads:
        async for execution in client.list_workflows(_query(workflow_type, since, where), limit=limit):
            reads.create_task(read(execution))
    found.records.sort(key=lambda record: (record.at is not None, record.at, record.run, record.visit))
    return found


def _query(workflow_type: str | None, since: datetime | None, where: str | None) -> str:
    parts = [f"WorkflowType = '{workflow_type}'" if workflow_type else f"WorkflowType != '{HUMAN_REVIEW}'"]
    if since is not None:
        parts.append(f"StartTime > '{since.isoformat()}'")
    if where:
        parts.append(f"({where})")
    return " AND ".join(parts)


async def context_of(client: Client, workflow_id: str, run_id: str | None = None) -> Context:
    """The context of a run, running or ended.

    Raises:
        RequestError: No such run, or one that never called `act`.
        WorkerMissing: No worker that knows the workflow is there to answer.
    """
    try:
        found = await client.get_workflow_handle(workflow_id, run_id=run_id).query(CONTEXT_QUERY)
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


async def context_from_history(client: Client, execution: WorkflowExecution, table: TransitionTable) -> Context:
    """A context as the history tells it: the model's answers as recorded, the decisions as `table` takes them.

    What only the workflow's code knows is not there: `state`, claims, and actions between those of the table.

    Raises:
        RequestError: The run has made no model call.
    """
    events = client.get_workflow_handle(execution.id, run_id=execution.run_id).fetch_history_events()
    return await context_from_events(events, client.data_converter, table, execution.id)


async def context_from_events(
    events: AsyncIterator[HistoryEvent], converter: DataConverter, table: TransitionTable, run: str
) -> Context:
    """See `context_from_history`."""
    ctx = Context()
    asked: dict[int, ThinkRequest] = {}
    async for event in events:
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
            scheduled = event.activity_task_scheduled_event_attributes
            if scheduled.activity_type.name == THINK:
                (asked[event.event_id],) = await converter.decode(scheduled.input.payloads, [ThinkRequest])
        elif event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
            completed = event.activity_task_completed_event_attributes
            request = asked.get(completed.scheduled_event_id)
            if request is not None:
                (answer,) = await converter.decode(completed.result.payloads, [ThinkAnswer])
                _file(ctx, request, answer)
                if request.action in table.sources:
                    table.decide(ctx, after=request.action)
    if not ctx.thought_traces:
        raise RequestError(f"the run {run!r} has made no model call")
    return ctx


def _file(ctx: Context, request: ThinkRequest, answer: ThinkAnswer) -> None:
    """What `act` does with an answer, without the action's definition."""
    trace = answer.thought_trace
    if trace is None:
        return
    trace = calibrated(trace, answer.calibration, answer.calibration_reason)
    ctx.calibrations.pop(request.action, None)
    if answer.calibration is not None and is_applied(trace, answer.calibration):
        ctx.calibrations[request.action] = answer.calibration
    ctx.thought_traces.append(trace)
    spans = value_spans(answer.text, request.answer_format)
    if spans.document is not None:
        ctx.outputs[request.action] = answer.text[spans.document.start : spans.document.stop]
        if request.answer_format == "json":
            with suppress(ValueError):
                ctx.outputs[request.action] = json.loads(ctx.outputs[request.action])
