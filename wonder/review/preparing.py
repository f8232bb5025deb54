"""What a request for a person is made of: the answer's type, the step it belongs to, texts cut to length."""

from datetime import timedelta
from typing import Any, TypeVar

from pydantic import TypeAdapter
from temporalio import workflow

from wonder.errors import DefinitionError
from wonder.review.summary import summarize
from wonder.review.types import ReviewRequest, ReviewState, ReviewSummary
from wonder.routing.context import Context
from wonder.routing.decision import RouteDecision

T = TypeVar("T")

SUMMARY_LIMIT_BYTES = 200
"""Temporal's limit for a workflow's one-line summary."""


def opening(id: str, request: ReviewRequest) -> ReviewSummary:
    """The item's row before its own workflow runs, so that a list shows it even when no worker does."""
    now = workflow.now()
    due_at = now + timedelta(seconds=request.sla_s)
    return summarize(request, ReviewState(id=id, status="open", opened_at=now, due_at=due_at, version=1))


def latest_step(ctx: Context) -> str:
    """The action that was routed last, else the one that ran last."""
    if ctx.decisions:
        return ctx.decisions[-1].after
    return ctx.thought_traces[-1].action if ctx.thought_traces else "review"


def decision_after(ctx: Context, step: str) -> RouteDecision | None:
    """The latest decision about a step."""
    return next((decision for decision in reversed(ctx.decisions) if decision.after == step), None)


def adapter_of(answer: T, output: type[T] | None) -> tuple[TypeAdapter[T], dict[str, Any]]:
    """How to read and write the answer, and its JSON schema.

    Raises:
        DefinitionError: Its type has none.
    """
    if output is None and answer is None:
        return TypeAdapter(Any), {}
    try:
        adapter: TypeAdapter[T] = TypeAdapter(output or type(answer))
        return adapter, adapter.json_schema()
    except Exception as error:
        raise DefinitionError(
            f"a {type(answer).__name__} cannot be reviewed: pydantic cannot describe it as JSON ({error}): "
            "pass a pydantic model, str, int, float, bool, an enum, a list or a dict"
        ) from error


def cut(text: str, limit: int) -> str:
    """At most so many characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def cut_bytes(text: str, limit: int) -> str:
    """At most so many bytes of UTF-8."""
    return text.encode()[:limit].decode(errors="ignore")
