"""Attention entropy of every row of a prompt: as by definition, in pieces, nothing of heads × prompt × prompt."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.unit.engine.conftest import build
from tests.unit.engine.reference import eager_twin, read, reference
from tests.unit.engine.slot_driver import drain, job, loop_of
from wonder.engine import prompt_rows
from wonder.engine.job import Answered
from wonder.engine.prompt_rows import entropy_of_products, entropy_of_weights
from wonder.engine.recorder import ReadPlan
from wonder.engine.request import Request
from wonder.trace.capture import ThoughtCapture
from wonder.trace.sampling import Sampling

PLAN = ReadPlan((0, 1, 2, 3), 1, (), False, 1, prompt_rows=True)
ROWS = ThoughtCapture(compute_attention_entropy=True, attention_rows="all", attention_layers="all")


def prompt_entropies(engine: Any, prompt: list[int], **loop: int) -> tuple[dict[int, float], dict[int, float]]:
    asked = job(engine._runtime, prompt, Sampling(max_new_tokens=2), PLAN)
    slots = loop_of(engine, **loop)
    slots.add(asked)
    drain(slots)
    answered = asked.wait(0)
    assert isinstance(answered, Answered)
    assert answered.batch.readings is not None
    found = answered.batch.readings.prompt
    assert found is not None
    return tuple(
        {layer: float(values[0]) for layer, values in kind.items()} for kind in (found.entropy_B, found.normalized_B)
    )  # type: ignore[return-value]


@pytest.mark.parametrize("family", ["llama", "gemma2", "gemma3", "llama4", "gpt_oss", "deepseek_v3"])
def test_a_prompt_fed_in_pieces_has_the_entropies_of_the_whole(family: str, make_engine: Any) -> None:
    model = build(family)
    prompt = [1, *range(20, 57)]
    want = reference(eager_twin(model), prompt, [5])
    engine = make_engine(family, model=model)
    for sizes in ({"chunk": 64, "idle_chunk": 64}, {"chunk": 7, "idle_chunk": 7}):
        entropy, normalized = prompt_entropies(engine, prompt, **sizes)
        assert list(entropy.values()) == pytest.approx(want.prompt_entropy, rel=1e-5, abs=1e-5)
        assert list(normalized.values()) == pytest.approx(want.prompt_normalized, rel=1e-5, abs=1e-5)


class Largest(TorchDispatchMode):
    """The most elements of any tensor that an operation made."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if not func.is_view:
            sizes = [leaf.numel() for leaf in tree_leaves(made) if isinstance(leaf, torch.Tensor)]
            self.elements = max(self.elements, *sizes, 0)
        return made


@pytest.mark.parametrize("family", ["llama", "mistral", "llama4"])
def test_nothing_of_heads_times_prompt_times_prompt_ever_exists(
    family: str, make_engine: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(prompt_rows, "ELEMENTS", 1 << 14)
    length, heads = 600, 4
    engine = make_engine(family)
    with Largest() as seen:
        prompt_entropies(engine, [1, *(20 + at % 200 for at in range(length - 1))])
    # The model's own mask of one head, where a layer has a window, is the largest thing there is.
    assert seen.elements <= length * length
    assert seen.elements < heads * length * length / 2
    with Largest() as eager:
        eager_twin(build(family))(input_ids=torch.arange(20, 20 + 300)[None] % 300)
    assert eager.elements >= heads * 300 * 300  # what the counter would have seen


@pytest.mark.parametrize("piece", [1 << 8, 1 << 20])
def test_the_entropies_of_products_and_of_weights_are_the_same(piece: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(prompt_rows, "ELEMENTS", piece)
    query, key = torch.randn(2, 4, 9, 8), torch.randn(2, 2, 12, 8)
    at, column = torch.arange(3, 12)[:, None], torch.arange(12)
    causal = (column <= at)[None, None].expand(2, 1, 9, 12)
    real = torch.ones(2, 12, dtype=torch.bool)
    real[1, :2] = False
    masks = {
        "causal": (None, None, causal),
        "boolean": (causal & (column > at - 4), None, causal & (column > at - 4)),
        "additive": (torch.zeros(2, 1, 9, 12).masked_fill(~causal, torch.finfo(torch.float32).min), None, causal),
        "a row for each head": (causal.expand(2, 4, 9, 12), None, causal),
        "padding and a window as an argument": (real, 4, causal & (column > at - 4) & real[:, None, None]),
    }
    for name, (mask, window, visible) in masks.items():
        for softcap in (None, 2.0):
            scores = query @ key.repeat_interleave(2, 1).transpose(-1, -2) * 0.4
            scores = scores if softcap is None else (scores / softcap).tanh() * softcap
            weights = scores.masked_fill(~visible, float("-inf")).softmax(-1)
            want = torch.special.entr(weights).sum(-1).mean(1)
            plain = mask is None or mask.ndim == 2
            found = entropy_of_products(query, key, mask, 0.4, softcap, window, causal=plain)
            torch.testing.assert_close(found.entropy_BQ, want, msg=name)
            assert found.keys_BQ.expand(2, -1).tolist() == visible[:, 0].sum(-1).tolist(), name
            if window is None:
                again = entropy_of_weights(weights, mask, causal=plain)
                torch.testing.assert_close(again.entropy_BQ, want, msg=name)
                assert again.keys_BQ.expand(2, -1).tolist() == visible[:, 0].sum(-1).tolist(), name


def test_half_precision_is_summed_in_full(make_engine: Any) -> None:
    query, key = torch.randn(1, 4, 64, 8).bfloat16(), torch.randn(1, 2, 64, 8).bfloat16()
    found = entropy_of_products(query, key, None, 0.5, None, None, causal=True)
    exact = entropy_of_products(query.double().float(), key.double().float(), None, 0.5, None, None, causal=True)
    torch.testing.assert_close(found.entropy_BQ, exact.entropy_BQ, rtol=1e-6, atol=1e-6)


def test_rows_are_asked_for_together_with_their_entropy() -> None:
    with pytest.raises(ValueError, match="set compute_attention_entropy=True"):
        ThoughtCapture(attention_rows="all")


def test_who_did_not_ask_gets_no_entropy_of_the_prompt(make_engine: Any) -> None:
    engine = make_engine("llama")
    capture = ROWS.model_copy(update={"attention_rows": "generated"})
    asked, other = (
        Request(prompt="the same prompt", capture=each, sampling=Sampling(max_new_tokens=3)) for each in (ROWS, capture)
    )
    one, two = (row.trace for row in read(engine, [asked, other], "slots"))
    assert len(one.prompt_attention_entropy) == 4
    assert two.prompt_attention_entropy == []
    assert one.attention_entropy == pytest.approx(two.attention_entropy)
    (padded,) = (row.trace for row in read(engine, [asked]))
    assert padded.prompt_attention_entropy == pytest.approx(one.prompt_attention_entropy, rel=1e-5)


def test_a_prompt_of_one_token_has_no_normalised_entropy(make_engine: Any) -> None:
    entropy, normalized = prompt_entropies(make_engine("llama"), [7])
    assert set(entropy.values()) == {0.0}
    assert all(value != value for value in normalized.values())
    (row,) = read(
        make_engine("llama"), [Request(prompt="", capture=ROWS, sampling=Sampling(max_new_tokens=2))], "slots"
    )
    assert row.trace.prompt_attention_entropy_normalized == [None] * 4
    assert "one key" in row.trace.missing["prompt_attention_entropy_normalized"]


def test_a_model_whose_attention_cannot_be_read_says_so(make_engine: Any) -> None:
    engine = make_engine("falcon")
    (row,) = read(engine, [Request(prompt="hi", capture=ROWS, sampling=Sampling(max_new_tokens=2))])
    assert row.trace.prompt_attention_entropy == []
    assert "interface" in row.trace.missing["prompt_attention_entropy"]
    assert "prompt_attention_entropy" in engine.info.unsupported
