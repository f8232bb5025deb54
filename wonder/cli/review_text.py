"""Reviews on a terminal: the table of what waits, and one item with its tokens shaded by confidence."""

import json
from collections.abc import Sequence
from datetime import datetime

from wonder.cli.show import route
from wonder.review.types import ReviewSummary, ReviewView
from wonder.trace.explanation import guesses
from wonder.trace.schema import ThoughtTrace

SURE = 0.9
DOUBTFUL = 0.6
DOUBTFUL_SHOWN = 5
"""Tokens whose alternatives are printed."""
BAR_CELLS = 5
COLUMN_LIMIT = 60
"""Characters of a title or a reason in the table."""

_RESET, _BOLD = "\x1b[0m", "\x1b[1m"
_WAVERING, _DOUBTED = "\x1b[33m", "\x1b[31;4m"


def table(rows: Sequence[ReviewSummary], now: datetime) -> list[str]:
    """One line per item, columns aligned."""
    if not rows:
        return ["nothing waits"]
    cells: list[tuple[str, ...]] = [("CONFIDENCE", "DUE", "STATE", "ID", "TITLE", "WHY")]
    for row in rows:
        state = f"{row.assignee} has it" if row.status == "claimed" else row.status
        if row.status == "decided":
            state = f"{row.verdict} by {row.decided_by}"
        due = "" if row.closed_at else until(row.due_at, now)
        cells.append((bar(row.confidence), due, clean(state), clean(row.id), _cut(row.title), _cut(row.why)))
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]) - 1)]
    return ["  ".join([*(c.ljust(w) for c, w in zip(line, widths, strict=False)), line[-1]]).rstrip() for line in cells]


def item(view: ReviewView, now: datetime, *, colour: bool) -> list[str]:
    """Everything a person needs to decide."""
    request, trace = view.request, view.request.trace
    state: str = view.status
    if view.status == "claimed" and view.lease_until:
        state = f"claimed by {clean(view.assignee)}, {until(view.lease_until, now)} left"
    elif view.decision:
        state = f"decided by {clean(view.decision.reviewer)}: {view.decision.verdict}"
    told = [
        _bold(clean(request.title) or view.id, colour),
        f"  id          {clean(view.id)} (version {view.version})",
        f"  queue       {clean(request.queue)}",
        f"  state       {state}",
    ]
    if view.closed_at is None:
        told.append(f"  due         {until(view.due_at, now)}, then {request.on_timeout}")
    if request.origin:
        told.append(f"  asked by    {clean(request.origin.workflow_id)} ({clean(request.origin.workflow_type)})")
    told += _trace(trace, colour=colour) if trace else []
    told += ["", _bold("Answer", colour), *_json(request.answer)]
    if view.decision and view.decision.verdict == "edit":
        told += ["", _bold("Corrected", colour), *_json(view.decision.value)]
    if request.why or request.decision:
        told += ["", _bold("Why it is here", colour)]
        told += [f"  {clean(request.why)}"] if request.why else []
        told += [clean(line) for line in route(request.decision)] if request.decision else []
    if request.prompt:
        told += [
            "",
            _bold("The model was asked", colour),
            *(f"  {clean(line)}" for line in request.prompt.splitlines()),
        ]
    if view.comments:
        told += ["", _bold("Comments", colour), *(f"  {clean(c.reviewer)}: {clean(c.text)}" for c in view.comments)]
    told += ["", _bold("History", colour)]
    told += [
        f"  {e.time:%Y-%m-%d %H:%M:%S}  {clean(e.actor)}  {e.what.replace('_', ' ')}  {clean(e.note)}".rstrip()
        for e in view.log
    ]
    if view.closed_at is None:
        told += ["", f"wonder review {'|'.join(request.allowed)} {view.id}"]
    return told


def strip(trace: ThoughtTrace, *, colour: bool) -> str:
    """The generated tokens: shaded where the model wavered, underlined too where it doubted.

    Without colour a doubtful token is followed by its probability.
    """
    told = ""
    for index, token in enumerate(trace.tokens):
        sure = trace.token_confidences[index] if index < len(trace.token_confidences) else None
        text = clean(token)
        if sure is None or sure >= SURE:
            told += text
        elif colour:
            told += f"{_WAVERING if sure >= DOUBTFUL else _DOUBTED}{text}{_RESET}"
        else:
            told += f"{text}[{sure:.0%}]"
    return told


def bar(confidence: float | None) -> str:
    """A confidence as a bar and a percentage."""
    if confidence is None:
        return "?" * BAR_CELLS + "   ?"
    full = round(confidence * BAR_CELLS)
    return "█" * full + "░" * (BAR_CELLS - full) + f" {confidence:>4.0%}"


def until(time: datetime, now: datetime) -> str:
    """How long it is until a time, in the two largest units."""
    seconds = int((time - now).total_seconds())
    if seconds < 0:
        return f"overdue {_span(-seconds)}"
    return _span(seconds)


def clean(text: str) -> str:
    """Text without control characters: what a model wrote must not steer the terminal."""
    return "".join("⏎" if c == "\n" else c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _trace(trace: ThoughtTrace, *, colour: bool) -> list[str]:
    reason = f": {clean(trace.confidence_reason)}" if trace.confidence_reason else ""
    told = [
        f"  model       {clean(trace.model)} · {clean(trace.action)}",
        f"  confidence  {bar(trace.overall_confidence)} ({trace.confidence_method}, {trace.confidence_status}){reason}",
    ]
    if trace.active_concepts:
        named = sorted(trace.active_concepts.items(), key=lambda pair: -pair[1])
        told.append("  concepts    " + ", ".join(f"{clean(name)} {chance:.0%}" for name, chance in named))
    if trace.tokens:
        told.append(f"  tokens      {strip(trace, colour=colour)}")
    told += [f"  in words    {line}" for line in guesses(trace.explanations)]
    wavering = [(sure, i) for i, sure in enumerate(trace.token_confidences) if sure is not None and sure < SURE]
    for _, index in sorted(wavering)[:DOUBTFUL_SHOWN]:
        if index < len(trace.top_alternatives):
            rivals = (f"{clean(o.token)!r} {o.probability:.0%}" for o in trace.top_alternatives[index])
            told.append(f"              instead of {clean(trace.tokens[index])!r}: {' · '.join(rivals)}")
    for doubt in trace.least_certain[:DOUBTFUL_SHOWN]:
        if doubt.confidence is not None and doubt.confidence < SURE:
            rivals = (f"{clean(o.token)!r} {o.probability:.0%}" for o in doubt.alternatives)
            told.append(f"              token {doubt.index}, {clean(doubt.token)!r}: {' · '.join(rivals)}")
    return told


def _cut(text: str) -> str:
    shown = clean(text)
    return shown if len(shown) <= COLUMN_LIMIT else shown[: COLUMN_LIMIT - 1] + "…"


def _json(value: object) -> list[str]:
    # json escapes control characters itself; only the characters above ASCII are left to clean.
    return [f"  {clean(line)}" for line in json.dumps(value, indent=2, ensure_ascii=False).splitlines()]


def _bold(text: str, colour: bool) -> str:
    return f"{_BOLD}{text}{_RESET}" if colour else text


def _span(seconds: int) -> str:
    for unit, size, smaller, part in (("d", 86_400, "h", 3_600), ("h", 3_600, "min", 60), ("min", 60, "s", 1)):
        if seconds >= size:
            rest = seconds % size // part
            return f"{seconds // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{seconds} s"
