"""Writes the model card: every number in it comes from the measured report."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from textwrap import fill
from typing import Final

from pydantic import BaseModel

from lens_training.support_desk.measure import REVIEW_BELOW, Figures
from lens_training.support_desk.probe import ProbeReport
from lens_training.support_desk.train import Recipe
from lens_training.support_desk.wordings import WordingFigures
from wonder.embedded.legal import DECOY_WORDINGS, LEGAL_WORDINGS, NEW_DECOYS, NEW_LEGAL
from wonder.embedded.phrases import CATALOGUE, DECOYS, ISSUES, LEGAL
from wonder.embedded.wordings import NEW_WORDINGS, WORDINGS
from wonder.embedded.world import ANSWER_END, ANSWER_MIDDLE, ANSWER_START, TEAMS, Triage, prompt
from wonder.probes.manifest import ProbeMetrics

METRICS_FILE: Final = "metrics.json"
CARD_FILE: Final = "MODEL_CARD.md"


class ProbeFigures(BaseModel, frozen=True):
    """Figures of the shipped `legal_risk` probe on held-out tickets."""

    id: str
    hook_point: str
    method: str
    calibration: str
    metrics: ProbeMetrics
    shuffled_label_auroc: float
    decoy_auroc: float
    precision_at_080: float
    recall_at_080: float
    decoys_over_080: float


class Report(BaseModel, frozen=True):
    """What `metrics.json` holds."""

    fingerprint: str
    parameters: int
    files_bytes: int
    """Weights and tokenizer together."""
    recipe: dict[str, float]
    training_s: float
    training_threads: int
    evaluation_seed: int
    figures: Figures
    probe: ProbeFigures
    wordings: WordingFigures


def probe_figures(report: ProbeReport) -> ProbeFigures:
    """Return the part of a probe report that is written down."""
    manifest = report.bundle.manifest
    point = manifest.hook_point
    return ProbeFigures(
        id=report.bundle.id,
        hook_point=f"{point.site} of layer {point.layer}, {point.aggregation}",
        method=manifest.method,
        calibration=manifest.calibration.kind,
        metrics=manifest.metrics,
        shuffled_label_auroc=manifest.shuffled_label_auroc,
        decoy_auroc=report.decoy_auroc,
        precision_at_080=report.precision_at_080,
        recall_at_080=report.recall_at_080,
        decoys_over_080=report.decoys_over_080,
    )


def recipe_figures(recipe: Recipe) -> dict[str, float]:
    """Return the recipe as plain numbers."""
    return asdict(recipe)


def write_card(folder: Path, report: Report) -> None:
    """Write `metrics.json` and `MODEL_CARD.md` into the model's folder."""
    (folder / METRICS_FILE).write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    (folder / CARD_FILE).write_text(card(report), encoding="utf-8")


def card(report: Report) -> str:
    """Return the card as Markdown."""
    return (
        "\n\n".join(part(report) for part in (_title, _world, _training, _measured, _probe, _wordings, _limits)) + "\n"
    )


def _title(report: Report) -> str:
    what = _paragraph(
        f"A Llama of {report.parameters:,} parameters, trained from scratch on generated support tickets. It answers",
        "the prompt below, up to `Triage:`, with the JSON. It ships with Wonder so that confidence, probes and routing",
        "can be tried, and checked against a known truth, without any download. It is a measuring device with a small",
        "vocabulary, no product: what it makes of words it never saw is measured below.",
    )
    example = Triage(team="billing", urgency="normal")
    code = f"{prompt('I was charged twice.')}{ANSWER_START}{example.team}{ANSWER_MIDDLE}{example.urgency}{ANSWER_END}"
    return f"# support-desk\n\n{what}\n\n```text\n{code}\n```"


def _world(_: Report) -> str:
    services = sum(map(len, CATALOGUE.values()))
    return "## The world\n\n" + _paragraph(
        f"`wonder/embedded/world.py` draws tickets for the teams {', '.join(TEAMS)}. The probability of each team",
        "given the text is known. Kinds: *clear* (one team), *ambiguous* (two or three teams, fixed shares), *legal*",
        "(carries legal risk, which makes it urgent; mostly a clear ticket besides), *unseen* (about a made-up",
        "product, or",
        "in words that tell no team: any team, equally likely) and *off_topic* (no ticket at all: any team, equally",
        "likely).",
        f"{services} named services belong to one team each, and nothing but training tells which. Training and",
        "held-out texts are told apart by hash; made-up names, foreign words and off-topic topics of the held-out",
        "split",
        f"never occur in training. {sum(map(len, WORDINGS.values()))} templates with alternatives and",
        f"{sum(map(len, ISSUES.values()))} plain sentences settle the team, {len(LEGAL_WORDINGS) + len(LEGAL)}",
        "carry legal",
        f"risk, {len(DECOY_WORDINGS) + len(DECOYS)} only sound like it; both splits share them.",
        f"{sum(map(len, NEW_WORDINGS.values()))} more, and {len(NEW_LEGAL)} legal ones with {len(NEW_DECOYS)}",
        "decoys, are",
        "in neither split.",
    )


def _training(report: Report) -> str:
    recipe = {name: f"{value:g}" for name, value in report.recipe.items()}
    return "## Training\n\n" + _paragraph(
        f"`python -m lens_training.support_desk` (seed {recipe['seed']}): five runs of {recipe['steps']},",
        f"{recipe['second_steps']}, {recipe['third_steps']}, {recipe['fourth_steps']}",
        f"and {recipe['fifth_steps']} steps of {recipe['batch']}",
        "tickets drawn afresh. The first two learn a ticket's team as drawn, the others as its known probabilities. No",
        "text in capitals is measured, and few were trained on.",
        f"{recipe['layers']} layers, d_model {recipe['hidden']}, vocabulary {recipe['vocabulary']}",
        f"(byte-level BPE). {report.training_s:.0f} s on {report.training_threads}",
        "CPU threads of a busy machine. Weights are stored in bfloat16 and load as float32; weights and",
        f"tokenizer take {report.files_bytes / 1e6:.1f} MB. Fingerprint `{report.fingerprint[:12]}`. The tokenizer",
        "puts BOS before every prompt and pads on the left.",
    )


def _measured(report: Report) -> str:
    figures = report.figures
    overall = _table(
        ("figure", "value"),
        (
            ("accuracy, greedy", f"{figures.accuracy:.3f}"),
            ("accuracy of the best possible answer, expected", f"{figures.bayes_accuracy:.3f}"),
            ("answers that are exactly the JSON asked for", f"{figures.well_formed:.4f}"),
            ("mean absolute error of a team's probability", f"{figures.mean_abs_error:.4f}"),
            ("KL(posterior ‖ model), nats", f"{figures.kl_nats:.4f}"),
            ("ECE of the confidence (15 bins of equal count)", f"{figures.ece:.4f}"),
            ("Brier score of the confidence", f"{figures.brier:.4f}"),
            ("AUROC of confidence against correctness", f"{figures.auroc:.3f}"),
            (f"errors caught at confidence < {REVIEW_BELOW}", f"{figures.errors_caught:.3f}"),
            (f"answers reviewed at confidence < {REVIEW_BELOW}", f"{figures.reviewed:.3f}"),
            ("error rate among the others", f"{figures.risk_unreviewed:.4f}"),
        ),
    )
    kinds = _table(
        (
            "kind",
            "tickets",
            "accuracy",
            "best possible",
            "mean abs. error",
            "KL, nats",
            "confidence at 5/25/50/75/95 %",
        ),
        (
            (
                kind,
                str(row.tickets),
                f"{row.accuracy:.3f}",
                f"{row.bayes_accuracy:.3f}",
                f"{row.mean_abs_error:.3f}",
                f"{row.kl_nats:.3f}",
                " / ".join(f"{value:.2f}" for value in row.confidence_quantiles.values()),
            )
            for kind, row in figures.kinds.items()
        ),
    )
    bins = _table(
        ("mean confidence in the bin", "accuracy", "tickets"),
        ((f"{row.confidence:.2f}", f"{row.accuracy:.2f}", str(row.tickets)) for row in figures.reliability),
    )
    meaning = _paragraph(
        "An answer is right when both fields are. *Confidence* is the product over both fields of the probability of",
        "the value's token; it is not calibrated afterwards.",
    )
    title = f"## Measured on {figures.tickets} held-out tickets (seed {report.evaluation_seed})"
    return "\n\n".join((title, meaning, overall, kinds, bins))


def _probe(report: Report) -> str:
    probe = report.probe
    named = (
        ("AUROC", probe.metrics.auroc),
        ("average precision", probe.metrics.average_precision),
        ("TPR at 1 % FPR", probe.metrics.tpr_at_1pct_fpr),
    )
    scores = _table(
        ("figure", "value", "95 % interval"),
        ((name, f"{value.value:.3f}", f"{value.low:.3f} to {value.high:.3f}") for name, value in named),
    )
    where = (
        f"`{probe.id}` reads {probe.hook_point}; {probe.method}, {probe.calibration} calibration fitted out of fold."
    )
    rest = _paragraph(
        f"Against decoys alone (they sound legal and are not) its AUROC is {probe.decoy_auroc:.3f}; fitted to shuffled",
        f"labels it is {probe.shuffled_label_auroc:.3f}. At a calibrated probability above 0.8 it has precision",
        f"{probe.precision_at_080:.3f} and recall {probe.recall_at_080:.3f}, and fires on {probe.decoys_over_080:.1%}",
        "of decoys.",
    )
    return "\n\n".join(("## The probe `legal_risk`", where, scores, rest))


def _wordings(report: Report) -> str:
    found = report.wordings
    names = ("templates that no split uses", "a person's own words")
    rows = zip(names, (found.new_wordings, found.own_words), strict=True)
    teams = _table(
        ("wording", "tickets", "accuracy", "mean confidence", "at least .7", "errors among those", "AUROC"),
        (
            (
                name,
                str(row.tickets),
                f"{row.accuracy:.3f}",
                f"{row.mean_confidence:.3f}",
                f"{row.sure:.3f}",
                f"{row.error_when_sure:.3f}",
                f"{row.auroc:.3f}",
            )
            for name, row in rows
        ),
    )
    meaning = _paragraph(
        "Only the team counts here. The tickets in a person's own words (`lens_training/support_desk/free_text.py`)",
        "were written by hand, by the author of the world; no template can make any of them, and they were neither",
        "trained on nor used to choose anything. *AUROC* is that of confidence against a right team.",
    )
    by_team = ", ".join(f"{team} {share:.2f}" for team, share in found.own_words_by_team.items())
    rest = _paragraph(
        f"Accuracy on own words by team: {by_team}. Of {found.strange} hand-written texts that belong to no team,",
        f"{found.strange_sure:.1%} get a confidence of at least .7. The probe's AUROC on legal sentences against",
        "decoys,",
        f"both in templates that no split uses, is {found.reworded_auroc:.3f}; on {found.own_legal} hand-written legal",
        f"tickets against all other hand-written ones it is {found.own_legal_auroc:.3f}. Above 0.8 it finds",
        f"{found.own_legal_recall_at_080:.1%} of those legal tickets and fires on",
        f"{found.own_harmless_over_080:.1%} of the",
        f"{found.own_harmless} that only sound legal and {found.own_words_over_080:.1%} of the plain ones.",
    )
    return "\n\n".join(("## Wordings that training never had", meaning, teams, rest))


def _limits(report: Report) -> str:
    own = report.wordings.own_words
    return "## Limits\n\n" + "\n".join(
        _paragraph("*", *sentences)
        for sentences in (
            (
                f"In a person's own words one ticket in {max(1, round(1 / max(1e-3, 1 - own.accuracy)))} goes to the",
                "wrong",
                f"team, and of the answers given with a confidence of at least .7 {own.error_when_sure:.0%} do.",
                "Confidence",
                "is calibrated on the world's own tickets only. The list is short, so these shares are rough.",
            ),
            (
                "The language is English: some two hundred and fifty templates with alternatives, slots, typos and",
                "lower",
                "case, and some twelve hundred foreign words. Texts of more than sixty words were never trained on.",
            ),
            (
                "An irony, a comparison or a denial is beyond it: it goes by the words that it knows, and a word that",
                "it",
                "knows from one team can be used about another's matter.",
            ),
            ("Urgency is a function of the text; an off-topic text counts as low.",),
        )
    )


def _paragraph(*parts: str) -> str:
    return fill(" ".join(parts), 118, subsequent_indent="  " if parts[0] == "*" else "", break_on_hyphens=False)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
