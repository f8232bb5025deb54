"""What the demo tells at the end: who decided what, and how rightly."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError

from examples.ticket_triage.workflow import QUEUES, Resolution, Ticket, TicketTriage, Triage
from wonder.cli.run import reason_of
from wonder.errors import RequestError, WonderError
from wonder.history.reading import context_of
from wonder.names import review_id

PATIENCE_S = 300.0


@dataclass
class Case:
    """One ticket on its way."""

    id: str
    """Workflow id."""
    ticket: Ticket
    team: str | None = None
    """The truth, where the file has it."""
    urgency: str | None = None
    route: str = ""
    confidence: float | None = None
    answer: Triage | None = None
    """What the model said."""
    audited: bool = False
    """Accepted, and drawn for an audit."""
    review_id: str | None = None
    """The review it waits for."""
    resolution: Resolution | None = None
    failure: str = ""
    """Why the run failed, if it did."""
    decided_now: bool = False

    @property
    def model_is_right(self) -> bool:
        """Whether the model named the true team (only meaningful where the truth is known)."""
        return self.answer is not None and self.answer.team == self.team


async def follow(client: Client, case: Case, done: Callable[[int], object]) -> None:
    """Wait until a ticket is resolved, or waits for a person."""
    handle = client.get_workflow_handle_for(TicketTriage.run, case.id)
    first = case.review_id is None
    for _ in range(int(PATIENCE_S / 0.25)):
        description = await handle.describe()
        if description.status != WorkflowExecutionStatus.RUNNING:
            try:
                case.resolution = await handle.result()
            except WorkflowFailureError as error:
                case.failure = reason_of(error)
                done(1)
                return
            break
        if first and description.raw_description.pending_children:
            break
        await asyncio.sleep(0.25)
    else:
        raise WonderError(f"{case.id} neither ended nor asked a person within {PATIENCE_S:g} s: see its history")
    if first:
        ctx = await context_of(client, case.id)
        if not ctx.decisions:
            raise RequestError(f"{case.id} took no decision")
        case.route = ctx.decisions[-1].to
        case.audited = ctx.decisions[-1].audit
        case.confidence = ctx.thought_traces[-1].overall_confidence
        case.answer = Triage.model_validate(ctx.outputs["classify"]) if "classify" in ctx.outputs else None
        if case.route in QUEUES:
            case.review_id = review_id(case.id, "classify", 1)
        done(1)


def report(cases: Sequence[Case]) -> str:
    """The outcome of all tickets, as a table and a few examples."""
    failed = [case for case in cases if case.failure]
    cases = [case for case in cases if not case.failure]
    if not cases:
        return "\n".join(
            ["", f"  all {len(failed)} runs failed:", *(f"    {case.id}: {case.failure}" for case in failed[:5])]
        )
    known = all(case.team for case in cases)
    lines = ["", f"  {len(cases)} tickets" + ("" if known else " (no `team` in the file, so nothing is judged)"), ""]
    groups = (
        ("resolve", "resolved alone", "rightly"),
        ("human_review", "sent to people", "where the model alone would have been right"),
        ("legal_review", "sent to legal", "where the model alone would have been right"),
    )
    for route, what, how in groups:
        chosen = [case for case in cases if case.route == route]
        judged = ""
        if known and chosen:
            right = sum(case.model_is_right for case in chosen)
            judged = f"{right:>3} of {len(chosen)} {how} ({right / len(chosen):.0%})"
        lines.append(f"  {what:<15} {len(chosen):>3}  {bar(len(chosen) / len(cases))}  {judged}")
    if known:
        errors = [case for case in cases if not case.model_is_right]
        caught = sum(case.route != "resolve" for case in errors)
        reviewed = sum(case.route != "resolve" for case in cases)
        lines += [
            "",
            f"  Of the model's {len(errors)} errors, {caught} were caught while people look at "
            f"{reviewed} of {len(cases)} tickets ({reviewed / len(cases):.0%}).",
        ]
    if audited := sum(case.audited for case in cases):
        lines += ["", f"  {audited} of those resolved alone were drawn for an audit: `wonder review ls --queue audit`."]
    if failed:
        lines += ["", f"  {len(failed)} runs failed, for example {failed[0].id}: {failed[0].failure}"]
    waiting = [case for case in cases if case.review_id]
    if waiting:
        lines += ["", "  Waiting for people, for example:"]
        for case in sorted(waiting, key=lambda case: case.confidence if case.confidence is not None else 0.0)[:5]:
            sure = "  ?" if case.confidence is None else f"{case.confidence:>4.0%}"
            said = case.answer.team if case.answer else "no answer"
            lines.append(f"    {sure}  {said:<10} {shorten(case.ticket.text, 84)}")
    return "\n".join(lines)


def bar(share: float, width: int = 20) -> str:
    """A share as a bar."""
    full = round(share * width)
    return "█" * full + "·" * (width - full)


def shorten(text: str, limit: int) -> str:
    """The beginning of a text, on one line."""
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"
