"""Fits a compressor of the embedded model on the states of its own answers, and measures it (see `--help`)."""

import argparse
import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import torch
from safetensors.torch import load
from torch import Tensor

from wonder.compression.bundle import Compressor, save_compressor
from wonder.compression.codes import Coder
from wonder.compression.fit import Covariance, fit
from wonder.compression.manifest import CompressorManifest, ProbeInBasis
from wonder.compression.metrics import Head, code_metrics
from wonder.compression.train import train as train_autoencoder
from wonder.embedded import EMBEDDED, SUPPORT_DESK
from wonder.embedded.world import Ticket, prompt, tickets
from wonder.engine.engine import TraceEngine
from wonder.engine.request import Request
from wonder.errors import WonderError
from wonder.probes.bundle import ProbeBundle, load_bundle
from wonder.probes.manifest import MANIFEST_FILE, Aggregation, HookPoint
from wonder.trace.capture import ThoughtCapture
from wonder.trace.sampling import Sampling
from wonder.trace.schema import ThoughtTrace
from wonder.trace.store import ArtifactStore, DirectoryStore

# Shape suffixes: N tickets, D d_model, P probes, V vocab.

log = logging.getLogger(__name__)

AGGREGATION: Final[Aggregation] = "mean_generated"
TRAIN_SEED, TRAIN_TICKETS = 21, 2000
HELD_OUT_SEED, HELD_OUT_TICKETS = 22, 1000
SIZES: Final = (8, 16, 32, 48, 64, 96, 128)
LEARNED_DIMS: Final = 64
HIDDEN: Final = 192
PIECE: Final = 250
"""Tickets answered between two updates of the covariance."""
MOST_TOKENS: Final = 24

Method = Literal["pca", "learned"]


def fit_compressor(
    folder: Path, *, train: Sequence[Ticket], held_out: Sequence[Ticket], method: Method = "pca", steps: int = 3000
) -> Compressor:
    """Fit, measure and save `compressors/<method>` of the model in `folder`; one that is there is replaced.

    The states are those of the last layer, averaged over the answer that the model writes to each ticket: what a
    trace with `compress_state=True` holds. The probes in `folder` come first in the code. A learned code has
    up to 64 numbers, and is trained in so many `steps`; beside its own figures stand those of principal directions.
    """
    target = folder / "compressors" / method
    shutil.rmtree(target, ignore_errors=True)
    probes = [load_bundle(path.parent) for path in sorted((folder / "probes").glob(f"*/{MANIFEST_FILE}"))]
    with tempfile.TemporaryDirectory() as scratch:
        store = DirectoryStore(scratch)
        engine = TraceEngine.load(folder, device="cpu", store=store, max_batch=64)
        covariance, pieces = Covariance(engine.info.d_model), []
        for states_ND in _states(engine, store, train):
            covariance.update(states_ND)
            pieces.append(states_ND)
        held_out_ND = torch.cat(list(_states(engine, store, held_out)))
        directions_PD = _directions(probes, engine.info.d_model)
        basis = fit(covariance, directions_PD, engine.info.d_model)
        dims = engine.info.d_model if method == "pca" else min(LEARNED_DIMS, engine.info.d_model)
        sizes = [size for size in SIZES if size <= dims]
        metrics = code_metrics(held_out_ND, basis, sizes, probes, _head(engine))
        coder: Coder = basis
        if method == "learned":
            coder = train_autoencoder(torch.cat(pieces), directions_PD, dims, hidden=HIDDEN, steps=steps)
        manifest = CompressorManifest(
            name=method,
            method=method,
            model=SUPPORT_DESK,
            revision=engine.info.fingerprint[:12],
            model_fingerprint=engine.info.fingerprint,
            dtype=engine.info.dtype,
            hook_point=HookPoint(layer=engine.info.n_layers - 1, aggregation=AGGREGATION),
            d_model=engine.info.d_model,
            dims=dims,
            probe_dims=coder.probe_dims,
            hidden=0 if method == "pca" else HIDDEN,
            probes=[ProbeInBasis(bundle=probe.id, hook_point=probe.manifest.hook_point) for probe in probes],
            data_sha256=_digest([*train, *held_out]),
            train_count=covariance.count,
            held_out_count=len(held_out_ND),
            metrics=metrics if method == "pca" else code_metrics(held_out_ND, coder, sizes, probes, _head(engine)),
            pca_metrics=[] if method == "pca" else metrics,
            created=datetime.now(UTC).date(),
        )
        engine.close()
    return save_compressor(target, manifest, coder)


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit and measure a compressor of the stored model; its probes are read, not changed."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--model", type=Path, default=EMBEDDED[SUPPORT_DESK], help="folder of the model")
    parser.add_argument("--method", choices=["pca", "learned"], default="pca", help="which compressor")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    compressor = fit_compressor(
        options.model,
        method=options.method,
        train=tickets(TRAIN_TICKETS, seed=TRAIN_SEED, split="train"),
        held_out=tickets(HELD_OUT_TICKETS, seed=HELD_OUT_SEED, split="held_out"),
    )
    log.info("%s: %d probe coordinates of %d", compressor.id, compressor.manifest.probe_dims, compressor.manifest.dims)
    for rows in (compressor.manifest.metrics, compressor.manifest.pca_metrics):
        for row in rows:
            log.info("%s", row.model_dump_json())


def _states(engine: TraceEngine, store: ArtifactStore, asked: Sequence[Ticket]) -> Iterator[Tensor]:
    """Yield the (N, D) states of the answers, piece by piece, as the engine itself reads them."""
    capture = ThoughtCapture(capture_hidden_states=[engine.info.n_layers - 1], top_alternatives=0)
    for start in range(0, len(asked), PIECE):
        messages = engine.generate(
            [
                Request(prompt=prompt(ticket.text), capture=capture, sampling=Sampling(max_new_tokens=MOST_TOKENS))
                for ticket in asked[start : start + PIECE]
            ]
        )
        states = []
        for message in messages:
            if isinstance(message, WonderError):
                raise message
            trace = message.thought_trace or ThoughtTrace(action="", model="")
            (ref,) = trace.artifacts
            states.append(load(store.get(ref))[f"hidden.{AGGREGATION}"][0])
        yield torch.stack(states)


def _directions(probes: Sequence[ProbeBundle], d_model: int) -> Tensor:
    return torch.stack([probe.weight_D for probe in probes]) if probes else torch.zeros(0, d_model)


def _head(engine: TraceEngine) -> Head:
    """Final norm and unembedding of the embedded model, which is a Llama."""
    model: Any = engine.model

    def head(states_ND: Tensor) -> Tensor:
        logits_NV: Tensor = model.lm_head(model.model.norm(states_ND))
        return logits_NV

    return head


def _digest(asked: Sequence[Ticket]) -> str:
    return hashlib.sha256(json.dumps([ticket.text for ticket in asked], ensure_ascii=False).encode()).hexdigest()


if __name__ == "__main__":
    main()
