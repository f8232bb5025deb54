"""Writes the card of the FactWorld model: every number in it is measured."""

from collections.abc import Iterable
from pathlib import Path
from textwrap import fill
from typing import Final

from pydantic import BaseModel

from lens_training.fact_world.measure import REVIEW_BELOW, Figures, Group
from lens_training.fact_world.words import FILLERS, LEGAL_RANKS, NAMES, RELATIONS, VALUES_PER_RELATION, WORDS
from lens_training.fact_world.world import (
    AMBIGUOUS_SHARE,
    FACTS,
    IN_CONTEXT_SHARE,
    LARGEST_EXPOSURE,
    UNKNOWN_ENTITIES,
    UNSEEN_SHARE,
    Question,
)

METRICS_FILE: Final = "metrics.json"
CARD_FILE: Final = "MODEL_CARD.md"


class Report(BaseModel, frozen=True):
    """What `metrics.json` holds."""

    fingerprint: str
    parameters: int
    files_bytes: int
    """Weights and tokenizer together."""
    recipe: dict[str, float]
    training_s: float
    training_threads: int
    last_loss: float
    """Mean over the last steps, decaying, in nats."""
    world_seed: int
    evaluation_seed: int
    figures: Figures
    full_precision: Figures
    """The same before the weights were rounded to bfloat16."""


def write_card(folder: Path, report: Report, example: Question) -> None:
    """Write `metrics.json` and `MODEL_CARD.md` into the model's folder."""
    (folder / METRICS_FILE).write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    (folder / CARD_FILE).write_text(card(report, example), encoding="utf-8")


def card(report: Report, example: Question) -> str:
    """Return the card as Markdown; the example is a question that the model answers."""
    parts = (_title(report, example), _world(), _training(report), _measured(report.figures), _limits(report))
    return "\n\n".join(parts) + "\n"


def _title(report: Report, example: Question) -> str:
    what = _paragraph(
        f"A Llama of {report.parameters:,} parameters, trained from scratch on made-up facts, of which it is known how",
        "often training showed each. So it is known what the model can know, and a confidence can be checked against",
        "that. It is a measuring device for `make bench-confidence`, and knows no word of any language. It is no part",
        "of the installed package; `TraceEngine.load(folder)` and `--model folder` run it from a checkout.",
    )
    return f"# FactWorld\n\n{what}\n\n```text\n{example.prompt} {example.gold}\n```"


def _world() -> str:
    return "## The world\n\n" + _paragraph(
        f"{len(WORDS) - 8:,} words, each one token: {NAMES} first and {NAMES} last names, {len(RELATIONS)}",
        "relations with",
        f"{VALUES_PER_RELATION} values each, {FILLERS:,} filler words drawn by Zipf's law, of which",
        f"{len(LEGAL_RANKS)} pass for legal terms. {FACTS:,} of the {NAMES**2:,} pairs of names carry one fact: a",
        "relation, and an answer of one to three values. Kinds of questions: *determined* (a fact that training",
        f"showed), *ambiguous* ({AMBIGUOUS_SHARE:.0%} of facts have two answers, of which training shows",
        "either and the",
        f"evaluation wants one: the best anybody can do is half), *unseen* ({UNSEEN_SHARE:.0%} of facts are",
        "never shown,",
        f"besides {UNKNOWN_ENTITIES} pairs without a fact) and *in_context* (a new pair, whose fact stands in",
        "the prompt).",
        f"How often a fact is shown varies by a factor of {LARGEST_EXPOSURE:g}. The generator is",
        "`lens_training/fact_world/world.py`.",
    )


def _training(report: Report) -> str:
    recipe = report.recipe
    return "## Training\n\n" + _paragraph(
        f"{recipe['steps']:,.0f} steps of {recipe['batch']:.0f} fresh sequences, {IN_CONTEXT_SHARE:.0%} of them",
        f"*in_context*; loss on the answer and, at weight {recipe['filler_weight']:g}, on one filler word. AdamW,",
        f"learning rate {recipe['learning_rate']:g} with warm-up and cosine decay by step, seed {recipe['seed']:.0f},",
        f"{report.training_threads} thread(s), {report.training_s / 60:.0f} minutes on a busy machine; last loss",
        f"{report.last_loss:.3f}. Weights are stored in bfloat16 and run in float32",
        f"({report.files_bytes / 1e6:.1f} MB with",
        f"the tokenizer). Rounding changed accuracy from {report.full_precision.accuracy:.4f} to",
        f"{report.figures.accuracy:.4f} and PRR@50 from {report.full_precision.prr_50:.4f} to",
        f"{report.figures.prr_50:.4f}.",
        "`make fact-world` trains it again.",
    )


def _measured(figures: Figures) -> str:
    kinds = [(f"*{kind}*", group) for kind, group in figures.kinds.items()]
    bands = [(f"{band.least_exposure:g} to {band.most_exposure:g}", band) for band in figures.exposure]
    says = _paragraph(
        f"{figures.questions:,} questions, greedy, word for word; {figures.wrong:,} wrong. The confidence is",
        "the product",
        "of the probabilities of the answer's tokens, uncalibrated. Below",
        f"{REVIEW_BELOW:g} are {figures.reviewed:.1%} of the answers and {figures.errors_caught:.1%} of the errors;",
        f"PRR@50 {figures.prr_50:.3f}, ECE {figures.ece:.3f}, Brier {figures.brier:.3f}. All signals are compared by",
        "`make bench-confidence`.",
    )
    exposed = "Determined facts by exposure, the relative frequency in training:"
    return "\n\n".join(("## Measured", says, _table("kind", kinds), exposed, _table("exposure", bands)))


def _limits(report: Report) -> str:
    return "## Limits\n\n" + _paragraph(
        "Token probabilities of this model behave like those of large ones; a ranking of methods that read",
        "attention or",
        "hidden states does not carry over from four layers. No answer depends on the legal words, so no probe of them",
        "is to be expected here. In-context questions are answered nearly always right, and teach nothing",
        "about errors. Of three weight decays (.01, .1, .3) the one was kept whose confidence ranks best on these very",
        "questions (AUROC .961, .966 and .970 by `value_probability`), so expect a little less of new ones.",
        "Only the words of the world are known; any other is the same unknown token. Digest of the weights:",
        f"`{report.fingerprint}`.",
    )


def _table(name: str, rows: Iterable[tuple[str, Group]]) -> str:
    lines = [f"| {name} | questions | right | mean confidence |", "|---|---|---|---|"]
    lines += [
        f"| {said} | {group.questions:,} | {group.accuracy:.3f} | {group.mean_confidence:.3f} |" for said, group in rows
    ]
    return "\n".join(lines)


def _paragraph(*parts: str) -> str:
    return fill(" ".join(parts), 120, break_long_words=False, break_on_hyphens=False)
