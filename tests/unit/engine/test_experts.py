"""A mixture's experts run in the kernel that transformers' own `generate` would choose."""

from typing import Any

import pytest
import torch

from tests.unit.engine.slot_driver import drain, everything, job, loop_of, prompt
from wonder.engine import experts
from wonder.engine.engine import TraceEngine
from wonder.engine.experts import PROMPT_KERNEL, TOKEN_KERNEL, token_kernels
from wonder.engine.loop import run_batch
from wonder.errors import WonderError
from wonder.trace.sampling import Sampling

SWITCHABLE = ["qwen3_moe", "mixtral", "deepseek_v3", "gpt_oss", "glm4_moe"]
LENGTHS = (7, 3, 12)


def test_the_kernel_changes_for_tokens_on_an_accelerator_only_and_only_where_it_is_the_usual_one() -> None:
    assert token_kernels("cuda", {"": "grouped_mm"}) == {"": "batched_mm"}
    assert token_kernels("xpu", {"": "eager", "text": "grouped_mm"}) == {
        "": "eager",
        "text": "batched_mm",
    }
    for device, kernel in (("cpu", "grouped_mm"), ("cuda", "eager"), ("cuda", "batched_mm"), ("cuda", None)):
        assert token_kernels(device, {"": kernel}) is None


def test_generate_of_transformers_decides_the_same(make_model: Any, monkeypatch: Any) -> None:
    """Should it ever choose differently, this loop must follow."""
    model = make_model("qwen3_moe")
    model.set_experts_implementation(PROMPT_KERNEL)
    for device in ("cpu", "cuda"):
        monkeypatch.setattr(type(model), "device", property(lambda _self, device=device: torch.device(device)))
        usual = model.get_experts_implementation()
        with model._optimize_model_for_decode():
            assert model.get_experts_implementation() == (token_kernels(device, usual) or usual)
        assert model.get_experts_implementation() == usual


def as_on_an_accelerator(monkeypatch: Any) -> None:
    monkeypatch.setattr(experts, "token_kernels", lambda _device, kernels: token_kernels("cuda", kernels))


def kernels_of(engine: TraceEngine) -> list[tuple[int, str | None]]:
    """Columns fed and kernel of every pass from now on."""
    seen: list[tuple[int, str | None]] = []
    engine.model.register_forward_pre_hook(
        lambda model, _args, kwargs: seen.append(
            (kwargs["input_ids"].shape[1], model.get_experts_implementation()[""])
        ),
        with_kwargs=True,
    )
    return seen


def slots(engine: TraceEngine) -> list[Any]:
    loop = loop_of(engine, rows=2, chunk=4, idle_chunk=16)
    jobs = [job(engine._runtime, prompt(length), Sampling(max_new_tokens=6), everything(engine)) for length in LENGTHS]
    for item in jobs:
        loop.add(item)
    drain(loop)
    return [(item.row.tokens, item.answered.batch.readings) for item in jobs if item.answered is not None]


@pytest.mark.parametrize("family", SWITCHABLE)
def test_prompts_and_tokens_run_in_their_own_kernels_and_give_the_numbers_of_one(
    family: str, make_engine: Any, monkeypatch: Any
) -> None:
    engine = make_engine(family)
    wanted = slots(engine)
    engine.model.set_experts_implementation(PROMPT_KERNEL)
    as_on_an_accelerator(monkeypatch)
    seen = kernels_of(engine)
    found = slots(engine)
    assert {columns == 1 for columns, kernel in seen if kernel == TOKEN_KERNEL} == {True}
    assert {columns == 1 for columns, kernel in seen if kernel == PROMPT_KERNEL} == {False}
    assert engine.model.get_experts_implementation()[""] == PROMPT_KERNEL
    for (tokens, readings), (others, read) in zip(found, wanted, strict=True):
        assert tokens == others
        assert torch.allclose(readings.norm_NLB, read.norm_NLB, rtol=1e-5)
        assert torch.allclose(readings.logits.entropy, read.logits.entropy, rtol=1e-5, atol=1e-5)
        for name, states in readings.states_WBD.items():
            assert torch.allclose(states, read.states_WBD[name], rtol=1e-5, atol=1e-5)
        for key, choices in readings.choices_NBK.items():
            assert torch.equal(choices, read.choices_NBK[key])


def test_a_padded_batch_switches_too_and_back_also_when_it_is_given_up(make_engine: Any, monkeypatch: Any) -> None:
    engine = make_engine("mixtral")
    engine.model.set_experts_implementation(PROMPT_KERNEL)
    as_on_an_accelerator(monkeypatch)
    seen = kernels_of(engine)
    run_batch(engine._runtime, [prompt(5)], [Sampling(max_new_tokens=3)], None)
    assert seen == [(5, PROMPT_KERNEL), (1, TOKEN_KERNEL), (1, TOKEN_KERNEL)]
    assert engine.model.get_experts_implementation()[""] == PROMPT_KERNEL

    def give_up(_confidences: Any) -> None:
        if seen[-1][0] == 1:
            raise WonderError("given up")

    with pytest.raises(WonderError, match="given up"):
        run_batch(engine._runtime, [prompt(5)], [Sampling(max_new_tokens=9)], None, on_step=give_up)
    assert seen[-1][1] == TOKEN_KERNEL
    assert engine.model.get_experts_implementation()[""] == PROMPT_KERNEL


def test_a_slot_loop_that_fails_leaves_the_model_as_it_was(make_engine: Any, monkeypatch: Any) -> None:
    engine = make_engine("mixtral")
    engine.model.set_experts_implementation(PROMPT_KERNEL)
    as_on_an_accelerator(monkeypatch)
    loop = loop_of(engine)
    loop.add(job(engine._runtime, prompt(4), Sampling(max_new_tokens=9)))
    loop.step()
    assert engine.model.get_experts_implementation()[""] == TOKEN_KERNEL
    loop.abort(WonderError("over"))
    assert engine.model.get_experts_implementation()[""] == PROMPT_KERNEL
