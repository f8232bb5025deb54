"""Learned codes: probes stay exact, principal directions are the least that is kept, and bundles are verified."""

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load, save
from torch import Tensor

from tests.unit.compression.test_bundle import manifest_of, probe_along
from tests.unit.compression.test_fit import D, gathered
from wonder.compression.autoencoder import Autoencoder
from wonder.compression.bundle import Compressor, load_compressor, save_compressor
from wonder.compression.codes import decode, encode
from wonder.compression.fit import fit
from wonder.compression.metrics import code_metrics
from wonder.compression.train import train
from wonder.errors import ArtifactError, CompressorMismatch, CorruptBundle

DIMS, HIDDEN = 5, 16
PROBES = torch.stack([torch.ones(D), torch.arange(D).float()])


def curved(count: int = 600, seed: int = 0) -> Tensor:
    """States on a curved surface of two parameters, which no two straight directions hold."""
    made = torch.Generator().manual_seed(seed)
    at_N2 = torch.randn(count, 2, generator=made)
    features = torch.cat([at_N2, at_N2.square(), at_N2.prod(1, keepdim=True)], 1)
    return features @ torch.randn(5, D, generator=torch.Generator().manual_seed(99)) + 3


def learned(**changes: Any) -> Autoencoder:
    return train(curved(), **{"directions_PD": PROBES, "dims": DIMS, "hidden": HIDDEN, "steps": 30, **changes})


def learned_manifest(**changes: Any) -> Any:
    fields = {"name": "learned", "method": "learned", "dims": DIMS, "probe_dims": 2, "hidden": HIDDEN}
    return manifest_of(**(fields | changes))


@pytest.fixture
def compressor(tmp_path: Path) -> Compressor:
    return save_compressor(tmp_path / "learned", learned_manifest(), learned())


def test_a_learned_code_of_a_curved_surface_keeps_more_than_principal_directions() -> None:
    none, sizes = torch.zeros(0, D), [1, 2, 3]
    flat = code_metrics(curved(seed=1), fit(gathered(curved()), none, 3), sizes)
    bent = code_metrics(curved(seed=1), learned(directions_PD=none, dims=3, hidden=64, steps=1200), sizes)
    lost_flat, lost_bent = ([1 - row.explained_variance for row in rows] for rows in (flat, bent))
    assert sum(lost_bent) < 0.8 * sum(lost_flat)
    assert lost_bent == sorted(lost_bent, reverse=True), "every further number of a code tells more"


def test_untrained_it_is_the_code_of_principal_directions() -> None:
    basis, coder = fit(gathered(curved()), PROBES, DIMS), learned(steps=0)
    for dims in (1, 3, DIMS):
        near, same = (decode(encode(curved(20, 1), one, dims), one) for one in (coder, basis))
        torch.testing.assert_close(near, same, atol=0.02, rtol=0)


def test_training_that_leads_nowhere_keeps_the_principal_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wonder.compression.train.LEARNING_RATE", 50.0)
    for name, weight in learned().weights.items():
        assert torch.equal(weight, learned(steps=0).weights[name])


def test_training_is_the_same_every_time_and_leaves_the_random_numbers_of_others_alone() -> None:
    before = torch.get_rng_state()
    one, other = learned(), learned()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(weight, other.weights[name]) for name, weight in one.weights.items())
    assert not torch.equal(learned(seed=1).weights["encoder.linear"], one.weights["encoder.linear"])


def test_every_registered_probe_is_read_exactly_whatever_was_learned(compressor: Compressor) -> None:
    probe = probe_along(0.5 * PROBES[0] - 2 * PROBES[1], -1.5)
    for state in curved(20, seed=3):
        want = float(state.double() @ probe.weight_D.double()) - 1.5
        for dims in (2, DIMS):
            assert compressor.probe_logit(probe, compressor.apply(state, dims)) == pytest.approx(want, abs=1e-4)


def test_the_first_numbers_of_a_learned_code_are_the_smaller_code(compressor: Compressor) -> None:
    (state,) = curved(1, seed=3)
    assert compressor.apply(state)[:3] == compressor.apply(state, 3)
    assert compressor.expand(compressor.apply(state, 1)).shape == (D,)


def test_a_saved_learned_compressor_loads_as_it_was(compressor: Compressor, tmp_path: Path) -> None:
    loaded = load_compressor(tmp_path / "learned")
    assert loaded.id == compressor.id
    assert loaded.id.startswith("learned@")
    fresh = learned()
    for name, tensor in fresh.tensors().items():
        torch.testing.assert_close(loaded.basis.tensors()[name], tensor, atol=1e-6, rtol=1e-6)
    (state,) = curved(1, seed=3)
    again, want = loaded.apply(state), encode(state[None], fresh, DIMS)[0].tolist()
    assert again == pytest.approx(want, abs=2e-2)
    with pytest.raises(ArtifactError, match="never change"):
        save_compressor(tmp_path / "learned", learned_manifest(), fresh)


@pytest.mark.parametrize(("fingerprint", "width", "layers"), [("b" * 64, D, 4), ("a" * 64, D + 1, 4), ("a" * 64, D, 2)])
def test_another_model_is_refused(fingerprint: str, width: int, layers: int, compressor: Compressor) -> None:
    compressor.check_fits("a" * 64, D, 3)
    with pytest.raises(CompressorMismatch, match="compressor learned@"):
        compressor.check_fits(fingerprint, width, layers)


def rewrite(folder: Path, content: bytes) -> None:
    (folder / "compressor.safetensors").write_bytes(content)
    manifest = folder / "manifest.json"
    text = json.loads(manifest.read_text()) | {"tensors_sha256": hashlib.sha256(content).hexdigest()}
    manifest.write_text(json.dumps(text))


def test_a_changed_file_and_a_pickle_are_refused(compressor: Compressor, tmp_path: Path) -> None:
    file = tmp_path / "learned" / "compressor.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CorruptBundle, match="sha256"):
        load_compressor(tmp_path / "learned")
    rewrite(tmp_path / "learned", pickle.dumps({"mean": [1.0]}))
    with pytest.raises(CorruptBundle, match="never opened"):
        load_compressor(tmp_path / "learned")


@pytest.mark.parametrize(
    "damage",
    [
        {"encoder.inner": torch.ones(HIDDEN, D - 1)},
        {"decoder.outer": torch.full((D, HIDDEN), float("nan"))},
        {"decoder.bias": None},
        {"block": torch.ones(2, D)},
        {"scale": torch.tensor(0.0)},
    ],
)
def test_tensors_that_are_no_autoencoder_are_refused(
    damage: dict[str, Any], compressor: Compressor, tmp_path: Path
) -> None:
    tensors = load((tmp_path / "learned" / "compressor.safetensors").read_bytes()) | damage
    rewrite(tmp_path / "learned", save({name: tensor for name, tensor in tensors.items() if tensor is not None}))
    with pytest.raises(CorruptBundle, match="fit it again"):
        load_compressor(tmp_path / "learned")


@pytest.mark.parametrize("changes", [{"hidden": 0}, {"probe_dims": DIMS}, {"method": "pca"}])
def test_a_manifest_of_half_a_learned_code_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="a learned code has both"):
        learned_manifest(**changes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"states_ND": curved(10)}, "at least 20"),
        ({"dims": 2}, "probes take 2"),
        ({"hidden": 0}, "hidden 0"),
        ({"dims": D + 1}, "wanted 2"),
        ({"states_ND": torch.full((30, D), float("inf"))}, "not finite"),
    ],
)
def test_what_cannot_be_trained_is_refused(changes: dict[str, Any], reason: str) -> None:
    usual = {"states_ND": curved(), "directions_PD": PROBES, "dims": DIMS, "hidden": HIDDEN, "steps": 1}
    with pytest.raises(ValueError, match=reason):
        train(**(usual | changes))


def test_states_in_which_nothing_moves_beside_the_probes_are_coded_too() -> None:
    flat = 7 + torch.randn(40, 1, generator=torch.Generator().manual_seed(0)) * torch.ones(1, D)
    coder = train(flat, torch.ones(1, D), 3, hidden=4, steps=10)
    torch.testing.assert_close(decode(encode(flat, coder, 3), coder), flat.double(), atol=1e-3, rtol=0)
