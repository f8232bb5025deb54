from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.engine.conftest import build
from tests.unit.engine.reference import eager_twin, read, reference
from wonder.engine.engine import TraceEngine
from wonder.engine.request import Request
from wonder.errors import CorruptBundle, ProbeMismatch, UnknownProbe
from wonder.probes.bundle import save_bundle
from wonder.probes.fingerprint import model_fingerprint
from wonder.probes.manifest import Calibration, Estimate, HookPoint, ProbeManifest, ProbeMetrics
from wonder.trace.capture import ThoughtCapture
from wonder.trace.sampling import Sampling

AGGREGATIONS = ("last_prompt", "mean_prompt", "mean_generated", "last_generated")


def make_probe(folder: Path, name: str, model: Any, layer: int, aggregation: str) -> tuple[torch.Tensor, float]:
    """A probe on random weights; gives its direction and bias on raw activations."""
    generator = torch.Generator().manual_seed(layer)
    d_model = model.config.hidden_size
    weight, mean = torch.randn(d_model, generator=generator), torch.randn(d_model, generator=generator)
    scale = torch.rand(d_model, generator=generator) + 1.0
    estimate = Estimate(value=0.9, low=0.8, high=1.0)
    manifest = ProbeManifest(
        name=name,
        concept=name,
        definition="a test",
        polarity="present",
        model="tiny",
        revision="",
        model_fingerprint=model_fingerprint(model),
        dtype="float32",
        hook_point=HookPoint(layer=layer, aggregation=aggregation),  # type: ignore[arg-type]
        d_model=d_model,
        method="logistic",
        data_sha256="0" * 64,
        train_count=1,
        train_positives=1,
        held_out_count=1,
        held_out_positives=1,
        prevalence=0.5,
        metrics=ProbeMetrics(auroc=estimate, average_precision=estimate, tpr_at_1pct_fpr=estimate),
        shuffled_label_auroc=0.5,
        calibration=Calibration(kind="platt", a=0.25, c=-0.1),
        created=date(2025, 1, 1),
    )
    tensors = {"weight": weight, "bias": torch.tensor([0.3]), "mean": mean, "scale": scale}
    save_bundle(folder / name, manifest, tensors)
    direction = weight.double() / scale.double()
    return direction, 0.3 - float(mean.double() @ direction)


@pytest.mark.parametrize("path", ["left", "right", "slots"])
def test_every_aggregation_is_read_where_its_probe_was_fitted(path: str, tmp_path: Path, make_engine: Any) -> None:
    model = build("llama")
    probes = {name: (layer, *make_probe(tmp_path, name, model, layer, name)) for layer, name in enumerate(AGGREGATIONS)}
    twin = eager_twin(model)
    engine = make_engine("llama", model=model, bundles=tmp_path, padding_side="right" if path == "right" else "left")
    assert engine.info.concepts == sorted(AGGREGATIONS)
    capture = ThoughtCapture(run_concept_probes=list(AGGREGATIONS))
    requests = [
        Request(prompt=prompt, capture=capture, sampling=Sampling(max_new_tokens=count))
        for prompt, count in (("hi", 9), ("a longer prompt", 3))
    ]
    for row in read(engine, requests, path):
        want = reference(twin, row.prompt, row.answer, attention=False)
        for name, (layer, direction, bias) in probes.items():
            logit = want.states[name][layer] @ direction + bias
            assert row.trace.active_concepts[name] == pytest.approx(float(torch.sigmoid(0.25 * logit - 0.1)), abs=1e-5)
            assert row.trace.bundles[name].startswith(f"{name}@")


def test_a_concept_without_a_probe_is_refused_with_the_nearest_name(tmp_path: Path, make_engine: Any) -> None:
    model = build("llama")
    make_probe(tmp_path, "legal_risk", model, 1, "mean_prompt")
    engine = make_engine("llama", model=model, bundles=tmp_path)
    with pytest.raises(UnknownProbe, match=r"this model has legal_risk: did you mean 'legal_risk'\?"):
        engine.generate_one(Request(prompt="x", capture=ThoughtCapture(run_concept_probes=["legal_rsik"])))
    with pytest.raises(UnknownProbe, match="ask for one of those"):
        engine.generate_one(Request(prompt="x", capture=ThoughtCapture(run_concept_probes=["zzz"])))
    with pytest.raises(UnknownProbe):
        engine.generate_one(Request(prompt="x", capture=ThoughtCapture(run_concept_probes=["../legal_risk"])))


def test_a_probe_of_another_model_is_refused(tmp_path: Path, make_engine: Any) -> None:
    make_probe(tmp_path, "legal_risk", build("llama", seed=1), 1, "mean_prompt")
    make_probe(tmp_path, "deep", build("llama"), 7, "mean_prompt")
    engine = make_engine("llama", seed=0, bundles=tmp_path)
    with pytest.raises(ProbeMismatch, match="fingerprint"):
        engine.generate_one(Request(prompt="x", capture=ThoughtCapture(run_concept_probes=["legal_risk"])))
    with pytest.raises(ProbeMismatch, match=r"layer 7, this model has layers 0\.\.3"):
        engine.generate_one(Request(prompt="x", capture=ThoughtCapture(run_concept_probes=["deep"])))


def test_a_pickle_in_place_of_a_probe_is_refused(tmp_path: Path, make_engine: Any) -> None:
    model = build("llama")
    make_probe(tmp_path, "legal_risk", model, 1, "mean_prompt")
    torch.save({"weight": torch.zeros(32)}, tmp_path / "legal_risk" / "probe.safetensors")
    engine = make_engine("llama", model=model, bundles=tmp_path)
    with pytest.raises(CorruptBundle):
        engine.generate_one(Request(prompt="x", capture=ThoughtCapture(run_concept_probes=["legal_risk"])))


def test_a_probe_on_states_that_are_not_numbers_is_unknown_not_absent(tmp_path: Path, make_engine: Any) -> None:
    model = build("llama")
    model.model.layers[1].mlp.down_proj.weight.data[0, 0] = float("nan")
    make_probe(tmp_path, "low", model, 0, "mean_prompt")
    make_probe(tmp_path, "high", model, 2, "mean_prompt")
    engine = make_engine("llama", model=model, bundles=tmp_path)
    capture = ThoughtCapture(run_concept_probes=["low", "high"])
    trace = engine.generate_one(Request(prompt="x", sampling=Sampling(max_new_tokens=2), capture=capture)).thought_trace
    assert set(trace.active_concepts) == {"low"}
    assert "not finite" in trace.missing["active_concepts.high"]


def test_the_embedded_model_tells_teams_and_legal_risk() -> None:
    engine = TraceEngine.load(device="cpu")
    assert "legal_risk" in engine.info.concepts
    capture = ThoughtCapture(run_concept_probes=["legal_risk"], compute_attention_entropy=True)
    request = Request(prompt="Ticket: I was charged twice.\nTeam:", capture=capture, answer_format="json")
    trace = engine.generate_one(request).thought_trace
    assert trace is not None
    assert "legal_risk" in trace.active_concepts
    assert trace.attention_entropy[-1] is not None
