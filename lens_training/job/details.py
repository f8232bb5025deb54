"""A run at a glance, as Markdown for the Temporal UI."""

from wonder.training.types import LensProgress, LensReport

NOTES = 12


def markdown(progress: LensProgress) -> str:
    """State, numbers and what happened on the way."""
    lines = [f"### {progress.name}: {progress.state} · {progress.stage}", ""]
    if progress.steps:
        share = 100 * progress.step / progress.steps
        lines += [
            f"`{bar(progress.step, progress.steps)}` {progress.step:,} of {progress.steps:,} steps ({share:.0f} %)",
            "",
        ]
    lines += ["| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in _rows(progress)]
    for title, said in (("Refused", progress.reasons), ("On the way", progress.notes[-NOTES:])):
        if said:
            lines += ["", f"**{title}**", "", *(f"* {sentence}" for sentence in said)]
    return "\n".join(lines)


def bar(done: int, total: int, cells: int = 20) -> str:
    """A share as a bar."""
    full = round(cells * min(1.0, done / max(total, 1)))
    return "█" * full + "░" * (cells - full)


def _rows(progress: LensProgress) -> list[tuple[str, str]]:
    rows = [("pool", progress.pool), ("folder", f"`{progress.folder}`")]
    if progress.stage == "train":
        rows.append(("segment", f"{progress.segment}, attempt {progress.attempt + 1}"))
        rows.append(("checkpoint", f"step {progress.checkpoint:,}" if progress.checkpoint else "none yet"))
    if progress.rate_scale != 1:
        rows.append(("learning rates", f"× {progress.rate_scale:g}, after the loss was no number"))
    if progress.pieces != 1:
        rows.append(("pieces", f"× {progress.pieces}, after memory was too small"))
    rows += _live(progress.report) if progress.report is not None else []
    rows += [(name, str(value)) for name, value in progress.evaluation.items()]
    return rows


def _live(report: LensReport) -> list[tuple[str, str]]:
    rows = [("job", f"`{report.job}`" + (f" on {report.node}" if report.node else ""))]
    if report.step is not None:
        loss = "" if report.loss is None else f", loss {report.loss:.4g}"
        rows.append(("last report", f"step {report.step:,}{loss} ({report.phase})"))
    if report.done is not None:
        rows.append(("done", f"{report.done:,} of {report.total or 0:,} {report.unit}"))
    if report.steps_per_s:
        rows.append(("speed", f"{report.steps_per_s:.3g} steps/s"))
    if report.eta_s is not None:
        rows.append(("to go", f"{report.eta_s / 60:.0f} min"))
    rows += [(name, f"{value:.4g}") for name, value in report.metrics.items()]
    return rows
