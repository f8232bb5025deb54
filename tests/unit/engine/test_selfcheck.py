"""What the engine finds out about a model when it is loaded."""

from typing import Any

import pytest
import torch
import transformers as hf
from torch import nn

from tests.unit.engine.conftest import COMMON, build
from tests.unit.engine.reference import read
from wonder.anatomy import examine
from wonder.engine.engine import TraceEngine
from wonder.engine.request import Request
from wonder.engine.taps import choice_of
from wonder.errors import ModelNotUsable
from wonder.trace.capture import ThoughtCapture
from wonder.trace.sampling import Sampling


def test_one_attention_module_is_found_in_every_layer(make_engine: Any) -> None:
    for family in ("llama", "gpt2", "deepseek_v3"):
        engine = make_engine(family)
        assert sorted(engine._runtime.taps.attention_modules) == [0, 1, 2, 3]
        assert engine.info.unsupported == {}


def test_routers_are_found_by_declaration_and_dense_layers_have_none(make_engine: Any) -> None:
    assert make_engine("qwen3_moe").info.routers == ["0", "2", "3"]
    assert make_engine("llama4").info.routers == ["1", "3"]
    assert make_engine("deepseek_v3").info.routers == ["1", "2", "3"]
    assert make_engine("llama").info.routers == []


def test_the_choice_is_the_routers_own_and_not_the_largest_logits(make_model: Any) -> None:
    model = make_model("deepseek_v3")
    router = examine(model).routers[0].module
    seen: list[Any] = []
    router.register_forward_hook(lambda _module, _args, output: seen.append(output))
    model(input_ids=torch.tensor([[1, 30, 40, 50, 60, 70, 80]]))
    chosen = choice_of(router, seen[0], 0)
    assert not isinstance(chosen, str)
    indices, logits = chosen
    assert logits is seen[0][0]
    largest = seen[0][0].topk(indices.shape[-1], -1).indices
    assert not torch.equal(indices.sort(-1).values, largest.sort(-1).values)


def test_a_router_that_hides_its_choice_is_unsupported() -> None:
    logits = torch.randn(3, 8)
    assert choice_of(nn.Identity(), logits, 0) == "the router does not give out its choice"
    assert choice_of(nn.Identity(), (logits, torch.randn(3, 5)), 0) == "the router does not give out its choice"
    assert choice_of(nn.Identity(), (torch.zeros(6, dtype=torch.long), logits), 1) == (
        "the router does not give out its choice"
    )


def test_a_router_whose_indices_are_all_the_same_is_unsupported(make_engine: Any) -> None:
    model = build("mixtral")
    router = examine(model).routers[1].module

    def fused(_module: Any, _args: Any, output: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (*output[:2], torch.zeros_like(output[2]))

    router.register_forward_hook(fused)
    engine = make_engine("mixtral", model=model)
    assert "no choice" in engine.info.unsupported["expert_distribution.1"]
    capture = ThoughtCapture(capture_expert_routing=True)
    trace = read(engine, [Request(prompt="x", sampling=Sampling(max_new_tokens=2), capture=capture)])[0].trace
    assert trace.expert_distribution.keys() == {"0", "2", "3"}
    assert trace.missing["expert_distribution"].startswith("router 1: ")


@pytest.mark.parametrize("family", ["llama4_maverick", "gpt_oss"])
def test_a_router_that_sends_every_token_to_the_same_experts_whatever_its_logits_is_unsupported(
    family: str, make_engine: Any
) -> None:
    model = build(family)
    key, router = next((router.key, router.module) for router in examine(model).routers)

    def stale(_module: Any, _args: Any, output: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        if len(output) == 3:
            return (*output[:2], torch.arange(output[2].shape[-1]).expand_as(output[2]))
        first = torch.zeros_like(output[0])
        first[:, 0] = 0.5
        return first, output[1]

    router.register_forward_hook(stale)
    engine = make_engine(family, model=model)
    assert engine.info.unsupported == {
        f"expert_distribution.{key}": "the router gives out the same experts for every token, whatever its logits"
    }


@pytest.mark.parametrize(
    ("family", "shared"),
    [
        ("mixtral", {}),
        ("qwen3_moe", {}),
        ("gpt_oss", {}),
        ("deepseek_v3", {"1": 1, "2": 1, "3": 1}),
        ("glm4_moe", {"2": 2, "3": 2}),
        ("llama4_maverick", {"1": 1, "3": 1}),
        ("llama4_scout", dict.fromkeys("0123", 1)),
    ],
)
def test_shared_experts_are_counted_apart(family: str, shared: dict[str, int], make_engine: Any) -> None:
    engine = make_engine(family)
    assert engine.info.shared_experts == shared
    capture = ThoughtCapture(capture_expert_routing=True)
    trace = read(engine, [Request(prompt="x", sampling=Sampling(max_new_tokens=2), capture=capture)], "slots")[0].trace
    assert trace.shared_experts == shared
    assert trace.router_entropy.keys() == trace.expert_distribution.keys() == set(engine.info.routers)


def test_states_that_a_model_changes_in_place_later_are_copied(make_engine: Any) -> None:
    model = build("llama")

    def double(_module: Any, args: Any) -> tuple[torch.Tensor, ...]:
        args[0].mul_(2.0)
        return (args[0], *args[1:])

    model.model.layers[2].register_forward_pre_hook(double)
    engine = make_engine("llama", model=model)
    assert engine._runtime.taps.clones
    assert not make_engine("llama")._runtime.taps.clones
    norms: list[float] = []
    model.model.layers[1].register_forward_hook(lambda _m, _args, output: norms.append(float(output[0, -1].norm())))
    row = read(engine, [Request(prompt="hello", sampling=Sampling(max_new_tokens=3))])[0]
    assert len(norms) == 3
    assert row.trace.layer_norms[1] == pytest.approx(sum(norms) / 3, rel=1e-5)


def test_a_model_without_blocks_is_refused() -> None:
    model = build("llama")
    model.config.num_hidden_layers = 3
    with pytest.raises(ModelNotUsable, match="no list of 3 decoder blocks"):
        examine(model)


def test_a_model_that_does_not_run_is_refused(make_engine: Any) -> None:
    model = build("llama")
    model.model.layers[0].register_forward_pre_hook(lambda _module, args: (args[0][..., :5], *args[1:]))
    with pytest.raises(ModelNotUsable, match="loads but does not generate"):
        make_engine("llama", model=model)


def test_a_model_with_a_running_state_never_shares_a_batch_with_padding(make_engine: Any) -> None:
    config = hf.Qwen3NextConfig(
        **COMMON,
        head_dim=8,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=32,
        shared_expert_intermediate_size=32,
        layer_types=["linear_attention", "linear_attention", "linear_attention", "full_attention"],
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = hf.AutoModelForCausalLM.from_config(config).eval()
    engine = make_engine("qwen3_next", model=model)
    capture = ThoughtCapture(compute_attention_entropy=True, capture_expert_routing=True, attention_layers="all")
    requests = [
        Request(prompt=prompt, sampling=Sampling(max_new_tokens=5), capture=capture)
        for prompt in ("abc", "a longer prompt", "xyz")
    ]
    assert "running state" in engine.info.unsupported["padding"]
    traces = [message.thought_trace for message in engine.generate(requests)]
    assert [trace.batch_size for trace in traces] == [2, 1, 2]
    for request, trace in zip(requests, traces, strict=True):
        alone = engine.generate_one(request).thought_trace
        assert alone.tokens == trace.tokens
        assert alone.layer_norms == pytest.approx(trace.layer_norms, rel=1e-4)
        assert trace.attention_entropy[:3] == [None] * 3
        assert trace.attention_entropy[3] is not None
        assert "attention_entropy" in trace.missing


def test_an_engine_can_be_made_for_a_model_that_already_has_one(make_model: Any, tokenizer: Any) -> None:
    model = make_model("llama")
    capture = ThoughtCapture(compute_attention_entropy=True)
    request = Request(prompt="hello", sampling=Sampling(max_new_tokens=3), capture=capture)
    first = TraceEngine(model, tokenizer)
    want = read(first, [request])[0].trace
    first.close()
    again = read(TraceEngine(model, tokenizer), [request])[0].trace
    assert again.layer_norms == want.layer_norms
    assert again.attention_entropy == want.attention_entropy != []


@pytest.mark.parametrize("family", ["bloom", "falcon", "mpt"])
def test_a_model_that_takes_padding_on_one_side_only_gets_that(family: str, make_engine: Any) -> None:
    configs = {
        "bloom": lambda: hf.BloomConfig(vocab_size=320, hidden_size=32, n_layer=3, n_head=4),
        "falcon": lambda: hf.FalconConfig(
            vocab_size=320, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, alibi=True
        ),
        "mpt": lambda: hf.MptConfig(vocab_size=320, d_model=32, n_layers=3, n_heads=4, max_seq_len=256),
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = hf.AutoModelForCausalLM.from_config(configs[family]()).eval()
    for weight in model.parameters():
        if weight.ndim > 1:
            weight.data.normal_(0, 0.3)
    engine = make_engine(family, model=model, padding_side="right")
    assert engine.info.unsupported["padding"] == "this model takes padding on the left only"
    requests = [Request(prompt=prompt, sampling=Sampling(max_new_tokens=6)) for prompt in ("ab", "a longer prompt")]
    together = [row.answer for row in read(engine, requests)]
    assert together == [read(engine, [request])[0].answer for request in requests]


def test_a_model_that_insists_on_its_own_cache_gets_it(make_engine: Any) -> None:
    config = hf.MiniMaxConfig(**COMMON, head_dim=8, num_local_experts=2, num_experts_per_tok=1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = hf.AutoModelForCausalLM.from_config(config).eval()
    engine = make_engine("minimax", model=model)
    requests = [Request(prompt=prompt, sampling=Sampling(max_new_tokens=6)) for prompt in ("ab", "a longer one")]
    messages = engine.generate(requests)
    assert [message.thought_trace.batch_size for message in messages] == [1, 1]
    ids = torch.tensor([engine._desk.prompt(requests[0])])
    model.generation_config.pad_token_id = 0
    want = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False, eos_token_id=2)
    assert read(engine, requests[:1])[0].answer == want[0, ids.shape[1] :].tolist()
