"""`compare`: several evaluated runs side by side on one page; for sweeps, and for what an objective is worth."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Final

from lens_training.artifacts import publish
from lens_training.evaluate.charts import Axis, Curve, chart, thinned
from lens_training.evaluate.page import axis, cell, number, page, track
from lens_training.evaluate.record import SHUFFLED, Evaluation, Figure, RowErrors, read_evaluation, read_rows
from lens_training.evaluate.report import axis_of
from lens_training.run_spec import RunSpec
from lens_training.train.progress import ProgressRecord, read_progress
from wonder.errors import ArtifactMissing, SpecError

KINDS: Final = ("lens", "other_texts", "true_words", "no_text")
"""Colours of curves, in this order and then again."""
SHOWN: Final = 8
"""Activations of which every run's text is shown."""
ABOUT_PLACES: Final = ("folder", "name", "register_as.", "launch.", "evaluation.samples", "parallel.")
"""Settings that decide no figure."""


@dataclass(frozen=True)
class Judged:
    """A run and what was measured of it."""

    title: str
    evaluation: Evaluation
    progress: Sequence[ProgressRecord]
    rows: RowErrors | None = None


@dataclass(frozen=True)
class Comparison:
    """What was put side by side, and where."""

    runs: Sequence[Judged]
    out: Path

    def summary(self) -> dict[str, str | int | float]:
        """What fits on a screen: variance explained of each."""
        return {"page": str(self.out), **{run.title: str(run.evaluation.greedy.fve) for run in self.runs}}


def compared(specs: Sequence[RunSpec], out: Path) -> Comparison:
    """Read the evaluations of runs and write the page.

    Raises:
        ArtifactMissing: A run was not evaluated.
        SpecError: There is only one.
        StoreNotUsable: The page cannot be written.
    """
    if len(specs) < 2:
        raise SpecError("one run cannot be compared: name the configurations of two or more")
    names = [spec.name for spec in specs]
    runs = []
    for at, spec in enumerate(specs):
        found = read_evaluation(spec.run_folder)
        if found is None:
            raise ArtifactMissing(f"{spec.run_folder} has no evaluation: run the stage evaluate there first")
        title = spec.name if names.count(spec.name) == 1 else f"{spec.name} {names[: at + 1].count(spec.name)}"
        runs.append(Judged(title, found, list(read_progress(spec.run_folder)), read_rows(spec.run_folder, found)))
    publish(out, comparison(runs).encode())
    return Comparison(runs, out)


def comparison(runs: Sequence[Judged]) -> str:
    """The whole page."""
    return page("Lenses side by side", _sections(runs))


def differences(runs: Sequence[Evaluation]) -> dict[str, list[str]]:
    """The settings in which runs differ → the value of each; "–" where a run has no such setting."""
    names = dict.fromkeys(name for run in runs for name in run.settings)
    found = {name: [run.settings.get(name, "–") for run in runs] for name in names if not name.startswith(ABOUT_PLACES)}
    return {name: values for name, values in found.items() if len(set(values)) > 1}


def paired(one: RowErrors | None, other: RowErrors | None, draws: int = 500) -> Figure | None:
    """Variance explained by one lens minus that by another, on the same draws of documents; None: other rows."""
    if one is None or other is None or one.rows_digest != other.rows_digest:
        return None
    sums: dict[int, list[float]] = {}
    for document, mine, theirs, spread in zip(one.document, one.error, other.error, one.spread, strict=True):
        held = sums.setdefault(document, [0.0, 0.0])
        held[0] += theirs - mine
        held[1] += spread
    pairs, chance = list(sums.values()), random.Random(0)
    drawn = sorted(_ratio(chance.choices(pairs, k=len(pairs))) for _ in range(draws))
    return Figure(value=_ratio(pairs), low=drawn[int(0.025 * draws)], high=drawn[int(0.975 * draws)])


def _ratio(pairs: Sequence[list[float]]) -> float:
    return sum(pair[0] for pair in pairs) / sum(pair[1] for pair in pairs)


def _sections(runs: Sequence[Judged]) -> Iterator[str]:
    first = runs[0].evaluation
    yield f"<h1>{len(runs)} lenses side by side</h1>"
    yield (
        f"<p class=soft>block {first.layer} · {first.rows:,} activations of {first.documents:,} held-out documents "
        f"({first.split})</p>"
    )
    if len({run.evaluation.rows_digest for run in runs}) > 1:
        yield (
            "<p class='say bad'>These lenses were measured on different activations, so their figures cannot be held "
            "against each other. Use the same dump, split, rows and seed.</p>"
        )
    for run in runs:
        if not run.evaluation.self_test.passed:
            yield f"<p class='say bad'>{escape(run.title)}: {escape(run.evaluation.warnings[0])}</p>"
    yield from _figures(runs)
    yield from _settings(runs)
    yield from _texts(runs)
    yield from _curves(runs)
    yield from _controls(runs)


def _figures(runs: Sequence[Judged]) -> Iterator[str]:
    low, marks = axis_of([run.evaluation.greedy.fve.low for run in runs])
    yield (
        f"<div class=wide><table><thead><tr><th></th><th>variance explained{axis(low, 1.0, marks)}</th>"
        "<th class=n>FVE</th><th class=n>behind<br>the best</th><th class=n>drawn</th>"
        "<th class=n>shuffled</th><th class=n>next token<br>recovered</th>"
        "<th class=n>ahead of the<br>true words</th><th class=n>text, nats<br>over true words</th>"
        "<th class=n>texts that<br>differ</th><th class=n>bits<br>at most</th><th "
        "class=n>steps</th></tr></thead><tbody>"
    )
    best = max(runs, key=lambda run: run.evaluation.greedy.fve.value)
    for at, run in enumerate(runs):
        found, own = run.evaluation, run.evaluation.greedy
        drawn, shuffled = found.line("drawn"), found.line(SHUFFLED)
        words = [line for line in found.lines if line.group == "true_words" and line.ahead is not None]
        quoted = max(words, key=lambda line: line.fve.value, default=None)
        over = None if own.nll_nats is None else own.nll_nats.value - found.texts.nll_tail_nats.value
        share = "–" if own.distinct_share is None else f"{own.distinct_share:.0%}"
        strong = " class=strong" if run is best else ""
        yield (
            f"<tr{strong}><td class='what name {KINDS[at % len(KINDS)]}'>{escape(run.title)}</td>"
            f"<td>{track(own.fve, low, 1.0, KINDS[at % len(KINDS)], marks)}</td>{cell(own.fve)}"
            f"{cell(None if run is best else paired(best.rows, run.rows))}"
            f"{cell(None if drawn is None else drawn.fve)}{cell(None if shuffled is None else shuffled.fve)}"
            f"{cell(own.kl_recovered)}{cell(None if quoted is None else quoted.ahead, signed=True)}"
            f"<td class=n>{'–' if over is None else ('+' if over > 0 else '') + number(over, 2)}</td>"
            f"<td class=n>{share}</td><td class=n>{number(found.texts.bits_most, 1)}</td>"
            f"<td class=n>{found.step:,}</td></tr>"
        )
    yield "</tbody></table></div>"
    yield (
        "<p><small>“Ahead of the true words”: of the best reading of the words that were really there. “Behind the "
        "best” draws the documents of both lenses together; the other intervals are of each lens alone.</small></p>"
    )


def _controls(runs: Sequence[Judged]) -> Iterator[str]:
    names = dict.fromkeys(line.name for run in runs for line in run.evaluation.lines)
    yield "<h2>Every control</h2><div class=wide><table><thead><tr><th></th>"
    yield "".join(f"<th class=n>{escape(run.title)}</th>" for run in runs) + "</tr></thead><tbody>"
    for name in names:
        lines = [run.evaluation.line(name) for run in runs]
        title = next(line.title for line in lines if line is not None)
        shown = name if name in {"quantised", "clustered"} else ""
        title = {"quantised": "principal directions, equal bits", "clustered": "k-means in rounds, equal bits"}.get(
            shown, title
        )
        yield f"<tr><td class=what>{escape(title)}</td>"
        yield "".join(cell(None if line is None else line.fve) for line in lines) + "</tr>"
    labels = dict.fromkeys(result.label for run in runs for result in run.evaluation.probes)
    for label in labels:
        for reading in ("activation", "reconstruction"):
            found = [_reading(run.evaluation, label, reading) for run in runs]
            yield f"<tr><td class=what>{escape(label)}, read from the {reading}</td>"
            yield "".join(map(cell, found)) + "</tr>"
    yield "</tbody></table></div>"


def _reading(found: Evaluation, label: str, name: str) -> Figure | None:
    readings = [one for result in found.probes if result.label == label for one in result.readings if one.name == name]
    return readings[0].accuracy if readings else None


def _settings(runs: Sequence[Judged]) -> Iterator[str]:
    different = differences([run.evaluation for run in runs])
    yield "<h2>In what they differ</h2>"
    if not different:
        yield "<p>In no setting that decides a figure.</p>"
        return
    yield "<div class=wide><table><thead><tr><th></th>"
    yield "".join(f"<th>{escape(run.title)}</th>" for run in runs) + "</tr></thead><tbody>"
    for name, values in different.items():
        yield f"<tr><td class=what><code>{escape(name)}</code></td>"
        yield "".join(f"<td>{escape(value)}</td>" for value in values) + "</tr>"
    yield "</tbody></table></div>"


def _curves(runs: Sequence[Judged]) -> Iterator[str]:
    def curves(value: Callable[[ProgressRecord], float | None]) -> list[Curve]:
        found = []
        for at, run in enumerate(runs):
            records = sorted({one.step: one for one in run.progress}.values(), key=lambda one: one.step)
            points = [(float(one.step), y) for one in records if (y := value(one)) is not None]
            found.append(Curve(run.title, thinned(points), KINDS[at % len(KINDS)]))
        return found

    across = Axis("step", low=0)
    charts = [
        chart("reconstruction error / variance", curves(lambda one: one.metrics.get("error")), across, Axis()),
        chart("entropy of the next token, nats", curves(lambda one: one.metrics.get("entropy")), across, Axis()),
    ]
    if any(charts):
        yield f"<h2>How they learned</h2><div class=charts>{''.join(charts)}</div>"


def _texts(runs: Sequence[Judged]) -> Iterator[str]:
    """What each lens says of activations that all of them show."""
    said = [{(one.document, one.position): one for one in run.evaluation.samples} for run in runs]
    shared = [place for place in said[0] if all(place in other for other in said)]
    if not shared:
        return
    yield "<h2>What they say of the same activations</h2><div class=cards>"
    for place in shared[:SHOWN]:
        one = said[0][place]
        current = escape(one.current.strip())
        yield f"<div class=card><div class=from><bdi>… {escape(one.context)} <mark>{current}</mark></bdi></div>"
        for at, (run, samples) in enumerate(zip(runs, said, strict=True)):
            sample = samples[place]
            yield (
                f"<div class=says><bdi>{escape(sample.text)}</bdi></div><div class=also><span class={KINDS[at % 4]}>"
                f"{escape(run.title)}</span> · error {number(sample.error, 2)}</div>"
            )
        yield "</div>"
    yield "</div>"
