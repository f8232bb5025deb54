"""Bundles of lenses: what is written is what is loaded, to the bit, and what is harmed or does not fit is refused."""

import copy
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lens_training.batch import Statistics
from lens_training.export import export
from lens_training.stories.files import tokenizer as words
from tests.unit.engine.conftest import build, byte_tokenizer
from tests.unit.lens.bundles import metrics, source, system, write
from wonder.errors import ArtifactError, CorruptBundle, LensMismatch, SpecError, StoreNotUsable
from wonder.lens.bundle import load_lens
from wonder.lens.manifest import LensManifest, digest_of, read_manifest
from wonder.lens.tokenizer import check_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return byte_tokenizer()


@pytest.fixture(scope="module")
def bundle(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that no test changes."""
    folder = tmp_path_factory.mktemp("lens") / "tiny"
    write(folder, tokenizer)
    return folder


@pytest.fixture
def copied(bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "tiny"))


@pytest.mark.parametrize(
    ("family", "injection"),
    [
        ("llama", "projection"),
        ("llama", "scale"),
        ("llama", "per_layer"),
        ("llama", "additive"),
        ("gpt2", "projection"),
        ("qwen3", "projection"),
        ("gemma2", "per_layer"),
        ("llama4", "projection"),
        ("qwen3_moe", "projection"),
        ("gpt_oss", "projection"),
    ],
)
def test_a_loaded_lens_gives_the_texts_and_reconstructions_of_the_trained_one_to_the_bit(
    family: str, injection: str, tokenizer: Any, tmp_path: Path
) -> None:
    manifest, made, state_ND = write(tmp_path / "tiny", tokenizer, family, 1, injection)
    lens = load_lens(tmp_path / "tiny")
    ids = made.decoder.rollout(state_ND, manifest.prompt.length).ids_BT
    assert torch.equal(lens.words(state_ND), ids)
    assert len(set(map(tuple, ids.tolist()))) > 1
    with torch.no_grad():
        assert torch.equal(lens.read(ids), made.reconstruct(ids))
    error = (lens.read(ids) - state_ND).square().sum(-1) / manifest.training.variance
    guesses = lens.explain(state_ND)
    assert [guess.ids for guess in guesses] == ids.tolist()
    assert [guess.reconstruction for guess in guesses] == pytest.approx((1 - error).tolist())
    assert lens.id == manifest.id == f"tiny@{manifest.digest[:12]}"  # type: ignore[index]
    check_tokenizer(manifest, tokenizer)


def test_a_manifest_says_everything_that_loading_and_judging_need(bundle: Path, tokenizer: Any) -> None:
    found = read_manifest(bundle)
    assert (found.target.layer, found.target.site, found.target.n_layers) == (1, "resid_post", 4)
    assert [(token.id, token.piece) for token in found.prompt.left] == [(1, "<s>")]
    assert {token.id for token in found.prompt.forbidden} == {0, 1, 2}
    assert found.metrics.controls["shuffled"].value == -0.8
    assert {file.name for file in found.files} >= {
        "lens.safetensors",
        "decoder/config.json",
        "decoder/model.safetensors",
        "encoder/model.safetensors",
    }
    assert not any(file.name.endswith((".bin", ".pt", ".pkl")) for file in found.files)
    whole = sum(os.path.getsize(bundle / file.name) for file in found.files)
    assert whole == sum(file.bytes for file in found.files)
    assert "/tmp" not in (bundle / "lens.json").read_text() + (bundle / "decoder/config.json").read_text()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: os.path.getsize(path) // 2])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("harm", [cut, flip, Path.unlink], ids=["cut", "flip", "remove"])
def test_harm_to_any_file_of_a_bundle_is_found(harm: Callable[[Path], None], bundle: Path, tmp_path: Path) -> None:
    for at, file in enumerate(sorted(path for path in bundle.rglob("*") if path.is_file())):
        folder = tmp_path / str(at)
        shutil.copytree(bundle, folder)
        harm(folder / file.relative_to(bundle))
        with pytest.raises(CorruptBundle):
            load_lens(folder)


@pytest.mark.parametrize("name", ["decoder/adapter_config.json", "encoder/pytorch_model.bin", "decoder/modeling.py"])
def test_a_file_that_loading_might_pick_up_is_refused(name: str, copied: Path) -> None:
    (copied / name).write_bytes(pickle.dumps({"weights": 1}))
    with pytest.raises(CorruptBundle, match=f"holds {name}, which its manifest does not name"):
        load_lens(copied)


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None], *, sealed: bool = True) -> None:
    document = json.loads((folder / "lens.json").read_text())
    change(document)
    if sealed:
        document["digest"] = digest_of(document)
    (folder / "lens.json").write_text(json.dumps(document))


def test_a_fidelity_that_was_edited_is_found(copied: Path) -> None:
    rewrite(copied, lambda found: found["metrics"]["fve"].update(value=0.99), sealed=False)
    with pytest.raises(CorruptBundle, match="was changed after it was written"):
        load_lens(copied)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda found: found["target"].pop("layer"), "layer"),
        (lambda found: found["target"].update(site="resid_pre"), "site"),
        (lambda found: found["prompt"].update(injection="sideways"), "injection"),
        (lambda found: found["prompt"].update(length=0), "length"),
        (lambda found: found["training"].update(variance=0.0), "variance"),
        (lambda found: found["files"].append({"name": "../x", "bytes": 1, "sha256": "0" * 64}), "no file of a bundle"),
        (lambda found: found["target"].update(d_model=16), "width"),
        (lambda found: found["prompt"].update(written_blocks=3, injection="per_layer"), "nothing for 'maps.1"),
        (lambda found: found["prompt"]["left"][0].update(piece="</s>"), "'</s>'"),
    ],
)
def test_a_manifest_that_cannot_be_is_refused(change: Callable[[Any], None], told: str, copied: Path) -> None:
    rewrite(copied, change)
    with pytest.raises((CorruptBundle, LensMismatch), match=told):
        load_lens(copied)


def test_another_tokenizer_is_refused_by_name_or_by_rules(bundle: Path, tokenizer: Any) -> None:
    manifest = read_manifest(bundle)
    check_tokenizer(manifest, tokenizer)
    with pytest.raises(LensMismatch, match=r"token 1 = '<s>', this tokenizer has"):
        check_tokenizer(manifest, words())
    grown = copy.deepcopy(tokenizer)
    grown.add_tokens(["ticket"])
    with pytest.raises(LensMismatch, match="trained with the tokenizer"):
        check_tokenizer(manifest, grown)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"fingerprint": "e" * 64}, "fingerprint"),
        ({"d_model": 64}, "width 32"),
        ({"n_layers": 5}, "layers 4"),
        ({"vocabulary": 999}, "vocabulary 320"),
    ],
)
def test_another_model_is_refused_with_what_differs(change: dict[str, Any], told: str, bundle: Path) -> None:
    manifest = read_manifest(bundle)
    want = manifest.target
    live: dict[str, Any] = {
        "fingerprint": want.fingerprint,
        "d_model": want.d_model,
        "n_layers": want.n_layers,
        "vocabulary": want.vocabulary,
    }
    manifest.check_fits(**live)
    with pytest.raises(LensMismatch, match=told):
        manifest.check_fits(**(live | change))


def test_bundles_never_change_and_appear_whole_or_not_at_all(
    bundle: Path, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ArtifactError, match="already holds something"):
        write(bundle, tokenizer)

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("wonder.lens.bundle.save_file", full)
    with pytest.raises(StoreNotUsable, match="there is no room for it"):
        write(tmp_path / "lenses" / "tiny", tokenizer)
    assert list((tmp_path / "lenses").iterdir()) == []


def test_what_does_not_belong_together_is_not_exported(tokenizer: Any, tmp_path: Path) -> None:
    model = build("llama")
    made, statistics, _ = system(model)
    other = Statistics(statistics.mean_D + 1, statistics.variance)
    with pytest.raises(SpecError, match="another mean"):
        export(made, other, metrics(), tokenizer, source(model, 1), tmp_path / "a", name="tiny")
    with pytest.raises(SpecError, match="layer 2"):
        export(made, statistics, metrics(), tokenizer, source(model, 2), tmp_path / "a", name="tiny")
    with torch.no_grad():
        made.encoder.head.weight[0, 0] = float("nan")
    with pytest.raises(SpecError, match="not finite"):
        export(made, statistics, metrics(), tokenizer, source(model, 1), tmp_path / "a", name="tiny")
    assert list(tmp_path.iterdir()) == []


def test_a_later_version_may_add_fields(copied: Path) -> None:
    rewrite(copied, lambda found: found.update(something_new={"a": 1}))
    assert isinstance(load_lens(copied).manifest, LensManifest)
