"""An item as Markdown, for the panel "Current details" of the Temporal UI."""

import json
import shlex

from wonder.review.rules import at
from wonder.review.types import ReviewSummary, ReviewView

ANSWER_LIMIT = 4_000
PROMPT_SHOWN = 2_000
COMMENT_SHOWN = 500


def markdown(view: ReviewView, summary: ReviewSummary) -> str:
    """The answer, how sure the model was, why a person is asked, and how to decide."""
    request = view.request
    answer = _cut(json.dumps(request.answer, indent=2, ensure_ascii=False), ANSWER_LIMIT)
    sure = "unknown" if summary.confidence is None else f"{summary.confidence:.2f} ({summary.confidence_status})"
    state = view.status + (f" by {view.assignee} until {at(view.lease_until)}" if view.assignee else "")
    if view.status == "decided":
        state = f"decided by {view.decided_by}: {view.verdict}"
    lines = [
        f"### {request.title or summary.step or 'Review'}",
        "",
        f"**State:** {state}  ",
        f"**Confidence:** {sure}  ",
        f"**Why here:** {summary.why or 'not said'}  ",
        f"**Queue:** {request.queue} · **due** {at(view.due_at)}, then {request.on_timeout}",
        "",
        "```json",
        answer,
        "```",
    ]
    if request.prompt:
        lines += ["", "**The model was asked**", "", "```text", _cut(request.prompt, PROMPT_SHOWN), "```"]
    lines += [f"- {comment.reviewer}: {_cut(comment.text, COMMENT_SHOWN)}" for comment in view.comments[-5:]]
    if view.status in ("open", "claimed"):
        verdict = request.allowed[0]
        corrected = {"value": request.answer} if verdict == "edit" else {}
        decision = shlex.quote(json.dumps({"reviewer": "you", "verdict": verdict, **corrected}, ensure_ascii=False))
        id = shlex.quote(view.id)
        lines += [
            "",
            f"Decide: `wonder review {verdict} {id}`, or send the update `decide` from this page, or run",
            "",
            "```sh",
            f"temporal workflow update execute --workflow-id {id} --name decide --input {decision}",
            "```",
        ]
    return "\n".join(lines)


def _cut(text: str, limit: int) -> str:
    # Three backticks inside would end the fence early.
    text = text.replace("```", "'''")
    return text if len(text) <= limit else text[:limit] + "…"
