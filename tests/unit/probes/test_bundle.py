"""Probe bundles: what is saved is what is loaded, and what does not fit is refused."""

import hashlib
import json
import pickle
from datetime import date
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save
from torch import nn

from wonder.errors import ArtifactError, CorruptBundle, ProbeMismatch, UnknownProbe
from wonder.probes.bundle import ProbeBundle, find_bundle, load_bundle, save_bundle
from wonder.probes.files import read_tensors
from wonder.probes.fingerprint import model_fingerprint
from wonder.probes.manifest import Calibration, Estimate, HookPoint, ProbeManifest, ProbeMetrics

D = 6
ESTIMATE = Estimate(value=0.9, low=0.8, high=0.95)
MANIFEST = ProbeManifest(
    name="anger",
    concept="anger",
    definition="The writer is angry.",
    polarity="high means angry",
    model="tiny",
    revision="1",
    model_fingerprint="a" * 64,
    dtype="float32",
    hook_point=HookPoint(layer=2, aggregation="mean_prompt"),
    d_model=D,
    method="lda",
    data_sha256="b" * 64,
    train_count=100,
    train_positives=40,
    held_out_count=50,
    held_out_positives=20,
    prevalence=0.4,
    metrics=ProbeMetrics(auroc=ESTIMATE, average_precision=ESTIMATE, tpr_at_1pct_fpr=ESTIMATE),
    shuffled_label_auroc=0.5,
    calibration=Calibration(kind="platt", a=2.0, c=-1.0),
    created=date(2026, 1, 2),
)
TENSORS = {
    "weight": torch.linspace(-1, 1, D),
    "bias": torch.tensor([0.25]),
    "mean": torch.linspace(0, 500, D),
    "scale": torch.linspace(0.5, 90, D),
    "direction": torch.ones(D),
}


@pytest.fixture
def bundle(tmp_path: Path) -> ProbeBundle:
    """A bundle saved in `tmp_path / "anger"`."""
    return save_bundle(tmp_path / "anger", MANIFEST, TENSORS)


def test_a_saved_bundle_loads_as_it_was(bundle: ProbeBundle, tmp_path: Path) -> None:
    loaded = load_bundle(tmp_path / "anger")
    assert loaded.id == bundle.id
    assert loaded.id.startswith("anger@")
    assert len(loaded.id) == len("anger@") + 12
    assert loaded.manifest.model_copy(update={"tensors_sha256": None}) == MANIFEST
    assert loaded.direction_D is not None
    assert torch.equal(loaded.weight_D, bundle.weight_D)


def test_the_folded_weights_read_raw_states_as_the_standardised_ones_would(bundle: ProbeBundle) -> None:
    states_ND = torch.randn(20, D, generator=torch.Generator().manual_seed(0)) * 100
    standardised = (states_ND - TENSORS["mean"]) / TENSORS["scale"]
    expected = standardised @ TENSORS["weight"] + TENSORS["bias"]
    torch.testing.assert_close(states_ND @ bundle.weight_D + bundle.bias, expected, atol=1e-3, rtol=1e-4)


def test_probabilities_are_calibrated_logits(bundle: ProbeBundle) -> None:
    logits = torch.tensor([-1e9, 0.0, 0.5, 1e9])
    expected = torch.sigmoid(torch.tensor([-1e9, -1.0, 0.0, 1e9]))
    torch.testing.assert_close(bundle.probability(logits), expected)


@pytest.mark.parametrize("kind", ["platt", "beta"])
def test_calibration_keeps_the_order_and_stays_finite(tmp_path: Path, kind: str) -> None:
    calibration = Calibration(kind=kind, a=0.7, b=1.3, c=0.1)
    bundle = save_bundle(tmp_path / kind, MANIFEST.model_copy(update={"calibration": calibration}), TENSORS)
    probabilities = bundle.probability(torch.linspace(-100, 100, 401))
    assert probabilities.isfinite().all()
    assert (probabilities.diff() >= 0).all()


def test_a_bundle_is_never_overwritten(bundle: ProbeBundle, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="never change"):
        save_bundle(tmp_path / "anger", MANIFEST, TENSORS)


def test_changed_tensors_are_refused(bundle: ProbeBundle, tmp_path: Path) -> None:
    path = tmp_path / "anger" / "probe.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptBundle, match="sha256"):
        load_bundle(tmp_path / "anger")


def test_a_pickle_is_never_opened_even_when_the_manifest_vouches_for_it(bundle: ProbeBundle, tmp_path: Path) -> None:
    folder = tmp_path / "anger"
    content = pickle.dumps({"weight": [1.0]})
    (folder / "probe.safetensors").write_bytes(content)
    _edit(folder, tensors_sha256=hashlib.sha256(content).hexdigest())
    with pytest.raises(CorruptBundle, match="pickle"):
        load_bundle(folder)


@pytest.mark.parametrize("name", ["../probe.safetensors", "probe.pt", "probe.pkl"])
def test_only_a_bare_safetensors_name_is_accepted(bundle: ProbeBundle, tmp_path: Path, name: str) -> None:
    _edit(tmp_path / "anger", tensors_file=name)
    with pytest.raises(CorruptBundle, match="tensors_file"):
        load_bundle(tmp_path / "anger")


def test_a_folder_without_its_files_is_no_bundle(bundle: ProbeBundle, tmp_path: Path) -> None:
    (tmp_path / "anger" / "probe.safetensors").unlink()
    with pytest.raises(CorruptBundle, match="copy it whole"):
        load_bundle(tmp_path / "anger")
    with pytest.raises(CorruptBundle, match=r"manifest\.json"):
        load_bundle(tmp_path)


def test_a_tensor_of_the_wrong_width_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorruptBundle, match="weight"):
        save_bundle(tmp_path / "bad", MANIFEST, TENSORS | {"weight": torch.ones(D + 1)})


def test_another_model_is_refused(bundle: ProbeBundle) -> None:
    bundle.check_fits("a" * 64, D)
    with pytest.raises(ProbeMismatch, match="fingerprint"):
        bundle.check_fits("c" * 64, D)
    with pytest.raises(ProbeMismatch, match="width 6"):
        bundle.check_fits("a" * 64, D + 1)


def test_an_unknown_probe_is_answered_with_those_there_are(bundle: ProbeBundle, tmp_path: Path) -> None:
    assert find_bundle(tmp_path, "anger") == tmp_path / "anger"
    with pytest.raises(UnknownProbe, match="anger"):
        find_bundle(tmp_path, "joy")


def test_a_manifest_ignores_later_fields_and_refuses_numbers_that_are_not_finite() -> None:
    fields = MANIFEST.model_dump(mode="json")
    assert ProbeManifest.model_validate(fields | {"added_later": 1}) == MANIFEST
    with pytest.raises(ValidationError, match="finite"):
        ProbeManifest.model_validate(fields | {"shuffled_label_auroc": float("nan")})


def test_a_fingerprint_follows_the_weights_and_not_the_load_dtype() -> None:
    torch.manual_seed(0)
    stored = nn.Sequential(nn.Linear(7, 5), nn.Linear(5, 1)).to(torch.bfloat16)
    fingerprint = model_fingerprint(stored)
    assert model_fingerprint(stored.to(torch.float32)) == fingerprint
    with torch.no_grad():
        next(stored.parameters())[0, 0] += 1
    assert model_fingerprint(stored) != fingerprint


def _edit(folder: Path, **changes: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_file_whose_length_begins_like_a_pickle_is_still_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "tensors.safetensors"
    content = save({"x" * 68: torch.zeros(1)})
    assert content[:1] == b"\x80"
    path.write_bytes(content)
    assert read_tensors(path, hashlib.sha256(content).hexdigest())
