"""Stages `export` and `register`: from a judged run to a bundle, and from a bundle to the lens that workers load."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

from lens_training.build import build
from lens_training.evaluate.gate import gate
from lens_training.evaluate.record import Evaluation, Figure, read_evaluation
from lens_training.evaluate.weights import newest_digest, open_weights
from lens_training.export import export
from lens_training.run_spec import RunSpec
from wonder.errors import ArtifactError, ArtifactMissing, LensNotPromoted, SpecError
from wonder.lens.gate import Bars
from wonder.lens.manifest import LensManifest, LensMetrics, check_files, read_manifest
from wonder.lens.registry import InForce, LensRegistry
from wonder.trace.explanation import Fidelity

BUNDLE = "bundle"


def export_run(spec: RunSpec, device: str | None = None) -> LensManifest:
    """Write the bundle of the newest checkpoint, with the figures of its evaluation; one that is there is kept.

    Raises:
        ArtifactMissing: There is no checkpoint, or it was not evaluated.
        SpecError: The evaluation is of another checkpoint.
        StoreNotUsable: There is no room.
    """
    evaluation, folder = judged(spec), spec.run_folder / BUNDLE
    metrics = metrics_of(evaluation)
    there = _there(folder)
    if there is not None and (there.training.steps, there.training.spec_sha256, there.metrics) == (
        evaluation.step,
        evaluation.spec_digest,
        metrics,
    ):
        return there
    weights = open_weights(spec)
    bench = build(spec, device)
    weights.put(bench.system, evaluation.weights)
    rows = bench.rows("train", check=False)
    part = folder.with_name(f".{BUNDLE}.new")
    shutil.rmtree(part, ignore_errors=True)
    try:
        found = export(
            bench.system, bench.statistics, metrics, bench.tokenizer, rows.manifest.source, part,
            name=spec.register_as.name, data_sha256=evaluation.data_digest, spec_sha256=evaluation.spec_digest,
            steps=evaluation.step, rows=len(rows),
        )  # fmt: skip
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return found


def register_run(spec: RunSpec) -> InForce:
    """Keep the bundle in the registry, and let the alias point to it if it passes the gate.

    Raises:
        ArtifactMissing: There is no bundle yet.
        LensNotPromoted: It is not good enough; it is kept, and nothing was moved.
        SpecError: No registry is named.
    """
    place = spec.register_as
    if not place.registry:
        raise SpecError("register_as.registry is empty, so there is nowhere to register the lens: name a folder")
    folder = spec.run_folder / BUNDLE
    if _there(folder) is None:
        raise ArtifactMissing(f"{folder} is no bundle: export first")
    bars = spec.gate
    verdict = gate(judged(spec), bars.model_copy(update={"beat_current": False}))
    if not verdict.passed:
        raise LensNotPromoted(f"nothing was moved: {verdict.reasons[0]}")
    registry = LensRegistry(place.registry)
    manifest = registry.register(folder)
    return registry.promote(
        manifest.name,
        manifest.digest or "",
        Bars(bars.minimum_fve, bars.minimum_kl_recovered, bars.maximum_shuffled_fve, bars.beat_current),
        at=datetime.now(UTC),
        alias=place.alias,
    )


def judged(spec: RunSpec) -> Evaluation:
    """The evaluation of the newest checkpoint.

    Raises:
        ArtifactMissing: There is none.
        SpecError: It is of another checkpoint.
    """
    name, digest = newest_digest(spec.run_folder)
    found = read_evaluation(spec.run_folder)
    if found is None:
        raise ArtifactMissing(
            f"{spec.run_folder} has no evaluation, and a lens travels with its figures: evaluate first"
        )
    if (found.checkpoint, found.checkpoint_digest) != (name, digest):
        raise SpecError(f"the evaluation is of {found.checkpoint}, and the newest checkpoint is {name}: evaluate again")
    return found


def metrics_of(found: Evaluation) -> LensMetrics:
    """What a bundle says of its fidelity."""

    def fidelity(figure: Figure) -> Fidelity:
        return Fidelity(value=figure.value, low=figure.low, high=figure.high, rows=found.rows)

    own = found.greedy
    return LensMetrics(
        fve=fidelity(own.fve),
        kl_recovered=None if own.kl_recovered is None else fidelity(own.kl_recovered),
        kl_mean_nats=found.kl_mean_nats,
        controls={line.name: fidelity(line.fve) for line in found.lines if line.name != own.name},
        documents=found.documents,
        data_sha256=found.rows_digest,
        norm_ratio=own.norm_ratio.value,
        cosine=own.cosine.value,
        nll_nats=None if own.nll_nats is None else own.nll_nats.value,
        distinct_share=own.distinct_share,
    )


def _there(folder: Path) -> LensManifest | None:
    """The bundle in a folder, if it is whole."""
    try:
        found = read_manifest(folder)
        check_files(folder, found)
    except ArtifactError:
        return None
    return found
