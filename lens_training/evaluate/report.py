"""`report.html`: an evaluation as one page that anybody can open; torch-free."""

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from itertools import pairwise
from typing import Final

from lens_training.evaluate.charts import Axis, Curve, chart, thinned
from lens_training.evaluate.page import axis, cell, facts, interval, key, number, page, track
from lens_training.evaluate.record import (
    DISTINCT_ROWS,
    SHUFFLED,
    Evaluation,
    Group,
    Line,
    NextToken,
    ProbeResult,
    Reading,
    Sample,
)
from lens_training.train.progress import ProgressRecord

GROUPS: Final[dict[Group, str]] = {
    "lens": "The lens",
    "other_texts": "Its texts tampered with, read by its encoder",
    "true_words": "The words that were really there",
    "no_text": "No words at all",
}
CHARTED: Final = ("loss", "error", "ce", "entropy", "error_tail", "kl", "reward_spread")
NAMES: Final = {
    "error": "reconstruction error / variance",
    "ce": "cross-entropy of the true words, nats",
    "entropy": "entropy of the decoder's next token, nats",
    "error_tail": "error from the true words / variance",
    "kl": "KL at the position, nats",
    "reward_spread": "spread of the reward within a group",
}
KINDS: Final = {"best": "Best", "median": "Middle", "worst": "Worst", "random": "At random"}


def report(found: Evaluation, progress: Sequence[ProgressRecord] = ()) -> str:
    """The whole page."""
    title = f"{found.run}: what its lens is worth"
    return page(title, _sections(found, progress))


def _sections(found: Evaluation, progress: Sequence[ProgressRecord]) -> Iterator[str]:
    yield from heading(found)
    yield from _table(found)
    yield from _bits(found)
    yield from _probes(found)
    yield from _slices(found)
    yield from _samples(found.samples)
    yield from _learning(progress)
    yield from _method(found)


def heading(found: Evaluation) -> Iterator[str]:
    """Title, what can be believed, and the four figures that matter."""
    own, texts = found.greedy, found.texts
    yield f"<h1>{escape(found.run)}: what its lens is worth</h1>"
    yield (
        f"<p class=soft>block {found.layer} of {escape(_short(found.model))} · step {found.step:,} of "
        f"{found.steps:,} · "
        f"{found.weights} weights · {found.rows:,} activations of {found.documents:,} held-out documents "
        f"({found.split}) · {escape(found.created[:10])}</p>"
    )
    test = found.self_test
    if not test.passed:
        yield f"<p class='say bad'>{escape(found.warnings[0])}</p>"
    yield f"<p class=lead>{escape(_sentence(found))}</p>"
    kl = own.kl_recovered
    nll = own.nll_nats
    yield "<div class=tiles>"
    yield _tile("variance explained", number(own.fve.value), interval(own.fve))
    if kl is not None:
        yield _tile("next token recovered", number(kl.value), f"{interval(kl)} of {number(found.kl_mean_nats, 2)} nats")
    if nll is not None:
        yield _tile(
            "nats per token of its texts",
            number(nll.value, 2),
            f"true words {number(texts.nll_tail_nats.value, 2)}, random ones {number(texts.nll_random_nats.value, 2)}",
        )
    if own.distinct_share is not None:
        yield _tile(
            "texts that differ", f"{own.distinct_share:.0%}", f"of the true words {texts.distinct_tail_share:.0%}"
        )
    yield "</div>"
    if test.passed:
        yield (
            "<p class='say good'>Replacement self-test passed: an activation put in its own place moves the next token "
            f"by {test.kl_max_nats:.1e} nats at most, {test.tolerance_nats:.0e} allowed.</p>"
        )
    for sentence in found.warnings[0 if test.passed else 1 :]:
        yield f"<p class=say>{escape(sentence)}</p>"


def _sentence(found: Evaluation) -> str:
    own, length = found.greedy, found.texts.length
    told = f"{length} tokens of text give back {_percent(own.fve.value)} of the variance of these activations"
    if own.kl_recovered is not None:
        told += f" and {_percent(own.kl_recovered.value)} of what they tell the model about its next token"
    quoted = max(
        (line for line in found.lines if line.group == "true_words"), key=lambda line: line.fve.value, default=None
    )
    if quoted is not None and quoted.ahead is not None:
        ahead = quoted.ahead
        against = f"the best reading of the true words ({quoted.title}, {number(quoted.fve.value)})"
        if ahead.low > 0:
            told += f"; {number(ahead.value)} more variance than {against}"
        elif ahead.high < 0:
            told += f"; {number(-ahead.value)} less variance than {against}"
        else:
            told += f"; that is not told apart from {against}"
    return told + "."


def _table(found: Evaluation) -> Iterator[str]:
    low, marks = axis_of(line.fve.low for line in found.lines)
    yield "<h2>Beside what would be had without it</h2>"
    yield (
        "<p>Every line reconstructs the same activations and is measured with the same draws of documents; dots are "
        "values, bars 95 % intervals. “Lens ahead by” compares draw by draw.</p>"
    )
    yield key(GROUPS.items())
    yield (
        "<div class=wide><table><thead><tr><th></th>"
        f"<th>variance explained{axis(low, 1.0, marks[:: len(marks) // 2])}</th><th class=n>FVE</th>"
        "<th class=n>lens<br>ahead by</th>"
        "<th class=n>next token<br>recovered</th><th class=n>likeliest<br>token stays</th>"
        "<th class=n>median<br>dimension</th><th class=n>norm<br>ratio</th><th class=n>centred<br>cosine</th>"
        "<th class=n>text, nats<br>per token</th><th class=n>texts that<br>differ</th></tr></thead><tbody>"
    )
    for group, name in GROUPS.items():
        lines = [line for line in found.lines if line.group == group]
        if lines:
            yield f"<tr class='head {group}'><td colspan=11>{escape(name)}</td></tr>"
        for line in lines:
            yield _line(line, low, marks, found)
    yield "</tbody></table></div>"
    shuffled = found.line(SHUFFLED)
    if shuffled is not None:
        yield (
            f"<p><small>Self-check of the encoder: if it gives the mean of everything a text may stand for, shuffled "
            f"texts come to minus the lens's own figure. They come to {number(shuffled.fve.value)}, and that would be "
            f"{number(-found.greedy.fve.value)}. The dashed mark shows it.</small></p>"
        )


def _line(line: Line, low: float, marks: Sequence[float], found: Evaluation) -> str:
    note = f"<small>{escape(line.note)}</small>" if line.note else ""
    dashed = -found.greedy.fve.value if line.name == SHUFFLED else None
    strong = " class=strong" if line.name == found.greedy.name else ""
    share = "–" if line.distinct_share is None else f"{line.distinct_share:.0%}"
    return (
        f"<tr{strong}><td class=what>{escape(line.title)}{note}</td>"
        f"<td>{track(line.fve, low, 1.0, line.group, marks, dashed)}</td>"
        f"{cell(line.fve)}{cell(line.ahead, signed=True)}{cell(line.kl_recovered)}{cell(line.agreement, 2)}<td "
        f"class=n>{number(line.r2_median, 2)}</td>"
        f"<td class=n>{number(line.norm_ratio.value, 2)}</td><td class=n>{number(line.cosine.value, 2)}</td>"
        f"{cell(line.nll_nats, 2)}<td class=n>{share}</td></tr>"
    )


def _bits(found: Evaluation) -> Iterator[str]:
    texts, own = found.texts, found.greedy
    clusters = sorted(
        (line.bits, line.fve) for line in found.lines if line.bits is not None and line.name.startswith("clustered")
    )
    yield "<h2>What as many bits would buy</h2>"
    yield (
        f"<p>A greedy text follows from its activation, so whatever entropy it has is about the activation. It is at "
        f"most "
        f"<b>{number(texts.bits_most, 1)} bits</b>: the smaller of the entropies of the tokens that rows have at each "
        f"place, summed over {texts.length} places, and the length of the texts in the target's own code. It is at "
        f"least "
        f"{number(texts.bits_least, 1)} bits, the entropy of the {found.rows:,} texts as they fell. The bottlenecks of "
        "equal bits get the larger number, which favours them; they were fitted to these activations and owe nobody a "
        f"sentence. Drawn texts add {number(texts.entropy_nats, 2)} nats of chance per token.</p>"
    )
    quantised = found.line("quantised")
    curves = [
        Curve("k-means", [(bits, fve.value) for bits, fve in clusters], "no_text", dots=True,
              band=[(bits, fve.low, fve.high) for bits, fve in clusters]),
        Curve("the lens", [(max(1.0, texts.bits_least), own.fve.value), (max(1.0, texts.bits_most), own.fve.value)],
              "lens", dots=True),
    ]  # fmt: skip
    if quantised is not None and quantised.bits is not None:
        curves.append(Curve("principal directions", [(quantised.bits, quantised.fve.value)], "other_texts", dots=True))
    values = [y for curve in curves for _, y in curve.points]
    yield "<div class=charts>"
    yield chart(
        "Variance explained by bits", curves, Axis("bits", log=True, ticks=(1, 2, 4, 8, 16, 32, 64, 128, 256)),
        Axis(low=min(0.0, *values), high=1.0), note="the lens lies between the least and the most its texts can hold",
    )  # fmt: skip
    dimensions = [
        (float(line.name.removeprefix("principal_")), line.fve)
        for line in found.lines
        if line.name.startswith("principal_")
    ]
    yield chart(
        "Variance explained by principal directions",
        [Curve("", [(k, fve.value) for k, fve in dimensions], "no_text", dots=True,
               band=[(k, fve.low, fve.high) for k, fve in dimensions])],
        Axis("directions, not rounded", log=True, ticks=(8, 16, 32, 64)), Axis(low=0.0, high=1.0),
        note="how many dimensions the activations have",
    )  # fmt: skip
    if found.best_of:
        yield chart(
            "The best of k drawn texts",
            [Curve("", [(one.k, one.fve.value) for one in found.best_of], dots=True,
                   band=[(one.k, one.fve.low, one.fve.high) for one in found.best_of])],
            Axis("texts drawn per activation", log=True, ticks=[one.k for one in found.best_of]), Axis(high=1.0),
            note="chosen by whoever knows the activation, so no figure of the lens",
        )  # fmt: skip
    yield "</div>"


def _probes(found: Evaluation) -> Iterator[str]:
    if not found.probes:
        return
    yield "<h2>What it is about, apart from its words</h2>"
    yield (
        "<p>Labels that documents carry, read by linear probes. One is fitted on true activations of training "
        "documents "
        "and read on held-out reconstructions; probes of their own show what the words hold at all. A reconstruction "
        "can "
        "explain most of the variance and still have lost what the text was about.</p>"
    )
    yield "<div class=charts>"
    for result in found.probes:
        yield (
            f"<figure><figcaption>{escape(result.label)}<small>{result.classes} values, {result.rows:,} rows. "
            f"{_kept(result)}</small></figcaption><table><thead><tr><th></th><th>{axis(0, 1, (0, 0.5, 1))}</th>"
            "<th class=n>accuracy</th><th class=n>AUROC</th></tr></thead><tbody>"
        )
        for one in result.readings:
            drawn = track(one.accuracy, 0, 1, _kind(one), (0, 0.5, 1), result.chance)
            figures = f"{cell(one.accuracy, 2)}{cell(one.auroc, 2)}"
            yield f"<tr><td class=what>{escape(one.title)}</td><td>{drawn}</td>{figures}</tr>"
        yield "</tbody></table></figure>"
    yield "</div>"


def _kept(result: ProbeResult) -> str:
    """What of the label comes through, in words."""
    own, there = (
        next((r for r in result.readings if r.name == name), None) for name in ("activation", "reconstruction")
    )
    chance = f"Always naming the commonest is right {result.chance:.0%} of the time (dashed)."
    if own is None or there is None or own.accuracy.low <= result.chance:
        return f"{chance} The activation itself hardly tells it, so nothing can be said of the lens."
    if there.accuracy.low <= result.chance:
        return f"{chance} The activation tells it, and the reconstruction is not shown to."
    share = (there.accuracy.value - result.chance) / (own.accuracy.value - result.chance)
    return f"{chance} Of what the activation tells beyond that, the reconstruction keeps about {share:.0%}."


def _kind(one: Reading) -> str:
    return {"activation": "no_text", "true_words": "true_words"}.get(one.name, "lens")


def _slices(found: Evaluation) -> Iterator[str]:
    if not found.slices:
        return
    yield "<h2>Where it fails</h2>"
    yield (
        "<p>The greedy text on tenths of the rows, each against the mean activation on the same rows; beside it the "
        "share "
        "of the whole squared error that falls there.</p><div class=charts>"
    )
    for title, parts in found.slices.items():
        low, marks = axis_of(part.fve.low for part in parts if part.fve is not None)
        yield (
            f"<figure><figcaption>By {escape(title)}</figcaption><table><thead><tr><th></th>"
            f"<th>{axis(low, 1.0, marks)}</th><th class=n>FVE</th><th class=n>of the error</th></tr></thead><tbody>"
        )
        for part in parts:
            drawn = "" if part.fve is None else track(part.fve, low, 1.0, "lens", marks)
            value = "–" if part.fve is None else number(part.fve.value, 2)
            yield (
                f"<tr><td>{escape(part.name)}</td><td>{drawn}</td><td class=n>{value}</td>"
                f"<td class=n>{part.error_share:.0%}</td></tr>"
            )
        yield "</tbody></table></figure>"
    yield "</div>"


def _samples(samples: Sequence[Sample]) -> Iterator[str]:
    if not samples:
        return
    yield "<h2>What it says</h2>"
    yield (
        "<p>Above, where the activation was read (its token is marked); then the likeliest text, the lens's guess at "
        "it, "
        "and another one that was drawn. Error 0 is perfect, 1 is what the mean activation gives on average.</p>"
    )
    for kind, name in KINDS.items():
        cards = [sample for sample in samples if sample.kind == kind]
        if cards:
            yield f"<h3>{name}</h3><div class=cards>{''.join(map(_card, cards))}</div>"


def _card(sample: Sample) -> str:
    current = escape(sample.current.lstrip(" "))
    space = " " * (len(sample.current) - len(sample.current.lstrip(" ")))
    also = f"<div class=also>also: <bdi>{escape(sample.drawn)}</bdi></div>" if sample.drawn else ""
    kl = "" if sample.kl_nats is None else f" · KL {number(sample.kl_nats, 2)} nats"
    return (
        f"<div class=card><div class=from><bdi>… {escape(sample.context)}{space}<mark>{current}</mark></bdi></div>"
        f"<div class=says><bdi>{escape(sample.text)}</bdi></div>{also}"
        f"<dl><dt>error</dt><dd>{number(sample.error, 2)}{kl}</dd>"
        f"<dt>next, own</dt><dd>{_next(sample.own_next)}</dd>"
        f"<dt>next, replaced</dt><dd>{_next(sample.replaced_next)}</dd>"
        f"<dt>from</dt><dd>document {sample.document}, token {sample.position}</dd></dl></div>"
    )


def _next(tokens: Iterable[NextToken]) -> str:
    return " · ".join(f"<bdi>{escape(one.token.strip() or '␣')}</bdi> {one.probability:.2f}" for one in tokens)


def _learning(progress: Sequence[ProgressRecord]) -> Iterator[str]:
    # After a restart steps are reported again: the last word counts.
    records = sorted({record.step: record for record in progress}.values(), key=lambda record: record.step)
    if len(records) < 2:
        return
    yield "<h2>How it learned</h2>"
    begins = [one.step for before, one in pairwise(records) if before.phase != one.phase]
    phases = ", then ".join(dict.fromkeys(record.phase.replace("_", " ") for record in records))
    yield f"<p>Objectives: {escape(phases)}. Dashed: where one gives way to the next. On training batches.</p>"
    yield "<div class=charts>"
    for name in CHARTED:
        points = [
            (float(record.step), value)
            for record in records
            if (value := record.loss if name == "loss" else record.metrics.get(name)) is not None
        ]
        yield chart(NAMES.get(name, name), [Curve(name, thinned(points))], Axis("step", low=0), Axis(), lines=begins)
    yield "</div>"


def _method(found: Evaluation) -> Iterator[str]:
    yield "<h2>How it was measured</h2>"
    yield facts(
        [
            ("variance explained (FVE)", "1 − Σ‖A − Â‖² / Σ‖A − mean‖²; A the output of the block after the token at "
             "the "
             "position, the mean that of the training rows."),
            ("next token recovered", "1 − KL(own ‖ with Â) / KL(own ‖ with the mean), of the target's distribution "
             "of the "
             f"next token with Â in the activation's place; the denominator is {found.kl_mean_nats:.3f} nats. What "
             f"storing "
             f"activations in 16 bits costs: {found.self_test.kl_stored_nats:.1e} nats."),
            ("median dimension", "The fraction of variance explained of the dimension in the middle: a few large "
             "dimensions "
             "cannot carry it."),
            ("own mean", f"Against the mean of the measured rows themselves, variance explained is {found.greedy.r2}."),
            ("intervals", "2.5 and 97.5 % over draws of whole documents, since rows of one document are alike."),
            ("texts that differ", f"Of the texts of {min(found.rows, DISTINCT_ROWS)} rows drawn at random; of more "
             "rows the share would be smaller."),
            ("text, nats per token", "Negative log-likelihood under the target after its first token alone."),
        ]
    )  # fmt: skip
    yield "<details><summary>What exactly was judged</summary>"
    yield facts(
        [
            ("checkpoint", f"{found.checkpoint}, {found.checkpoint_digest[:12]}"),
            ("model", f"{found.model}, {found.fingerprint[:12]}"),
            ("activations", found.data_digest[:12]),
            ("measured rows", found.rows_digest[:12]),
            ("specification", found.spec_digest[:12]),
            ("took", f"{found.seconds:,.0f} s, {found.created}"),
        ]
    )
    yield "</details>"
    if found.settings:
        shown = sorted(found.settings.items())
        yield f"<details><summary>Every setting of the run</summary>{facts(shown)}</details>"


def axis_of(lows: Iterable[float]) -> tuple[float, list[float]]:
    """Where tracks begin, and their marks up to 1: at 0 if nothing is below it, else at a round number."""
    least = min(lows, default=0.0)
    if least >= 0:
        return 0.0, [0.0, 0.5, 1.0]
    low = -1.0 if least > -1.25 else -2.0
    return low, [-1.0, -0.5, 0.0, 0.5, 1.0] if low == -1.0 else [-2.0, -1.0, 0.0, 1.0]


def _tile(name: str, value: str, note: str) -> str:
    return f"<div class=tile><span>{escape(name)}</span><b>{value}</b><span>{note}</span></div>"


def _percent(value: float) -> str:
    return f"{number(100 * value, 1)} %"


def _short(model: str) -> str:
    """A folder by its last part, a name as it is."""
    return model.rstrip("/").rpartition("/")[2] if model.startswith(("/", ".")) else model
