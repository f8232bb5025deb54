"""Trains the embedded model, fits its probe, measures both and writes the card (see `--help`)."""

import argparse
import json
import logging
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from lens_training.support_desk.card import METRICS_FILE, Report, probe_figures, recipe_figures, write_card
from lens_training.support_desk.measure import measure
from lens_training.support_desk.probe import fit_legal_risk
from lens_training.support_desk.tokenizer import train_tokenizer
from lens_training.support_desk.train import Recipe, train_model
from lens_training.support_desk.wordings import measure_wordings
from wonder.embedded import EMBEDDED, SUPPORT_DESK
from wonder.embedded.world import tickets
from wonder.probes.fingerprint import model_fingerprint

log = logging.getLogger(__name__)

EVALUATION_SEED = 2026
PROBE_SEED = 11
TRAIN_TICKETS = 20_000
HELD_OUT_TICKETS = 4000


def save_model(folder: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Store the weights in bfloat16, with a configuration that loads them as float32."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    for weight in model.parameters():
        weight.data = weight.data.bfloat16()
    model.save_pretrained(folder)
    # `from_pretrained` takes the dtype named here, whatever the file holds; every bfloat16 is exact in float32.
    path = folder / "config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) | {"dtype": "float32"}
    path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load_model(folder: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Load what `save_model` stored, ready for evaluation on the CPU."""
    model = LlamaForCausalLM.from_pretrained(folder)
    model.eval()  # type: ignore[no-untyped-call]
    return model, PreTrainedTokenizerFast.from_pretrained(folder)


def report_on(folder: Path, *, recipe: Recipe, training_s: float, threads: int) -> Report:
    """Fit the probe of the stored model anew, measure both and write the card."""
    model, tokenizer = load_model(folder)
    shutil.rmtree(folder / "probes", ignore_errors=True)
    train = tickets(TRAIN_TICKETS, seed=PROBE_SEED, split="train")
    fresh = tickets(HELD_OUT_TICKETS, seed=EVALUATION_SEED, split="held_out")
    probe = fit_legal_risk(
        model,
        tokenizer,
        folder / "probes" / "legal_risk",
        train=train,
        held_out=fresh,
        created=datetime.now(UTC).date(),
    )
    log.info("probe by layer and aggregation: %s", {key: round(loss, 4) for key, loss in probe.cv_log_loss.items()})
    report = Report(
        fingerprint=model_fingerprint(model),
        parameters=sum(weight.numel() for weight in model.parameters()),
        files_bytes=sum(path.stat().st_size for path in folder.iterdir() if path.suffix in (".json", ".safetensors")),
        recipe=recipe_figures(recipe),
        training_s=training_s,
        training_threads=threads,
        evaluation_seed=EVALUATION_SEED,
        figures=measure(model, tokenizer, fresh),
        probe=probe_figures(probe),
        wordings=measure_wordings(model, tokenizer, probe.bundle, seed=EVALUATION_SEED),
    )
    write_card(folder, report)
    return report


def main(arguments: Sequence[str] | None = None) -> None:
    """Train (or, with --card-only, take the stored weights), fit the probe, measure, and write the card."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=EMBEDDED[SUPPORT_DESK])
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--card-only", action="store_true", help="fit the probe and measure the stored weights again")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if options.card_only:
        # Only what training left behind is read, so that a card can be written anew after its format has changed.
        before = json.loads((options.out / METRICS_FILE).read_text(encoding="utf-8"))
        known = {name: type(getattr(Recipe(), name))(value) for name, value in before["recipe"].items()}
        recipe, training_s, threads = Recipe(**known), before["training_s"], before["training_threads"]
    else:
        recipe, threads = Recipe(seed=options.seed, steps=options.steps), torch.get_num_threads()
        tokenizer = train_tokenizer(vocabulary=recipe.vocabulary, seed=recipe.seed)
        model, training_s = train_model(recipe, tokenizer)
        save_model(options.out, model, tokenizer)
    report = report_on(options.out, recipe=recipe, training_s=training_s, threads=threads)
    log.info("%s", report.model_dump_json(indent=2))


if __name__ == "__main__":
    main()
