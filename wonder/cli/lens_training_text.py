"""A lens's training on a terminal: a run as a block or a line, its result, a sweep's table."""

import os
import time
from collections.abc import Mapping
from typing import IO, Final

from wonder.cli.review_text import clean
from wonder.training.types import LensProgress, LensReport, LensResult, State, SweepResult

CELLS: Final = 24
NOTES: Final = 6
_BOLD, _RESET = "\x1b[1m", "\x1b[0m"
_RED, _YELLOW, _GREEN = "\x1b[31m", "\x1b[33m", "\x1b[32m"
_COLOURS: Final[dict[State, str]] = {"failed": _RED, "refused": _YELLOW, "paused": _YELLOW, "done": _GREEN}


def colour(out: IO[str]) -> bool:
    """Whether to colour what goes there."""
    return out.isatty() and not os.environ.get("NO_COLOR")


def status(found: LensProgress, *, colour: bool) -> list[str]:
    """A run as a block."""
    state = f"{_COLOURS.get(found.state, '')}{found.state}{_RESET}" if colour else found.state
    name = f"{_BOLD}{found.name}{_RESET}" if colour else found.name
    told = [f"{name}  {state} · {found.stage}", *_progress(found)]
    told += [_row("pool", found.pool), _row("folder", found.folder)]
    if found.stage == "train":
        tried = f", attempt {found.attempt + 1}" if found.attempt else ""
        told.append(_row("segment", f"{found.segment}{tried} · checkpoint {_step(found.checkpoint)}"))
    changed = [f"learning rates × {found.rate_scale:g}"] if found.rate_scale != 1 else []
    changed += [f"batches in {found.pieces} times as many pieces"] if found.pieces != 1 else []
    told += [_row("changed", " · ".join(changed))] if changed else []
    told += _job(found.report) if found.report is not None else []
    told += [_row("measured", _numbers(found.evaluation))] if found.evaluation else []
    for title, said in (("refused because", found.reasons), ("on the way", found.notes[-NOTES:])):
        told += ["", f"  {title}", *(f"    {clean(sentence)}" for sentence in said)] if said else []
    return told


def line(found: LensProgress) -> str:
    """A run in a line, for a log."""
    parts: list[str] = [found.state, found.stage]
    if found.stage == "train" and found.steps:
        parts.append(f"step {found.step:,} of {found.steps:,}")
    report = found.report
    if report is not None and report.done is not None:
        parts.append(f"{report.done:,} of {report.total or 0:,} {report.unit}")
    if report is not None and report.loss is not None:
        parts.append(f"loss {report.loss:.4g}")
    return f"{found.name}: {' · '.join(parts)}"


def result(found: LensResult) -> list[str]:
    """What a run came to."""
    told = [f"{found.outcome} after {found.step:,} of {found.steps:,} steps in {found.segments} segments"]
    if found.restarts:
        told[0] += f"; {found.restarts} jobs were started again"
    told.append(_row("folder", found.folder))
    told += [_row("bundle", found.bundle)] if found.bundle else []
    told += [_row("measured", _numbers(found.evaluation))] if found.evaluation else []
    return told + [_row("refused", clean(reason)) for reason in found.reasons]


def sweep(found: SweepResult) -> list[str]:
    """The arms, best first."""
    rows = [("ARM", "OUTCOME", "FVE", "KL RECOVERED", "STEP", "")]
    for arm in found.arms:
        fve, kl = ("–" if value is None else f"{value:.3f}" for value in (arm.fve, arm.kl_recovered))
        rows.append((clean(arm.arm), arm.outcome, fve, kl, f"{arm.step:,}", clean(arm.note)))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    told = ["  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[-1]]).rstrip() for row in rows]
    where = f" ({found.bundle})" if found.bundle else ""
    done = "registered" if found.registered else "exported"
    return [*told, "", f"{found.best} is {done}{where}" if found.best else "no arm passed its gate"]


def _progress(found: LensProgress) -> list[str]:
    report = found.report
    if found.stage == "train" and found.steps:
        parts = [f"{_bar(found.step, found.steps)} {found.step:,} of {found.steps:,} steps"]
        if report is not None and report.steps_per_s:
            parts.append(f"{report.steps_per_s:.3g} steps/s")
    elif report is not None and report.done is not None and report.total:
        parts = [f"{_bar(report.done, report.total)} {report.done:,} of {report.total:,} {report.unit}"]
    else:
        return []
    if report is not None and report.eta_s and found.state == "running":
        parts.append(f"{_span(report.eta_s)} to go")
    return ["  " + " · ".join(parts)]


def _job(report: LensReport) -> list[str]:
    where = f" on {report.node}" if report.node else ""
    part = f" (slice {report.part})" if report.part else ""
    age = f", last report {_span(max(0.0, time.time() - report.time))} ago" if report.time else ""
    told = [_row("job", f"{report.job}{where}{part} {report.state}{age}")]
    if report.loss is not None:
        numbers = f" · {_numbers(report.metrics)}" if report.metrics else ""
        told.append(_row("loss", f"{report.loss:.4g} ({report.phase}){numbers}"))
    return told


def _numbers(found: Mapping[str, object]) -> str:
    said = (f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in found.items())
    return " · ".join(said)


def _row(name: str, value: str) -> str:
    return f"  {name:<10}{value}"


def _step(step: int) -> str:
    return f"at step {step:,}" if step else "none yet"


def _bar(done: int, total: int) -> str:
    full = round(CELLS * min(1.0, done / max(total, 1)))
    return "█" * full + "░" * (CELLS - full)


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
