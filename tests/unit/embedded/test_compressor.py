"""The shipped compressor: it belongs to the shipped weights and probes, and its codes keep what its manifest says."""

from pathlib import Path

import pytest

from lens_training.support_desk.compressor import Method, fit_compressor
from wonder.compression.bundle import load_compressor
from wonder.embedded import SUPPORT_DESK, embedded_compressors, embedded_path, embedded_probes
from wonder.embedded.world import prompt, tickets
from wonder.engine.engine import TraceEngine
from wonder.engine.request import Request
from wonder.probes.bundle import load_bundle
from wonder.trace.capture import ThoughtCapture
from wonder.trace.sampling import Sampling

REFIT = "run `python -m lens_training.support_desk.compressor`"


@pytest.fixture(scope="module")
def engine() -> TraceEngine:
    return TraceEngine.load(SUPPORT_DESK, device="cpu")


def folder(found: Path | None) -> Path:
    assert found is not None
    return found


def test_it_was_fitted_on_the_shipped_weights_and_their_probes(engine: TraceEngine) -> None:
    manifest = load_compressor(folder(embedded_compressors(SUPPORT_DESK)) / "pca").manifest
    assert manifest.model_fingerprint == engine.info.fingerprint, REFIT
    probes = [load_bundle(folder(embedded_probes(SUPPORT_DESK)) / name).id for name in engine.info.concepts]
    assert [probe.bundle for probe in manifest.probes] == probes, REFIT
    assert manifest.hook_point.layer == engine.info.n_layers - 1
    whole = {row.dims: row for row in manifest.metrics}
    assert whole[64].explained_variance > 0.98
    assert (whole[64].top1_agreement or 0) > 0.95
    assert all((row.probe_logit_error or 0) < 1e-3 for row in manifest.metrics)


def test_a_probe_is_read_again_from_the_smallest_code_in_a_trace(engine: TraceEngine) -> None:
    compressor = load_compressor(folder(embedded_compressors(SUPPORT_DESK)) / "pca")
    probe = load_bundle(folder(embedded_probes(SUPPORT_DESK)) / "legal_risk")
    logits = []
    for dims in (compressor.manifest.probe_dims, compressor.manifest.dims):
        capture = ThoughtCapture(compress_state=True, compression_dims=dims)
        text = prompt("My lawyer will sue you over the burns from your heater.")
        message = engine.generate_one(Request(prompt=text, capture=capture, sampling=Sampling(max_new_tokens=24)))
        assert message.thought_trace is not None
        assert message.thought_trace.compressed_state is not None
        logits.append(compressor.probe_logit(probe, message.thought_trace.compressed_state.values))
    assert logits[0] == pytest.approx(logits[1], abs=1e-2)


@pytest.mark.parametrize("method", ["pca", "learned"])
def test_fitting_again_on_few_tickets_gives_a_bundle_that_fits(
    method: Method, tmp_path: Path, engine: TraceEngine
) -> None:
    model = folder(embedded_path(SUPPORT_DESK))
    for file in model.iterdir():
        (tmp_path / file.name).symlink_to(file, target_is_directory=file.is_dir())
    (tmp_path / "compressors").unlink()
    fitted = fit_compressor(
        tmp_path,
        train=tickets(40, seed=1, split="train"),
        held_out=tickets(20, seed=2, split="held_out"),
        method=method,
        steps=20,
    )
    assert fitted.id == load_compressor(tmp_path / "compressors" / method).id
    fitted.check_fits(engine.info.fingerprint, engine.info.d_model, engine.info.n_layers)
    assert (fitted.manifest.train_count, fitted.manifest.held_out_count) == (40, 20)
    assert fitted.manifest.probe_dims == 1
    assert fitted.manifest.dims == (128 if method == "pca" else 64)
    for rows in (fitted.manifest.metrics, fitted.manifest.pca_metrics):
        assert [row.dims for row in rows][:2] == ([] if rows == [] else [8, 16])
        assert all((row.probe_logit_error or 0) < 1e-3 and row.kl_nats is not None for row in rows)
    assert bool(fitted.manifest.pca_metrics) == (method == "learned")
