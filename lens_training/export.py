"""From a trained system to a bundle that a worker loads, with everything needed to judge and to refuse it."""

import hashlib
import struct
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lens_training.activations import Source
from lens_training.batch import Statistics
from lens_training.system import LensSystem
from wonder.errors import SpecError
from wonder.lens.adapters import factors
from wonder.lens.bundle import save_lens
from wonder.lens.manifest import DECODER, ENCODER, LensManifest, LensMetrics, LensPrompt, LensTarget, LensTraining
from wonder.lens.tokenizer import prompt_tokens, tokenizer_digest
from wonder.probes.fingerprint import model_fingerprint

# Shape suffixes: D d_model, V vocabulary, P tokens of a prompt.


def export(
    system: LensSystem,
    statistics: Statistics,
    metrics: LensMetrics,
    tokenizer: Any,
    source: Source,
    folder: Path,
    *,
    name: str,
    data_sha256: str = "",
    spec_sha256: str = "",
    steps: int = 0,
    rows: int = 0,
    parent: str | None = None,
    created: date | None = None,
    merge: bool = False,
) -> LensManifest:
    """Write the bundle of a lens; it appears whole or not at all.

    Args:
        system: Trained; its weights as they are now, so put averaged ones in before.
        statistics: Of the training states.
        metrics: Measured on held-out documents.
        tokenizer: Of the target.
        source: What the states were of, as the dump wrote it down (`ActivationManifest.source`).
        folder: Of the bundle; must not be there, or be empty.
        name: Of the lens.
        data_sha256: Digest of the manifest of the training states.
        spec_sha256: Digest of the run's specification.
        steps: Of the training.
        rows: Training states.
        parent: Id of the bundle that this one is to replace.
        created: None: today.
        merge: Of a lens of adapters, write two models of their own, which fit beside a quantised target too, instead of
            the adapters, which share the served model's weights. In 16 bits the sums are rounded.

    Raises:
        SpecError: The statistics are not those that the decoder was made with, or the source is not the target's.
        ArtifactError: The folder holds something already.
        StoreNotUsable: There is no room.
    """
    kept = system.adapters is not None and not merge
    decoder, encoder = (system.decoder, system.encoder) if kept else system.plain()
    own: Any = decoder.mean_D
    if not torch.equal(own.cpu().float(), statistics.mean_D.cpu().float()):
        raise SpecError("the decoder was made with another mean than the statistics have: export with those of its run")
    if (source.layer, source.d_model) != (system.target.layer, system.target.d_model):
        raise SpecError(
            f"the states are of layer {source.layer}, width {source.d_model}, and the lens of layer "
            f"{system.target.layer}, width {system.target.d_model}: export with the dump it was trained on"
        )
    if system.adapters is not None and source.fingerprint == model_fingerprint(system.target.model):
        raise SpecError(
            "the source's fingerprint is that of the target with adapters in it, which is nowhere served: export with "
            "the source in the dump's manifest"
        )
    if not all(bool(parameter.isfinite().all()) for parameter in system.parameters()):
        raise SpecError("the lens has weights that are not finite: go back to an older checkpoint")
    bias_V: Any = decoder.bias_V
    scale: Any = decoder.scale
    manifest = LensManifest(
        name=name,
        target=LensTarget(
            model=source.model,
            revision=source.revision,
            fingerprint=source.fingerprint,
            dtype=source.model_dtype,
            quantization=source.quantization,
            layer=source.layer,
            n_layers=source.n_layers,
            d_model=source.d_model,
            vocabulary=source.vocabulary,
            tokenizer_digest=tokenizer_digest(tokenizer),
        ),
        prompt=LensPrompt(
            left=prompt_tokens(tokenizer, _ids(decoder.left_P)),
            right=prompt_tokens(tokenizer, _ids(decoder.right_P)),
            forbidden=prompt_tokens(tokenizer, bias_V.nonzero()[:, 0].tolist()),
            encoder_left=prompt_tokens(tokenizer, _ids(encoder.left_P)),
            injection=decoder.injection,
            written_blocks=max(1, len(decoder.maps)),
            scale=float(scale),
            length=system.length,
        ),
        metrics=metrics,
        training=LensTraining(
            statistics_sha256=statistics_digest(statistics),
            variance=statistics.variance,
            data_sha256=data_sha256,
            spec_sha256=spec_sha256,
            steps=steps,
            rows=rows,
        ),
        created=created or datetime.now(UTC).date(),
        parent=parent,
    )
    held = None
    if kept and system.adapters is not None:
        held = {name: factors(system.adapters.model, name) for name in (DECODER, ENCODER)}
    return save_lens(folder, manifest, decoder, encoder, tokenizer, held)


def statistics_digest(statistics: Statistics) -> str:
    """SHA-256 of mean and variance, as float32 and float64 in little-endian order."""
    mean = statistics.mean_D.detach().cpu().float().numpy().astype("<f4").tobytes()
    return hashlib.sha256(mean + struct.pack("<d", statistics.variance)).hexdigest()


def states_digest(activation_ND: Tensor) -> str:
    """SHA-256 of the states a lens was measured on, as float32 in little-endian order."""
    return hashlib.sha256(activation_ND.detach().cpu().float().numpy().astype("<f4").tobytes()).hexdigest()


def _ids(buffer: Any) -> list[int]:
    return [int(id) for id in buffer.tolist()]
