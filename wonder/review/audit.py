"""`audit_review`: have a person look at an accepted answer that was drawn for an audit, while the run goes on."""

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import TypeVar

from pydantic import JsonValue
from temporalio import workflow
from temporalio.exceptions import WorkflowAlreadyStartedError

from wonder.names import WORKFLOW_QUEUE, audit_id
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
from wonder.review.types import PROMPT_LIMIT, SUMMARY_MEMO, Origin, ReviewRequest
from wonder.review.workflow import HumanReview
from wonder.routing.context import Context

T = TypeVar("T")

AUDIT_PATCH = "wonder.audit"
"""Lets runs that began before audits were turned on replay without them."""


async def audit_review(
    ctx: Context,
    answer: T,
    *,
    queue: str = "audit",
    sla: timedelta = timedelta(days=7),
    title: str = "",
    prompt: str = "",
    step: str | None = None,
    output: type[T] | None = None,
    reviewers: Sequence[str] = (),
    search_attributes: bool | None = None,
    task_queue: str = WORKFLOW_QUEUE,
) -> str | None:
    """Open a review of the answer if the latest decision was drawn for an audit; nothing otherwise.

    The review outlives the run and changes nothing in it: what people say is for calibration and for whoever watches
    the error rate of accepted answers. One that nobody decides in time ends as failed, because a verdict that nobody
    gave is no verdict.

    Args:
        ctx: The run's memory; its latest decision about the step says whether the answer was drawn.
        answer: What to look at.
        queue: Where reviewers look for it.
        sla: How long people have.
        title: One line for the list; made from the step and the answer by default.
        prompt: What the model was asked, for the reviewer to read.
        step: The action that gave the answer; by default the one that was routed last.
        output: The answer's type, where `type(answer)` does not tell it.
        reviewers: Who may handle it; everybody by default.
        search_attributes: As in `human_review`.
        task_queue: Where the review itself runs.

    Returns:
        Workflow id of the review; None where the answer was not drawn.

    Raises:
        DefinitionError: The answer's type has no JSON schema.
    """
    step = step or latest_step(ctx)
    decision = decision_after(ctx, step)
    if decision is None or not decision.audit or not workflow.patched(AUDIT_PATCH):
        return None
    adapter, schema = adapter_of(answer, output)
    value: JsonValue = adapter.dump_python(answer, mode="json", by_alias=True, warnings=False)
    info = workflow.info()
    n = 0
    while True:
        n += 1
        id = audit_id(info.workflow_id, step, n)
        request = ReviewRequest(
            title=cut(title or f"{step}: {json.dumps(value, ensure_ascii=False)}", 120),
            queue=queue,
            answer=value,
            answer_schema=schema,
            allowed=["approve", "edit", "reject"],
            reviewers=list(reviewers),
            prompt=cut(prompt, PROMPT_LIMIT),
            trace=ctx.trace(step),
            decision=decision,
            why=cut(f"audit of an accepted answer: {decision.explanation}", 500),
            sla_s=sla.total_seconds(),
            on_timeout="fail",
            origin=Origin(
                workflow_id=info.workflow_id, run_id=info.run_id, workflow_type=info.workflow_type, step=step, n=n
            ),
            audit=True,
            search_attributes=attributes.enabled.get() if search_attributes is None else search_attributes,
        )
        try:
            await workflow.start_child_workflow(
                HumanReview.run,
                request,
                id=id,
                task_queue=task_queue,
                memo={SUMMARY_MEMO: opening(id, request)},
                cancellation_type=workflow.ChildWorkflowCancellationType.ABANDON,
                parent_close_policy=workflow.ParentClosePolicy.ABANDON,
                static_summary=cut_bytes(f"audit · {request.title}", SUMMARY_LIMIT_BYTES),
            )
        except WorkflowAlreadyStartedError:
            continue  # a step of this run that was audited before, or an earlier run of this workflow id
        return id
