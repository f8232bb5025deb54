"""Trains the model of FactWorld, measures it and writes its card (see `--help`)."""

import argparse
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from transformers import LlamaForCausalLM

from lens_training.fact_world.card import METRICS_FILE, Report, write_card
from lens_training.fact_world.measure import Figures, answer_questions, measure
from lens_training.fact_world.tokenizer import build_tokenizer
from lens_training.fact_world.train import Recipe, Trained, train_model
from lens_training.fact_world.world import EVALUATION_SEED, WORLD_SEED, Question, build_world, evaluation_set
from wonder.engine import TraceEngine

log = logging.getLogger(__name__)

FOLDER = Path("benchmarks/fact_world")
"""In a checkout, where `make` runs; the model is no part of the installed package."""


def save_model(folder: Path, model: LlamaForCausalLM) -> None:
    """Store the tokenizer, and the weights in bfloat16, with a configuration that loads them as float32."""
    folder.mkdir(parents=True, exist_ok=True)
    build_tokenizer().save_pretrained(folder)
    for weight in model.parameters():
        weight.data = weight.data.bfloat16()
    model.save_pretrained(folder)
    # `from_pretrained` takes the dtype named here, whatever the file holds; every bfloat16 is exact in float32.
    path = folder / "config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) | {"dtype": "float32"}
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def report_on(folder: Path, trained: Trained, full_precision: Figures) -> Report:
    """Measure the stored model and write its card."""
    questions = evaluation_set(build_world())
    engine = TraceEngine.load(folder, device="cpu", max_batch=64)
    try:
        figures = measure(engine, questions)
        example = _answered_right(engine, questions)
    finally:
        engine.close()
    report = Report(
        fingerprint=engine.info.fingerprint,
        parameters=sum(weight.numel() for weight in engine.model.parameters()),
        files_bytes=sum((folder / name).stat().st_size for name in ("model.safetensors", "tokenizer.json")),
        recipe=asdict(trained.recipe),
        training_s=trained.duration_s,
        training_threads=trained.threads,
        last_loss=trained.last_loss,
        world_seed=WORLD_SEED,
        evaluation_seed=EVALUATION_SEED,
        figures=figures,
        full_precision=full_precision,
    )
    write_card(folder, report, example)
    return report


def _answered_right(engine: TraceEngine, questions: Sequence[Question]) -> Question:
    some = [question for question in questions if question.kind == "determined" and " " in question.gold][:50]
    right, confidence = answer_questions(engine, some)
    return max(zip(right, confidence, some, strict=True), key=lambda found: found[:2])[2]


def main(arguments: Sequence[str] | None = None) -> None:
    """Train (or, with --card-only, take the stored weights), measure, and write the card."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--card-only", action="store_true", help="measure the stored weights again")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if options.card_only:
        before = Report.model_validate_json((options.out / METRICS_FILE).read_text(encoding="utf-8"))
        known = {name: type(getattr(Recipe(), name))(value) for name, value in before.recipe.items()}
        trained = Trained(Recipe(**known), before.training_s, before.training_threads, before.last_loss)
        full_precision = before.full_precision
    else:
        world, recipe = build_world(), Recipe(seed=options.seed, steps=options.steps)
        model, trained = train_model(recipe, world)
        engine = TraceEngine(model, build_tokenizer(), max_batch=64)
        full_precision = measure(engine, evaluation_set(world))
        engine.close()
        save_model(options.out, model)
    report = report_on(options.out, trained, full_precision)
    log.info("%s", report.model_dump_json(indent=2))


if __name__ == "__main__":
    main()
