"""Stage `evaluate`: judges the newest checkpoint on held-out documents, and writes down everything it saw."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lens_training.activations import ActivationManifest
from lens_training.artifacts import publish, read_manifest, sha256_of
from lens_training.batch import Batch
from lens_training.build import Bench, build
from lens_training.evaluate.candidates import (
    DRAWN_SEED,
    Spoken,
    other_weights,
    own,
    quoted,
    speak_all,
    tampered,
    wordless,
)
from lens_training.evaluate.caveats import caveats
from lens_training.evaluate.labels import of_rows, read_labels
from lens_training.evaluate.metrics import Draws, best_of, distinct_share, spread, text_nll
from lens_training.evaluate.probes import Features, bags_of_words, probe
from lens_training.evaluate.readers import read, speak
from lens_training.evaluate.record import (
    EVALUATION,
    REPORT,
    ROWS,
    BestOf,
    Evaluation,
    ProbeResult,
    RowErrors,
    Texts,
    read_evaluation,
)
from lens_training.evaluate.report import report
from lens_training.evaluate.samples import chosen, samples
from lens_training.evaluate.slices import slices
from lens_training.evaluate.table import measure
from lens_training.evaluate.weights import newest_digest, open_weights
from lens_training.export import states_digest
from lens_training.objectives.losses import relative_error
from lens_training.run_spec import RunSpec
from lens_training.spec import digest_of
from lens_training.train.progress import read_progress
from wonder.errors import SpecError

# Shape suffixes: N rows, D d_model, T tokens, K texts per activation.

FEWEST_ROWS = 16
PROBE_ROWS = 4096
"""Training rows, at most, that the lens speaks about so that a probe can be fitted on its words."""


def evaluate(spec: RunSpec, device: str | None = None) -> Evaluation:
    """Judge the newest checkpoint of a run; what is there of the same checkpoint and the same settings is kept.

    Raises:
        ArtifactError: Checkpoint, dump or tokens are not there, or harmed.
        CorruptCheckpoint: The checkpoint is not what was written.
        DigestMismatch: It is of another specification.
        SpecError: Too few rows, or labels that do not fit.
        StoreNotUsable: The disk is full.
    """
    began_s = time.monotonic()
    name, digest = newest_digest(spec.run_folder)
    judged_by = how_judged(spec)
    there = read_evaluation(spec.run_folder)
    if there is not None and (there.checkpoint, there.checkpoint_digest, there.judged_by) == (name, digest, judged_by):
        return there
    judged = open_weights(spec)
    bench = build(spec, device)
    wanted, statistics = spec.evaluation, bench.statistics
    batch, fit = _rows(bench)
    labels = read_labels(spec, bench.tokens)
    judged.put(bench.system, wanted.weights)
    spoken = speak_all(bench, batch, wanted.seed)
    draws = Draws(batch.document_B, wanted.draws, wanted.seed)
    candidates = [
        *own(bench, spoken),
        *other_weights(bench, batch, wanted, judged),
        *tampered(bench, spoken, wanted),
        *quoted(bench, batch, fit, spoken, wanted),
        *wordless(batch, fit, statistics, spoken),
    ]
    table = measure(bench.target, batch, statistics, candidates, draws, bench.system.neutral)
    manifest = read_manifest(ActivationManifest, spec.activations)
    error_N = table.error_N / statistics.variance
    assert spec.run is not None
    found = Evaluation(
        run=spec.name,
        spec_digest=spec.training_digest(judged.step),
        judged_by=judged_by,
        checkpoint=judged.name,
        checkpoint_digest=digest,
        step=judged.step,
        steps=spec.run.steps,
        weights=wanted.weights,
        model=manifest.source.model,
        fingerprint=manifest.source.fingerprint,
        layer=manifest.source.layer,
        d_model=manifest.source.d_model,
        data_digest=manifest.digest(),
        rows_digest=states_digest(batch.activation_BD),
        split=wanted.split,
        rows=len(batch),
        documents=draws.documents,
        kl_mean_nats=max(0.0, table.kl_mean_nats),
        self_test=table.self_test,
        lines=table.lines,
        texts=_texts(bench, spoken, draws),
        best_of=_best_of(bench, batch),
        slices=slices(batch, fit, table.error_N, table.spread_N, wanted.draws, wanted.seed),
        probes=_probes(bench, labels, fit, batch, spoken),
        samples=samples(
            bench.target, bench.tokenizer, batch, chosen(error_N, wanted.samples, wanted.seed), spoken.predicted_ND,
            spoken.greedy_NT, spoken.drawn_NT, error_N, table.kl_N,
        ),
        settings=dict(_settings("", spec.model_dump(mode="json"))),
        seconds=round(time.monotonic() - began_s, 1),
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )  # fmt: skip
    found = found.model_copy(update={"warnings": caveats(found)})
    # The evaluation last: where there is one, there are its page and its rows.
    write_report(spec, found)
    rows = RowErrors(
        rows_digest=found.rows_digest, document=batch.document_B.tolist(), error=_short(table.error_N),
        spread=_short(table.spread_N), kl=_short(table.kl_N),
    )  # fmt: skip
    publish(spec.run_folder / ROWS, rows.model_dump_json().encode())
    publish(spec.run_folder / EVALUATION, found.model_dump_json(indent=1).encode() + b"\n")
    return found


def write_report(spec: RunSpec, found: Evaluation) -> None:
    """The page of an evaluation, beside it.

    Raises:
        StoreNotUsable: The disk is full.
    """
    publish(spec.run_folder / REPORT, report(found, list(read_progress(spec.run_folder))).encode())


def how_judged(spec: RunSpec) -> str:
    """Digest of everything besides the weights that decides an evaluation."""
    labels = Path(spec.evaluation.label_file) if spec.evaluation.label_file else None
    content = sha256_of(labels) if labels is not None and labels.is_file() else ""
    return digest_of(
        [content, spec.evaluation.model_dump(mode="json"), spec.dump.digest(), spec.target.digest(), spec.name]
    )


def _rows(bench: Bench) -> tuple[Batch, Batch]:
    """The rows that are measured, and those that controls are fitted on."""
    wanted = bench.spec.evaluation
    batch = bench.rows(wanted.split).sample(wanted.rows)
    fit = bench.rows("train", check=False).sample(wanted.fit_rows)
    documents = len(torch.unique(batch.document_B))
    if len(batch) < FEWEST_ROWS or documents < 2:
        raise SpecError(
            f"the split {wanted.split} has {len(batch)} rows of {documents} documents, and at least {FEWEST_ROWS} rows "
            "of 2 documents are needed for an interval: give dump.shares more to it, or dump more documents"
        )
    return batch, fit


def _texts(bench: Bench, spoken: Spoken, draws: Draws) -> Texts:
    target, neutral = bench.target, bench.system.neutral
    return Texts(
        length=bench.system.length,
        nll_tail_nats=draws.mean(text_nll(target, spoken.tail_NT, neutral)),
        nll_random_nats=draws.mean(text_nll(target, spoken.random_NT, neutral)),
        entropy_nats=max(0.0, spoken.entropy_nats),
        distinct_tail_share=distinct_share(spoken.tail_NT),
        bits_most=max(0.0, spoken.bits_most),
        bits_least=max(0.0, spoken.bits_least),
    )


def _best_of(bench: Bench, batch: Batch) -> list[BestOf]:
    wanted, system = bench.spec.evaluation, bench.system
    if not wanted.best_of:
        return []
    few = batch.rows(torch.arange(min(len(batch), wanted.best_of_rows)))
    errors = []
    for at in range(wanted.best_of):
        ids_NT = speak(system.decoder, few.activation_BD, system.length, DRAWN_SEED + 1 + at + wanted.seed)
        errors.append(relative_error(read(system.encoder, ids_NT), few.activation_BD, 1.0))
    error_NK, spread_N = torch.stack(errors, 1), spread(few, bench.statistics)
    draws = Draws(few.document_B, wanted.draws, wanted.seed)
    steps = sorted({min(2**power, wanted.best_of) for power in range(12)})
    return [BestOf(k=k, fve=best_of(error_NK, spread_N, draws, k)) for k in steps]


def _probes(
    bench: Bench,
    labels: dict[str, dict[tuple[int, int | None], str]],
    fit: Batch,
    batch: Batch,
    spoken: Spoken,
) -> list[ProbeResult]:
    if not labels:
        return []
    wanted, system = bench.spec.evaluation, bench.system
    few = fit.rows(torch.arange(min(len(fit), PROBE_ROWS)))
    said_NT = speak(system.decoder, few.activation_BD, system.length)
    bag, tail_bag = bags_of_words(said_NT, spoken.greedy_NT), bags_of_words(few.tail(system.length), spoken.tail_NT)
    reread_ND = read(system.encoder, said_NT)
    features = [
        Features("activation", "the activation", few.activation_BD.float(), batch.activation_BD.float()),
        Features("reconstruction", "the reconstruction, by the same probe", None, spoken.predicted_ND),
        Features("own_probe", "the reconstruction, by a probe of its own", reread_ND, spoken.predicted_ND),
        Features("words", "the words of the text", *bag),
        Features("true_words", f"the true last {system.length} words", *tail_bag),
    ]  # fmt: skip
    return [
        probe(
            name, of_rows(found, *_places(few)), few.document_B, of_rows(found, *_places(batch)), batch.document_B,
            features, draws=wanted.draws, seed=wanted.seed,
        )
        for name, found in labels.items()
    ]  # fmt: skip


def _places(batch: Batch) -> tuple[list[int], list[int]]:
    return batch.document_B.tolist(), batch.pos_B.tolist()


def _short(value_N: Tensor) -> list[float]:
    return [float(f"{value:.6g}") for value in value_N.tolist()]


def _settings(prefix: str, value: Any) -> Sequence[tuple[str, str]]:
    if isinstance(value, dict):
        return [pair for key, part in value.items() for pair in _settings(f"{prefix}.{key}" if prefix else key, part)]
    if isinstance(value, list) and any(isinstance(part, dict) for part in value):
        return [pair for at, part in enumerate(value) for pair in _settings(f"{prefix}[{at}]", part)]
    return [(prefix, str(value))]
