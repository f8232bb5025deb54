"""`act`: run an action from inside a workflow."""

from collections.abc import Mapping
from datetime import timedelta
from typing import TypeVar

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, TimeoutError, TimeoutType
from temporalio.workflow import ActivityConfig

from wonder.actions import prompts
from wonder.actions.contracts import ThinkAnswer, ThinkRequest, think
from wonder.actions.definition import ActionDef
from wonder.actions.overview import details
from wonder.calibration.apply import calibrated, is_applied
from wonder.claims.claim import evaluate_claims
from wonder.errors import AnswerDoesNotParse, ModelTimedOut, PromptError, WonderError, WorkerMissing, by_name
from wonder.names import CONTEXT_QUERY
from wonder.routing.budget import Usage
from wonder.routing.context import Context
from wonder.trace.schema import ThoughtTrace
from wonder.trace.spans import value_spans

T = TypeVar("T")

DEFAULT_OPTIONS = ActivityConfig(
    schedule_to_start_timeout=timedelta(minutes=5),
    start_to_close_timeout=timedelta(minutes=10),
    heartbeat_timeout=timedelta(seconds=60),
    retry_policy=RetryPolicy(
        initial_interval=timedelta(seconds=1), maximum_interval=timedelta(minutes=1), maximum_attempts=10
    ),
)
"""Overridden by an action's `activity`. A model whose queue nobody polls fails the action after five minutes;
anything a worker says can never succeed is not retried."""


_DETAILS = "### What the model was thinking"


async def act(ctx: Context, action: ActionDef[T], /, **variables: object) -> T:
    """Ask the model, and keep what was read from it.

    `action.changed_by(decision.retry)` is the action as a decision wants it tried again.

    The trace is appended to `ctx.thought_traces` and the parsed answer to `ctx.outputs`, also when the answer does
    not parse (its confidence is unknown then).

    Args:
        ctx: The run's memory.
        action: What to ask.
        variables: The variables of the action's prompt template.

    Returns:
        The answer, as the action's output type.

    Raises:
        PromptError: A variable of the template is missing, or one too many was given; or the state lacks what a retry
            fills in.
        WorkerMissing: No worker of the model's queue took the request in time.
        ModelTimedOut: The call took longer than the action allows.
        AnswerDoesNotParse: The model's text is not a value of the output type.
        RequestError: The worker says that the request can never succeed (prompt too long, unknown probe …).
    """
    request = ThinkRequest(
        action=action.name,
        model=action.model,
        prompt=prompts.render(action.prompt, {**variables, **_context(ctx, action)}),
        sampling=action.sampling,
        capture=action.thought_capture,
        answer_format="json" if action.writes_json else "text",
        answer_schema=action.output_schema if action.constrained else None,
        prior_state=ctx.prior_thought_state if action.thought_capture.inject is not None else None,
    )
    ctx.draw_key = str(workflow.random_seed())
    show(ctx)
    options = ActivityConfig(**{**DEFAULT_OPTIONS, "task_queue": action.task_queue, **action.activity})
    options.setdefault("summary", f"{action.name} · {action.model}")
    try:
        message = await workflow.execute_activity(think, request, **options)
    except ActivityError as error:
        ctx.use(Usage(action=action.name, model=action.model, visits=1, visit=ctx.visits(action.name) + 1))
        show(ctx)
        if (reason := _translate(error, action, options)) is not None:
            raise reason from error
        raise
    try:
        return _receive(ctx, action, message)
    finally:
        show(ctx)


def _context(ctx: Context, action: ActionDef[T]) -> dict[str, object]:
    """The variables that a retry fills from the state."""
    found: dict[str, object] = {}
    for variable, path in action.context.items():
        value: object = ctx.state
        for step in path.split("."):
            if not isinstance(value, Mapping) or step not in value:
                raise PromptError(
                    f"action {action.name!r}: the retry fills {{{variable}}} from state.{path}, which has no {step!r}: "
                    "put it into Context.state before the action is tried again"
                )
            value = value[step]
        found[variable] = value
    return found


def show(ctx: Context) -> None:
    """Let people look at this run: `ctx` as the query `wonder.context`, and as a table in the Temporal UI.

    `act` calls it; details that the workflow's author has set are left alone. What audits are drawn with is not shown.
    """
    workflow.set_query_handler(CONTEXT_QUERY, lambda: ctx.model_dump(mode="json", exclude={"draw_key"}))
    if (workflow.get_current_details() or _DETAILS).startswith(_DETAILS):
        workflow.set_current_details(_DETAILS + "\n" + details(ctx))


def _receive(ctx: Context, action: ActionDef[T], message: ThinkAnswer) -> T:
    """File the trace, its confidence calibrated if it can be, and parse the answer."""
    trace = message.thought_trace or ThoughtTrace(
        action=action.name, model=action.model, confidence_reason="the worker sent no trace"
    )
    trace = calibrated(trace, message.calibration, message.calibration_reason)
    ctx.calibrations.pop(action.name, None)
    if message.calibration is not None and is_applied(trace, message.calibration):
        ctx.calibrations[action.name] = message.calibration
    trace = evaluate_claims(action.claims, trace)
    try:
        answer = action.parse(_document(message.text, json=action.writes_json))
    except ValueError as error:
        said = message.text if len(message.text) <= 200 else message.text[:200] + "…"
        reason = f"the answer does not parse: {error}"
        ctx.outputs.pop(action.name, None)
        ctx.thought_traces.append(
            trace.model_copy(
                update={
                    "overall_confidence": None,
                    "confidence_low": None,
                    "confidence_high": None,
                    "confidence_status": "unknown",
                    "confidence_reason": reason,
                }
            )
        )
        expected = getattr(action.output, "__name__", str(action.output))
        raise AnswerDoesNotParse(
            f"action {action.name!r}: the model wrote {said!r}, which is not a {expected} ({error}): "
            "catch AnswerDoesNotParse and send the run to a person, or change the prompt"
        ) from None
    ctx.thought_traces.append(trace)
    ctx.outputs[action.name] = answer
    if trace.compressed_state is not None:
        ctx.prior_thought_state = trace.compressed_state
    return answer


def _document(text: str, *, json: bool) -> str:
    """The part of a model's text that is its answer.

    Raises:
        ValueError: There is none.
    """
    found = value_spans(text, "json" if json else "text")
    if found.document is None:
        raise ValueError(found.reason)
    return text[found.document.start : found.document.stop]


def _translate(error: ActivityError, action: ActionDef[T], options: ActivityConfig) -> WonderError | None:
    """The failure of the activity as one of our own errors, or None where it is not ours."""
    cause = error.cause
    if isinstance(cause, TimeoutError) and cause.type == TimeoutType.SCHEDULE_TO_START:
        waited = options.get("schedule_to_start_timeout")
        seconds = f"{waited.total_seconds():g} s" if waited else "the allowed time"
        return WorkerMissing(
            f"action {action.name!r}: no worker took it from the queue {options.get('task_queue')!r} within {seconds}: "
            f"start one with `wonder-gpu-worker --model {action.model}`, or allow more time with "
            "ActionDef(activity={'schedule_to_start_timeout': …})"
        )
    if isinstance(cause, TimeoutError):
        what = "its worker fell silent" if cause.type == TimeoutType.HEARTBEAT else "it took longer than allowed"
        return ModelTimedOut(
            f"action {action.name!r} on {action.model!r}: {what}: "
            "allow more time with ActionDef(activity={'start_to_close_timeout': …}), or ask for fewer tokens"
        )
    if isinstance(cause, ApplicationError) and cause.type and (kind := by_name(cause.type)) is not None:
        return kind(cause.message)
    return None
