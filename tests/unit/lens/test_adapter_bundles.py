"""Lenses of adapters: a bundle of a few tensors that shares the weights of the model it is served with."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lens_training.__main__ import main
from lens_training.batch import Statistics
from lens_training.export import export, states_digest
from lens_training.models.adapters import AdaptedDecoder, AdaptedEncoder, Adapters
from lens_training.models.target import TargetModel
from lens_training.run_spec import LoraSpec
from lens_training.system import LensSystem
from tests.unit.engine.conftest import build, byte_tokenizer
from tests.unit.lens.bundles import BOS, LENGTH, MARK, metrics, source, states
from tests.unit.lens.conftest import Specify
from wonder.engine.engine import TraceEngine
from wonder.engine.request import Request
from wonder.errors import CorruptBundle, LensMismatch, SpecError
from wonder.lens.adapters import add, bare_copy
from wonder.lens.bundle import load_lens
from wonder.lens.manifest import LensManifest, read_manifest
from wonder.trace.capture import ThoughtCapture
from wonder.trace.sampling import Sampling

LAYER = 1


def write(
    folder: Path, family: str = "llama", *, late: bool = False, **named: Any
) -> tuple[LensManifest, LensSystem, torch.Tensor]:
    """A bundle of random adapters, the system it is of, and some states."""
    model = build(family)
    of, state_ND = source(model, LAYER), states(model, LAYER)
    statistics = Statistics.of(state_ND)
    adapters = Adapters(model, LoraSpec(rank=4, alpha=6))
    torch.manual_seed(4)
    decoder = AdaptedDecoder(
        adapters, statistics.mean_D, 1 / statistics.variance**0.5, left=[BOS], right=[MARK], forbidden=[0, BOS, 2]
    )
    encoder = AdaptedEncoder(adapters, LAYER, left=[BOS])
    made = LensSystem(TargetModel(model, LAYER), decoder, encoder, statistics, length=LENGTH, adapters=adapters).train(
        False
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.3)
    of = source(model, LAYER) if late else of
    judged = metrics(data=states_digest(state_ND))
    found = export(made, statistics, judged, byte_tokenizer(), of, folder, name="tiny", **named)
    return found, made, state_ND


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_a_served_lens_of_adapters_is_the_trained_one_to_the_bit_and_leaves_the_model_as_it_was(
    family: str, tmp_path: Path
) -> None:
    manifest, made, state_ND = write(tmp_path / "tiny", family)
    assert manifest.weights == "adapters"
    assert {file.name for file in manifest.files} >= {"decoder/adapter.safetensors", "encoder/adapter.safetensors"}
    assert not any(file.name.endswith("/model.safetensors") for file in manifest.files)
    target = build(family)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    lens = load_lens(tmp_path / "tiny", target=target)
    ids = made.decoder.rollout(state_ND, LENGTH).ids_BT
    assert torch.equal(lens.words(state_ND), ids)
    plain = load_lens(tmp_path / "tiny", target=target).decoder
    for part in plain.model.modules():
        if hasattr(part, "up_OR"):
            part.up_OR = torch.zeros_like(part.up_OR)
    assert not torch.equal(plain.rollout(state_ND, LENGTH).ids_BT, ids), "the adapters matter"
    with torch.no_grad():
        assert torch.equal(lens.read(ids), made.reconstruct(ids))
    assert all(torch.equal(before[name], value) for name, value in target.state_dict().items())
    shared = {parameter.data_ptr() for parameter in target.parameters()}
    assert {p.data_ptr() for p in lens.decoder.model.parameters()} == shared
    assert {p.data_ptr() for p in lens.encoder.base.parameters()} <= shared


def test_an_engine_serves_it_beside_the_model_without_seeing_it(tmp_path: Path) -> None:
    _, made, _ = write(tmp_path / "tiny")
    tokenizer, sampling = byte_tokenizer(), Sampling(max_new_tokens=8)
    capture = {"compute_attention_entropy": True, "top_alternatives": 2}
    plain = TraceEngine(build("llama"), tokenizer)
    bare = plain.generate_one(Request("hello", sampling=sampling, capture=ThoughtCapture(**capture))).thought_trace
    engine = TraceEngine(build("llama"), tokenizer, lenses=[tmp_path / "tiny"])
    wanted = ThoughtCapture(explain=[0, 7], **capture)  # type: ignore[arg-type]
    handle = engine.submit(Request("hello", sampling=sampling, capture=wanted))
    trace = handle.result().thought_trace
    again = engine.generate_one(Request("hello", sampling=sampling, capture=ThoughtCapture(**capture))).thought_trace
    assert trace is not None
    assert bare is not None
    assert again is not None
    left_out = {"timings", "explanations", "bundles"}
    assert trace.model_dump(exclude=left_out) == bare.model_dump(exclude=left_out)
    assert again.model_dump(exclude=left_out) == bare.model_dump(exclude=left_out)
    ids = engine.tokenizer("hello")["input_ids"] + handle._job.row.tokens
    pos = torch.tensor([len(engine.tokenizer("hello")["input_ids"]) - 1, len(ids) - 2])
    state_PD = TargetModel(build("llama"), LAYER).capture(torch.tensor([ids, ids]), pos).activation_BD
    said = made.decoder.rollout(state_PD, LENGTH).ids_BT.tolist()
    assert [found.text for found in trace.explanations] == [
        engine.tokenizer.decode(text, skip_special_tokens=True).strip() for text in said
    ]


def test_merged_it_stands_alone_and_says_the_same(tmp_path: Path) -> None:
    manifest, made, state_ND = write(tmp_path / "tiny", merge=True)
    assert manifest.weights == "full"
    lens = load_lens(tmp_path / "tiny")
    ids = made.decoder.rollout(state_ND, LENGTH).ids_BT
    assert torch.equal(lens.words(state_ND), ids)
    torch.testing.assert_close(lens.read(ids), made.reconstruct(ids).detach(), atol=1e-4, rtol=1e-4)


def test_a_fingerprint_that_was_taken_with_adapters_in_the_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="that of the target with adapters in it"):
        write(tmp_path / "tiny", late=True)


def test_without_its_model_or_with_another_it_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "tiny")
    with pytest.raises(LensMismatch, match="load it together with that very model"):
        load_lens(tmp_path / "tiny")
    with pytest.raises(LensMismatch, match="load it together with that very model"):
        load_lens(tmp_path / "tiny", target=build("llama", seed=1))


def test_adapters_that_do_not_fit_the_maps_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "tiny")
    path = tmp_path / "tiny/decoder/adapter.safetensors"
    tensors, where = load_file(path), tmp_path / "adapter.safetensors"
    name = next(name for name in tensors if name.endswith(".down"))
    other = name.removesuffix(".down")
    for changed, told in (
        ({name: tensors[name][:, :-1]}, "wanted finite numbers for a map of shape"),
        ({name: tensors[name] * float("nan")}, "wanted finite numbers"),
        ({f"{other}.scale": torch.ones(2)}, "wanted finite numbers"),
        ({"model.nothing.down": tensors[name]}, "has no linear map"),
    ):
        with pytest.raises(CorruptBundle, match=told):
            add(bare_copy(build("llama")), {**tensors, **changed}, where)
    with pytest.raises(CorruptBundle, match="holds no adapter"):
        add(bare_copy(build("llama")), {}, where)
    save_file({key: value.contiguous() for key, value in tensors.items() if key != name}, path)
    assert os.path.getsize(path)
    with pytest.raises(CorruptBundle, match="fetch it again"):
        load_lens(tmp_path / "tiny", target=build("llama"))


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "mixtral", "deepseek_v3"])
def test_a_bare_copy_computes_the_same_with_the_same_weights_and_no_hooks(family: str) -> None:
    model = build(family)
    seen: list[Any] = []
    for part in model.modules():
        part.register_forward_hook(lambda *args: seen.append(args))
    made, ids = bare_copy(model), torch.arange(5, 25)[None]
    with torch.no_grad():
        found = made(input_ids=ids).logits
        assert not seen
        assert torch.equal(found, model(input_ids=ids).logits)
    assert seen


@pytest.mark.slow
def test_a_run_of_adapters_ends_in_a_lens_that_its_model_serves(specify: Specify, tmp_path: Path) -> None:
    value = specify(tmp_path / "data").model_dump(mode="json")
    value |= {
        "lens": {"length": 5, "adapters": {"rank": 2, "alpha": 4}},
        "run": {"phases": [{"objective": "warm_start", "steps": 3, "batch": 4}]},
        "evaluation": {"rows": 64, "draws": 100, "samples": 2},
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(value))
    for stage in ("tokens", "dump", "train", "evaluate", "export"):
        assert main([stage, str(path)]) == 0
    bundle = tmp_path / "data/run/bundle"
    assert read_manifest(bundle).weights == "adapters"
    engine = TraceEngine.load(value["target"]["model"], lenses=[bundle])
    capture, sampling = ThoughtCapture(explain=[0]), Sampling(max_new_tokens=2)
    trace = engine.generate_one(Request("the white kite", sampling=sampling, capture=capture)).thought_trace
    assert trace is not None
    assert trace.explanations[0].lens == read_manifest(bundle).id
    assert trace.model_fingerprint == read_manifest(bundle).target.fingerprint
