"""What is watched is the model as it is: transformers' own tokens, at the price of few kernels."""

from typing import Any

import pytest
import torch

from wonder.engine.engine import TraceEngine
from wonder.engine.loop import run_batch
from wonder.engine.recorder import ReadPlan
from wonder.trace.sampling import Sampling

PROMPTS = [[1, 40, 41], [1, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59], [1, 60, 61, 62]]


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
