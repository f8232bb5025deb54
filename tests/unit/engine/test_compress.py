"""Compressed states in traces: the very state that the artifact would hold, coded by the bundle that is named."""

from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load

from tests.unit.engine.conftest import build
from wonder.compression.bundle import Compressor, save_compressor
from wonder.compression.fit import Covariance, fit
from wonder.compression.manifest import CompressorManifest
from wonder.compression.train import train
from wonder.engine.engine import TraceEngine
from wonder.engine.request import Request
from wonder.errors import CompressorMismatch, CorruptBundle, SettingNotSupported
from wonder.probes.bundle import ProbeBundle
from wonder.probes.fingerprint import model_fingerprint
from wonder.probes.manifest import HookPoint
from wonder.trace.capture import ThoughtCapture
from wonder.trace.injection import Injection
from wonder.trace.sampling import Sampling
from wonder.trace.store import DirectoryStore

DIMS = 12


def manifest_of(model: Any, **changes: Any) -> CompressorManifest:
    fields: dict[str, Any] = {
        "name": changes.get("method", "pca"),
        "method": "pca",
        "model": "tiny",
        "revision": "",
        "model_fingerprint": model_fingerprint(model),
        "dtype": "float32",
        "hook_point": HookPoint(layer=3, aggregation="mean_generated"),
        "d_model": model.config.hidden_size,
        "dims": DIMS,
        "probe_dims": 1,
        "probes": [],
        "data_sha256": "0" * 64,
        "train_count": 100,
        "held_out_count": 1,
        "metrics": [],
        "created": date(2026, 1, 1),
    }
    return CompressorManifest(**(fields | changes))


def save_basis(folder: Path, model: Any, layer: int = 3, **changes: Any) -> Compressor:
    """A compressor of random states for a tiny model."""
    width = model.config.hidden_size
    covariance = Covariance(width)
    covariance.update(torch.randn(100, width, generator=torch.Generator().manual_seed(0)))
    point = HookPoint(layer=layer, aggregation="mean_generated")
    basis = fit(covariance, torch.ones(1, width), DIMS)
    return save_compressor(folder / "pca", manifest_of(model, hook_point=point, **changes), basis)


def ask(prompt: str = "hello", **capture: Any) -> Request:
    settings = ThoughtCapture(compress_state=True, **{"compression_dims": 8, **capture})
    return Request(prompt=prompt, sampling=Sampling(max_new_tokens=6), capture=settings)


@pytest.mark.parametrize("layer", [1, 3])
def test_the_state_of_the_answer_is_compressed(
    layer: int, tmp_path: Path, store: DirectoryStore, tokenizer: Any
) -> None:
    model = build("llama")
    saved = save_basis(tmp_path, model, layer)
    engine = TraceEngine(model, tokenizer, compressors=tmp_path, store=store)
    messages = engine.generate([ask("hello", capture_hidden_states=True), ask("a longer prompt, ragged")])
    for message in messages:
        trace = message.thought_trace  # type: ignore[union-attr]
        assert trace.compressed_state.basis == saved.id == trace.bundles["compressed_state"]
        assert (trace.compressed_state.layer, trace.compressed_state.method) == (layer, "pca")
        assert len(trace.compressed_state.values) == 8
        assert "compressed_state" not in trace.missing
    trace = messages[0].thought_trace  # type: ignore[union-attr]
    state = load(store.get(trace.artifacts[0]))["hidden.mean_generated"][layer]
    assert trace.compressed_state.values == saved.apply(state, 8)


def test_a_code_is_the_same_alone_and_beside_others(tmp_path: Path, tokenizer: Any) -> None:
    model = build("llama")
    save_basis(tmp_path, model)
    engine = TraceEngine(model, tokenizer, compressors=tmp_path)
    alone = engine.generate_one(ask()).thought_trace
    beside = engine.generate([ask("another, longer"), ask()])[1].thought_trace  # type: ignore[union-attr]
    assert alone is not None
    assert alone.compressed_state is not None
    assert beside.compressed_state.values == pytest.approx(alone.compressed_state.values, abs=2e-3)


def test_more_numbers_than_the_basis_has_are_refused(tmp_path: Path, tokenizer: Any) -> None:
    model = build("llama")
    save_basis(tmp_path, model)
    engine = TraceEngine(model, tokenizer, compressors=tmp_path)
    with pytest.raises(SettingNotSupported, match=r"compression_dims is 13, and the basis pca@.* has 12"):
        engine.generate_one(ask(compression_dims=13))


def test_a_compressor_of_another_model_is_refused(tmp_path: Path, tokenizer: Any) -> None:
    save_basis(tmp_path, build("llama", seed=1))
    engine = TraceEngine(build("llama"), tokenizer, compressors=tmp_path)
    with pytest.raises(CompressorMismatch, match="fingerprint"):
        engine.generate_one(ask())
    assert engine.generate_one(Request(prompt="x", sampling=Sampling(max_new_tokens=2))).thought_trace is not None


@pytest.mark.parametrize(
    ("method", "reason"), [("learned", "no learned compressor bundle"), ("none", "compression_method='none'")]
)
def test_a_method_without_a_compressor_is_missing_with_a_reason(
    method: str, reason: str, tmp_path: Path, tokenizer: Any
) -> None:
    model = build("llama")
    save_basis(tmp_path, model)
    engine = TraceEngine(model, tokenizer, compressors=tmp_path)
    trace = engine.generate_one(ask(compression_method=method, compression_dims=4096)).thought_trace
    assert trace is not None
    assert trace.compressed_state is None
    assert reason in trace.missing["compressed_state"]


def save_learned(folder: Path, model: Any, **changes: Any) -> Compressor:
    """A learned compressor of random states for a tiny model."""
    width = model.config.hidden_size
    states = torch.randn(60, width, generator=torch.Generator().manual_seed(0))
    coder = train(states, torch.ones(1, width), DIMS, hidden=5, steps=20)
    return save_compressor(folder, manifest_of(model, method="learned", hidden=5, **changes), coder)


def test_a_learned_code_is_made_of_the_answer_beside_others_as_alone(
    tmp_path: Path, store: DirectoryStore, tokenizer: Any
) -> None:
    model = build("llama")
    saved = save_learned(tmp_path / "learned", model)
    save_basis(tmp_path, model)
    engine = TraceEngine(model, tokenizer, compressors=tmp_path, store=store)
    asked = ask("hello", compression_method="learned", capture_hidden_states=True)
    first, second = engine.generate([asked, ask("ragged, by principal directions")])
    trace, other = first.thought_trace, second.thought_trace  # type: ignore[union-attr]
    assert trace.compressed_state.basis == saved.id == trace.bundles["compressed_state"]
    assert (trace.compressed_state.layer, trace.compressed_state.method) == (3, "learned")
    state = load(store.get(trace.artifacts[0]))["hidden.mean_generated"][3]
    assert trace.compressed_state.values == saved.apply(state, 8)
    assert other.compressed_state.method == "pca"
    probe = ProbeBundle("p@1", None, torch.ones(32), torch.tensor(0.5), None)  # type: ignore[arg-type]
    assert saved.probe_logit(probe, trace.compressed_state.values) == pytest.approx(float(state.sum()) + 0.5, abs=1e-4)
    with pytest.raises(SettingNotSupported, match=r"compression_dims is 13, and the basis learned@.* has 12"):
        engine.generate_one(ask(compression_method="learned", compression_dims=13))


def test_a_learned_state_steers_a_later_answer_as_any_other(tmp_path: Path, tokenizer: Any) -> None:
    model = build("llama")
    saved = save_learned(tmp_path / "learned", model)
    engine = TraceEngine(model, tokenizer, compressors=tmp_path)
    state = engine.generate_one(ask(compression_method="learned")).thought_trace.compressed_state  # type: ignore[union-attr]
    steered = Request(prompt="next", prior_state=state, capture=ThoughtCapture(inject=Injection(kind="steering")))
    record = engine.generate_one(steered).thought_trace.injection  # type: ignore[union-attr]
    assert record is not None
    assert record.bundle == saved.id
    assert record.layer == 3


@pytest.mark.parametrize(("changes", "reason"), [({"model_fingerprint": "0" * 64}, "fingerprint"), ({}, "width 32")])
def test_a_learned_compressor_of_another_model_is_refused(
    changes: dict[str, Any], reason: str, tmp_path: Path, tokenizer: Any
) -> None:
    model = build("llama")
    save_learned(tmp_path / "learned", model, **changes)
    served = model if changes else build("llama", hidden_size=64, head_dim=16)
    engine = TraceEngine(served, tokenizer, compressors=tmp_path)
    with pytest.raises(CompressorMismatch, match=reason):
        engine.generate_one(ask(compression_method="learned"))


def test_a_compressor_in_the_folder_of_another_method_is_refused(tmp_path: Path, tokenizer: Any) -> None:
    model = build("llama")
    save_learned(tmp_path / "pca", model)
    engine = TraceEngine(model, tokenizer, compressors=tmp_path)
    with pytest.raises(CorruptBundle, match="holds a compressor of method 'learned'"):
        engine.generate_one(ask())
