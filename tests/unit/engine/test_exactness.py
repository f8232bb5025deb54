"""Reading never changes a token: logits, tokens, cache and random state are equal to the bit."""

import hashlib
from typing import Any

import pytest
import torch

from tests.unit.engine.conftest import build
from wonder.engine import loop
from wonder.engine.engine import TraceEngine
from wonder.engine.loop import run_batch
from wonder.engine.recorder import ReadPlan
from wonder.trace.sampling import Sampling

PROMPTS = [[1, 40, 41], [1, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59], [1, 60, 61, 62]]
SAMPLED = Sampling(max_new_tokens=12, temperature=0.8, top_p=0.95, top_k=50, seed=7)


def run(
    engine: TraceEngine, plan: ReadPlan | None, sampling: Sampling, prompts: list[list[int]], monkeypatch: Any
) -> tuple[list[torch.Tensor], list[list[int]], torch.Tensor, str]:
    """Logits of every step, tokens, global random state and a digest of the cache."""
    caches: list[Any] = []

    class Kept(loop.DynamicCache):  # type: ignore[misc, name-defined]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            caches.append(self)

    monkeypatch.setattr(loop, "DynamicCache", Kept)
    torch.manual_seed(3)
    logits: list[torch.Tensor] = []
    result = run_batch(
        engine._runtime, prompts, [sampling] * len(prompts), plan, on_logits=lambda _s, z: logits.append(z.clone())
    )
    digest = hashlib.sha256()
    for layer in caches[-1].layers:
        for part in (layer.keys, layer.values):
            digest.update(part.contiguous().view(torch.uint8).numpy().tobytes())
    return logits, [row.tokens for row in result.rows], torch.get_rng_state(), digest.hexdigest()


def everything(engine: TraceEngine) -> ReadPlan:
    layers = tuple(range(engine.info.n_layers))
    return ReadPlan(layers if not engine.info.unsupported else (), 4, layers, True, 3)


@pytest.mark.parametrize("sampling", [Sampling(max_new_tokens=12), SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "qwen3_moe", "deepseek_v3", "gpt_oss", "falcon"])
def test_reading_changes_nothing(
    family: str, dtype: torch.dtype, batch: int, sampling: Sampling, make_engine: Any, monkeypatch: Any
) -> None:
    engine = make_engine(family, model=build(family).to(dtype))
    off = run(engine, None, sampling, PROMPTS[:batch], monkeypatch)
    on = run(engine, everything(engine), sampling, PROMPTS[:batch], monkeypatch)
    assert len(off[0]) == len(on[0])
    assert all(torch.equal(one, other) for one, other in zip(off[0], on[0], strict=True))
    assert off[1] == on[1]
    assert torch.equal(off[2], on[2])
    assert off[3] == on[3]


def test_a_hook_that_writes_in_place_would_be_noticed(make_engine: Any, monkeypatch: Any) -> None:
    engine = make_engine("llama")
    plan = everything(engine)
    off = run(engine, None, Sampling(max_new_tokens=4), PROMPTS, monkeypatch)

    def careless(_module: Any, _args: Any, output: torch.Tensor) -> None:
        if engine._runtime.taps._sink is not None:
            output.add_(1e-3)

    handle = engine._runtime.anatomy.blocks[1].register_forward_hook(careless)
    on = run(engine, plan, Sampling(max_new_tokens=4), PROMPTS, monkeypatch)
    handle.remove()
    assert not all(torch.equal(one, other) for one, other in zip(off[0], on[0], strict=True))
    assert off[3] != on[3]


def test_wrapping_the_attention_changes_nothing(make_model: Any, make_engine: Any) -> None:
    ids = torch.tensor([PROMPTS[1]])
    for family in ("llama", "gemma2", "gpt2"):
        model = make_model(family)
        before = model(input_ids=ids).logits
        make_engine(family, model=model)
        assert torch.equal(before, model(input_ids=ids).logits)


@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen3_moe", "llama4", "gpt_oss", "deepseek_v3"])
def test_the_tokens_are_those_of_transformers_generate(family: str, make_model: Any, make_engine: Any) -> None:
    model = make_model(family)
    ids = torch.tensor([PROMPTS[1]])
    model.generation_config.pad_token_id = 0
    want = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
    engine = make_engine(family, model=model)
    (row,) = run_batch(engine._runtime, [PROMPTS[1]], [Sampling(max_new_tokens=12)], None).rows
    assert row.tokens == want[0, ids.shape[1] :].tolist()


def kernels(engine: TraceEngine, plan: ReadPlan | None, monkeypatch: Any) -> int:
    from torch.utils._python_dispatch import TorchDispatchMode

    class Counter(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            if not func.is_view:
                Counter.count += 1
            return result

    counts = []
    for steps in (4, 8):
        Counter.count = 0
        with Counter():
            run_batch(engine._runtime, [PROMPTS[1]], [Sampling(max_new_tokens=steps)], plan)
        counts.append(Counter.count)
    return (counts[1] - counts[0]) // 4


def test_reading_launches_few_kernels_whatever_the_depth(make_model: Any, make_engine: Any, monkeypatch: Any) -> None:
    extra = {}
    for layers in (4, 16):
        model = make_model("llama", num_hidden_layers=layers, eos_token_id=None)
        engine = make_engine("llama", model=model)
        plain = kernels(engine, None, monkeypatch)
        quarter = tuple(range(3, layers, 4))
        extra[layers] = kernels(engine, ReadPlan(quarter, 4, (), False, 3), monkeypatch) - plain
    # One product per watched layer and nothing else grows; reducing inside every hook would add some 20 per layer.
    assert extra[16] - extra[4] <= 12 * 2
    assert extra[16] <= 100
