"""Soft-prompt maps: what is saved is what is loaded, vectors have one length, and what does not fit is refused."""

import hashlib
import json
import pickle
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch

from wonder.compression.soft_prompt import SoftPromptMap, load_soft_prompt, save_soft_prompt, soft_vectors
from wonder.compression.soft_prompt_manifest import RecallMetrics, SoftPromptManifest
from wonder.errors import ArtifactError, CompressorMismatch, CorruptBundle

DIMS, TOKENS, WIDTH = 5, 3, 8


def manifest_of(**changes: Any) -> SoftPromptManifest:
    fields: dict[str, Any] = {
        "name": "soft_prompt",
        "model": "tiny",
        "revision": "1",
        "model_fingerprint": "a" * 64,
        "dtype": "float32",
        "compressor": "pca@000000000000",
        "dims": DIMS,
        "tokens": TOKENS,
        "hidden": 0,
        "d_model": WIDTH,
        "layer0_norm": 2.5,
        "embedding_norm": 1.25,
        "data_sha256": "b" * 64,
        "train_count": 10,
        "held_out_count": 5,
        "metrics": [RecallMetrics(given="nothing", kl_nats=1.0, agreement=0.5)],
        "created": date(2026, 1, 2),
    }
    return SoftPromptManifest(**(fields | changes))


def tensors_of(manifest: SoftPromptManifest, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    made = {name: torch.randn(shape, generator=generator) for name, shape in manifest.shapes.items()}
    return made | {"scale": made["scale"].abs() + 0.1}


@pytest.fixture
def saved(tmp_path: Path) -> SoftPromptMap:
    return save_soft_prompt(tmp_path / "map", manifest_of(), tensors_of(manifest_of()))


@pytest.mark.parametrize("hidden", [0, 7])
def test_a_saved_map_loads_as_it_was_and_makes_vectors_of_one_length(hidden: int, tmp_path: Path) -> None:
    manifest = manifest_of(hidden=hidden)
    saved = save_soft_prompt(tmp_path / "map", manifest, tensors_of(manifest))
    loaded = load_soft_prompt(tmp_path / "map")
    assert loaded.id == saved.id
    assert loaded.id.startswith("soft_prompt@")
    assert loaded.manifest.model_copy(update={"tensors_sha256": None}) == manifest
    vectors = loaded.apply([0.5, -1.0, 2.0, 0.0, 3.0, 99.0])
    assert vectors.shape == (TOKENS, WIDTH)
    assert torch.allclose(vectors.norm(dim=1), torch.tensor(1.25))
    assert torch.equal(vectors, loaded.apply([0.5, -1.0, 2.0, 0.0, 3.0])), "numbers beyond the map's are left out"
    assert not torch.allclose(vectors, loaded.apply([0.5, -1.0, 2.0, 0.0, -3.0]))


def test_a_vector_of_no_direction_stays_nothing() -> None:
    tensors = {name: torch.zeros(shape) for name, shape in manifest_of().shapes.items()} | {"scale": torch.ones(DIMS)}
    assert not soft_vectors(torch.ones(1, DIMS), tensors, TOKENS, 1.25).any()


@pytest.mark.parametrize("values", [[1.0] * (DIMS - 1), [float("nan")] * DIMS, [1e300] * DIMS])
def test_a_code_that_cannot_be_read_is_refused(values: list[float], saved: SoftPromptMap) -> None:
    with pytest.raises(ValueError, match=r"the code (has|holds)"):
        saved.apply(values)


@pytest.mark.parametrize(("fingerprint", "width"), [("c" * 64, WIDTH), ("a" * 64, WIDTH + 1)])
def test_another_model_is_refused(fingerprint: str, width: int, saved: SoftPromptMap) -> None:
    saved.check_fits("a" * 64, WIDTH)
    with pytest.raises(CompressorMismatch, match="soft-prompt map soft_prompt@"):
        saved.check_fits(fingerprint, width)


def test_a_map_is_never_written_over(saved: SoftPromptMap, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="never change"):
        save_soft_prompt(tmp_path / "map", manifest_of(), tensors_of(manifest_of()))


def test_a_changed_or_pickled_or_missing_file_is_refused(saved: SoftPromptMap, tmp_path: Path) -> None:
    file, manifest = tmp_path / "map" / saved.manifest.tensors_file, tmp_path / "map" / "manifest.json"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CorruptBundle, match="its manifest says"):
        load_soft_prompt(tmp_path / "map")
    content = pickle.dumps({"weight": [1.0]})
    file.write_bytes(content)
    told = json.loads(manifest.read_text()) | {"tensors_sha256": hashlib.sha256(content).hexdigest()}
    manifest.write_text(json.dumps(told))
    with pytest.raises(CorruptBundle, match="never opened"):
        load_soft_prompt(tmp_path / "map")
    file.unlink()
    with pytest.raises(CorruptBundle, match="which its manifest names"):
        load_soft_prompt(tmp_path / "map")
    manifest.write_text("{}")
    with pytest.raises(CorruptBundle, match="not the manifest of a soft-prompt map"):
        load_soft_prompt(tmp_path / "map")
    manifest.unlink()
    with pytest.raises(CorruptBundle, match="has no manifest"):
        load_soft_prompt(tmp_path / "map")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"weight": torch.ones(2, 2)}, "for 'weight'"),
        ({"bias": torch.full((TOKENS * WIDTH,), float("nan"))}, "for 'bias'"),
        ({"scale": torch.zeros(DIMS)}, "scale that is not positive"),
    ],
)
def test_tensors_that_are_no_map_are_refused(change: dict[str, torch.Tensor], reason: str, tmp_path: Path) -> None:
    with pytest.raises(CorruptBundle, match=reason):
        save_soft_prompt(tmp_path / "map", manifest_of(), tensors_of(manifest_of()) | change)


def test_a_manifest_names_a_plain_file() -> None:
    with pytest.raises(ValueError, match="bare name"):
        manifest_of(tensors_file="../other.safetensors")
