"""Options that are handed to transformers and torch: each loads a real model, and the self-check holds."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.engine.conftest import build, byte_tokenizer
from tests.unit.engine.test_many_requests import FULL, assert_same, numbers
from wonder.engine.engine import TraceEngine
from wonder.engine.request import Request
from wonder.errors import ExtraMissing, ModelNotUsable, SettingNotSupported
from wonder.trace.sampling import Sampling
from workers.gpu.__main__ import arguments, device_map

REQUESTS = [Request(prompt=text, capture=FULL, sampling=Sampling(max_new_tokens=6)) for text in ("ab", "a longer one")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model whose matrices quantisation can divide into blocks."""
    where = tmp_path_factory.mktemp("model")
    build("llama", hidden_size=64, intermediate_size=128, head_dim=16).save_pretrained(where)
    byte_tokenizer().save_pretrained(where)
    return where


@pytest.fixture(scope="module")
def plain(folder: Path) -> list[dict[str, Any]]:
    return answers(TraceEngine.load(folder, device="cpu"))


def answers(engine: TraceEngine) -> list[dict[str, Any]]:
    return [numbers(message.thought_trace) for message in engine.generate(REQUESTS)]  # type: ignore[union-attr, arg-type]


def what(trace: dict[str, Any]) -> dict[str, Any]:
    """The numbers, without the name of what gave them."""
    return {
        key: value for key, value in trace.items() if key not in ("dtype", "device", "batching", "model_fingerprint")
    }


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_the_attention_function_may_be_chosen(implementation: str, folder: Path, plain: Any) -> None:
    engine = TraceEngine.load(folder, device="cpu", attn_implementation=implementation)
    assert implementation in str(engine.model.config._attn_implementation)
    assert engine.info.unsupported == {}
    assert_same(list(map(what, answers(engine))), list(map(what, plain)), 1e-3)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_so_may_the_dtype_and_the_trace_says_which(dtype: str, folder: Path) -> None:
    engine = TraceEngine.load(folder, device="cpu", dtype=dtype)
    assert engine.info.dtype == dtype
    assert {trace["dtype"] for trace in answers(engine)} == {dtype}


@pytest.mark.skipif(find_spec("flash_attn") is not None, reason="flash attention is installed here")
def test_an_attention_that_is_not_installed_is_refused_with_a_sentence(folder: Path) -> None:
    with pytest.raises(ExtraMissing, match="flash_attention_2 needs the package flash_attn, which is not installed"):
        TraceEngine.load(folder, attn_implementation="flash_attention_2")


@pytest.mark.skipif(find_spec("torchao") is not None, reason="torchao is installed here")
def test_weights_in_eight_bits_without_torchao_are_refused_with_a_sentence(folder: Path) -> None:
    with pytest.raises(ExtraMissing, match="torchao"):
        TraceEngine.load(folder, quantization="int8")


@pytest.mark.parametrize("half", ["cpu", "disk"])
def test_a_device_map_gives_the_same_numbers_also_where_half_the_blocks_lie_on_disk(
    half: str, folder: Path, plain: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    parts = dict.fromkeys(("model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head"), "cpu")
    blocks = {f"model.layers.{at}": half if at > 1 else "cpu" for at in range(4)}
    engine = TraceEngine.load(folder, device_map={**parts, **blocks} if half == "disk" else {"": "cpu"})
    assert engine.info.unsupported == {}
    assert answers(engine) == plain
    assert engine.info.fingerprint == TraceEngine.load(folder, device="cpu").info.fingerprint


@pytest.mark.quant
def test_weights_in_eight_bits_by_torchao(folder: Path, plain: Any) -> None:
    engine = TraceEngine.load(folder, quantization="int8")
    assert "Int8Tensor" in type(engine.model.model.layers[0].mlp.up_proj.weight).__name__
    assert engine.info.unsupported == {}
    for found, wanted in zip(answers(engine), plain, strict=True):
        assert found["layer_norms"] == pytest.approx(wanted["layer_norms"], rel=0.1)
        assert found["layer_norms"] != wanted["layer_norms"]
    assert engine.info.fingerprint != TraceEngine.load(folder, device="cpu").info.fingerprint


@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_weights_in_four_and_eight_bits_by_bitsandbytes(bits: str, folder: Path, plain: Any) -> None:
    engine = TraceEngine.load(folder, quantization=bits)
    for found, wanted in zip(answers(engine), plain, strict=True):
        assert found["layer_norms"] == pytest.approx(wanted["layer_norms"], rel=0.3)
        assert found["layer_norms"] != wanted["layer_norms"]
    # LLM.int8 scales what goes in by the whole batch, so that neighbours are felt: only the self-check can know.
    assert ("slots" in engine.info.unsupported) == (bits == "8bit")


def test_a_model_that_was_compiled_before_is_refused_because_its_hooks_would_never_fire(
    make_model: Any, tokenizer: Any
) -> None:
    model = make_model("llama", num_hidden_layers=1)
    fired: list[str] = []
    model.model.compile(backend="eager")
    model(input_ids=torch.tensor([[1, 40, 50, 60]]))
    model.model.layers[0].register_forward_hook(lambda *_: fired.append("late"))
    model(input_ids=torch.tensor([[1, 40, 50, 60]]))
    assert not fired
    with pytest.raises(ModelNotUsable, match="hooks that come after that never fire: hand over the model as it was"):
        TraceEngine(model, tokenizer)


def test_options_that_cannot_be_are_refused_before_anything_is_read(folder: Path) -> None:
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("quantization '3bit' is unknown: use 8bit, 4bit, int8", {"quantization": "3bit"}),
        ("dtype 'int8' is unknown", {"dtype": "int8"}),
        ("tp_plan 'mine' is unknown: use auto", {"tp_plan": "mine"}),
        ("leave device and device_map out", {"tp_plan": "auto", "device": "cpu"}),
        ("start the program with `torchrun", {"tp_plan": "auto"}),
    ]
    for reason, options in wrong:
        with pytest.raises(SettingNotSupported, match=reason):
            TraceEngine.load(folder, **options)


def test_the_worker_hands_all_of_them_on() -> None:
    found = arguments(["--attention", "eager", "--quantization", "int8", "--device-map", "auto"])
    assert (found.attention, found.quantization) == ("eager", "int8")
    assert device_map("auto") == "auto"
    assert device_map('{"model.layers.0": 0, "": "cpu"}') == {"model.layers.0": 0, "": "cpu"}
    with pytest.raises(SettingNotSupported, match="no JSON object"):
        device_map("{oops}")


SHARDED = """
import json, os, pathlib, sys
from tests.unit.engine.test_options import answers
from wonder.engine.engine import TraceEngine
engine = TraceEngine.load(sys.argv[1], tp_plan="auto")
kind = type(engine.model.model.layers[0].mlp.up_proj.weight).__name__
found = json.dumps([kind, engine.info.fingerprint, engine.info.unsupported, answers(engine)])
pathlib.Path(sys.argv[2], os.environ["RANK"]).write_text(found)  # on stdout their lines would mix
"""


@pytest.mark.timeout(300)
def test_two_processes_that_share_a_model_give_the_numbers_of_one(folder: Path, plain: Any, tmp_path: Path) -> None:
    (tmp_path / "sharded.py").write_text(SHARDED)
    (tmp_path / "found").mkdir()
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    done = subprocess.run(
        [sys.executable, *launch, str(tmp_path / "sharded.py"), str(folder), str(tmp_path / "found")],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path[1:]]), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    files = sorted((tmp_path / "found").iterdir())
    assert [file.name for file in files] == ["0", "1"]
    for file in files:
        kind, fingerprint, unsupported, found = json.loads(file.read_text())
        assert kind == "DTensor"
        assert fingerprint == TraceEngine.load(folder, device="cpu").info.fingerprint
        assert "each sees its own only" in unsupported["attention_entropy"]
        for one, other in zip(found, plain, strict=True):
            assert one["attention_entropy"] == []
            for name in ("tokens", "token_confidences", "logits_entropy", "layer_norms", "representation_shifts"):
                assert_same(one[name], other[name], 1e-3)
