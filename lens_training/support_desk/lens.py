"""Trains a small lens of the embedded model and measures it: `python -m lens_training.support_desk.lens --out FOLDER`.

Texts are tickets with their triage, as the model was trained on; states are those of one block at random positions.
"""

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from lens_training.activations import merge
from lens_training.batch import Batch
from lens_training.build import Bench, build
from lens_training.dump import dump, load_target
from lens_training.evaluate.controls import shuffled
from lens_training.evaluate.metrics import (
    distinct_share,
    kl_recovered,
    negative_log_likelihood,
    reconstruction,
)
from lens_training.evaluate.record import Figure
from lens_training.export import export, states_digest
from lens_training.run_spec import DecoderSpec, LensSpec, Phase, Run, RunSpec
from lens_training.spec import CorpusSpec, DumpSpec, TargetSpec
from lens_training.tokens import TokenStore, tokenize
from lens_training.train.loop import Trainer
from wonder.embedded import SUPPORT_DESK
from wonder.embedded.world import answer, prompt, tickets
from wonder.lens.manifest import LensManifest, LensMetrics
from wonder.trace.explanation import Fidelity

log = logging.getLogger(__name__)

LAYER: Final = 2
LENGTH: Final = 8
NAME: Final = "support-desk"
CORPUS_SEED: Final = 31


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the lens, besides the world and the model."""

    documents: int = 8000
    warm_start: int = 1200
    grpo: int = 1500
    rows: int = 4096
    """Held-out states it is measured on."""
    seed: int = 1


def specification(folder: Path, recipe: Recipe) -> RunSpec:
    """As every run of a lens is specified."""
    phases = [
        Phase(
            objective="warm_start",
            steps=recipe.warm_start,
            batch=32,
            decoder_rate="1e-3",
            encoder_rate="1e-3",
        )
    ]
    if recipe.grpo:
        phases.append(Phase(objective="grpo", steps=recipe.grpo, batch=16, group=4))
    return RunSpec(
        name=NAME,
        folder=str(folder),
        corpus=CorpusSpec(source="jsonl", path=str(folder / "tickets.jsonl")),
        target=TargetSpec(model=SUPPORT_DESK, layer=LAYER),
        dump=DumpSpec(positions_per_document=6, minimum_position=LENGTH, context_length=160, seed=recipe.seed),
        lens=LensSpec(length=LENGTH, decoder=DecoderSpec()),
        run=Run(phases=tuple(phases), seed=recipe.seed, checkpoint_every=10**9),
    )


def prepare(spec: RunSpec, recipe: Recipe) -> Bench:
    """Write the texts, read the states, and put an untrained lens around the model."""
    path = Path(spec.corpus.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    found = tickets(recipe.documents, seed=CORPUS_SEED, split="train")
    texts = sorted({prompt(ticket.text) + answer(ticket) for ticket in found})
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    target, tokenizer = load_target(spec.target)
    tokenize(spec.corpus, tokenizer, spec.tokens)
    dump(TokenStore(spec.tokens), target, spec.dump, spec.target, spec.activations)
    merge(spec.activations)
    return build(spec)


@torch.no_grad()
def measure(bench: Bench, rows: Batch) -> LensMetrics:
    """What the lens's greedy texts are worth on held-out documents, beside texts of other states."""
    system, statistics = bench.system.train(False), bench.statistics
    ids = [system.decoder.rollout(piece.activation_BD, system.length).ids_BT for piece in rows.split(256)]
    ids_NT = torch.cat(ids)

    def read(texts_NT: Tensor) -> Tensor:
        return torch.cat([system.reconstruct(piece) for piece in torch.split(texts_NT, 256)])

    predicted_ND = read(ids_NT)
    own = reconstruction(predicted_ND, rows, statistics)
    other = reconstruction(read(shuffled(ids_NT)), rows, statistics)
    tail = reconstruction(read(rows.tail(system.length)), rows, statistics)
    kl, kl_mean = kl_recovered(system.target, predicted_ND, rows, statistics)
    count = len(rows)
    return LensMetrics(
        fve=_share(own.fve, count),
        kl_recovered=_share(kl, count),
        kl_mean_nats=kl_mean,
        controls={"shuffled": _share(other.fve, count), "true_tail": _share(tail.fve, count)},
        documents=len(set(rows.document_B.tolist())),
        data_sha256=states_digest(rows.activation_BD),
        norm_ratio=own.norm_ratio,
        cosine=own.cosine,
        nll_nats=negative_log_likelihood(system.target, ids_NT, system.neutral),
        distinct_share=distinct_share(ids_NT),
    )


def make(out: Path, recipe: Recipe, work: Path | None = None) -> LensManifest:
    """Train, measure and export.

    Args:
        out: Of the bundle.
        recipe: How.
        work: Where texts, tokens and states go; None: nowhere that stays.
    """
    with tempfile.TemporaryDirectory(prefix="lens-") as temporary:
        spec = specification(work or Path(temporary), recipe)
        bench = prepare(spec, recipe)
        assert spec.run is not None
        rows = bench.rows("train", check=False)
        began_s = time.process_time()
        Trainer(bench.system, rows, spec.run).train()
        log.info("trained %d steps in %.0f CPU s", spec.run.steps, time.process_time() - began_s)
        held_out = bench.rows("test" if spec.dump.shares.test else "val", check=False).sample(recipe.rows)
        found = measure(bench, held_out)
        for at in range(0, len(held_out), max(1, len(held_out) // 12)):
            state_1D = held_out.activation_BD[at : at + 1]
            said = bench.system.decoder.rollout(state_1D, bench.system.length).ids_BT[0].tolist()
            context = held_out.ids_BS[at, : int(held_out.pos_B[at]) + 1].tolist()[-14:]
            log.info("%r => %r", bench.tokenizer.decode(context), bench.tokenizer.decode(said))
        return export(
            bench.system,
            bench.statistics,
            found,
            bench.tokenizer,
            rows.manifest.source,
            out,
            name=NAME,
            data_sha256=rows.manifest.digest(),
            spec_sha256=spec.digest(),
            steps=spec.run.steps,
            rows=len(rows),
        )


def _share(found: Figure, rows: int) -> Fidelity:
    return Fidelity(value=found.value, low=found.low, high=found.high, rows=rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Make a lens and say what it is worth."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    default = Recipe()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the bundle")
    for name in ("documents", "warm_start", "grpo", "rows", "seed"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(default, name))
    options = vars(parser.parse_args(arguments))
    found = make(options.pop("out"), Recipe(**options))
    log.info("%s", found.metrics.model_dump_json(indent=1))


if __name__ == "__main__":
    main()
