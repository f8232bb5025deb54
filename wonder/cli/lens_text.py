"""Lenses on a terminal: the registry as a table, one version in full, and what a lens says of states."""

from collections.abc import Sequence
from pathlib import Path

from wonder.cli.review_text import clean
from wonder.lens.manifest import LensManifest, check_files, read_manifest
from wonder.lens.registry import InForce
from wonder.trace.explanation import Explanation, Fidelity, guesses
from wonder.trace.schema import ThoughtTrace


def table(found: Sequence[LensManifest], entries: Sequence[InForce], root: Path) -> list[str]:
    """One line per version, columns aligned."""
    if not found:
        return [f"no lens in {root}: register one with `wonder lens register FOLDER`"]
    cells: list[tuple[str, ...]] = [("LENS", "MODEL", "LAYER", "FVE", "KL RECOVERED", "CREATED", "IN FORCE")]
    for manifest in found:
        target, metrics = manifest.target, manifest.metrics
        aliases = sorted({entry.alias for entry in entries if entry.version == manifest.digest})
        cells.append(
            (
                manifest.id,
                f"{clean(target.model)} {target.fingerprint[:12]}",
                str(target.layer),
                share(metrics.fve),
                share(metrics.kl_recovered),
                manifest.created.isoformat(),
                ", ".join(aliases),
            )
        )
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    return ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells]


def item(manifest: LensManifest, entries: Sequence[InForce]) -> list[str]:
    """What a version fits, what it is worth, what it was trained on."""
    target, prompt, metrics, training = manifest.target, manifest.prompt, manifest.metrics, manifest.training
    aliases = sorted({entry.alias for entry in entries if entry.version == manifest.digest})
    told = [
        manifest.id,
        f"  digest      {manifest.digest}",
        f"  in force    {', '.join(aliases) or 'no'}",
        f"  model       {clean(target.model)} {clean(target.revision)} ({target.fingerprint[:12]}, {target.dtype})",
        f"  reads       layer {target.layer} of {target.n_layers} ({target.site}), width {target.d_model}",
        f"  says        {prompt.length} tokens; the state enters by {prompt.injection}",
        f"  explains    {share(metrics.fve)} of the variance, on {metrics.fve.rows:,} states of "
        f"{metrics.documents:,} documents",
        f"  recovers    {share(metrics.kl_recovered)} of the next token's distribution",
    ]
    told += [f"  control     {name}: {share(found)}" for name, found in sorted(metrics.controls.items())]
    if metrics.nll_nats is not None:
        told.append(f"  text        {metrics.nll_nats:.2f} nats per token under the model")
    if metrics.distinct_share is not None:
        told.append(f"              {metrics.distinct_share:.0%} of the texts are distinct")
    told.append(f"  trained     {training.steps:,} steps on {training.rows:,} states, {manifest.created.isoformat()}")
    told += [f"  replaces    {manifest.parent}"] if manifest.parent else []
    size = sum(file.bytes for file in manifest.files)
    return [*told, f"  size        {size / 2**20:,.1f} MiB in {len(manifest.files)} files"]


def explained(trace: ThoughtTrace, found: Sequence[Explanation]) -> list[str]:
    """The explanations of one trace."""
    told = [f"{clean(trace.action)} · {clean(trace.model)}"]
    told += [f"  {line}" for line in guesses(found)]
    if not found:
        told.append(f"  no state was put into words{_why(trace)}")
    return told


def manifest_at(folder: Path) -> LensManifest:
    """Of a bundle that is not registered, with its files checked."""
    found = read_manifest(folder)
    check_files(folder, found)
    return found


def share(found: Fidelity | None) -> str:
    """A measured share with its interval."""
    return "not measured" if found is None else f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _why(trace: ThoughtTrace) -> str:
    return f": {clean(trace.missing['explanations'])}" if "explanations" in trace.missing else ""
