"""`torch.compile` for what nobody watches: the same traces, few versions, and an honest word where it does not take."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from tests.unit.engine.conftest import byte_tokenizer
from tests.unit.engine.test_many_requests import FULL, TEXT, assert_same, numbers
from wonder.engine.engine import TraceEngine
from wonder.engine.request import Request
from wonder.engine.taps import StepSink
from wonder.errors import SettingNotSupported
from wonder.trace.sampling import Sampling
from workers.gpu.__main__ import arguments

MANY_LENGTHS = [  # of prompts and answers
    Request(prompt=TEXT[:length], capture=FULL, sampling=Sampling(max_new_tokens=3 + length % 7))
    for length in (1, 2, 5, 9, 20, 44, 60)
]


@pytest.fixture(autouse=True)
def _afresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def traces(engine: TraceEngine, requests: list[Request]) -> list[dict[str, Any]]:
    return [numbers(message.thought_trace) for message in engine.generate(requests)]  # type: ignore[union-attr, arg-type]


@pytest.mark.parametrize(
    ("family", "backend"),
    [
        ("llama", "aot_eager"),
        *(pytest.param(*slow, marks=pytest.mark.slow) for slow in [("qwen3_moe", "aot_eager"), ("llama", "inductor")]),
    ],
)
def test_a_compiled_model_gives_the_same_traces_in_few_versions_whatever_the_lengths(
    family: str, backend: str, make_engine: Any
) -> None:
    wanted = traces(make_engine(family), MANY_LENGTHS)
    engine = make_engine(family, compile=backend)
    assert engine.info.unsupported == {}
    assert_same(traces(engine, MANY_LENGTHS), wanted, 1e-4)
    versions = engine._compiled.graphs
    assert 0 < versions <= 16
    assert_same(traces(engine, MANY_LENGTHS[::-1]), wanted[::-1], 1e-4)
    assert engine._compiled.graphs == versions
    assert engine._compiled.given_up == 0
    parts = len(engine._compiled.parts)
    assert engine.info.compiled == f"{parts} parts of the blocks by {backend}, {versions} versions so far"


def test_nothing_that_is_watched_is_compiled_and_every_hook_fires_once_a_pass(
    make_engine: Any, make_model: Any
) -> None:
    engine = make_engine(model=make_model("qwen3_moe", num_hidden_layers=2), compile="eager")
    runtime, parts = engine._runtime, set(engine._compiled.parts)
    inside = {module for part in parts for module in part.modules()}
    assert parts
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in inside)
    assert not inside & {router.module for router in runtime.anatomy.routers}
    assert not inside & set(runtime.taps.attention_modules.values())
    for columns in (1, 7):
        sink = StepSink(rows=1)
        with torch.inference_mode(), runtime.taps.step(sink):
            runtime.model(input_ids=torch.tensor([[1, *range(40, 39 + columns)]]), use_cache=False)
        assert sink.calls == dict.fromkeys(range(2), 1)
        assert set(sink.choices) == {router.key for router in runtime.anatomy.routers}


class Fickle(nn.Module):
    """Gives a value that no compiler can know to its sums, so that every call wants another version."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.calls = 0

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return states * self.weight + 0.0 * self.calls if self.calls % 2 else states * self.weight


@torch._dynamo.config.patch(recompile_limit=2)
def test_where_torch_gives_up_the_engine_says_so(make_model: Any) -> None:
    model = make_model("llama")
    for block in model.model.layers:
        block.post_attention_layernorm = nn.Sequential(Fickle())
        block.post_attention_layernorm.__class__ = type("Several", (nn.Sequential,), {"__module__": __name__})
    engine = TraceEngine(model, byte_tokenizer(), compile="eager")
    traces(engine, MANY_LENGTHS)
    assert engine._compiled is not None
    assert engine._compiled.given_up > 0
    assert "times torch gave up, and that part runs uncompiled" in engine.info.compiled


def test_a_compiler_that_fails_or_changes_the_numbers_is_refused_and_the_model_left_as_it_was(
    make_model: Any, tokenizer: Any
) -> None:
    def broken(_graph: Any, _inputs: Any) -> Any:
        raise RuntimeError("no compiler here")

    def wrong(graph: Any, _inputs: Any) -> Any:
        return lambda *args: tuple(out * 1.1 if out.is_floating_point() else out for out in graph(*args))

    model = make_model("llama")
    ids = torch.tensor([[1, 40, 50, 60]])
    before = model(input_ids=ids).logits
    for backend, reason in ((broken, r"it failed .*no compiler here"), (wrong, "its logits are others then")):
        torch._dynamo.register_backend(compiler_fn=backend, name=f"test_{backend.__name__}")
        with pytest.raises(SettingNotSupported, match=rf"LlamaForCausalLM cannot be compiled by test_.*: {reason}"):
            TraceEngine(model, tokenizer, compile=f"test_{backend.__name__}")
        assert torch.equal(model(input_ids=ids).logits, before)
    with pytest.raises(
        SettingNotSupported, match=r"compile='fast' is no backend of torch.compile: use True, or one of"
    ):
        TraceEngine(model, tokenizer, compile="fast")
    with pytest.raises(SettingNotSupported, match=r"compile goes with none of device_map, quantization and tp_plan"):
        TraceEngine.load(compile=True, quantization="int8")


def test_closing_takes_it_back_and_the_worker_hands_it_on(make_model: Any, make_engine: Any) -> None:
    model = make_model("llama")
    engine = make_engine("llama", model=model, compile="eager")
    engine.close()
    assert not any(module._compiled_call_impl for module in model.modules())
    assert make_engine("llama", model=model).info.compiled == ""
    assert arguments([]).compile is False
    assert arguments(["--compile"]).compile is True
    assert arguments(["--compile", "aot_eager"]).compile == "aot_eager"
