"""Compressor bundles: what is saved is what is loaded, probes are read from codes, and what does not fit is refused."""

import hashlib
import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save

from tests.unit.compression.test_fit import D, gathered, states
from wonder.compression.bundle import Compressor, load_compressor, save_compressor
from wonder.compression.fit import Basis, fit
from wonder.compression.manifest import CompressorManifest
from wonder.compression.metrics import code_metrics
from wonder.errors import ArtifactError, CompressorMismatch, CorruptBundle
from wonder.probes.bundle import ProbeBundle
from wonder.probes.manifest import HookPoint

BASIS = fit(gathered(states()), torch.ones(1, D), D - 2)


def manifest_of(**changes: Any) -> CompressorManifest:
    return CompressorManifest(
        **{
            "name": "pca",
            "method": "pca",
            "model": "tiny",
            "revision": "1",
            "model_fingerprint": "a" * 64,
            "dtype": "float32",
            "hook_point": HookPoint(layer=2, aggregation="mean_generated"),
            "d_model": D,
            "dims": D - 2,
            "probe_dims": 1,
            "probes": [],
            "data_sha256": "b" * 64,
            "train_count": 300,
            "held_out_count": 1,
            "metrics": [],
            "created": date(2026, 1, 2),
            **changes,
        }
    )


def probe_along(direction: torch.Tensor, bias: float) -> ProbeBundle:
    return ProbeBundle("p@1", None, direction, torch.tensor(bias), None)  # type: ignore[arg-type]


@pytest.fixture
def compressor(tmp_path: Path) -> Compressor:
    return save_compressor(tmp_path / "pca", manifest_of(), BASIS)


def test_a_saved_compressor_loads_as_it_was(compressor: Compressor, tmp_path: Path) -> None:
    loaded = load_compressor(tmp_path / "pca")
    assert loaded.id == compressor.id
    assert loaded.id.startswith("pca@")
    assert loaded.manifest.kind == "compressor"
    assert loaded.manifest.model_copy(update={"tensors_sha256": None}) == manifest_of()
    torch.testing.assert_close(loaded.basis.basis_KD, BASIS.basis_KD, atol=1e-6, rtol=0)


def test_a_bundle_is_never_written_over(compressor: Compressor, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="never change"):
        save_compressor(tmp_path / "pca", manifest_of(), BASIS)


def test_the_first_numbers_of_a_code_are_the_smaller_code(compressor: Compressor) -> None:
    state = states(seed=3)[0]
    assert compressor.apply(state)[:4] == compressor.apply(state, 4)
    assert len(compressor.apply(state)) == D - 2


def test_a_registered_probe_is_read_from_the_smallest_code(compressor: Compressor) -> None:
    probe = probe_along(2.5 * torch.ones(D), -1.5)
    for state in states(20, seed=3):
        want = float(state.double() @ probe.weight_D.double()) - 1.5
        assert compressor.probe_logit(probe, compressor.apply(state, 1)) == pytest.approx(want, abs=1e-3, rel=1e-6)


def test_a_code_expands_to_a_state_that_differs_only_outside_its_basis(compressor: Compressor) -> None:
    state = states(seed=3)[0]
    near = compressor.expand(compressor.apply(state))
    gap = (near - state).double()
    assert gap.norm() > 1
    assert (compressor.basis.basis_KD @ gap).norm() < gap.norm() / 50


@pytest.mark.parametrize(
    ("state", "dims", "reason"),
    [
        (torch.zeros(D), D, "the basis has"),
        (torch.zeros(D), 0, "the basis has"),
        (torch.zeros(D + 1), 1, "wanted"),
        (torch.full((D,), float("inf")), 1, "not finite"),
    ],
)
def test_what_cannot_be_compressed_is_refused(
    state: torch.Tensor, dims: int, reason: str, compressor: Compressor
) -> None:
    with pytest.raises(ValueError, match=reason):
        compressor.apply(state, dims)


@pytest.mark.parametrize(("fingerprint", "width", "layers"), [("b" * 64, D, 4), ("a" * 64, D + 1, 4), ("a" * 64, D, 2)])
def test_another_model_is_refused(fingerprint: str, width: int, layers: int, compressor: Compressor) -> None:
    compressor.check_fits("a" * 64, D, 3)
    with pytest.raises(CompressorMismatch, match="compressor pca@"):
        compressor.check_fits(fingerprint, width, layers)


def test_a_damaged_bundle_is_refused(compressor: Compressor, tmp_path: Path) -> None:
    file = tmp_path / "pca" / compressor.manifest.tensors_file
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + b"x")
    with pytest.raises(CorruptBundle, match="sha256"):
        load_compressor(tmp_path / "pca")
    file.unlink()
    with pytest.raises(CorruptBundle, match="copy it whole"):
        load_compressor(tmp_path / "pca")
    with pytest.raises(CorruptBundle, match="name the folder of a bundle"):
        load_compressor(tmp_path)
    (tmp_path / "pca" / "manifest.json").write_text("{}")
    with pytest.raises(CorruptBundle, match="not a compressor manifest"):
        load_compressor(tmp_path / "pca")


@pytest.mark.parametrize("damage", [{"basis": torch.ones(D - 2, D)}, {"basis": torch.eye(D)}, {"mean": None}])
def test_tensors_that_are_no_basis_are_refused(damage: dict[str, Any], tmp_path: Path) -> None:
    save_compressor(tmp_path / "pca", manifest_of(), BASIS)
    path = tmp_path / "pca"
    tensors = {"mean": BASIS.mean_D.float(), "basis": BASIS.basis_KD.float(), "range": BASIS.range_K.float()} | damage
    content = save({name: tensor for name, tensor in tensors.items() if tensor is not None})
    (path / "compressor.safetensors").write_bytes(content)
    text = json.loads((path / "manifest.json").read_text()) | {"tensors_sha256": hashlib.sha256(content).hexdigest()}
    (path / "manifest.json").write_text(json.dumps(text))
    with pytest.raises(CorruptBundle, match="fit it again"):
        load_compressor(path)


@pytest.mark.parametrize("changes", [{"dims": D + 1}, {"probe_dims": D}, {"tensors_file": "../x.safetensors"}])
def test_a_manifest_that_does_not_add_up_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        manifest_of(**changes)


def test_metrics_measure_what_they_are_called() -> None:
    held_out = states(80, seed=5)
    whole = fit(gathered(states()), torch.ones(1, D), D)
    weight = torch.randn(D, 30, generator=torch.Generator().manual_seed(2))
    probe = probe_along(torch.ones(D), 0.3)
    few, some, everything = code_metrics(held_out, whole, [D, 2, 6], [probe], lambda states_ND: states_ND @ weight)
    assert [row.dims for row in (few, some, everything)] == [2, 6, D]
    assert few.explained_variance < some.explained_variance < everything.explained_variance
    assert everything.explained_variance == pytest.approx(1, abs=1e-4)
    assert everything.neighbours_at_10 > 0.95 > few.neighbours_at_10
    assert few.kl_nats is not None
    assert everything.kl_nats is not None
    assert few.kl_nats > 10 * everything.kl_nats
    assert everything.top1_agreement == pytest.approx(1, abs=0.03)
    assert few.probe_logit_error is not None
    assert few.probe_logit_error < 1e-3


def test_a_code_of_nothing_but_noise_explains_nothing() -> None:
    none = Basis(BASIS.mean_D, torch.zeros(1, D).double(), torch.ones(1).double(), 0)
    (row,) = code_metrics(states(40), none, [1])
    assert row.explained_variance == pytest.approx(0)
    assert row.kl_nats is row.top1_agreement is row.probe_logit_error is None
