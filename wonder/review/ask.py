"""`human_review`: ask a person from inside a workflow, and get a typed answer back."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Generic, TypeVar

from pydantic import JsonValue, ValidationError
from temporalio import workflow
from temporalio.exceptions import ApplicationError, ChildWorkflowError, WorkflowAlreadyStartedError

from wonder.errors import ReviewTimedOut
from wonder.names import WORKFLOW_QUEUE, review_id
from wonder.review import attributes
from wonder.review.preparing import (
    SUMMARY_LIMIT_BYTES,
    adapter_of,
    cut,
    cut_bytes,
    decision_after,
    latest_step,
    opening,
)
from wonder.review.types import (
    DEFAULT_LEASE_S,
    PROMPT_LIMIT,
    SUMMARY_MEMO,
    OnTimeout,
    Origin,
    ReviewOutcome,
    ReviewRequest,
    Verdict,
)
from wonder.review.workflow import HumanReview
from wonder.routing.context import Context

T = TypeVar("T")


@dataclass(frozen=True)
class Reviewed(Generic[T]):
    """What came of a review."""

    value: T
    """The answer that counts: the corrected one after `edit`, else the one that was asked about (also after
    `reject`: look at `verdict` before using it)."""
    verdict: Verdict
    reviewer: str
    """Empty when nobody decided in time."""
    comment: str
    timed_out: bool
    """Nobody decided in time, and `verdict` is what `on_timeout` says."""
    review_id: str
    """Workflow id of the review."""


async def human_review(
    ctx: Context,
    answer: T,
    *,
    sla: timedelta,
    on_timeout: OnTimeout = "fail",
    queue: str = "default",
    title: str = "",
    why: str = "",
    prompt: str = "",
    step: str | None = None,
    output: type[T] | None = None,
    allowed: Sequence[Verdict] = ("approve", "edit", "reject"),
    reviewers: Sequence[str] = (),
    lease: timedelta = timedelta(seconds=DEFAULT_LEASE_S),
    search_attributes: bool | None = None,
    task_queue: str = WORKFLOW_QUEUE,
) -> Reviewed[T]:
    """Let a person look at an answer, and wait for what they say.

    The item shows the latest trace of the step and the routing decision that followed it. If the workflow is
    cancelled or ends meanwhile, the item is withdrawn. An edit that fits the JSON schema but that the type itself
    refuses is put to the reviewers again, within the same deadline.

    Args:
        ctx: The run's memory.
        answer: What to ask about; its type is the type of the result.
        sla: How long people have.
        on_timeout: What happens then: `fail` raises `ReviewTimedOut`; `approve` and `reject` return that verdict
            with `timed_out=True`.
        queue: Where reviewers look for it.
        title: One line for the list; made from the step and the answer by default.
        why: Why a person is asked; the routing decision's explanation by default.
        prompt: What the model was asked, for the reviewer to read.
        step: The action that gave the answer; by default the one that was routed last, else the one that ran last.
        output: The answer's type where `type(answer)` does not tell it (a Literal, a list of models). With it the
            answer may be None, because the model's text did not parse: then a person can give the answer or reject,
            but not approve, and `on_timeout="approve"` fails.
        allowed: The verdicts on offer.
        reviewers: Who may handle it; everybody by default.
        lease: How long a claim lasts.
        search_attributes: Set Wonder's search attributes, which must be registered in the namespace; None: as the
            worker's `WonderPlugin` says.
        task_queue: Where the review itself runs; `wonder-cpu-worker` serves the default.

    Returns:
        The verdict and the answer that counts, typed like `answer`.

    Raises:
        ReviewTimedOut: Nobody decided in time, and `on_timeout` is `fail`.
        DefinitionError: The answer's type has no JSON schema.
    """
    step = step or latest_step(ctx)
    adapter, schema = adapter_of(answer, output)
    value: JsonValue = adapter.dump_python(answer, mode="json", by_alias=True, warnings=False)
    if answer is None and output is not None:
        # There is nothing to approve, neither for a person nor at the deadline.
        allowed = [verdict for verdict in allowed if verdict != "approve"]
        on_timeout = "fail" if on_timeout == "approve" else on_timeout
    decision = decision_after(ctx, step)
    if decision is not None and not decision.audit:
        # The workflow itself asks, whatever its table calls the target, so this answer was certain to be looked at.
        decision = decision.model_copy(update={"propensity": 1.0})
    due_at = workflow.now() + sla
    while True:
        request = ReviewRequest(
            title=cut(title or f"{step}: {json.dumps(value, ensure_ascii=False)}", 120),
            queue=queue,
            answer=value,
            answer_schema=schema,
            allowed=list(allowed),
            reviewers=list(reviewers),
            prompt=cut(prompt, PROMPT_LIMIT),
            trace=ctx.trace(step) or (ctx.thought_traces[-1] if ctx.thought_traces else None),
            decision=decision,
            why=cut(why, 500),
            sla_s=max((due_at - workflow.now()).total_seconds(), 1.0),
            on_timeout=on_timeout,
            lease_s=lease.total_seconds(),
            search_attributes=attributes.enabled.get() if search_attributes is None else search_attributes,
        )
        id, outcome = await _ask(ctx, step, request, task_queue)
        if outcome.verdict != "edit":
            final = answer
        else:
            try:
                final = adapter.validate_json(json.dumps(outcome.value))
            except ValidationError as error:
                said = "; ".join(f"{'.'.join(map(str, p['loc'])) or 'the answer'}: {p['msg']}" for p in error.errors())
                why = f"{outcome.reviewer}'s edit {cut(json.dumps(outcome.value), 200)} is refused by the type: {said}"
                continue
        return Reviewed(final, outcome.verdict, outcome.reviewer, outcome.comment, outcome.timed_out, id)


async def _ask(ctx: Context, step: str, request: ReviewRequest, task_queue: str) -> tuple[str, ReviewOutcome]:
    """Run the review as a child, under the next free number."""
    info = workflow.info()
    while True:
        n = ctx.reviews[step] = ctx.reviews.get(step, 0) + 1
        id = review_id(info.workflow_id, step, n)
        origin = Origin(
            workflow_id=info.workflow_id, run_id=info.run_id, workflow_type=info.workflow_type, step=step, n=n
        )
        request = request.model_copy(update={"origin": origin})
        try:
            outcome = await workflow.execute_child_workflow(
                HumanReview.run,
                request,
                id=id,
                task_queue=task_queue,
                memo={SUMMARY_MEMO: opening(id, request)},
                parent_close_policy=workflow.ParentClosePolicy.REQUEST_CANCEL,
                static_summary=cut_bytes(f"review · {request.title}", SUMMARY_LIMIT_BYTES),
            )
        except WorkflowAlreadyStartedError:
            continue  # an earlier run of this workflow id left a review open: take the next number
        except ChildWorkflowError as error:
            if isinstance(error.cause, ApplicationError) and error.cause.type == ReviewTimedOut.__name__:
                raise ReviewTimedOut(error.cause.message) from error
            raise
        return id, outcome
