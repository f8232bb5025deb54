"""The logit lens: each layer's states through the model's own norm, head and soft cap, equal to an eager reference."""

from typing import Any

import pytest
import torch
import transformers as hf

from tests.unit.engine.conftest import COMMON, build
from tests.unit.engine.reference import eager_twin, read
from wonder.engine.request import Request
from wonder.errors import SettingNotSupported
from wonder.trace.capture import ThoughtCapture
from wonder.trace.sampling import Sampling

FAMILIES = ["llama", "gpt2", "gemma2", "gemma3", "qwen3_moe", "llama4", "deepseek_v3", "gpt_oss", "falcon", "cohere2"]


def model_of(family: str) -> Any:
    if family == "gemma2":
        return build(family, final_logit_softcapping=3.0)
    if family in ("cohere2", "granite"):
        config = {
            "cohere2": lambda: hf.Cohere2Config(**COMMON, logit_scale=0.25, sliding_window=8),
            "granite": lambda: hf.GraniteConfig(**COMMON, logits_scaling=4.0),
        }[family]()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return hf.AutoModelForCausalLM.from_config(config).eval()
    return build(family)


@torch.inference_mode()
def logits_of_layers(twin: Any, ids: list[int]) -> torch.Tensor:
    """By hand: final norm, head, and what the family does after it; (layers, tokens, V), float64."""
    inner = getattr(twin, "model", None) or twin.transformer
    blocks = inner.layers if hasattr(inner, "layers") else inner.h
    norm = inner.norm if hasattr(inner, "norm") else inner.ln_f
    states: list[torch.Tensor] = []
    handles = [
        block.register_forward_hook(lambda _m, _a, out: states.append(out if torch.is_tensor(out) else out[0]))
        for block in blocks
    ]
    twin(input_ids=torch.tensor([ids]), use_cache=False)
    for handle in handles:
        handle.remove()
    logits = twin.lm_head(norm(torch.cat(states))).double()
    if cap := getattr(twin.config, "final_logit_softcapping", None):
        logits = (logits / cap).tanh() * cap
    factor: float = getattr(twin.config, "logit_scale", 1.0) / getattr(twin.config, "logits_scaling", 1.0)
    return logits * factor


@pytest.mark.parametrize("path", ["padded", "slots"])
@pytest.mark.parametrize("family", [*FAMILIES, "granite"])
def test_every_layer_says_what_its_states_say_through_norm_and_head(family: str, path: str, make_engine: Any) -> None:
    model = model_of(family)
    twin = eager_twin(model)
    engine = make_engine(family, model=model)
    assert "logit_lens" not in engine.info.unsupported
    asked = [
        Request(prompt=prompt, sampling=Sampling(max_new_tokens=count), capture=ThoughtCapture(logit_lens=layers))
        for prompt, count, layers in (("hi", 6, True), ("another prompt", 9, [1]), ("no lens", 4, False))
    ]
    rows = read(engine, asked, path)
    for row, request in zip(rows[:2], asked, strict=False):
        exact = logits_of_layers(twin, [*row.prompt, *row.answer[:-1]])[:, len(row.prompt) - 1 :]
        emitted = torch.tensor(row.answer)
        field = row.trace.field_confidences[""]
        values = slice(field.start, field.stop)
        wanted = list(range(len(exact))) if request.capture.logit_lens is True else [1]
        assert [found.layer for found in row.trace.logit_lens] == wanted
        for found in row.trace.logit_lens:
            logs = exact[found.layer].log_softmax(-1)
            chosen = logs.gather(-1, emitted[:, None])[:, 0]
            assert found.log_probability == pytest.approx(float(chosen[values].mean()), rel=1e-5, abs=1e-5)
            first = (logs.argmax(-1) == emitted)[values].double().mean()
            assert found.first_share == pytest.approx(float(first))
            assert found.top_token == engine._desk.assembler._names(int(logs[field.start].argmax()))
    assert rows[2].trace.logit_lens == []
    whole = rows[0].trace
    if len(whole.logit_lens) == len(whole.layer_norms):
        field = whole.field_confidences[""]
        known = [x for x in whole.token_log_probs[field.start : field.stop] if x is not None]
        assert whole.logit_lens[-1].log_probability == pytest.approx(sum(known) / len(known), rel=1e-4, abs=1e-5)


def test_a_head_whose_logits_are_changed_in_an_unknown_way_is_unsupported(make_engine: Any) -> None:
    model = build("llama")
    forward = model.forward

    def strange(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        output.logits = output.logits * 0.5 + 1
        return output

    model.forward = strange
    engine = make_engine("llama", model=model)
    assert "in a way that is not known" in engine.info.unsupported["logit_lens"]
    asked = Request(prompt="x", sampling=Sampling(max_new_tokens=2), capture=ThoughtCapture(logit_lens=True))
    trace = engine.generate_one(asked).thought_trace
    assert trace.logit_lens == []
    assert "in a way that is not known" in trace.missing["logit_lens"]


def test_a_layer_that_the_model_does_not_have_is_refused(make_engine: Any) -> None:
    with pytest.raises(SettingNotSupported, match="logit_lens asks for layer 9"):
        make_engine("llama").generate_one(Request(prompt="x", capture=ThoughtCapture(logit_lens=[9])))


def test_the_head_never_sees_all_layers_and_tokens_at_once(make_engine: Any) -> None:
    model = build("llama", eos_token_id=None)
    engine = make_engine("llama", model=model)
    sizes: list[int] = []
    model.lm_head.register_forward_hook(lambda _m, _a, out: sizes.append(out.shape[:-1].numel()))
    asked = Request(prompt="x", sampling=Sampling(max_new_tokens=60), capture=ThoughtCapture(logit_lens=True))
    message = engine.generate_one(asked)
    assert len(message.thought_trace.logit_lens) == 4
    assert max(sizes) == 64
