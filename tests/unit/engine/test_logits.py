"""The numbers of a next-token distribution: exact for large vocabularies, masked logits, ties and certain tokens."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.unit.engine.reference import read
from wonder.engine.logits import MANY, LogitNumbers, confidences, logit_numbers, logit_sums
from wonder.engine.request import Request, SoftPrompt
from wonder.trace.capture import ThoughtCapture
from wonder.trace.sampling import Sampling


def numbers(logits: Tensor, tokens: list[int], ranks: int = MANY) -> LogitNumbers:
    sums, _ = logit_sums(logits, torch.tensor(tokens), ranks)
    return logit_numbers(sums, logits.shape[-1], boosted=True)


def test_masked_logits_give_a_finite_entropy_and_an_infinite_self_certainty() -> None:
    nothing = float("-inf")
    found = numbers(torch.tensor([[1.0, 2.0, nothing, nothing], [0.0, 0.0, 0.0, nothing]]), [0, 3])
    p = torch.tensor([1.0, 2.0]).softmax(0)
    assert float(found.entropy[0]) == pytest.approx(float(-(p * p.log()).sum()), rel=1e-6)
    assert float(found.entropy[1]) == pytest.approx(math.log(3), rel=1e-6)
    assert float(found.chosen[1]) == 0.0
    assert float(found.log_chosen[1]) == nothing
    assert found.certainty.tolist() == [math.inf, math.inf]
    assert found.negentropy.tolist() == pytest.approx([1 - float(found.entropy[0]) / math.log(4), 0.2075187], abs=1e-6)


def test_the_numbers_of_a_large_vocabulary_keep_their_digits() -> None:
    logits = torch.randn(4, 128_000, generator=torch.Generator().manual_seed(0)) * 3 + 40
    exact = logits.double().log_softmax(-1)
    found = numbers(logits, [0, 1, 2, 3])
    torch.testing.assert_close(found.entropy, torch.special.entr(exact.exp()).sum(-1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.log_chosen, exact.diagonal(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.chosen, exact.exp().diagonal(), rtol=1e-5, atol=0)
    torch.testing.assert_close(found.certainty, -exact.mean(-1) - math.log(128_000), rtol=1e-5, atol=1e-6)


def test_a_token_too_unlikely_for_a_float32_still_has_a_logarithm() -> None:
    found = numbers(torch.tensor([[200.0, 0.0, 0.0, 0.0, 0.0, 0.0]]), [1])
    assert float(found.log_chosen[0]) == pytest.approx(-200.0)
    assert float(found.chosen[0]) == pytest.approx(math.exp(-200), rel=1e-5)


def test_a_token_of_the_dominant_set_has_the_mass_of_the_set() -> None:
    p = torch.tensor([[0.30, 0.28, 0.27, 0.09, 0.06]] * 3)
    found = numbers(p.log(), [0, 2, 3])
    assert found.boosted is not None
    assert found.boosted.tolist() == pytest.approx([0.85, 0.85, 0.09], abs=1e-6)
    alone = numbers(torch.tensor([[0.9, 0.05, 0.05]]).log(), [0])
    assert alone.boosted is not None
    assert float(alone.boosted[0]) == pytest.approx(0.9)


def test_equal_logits_are_one_dominant_set_whichever_of_them_was_emitted() -> None:
    found = numbers(torch.tensor([[3.0, 3.0, 3.0, 0.0]] * 3), [0, 1, 2])
    assert found.boosted is not None
    assert len(set(found.boosted.tolist())) == 1


def test_numbers_that_are_none_stay_none() -> None:
    found = numbers(torch.tensor([[float("nan"), 1.0, 2.0]]), [1])
    parts = (found.entropy, found.margin, found.log_chosen, found.negentropy, found.certainty)
    assert all(not math.isfinite(float(part[0])) for part in parts)


def test_what_streams_is_the_probability_of_the_trace() -> None:
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(1))
    sums, _ = logit_sums(logits, torch.tensor([4, 5, 6]), 5)
    found = confidences(torch.cat([sums.best, sums.chosen, sums.top[:, :1]], 1))
    assert found == pytest.approx(logit_numbers(sums, 50).chosen.tolist(), rel=1e-6)


@pytest.mark.parametrize("path", ["padded", "slots"])
def test_raw_logits_do_not_know_how_a_token_was_drawn(path: str, make_engine: Any) -> None:
    engine = make_engine("llama")
    sampled = [
        Sampling(max_new_tokens=1, temperature=temperature, top_k=top_k, top_p=top_p, seed=1)
        for temperature, top_k, top_p in ((0.0, 0, 1.0), (0.3, 0, 1.0), (3.0, 2, 1.0), (1.0, 0, 0.5))
    ]
    traces = [row.trace for row in read(engine, [Request(prompt="hi", sampling=one) for one in sampled], path)]
    for name in ("logits_entropy", "top5_negentropy", "self_certainty", "token_margins"):
        values = [getattr(trace, name)[0] for trace in traces]
        assert values == pytest.approx([values[0]] * len(values), rel=1e-5), name


def test_the_dominant_set_is_looked_for_only_when_asked(make_engine: Any) -> None:
    engine = make_engine("llama")
    asked = Request(prompt="hi", capture=ThoughtCapture(boosted_probability=True), sampling=Sampling(max_new_tokens=3))
    plain = Request(prompt="hi", sampling=Sampling(max_new_tokens=3))
    one, other = (row.trace for row in read(engine, [asked, plain], "slots"))
    assert one.boosted_probs is not None
    assert other.boosted_probs is None
    assert one.token_log_probs == pytest.approx(other.token_log_probs, rel=1e-5)
    assert [len(items) for items in other.top_alternatives] == [3, 3, 3]


def test_a_token_that_the_model_rules_out_makes_self_certainty_unknown(make_model: Any, make_engine: Any) -> None:
    model = make_model("llama")
    engine = make_engine("llama", model=model)
    model.lm_head.register_forward_hook(lambda _m, _a, out: out.index_fill(-1, torch.tensor([5]), float("-inf")))
    (row,) = read(engine, [Request(prompt="hi", sampling=Sampling(max_new_tokens=2))], "slots")
    assert row.trace.self_certainty == [None, None]
    assert "no probability at all" in row.trace.missing["self_certainty"]
    assert None not in row.trace.logits_entropy


@pytest.mark.parametrize(("path", "soft"), [("padded", False), ("slots", False), ("slots", True)])
def test_a_probability_is_the_exponential_of_the_teacher_forced_log_probability(
    path: str, soft: bool, make_model: Any, make_engine: Any
) -> None:
    """Also where the model is fed vectors, and its tokens do not start where the prompt's do."""
    twin, engine = make_model("llama"), make_engine("llama")
    sampling = Sampling(max_new_tokens=9, temperature=1.5, seed=2)
    prefix = torch.randn(3, twin.config.hidden_size, generator=torch.Generator().manual_seed(0)) * 0.3
    request = Request(prompt="hello", sampling=sampling, injection=SoftPrompt(prefix) if soft else None)
    (row,) = read(engine, [request], path)
    ids = engine.tokenizer("hello")["input_ids"] + row.answer[:-1]
    with torch.inference_mode():
        vectors = twin.get_input_embeddings()(torch.tensor([ids]))
        if soft:  # after the tokenizer's own first token
            vectors = torch.cat([vectors[:, :1], prefix[None], vectors[:, 1:]], 1)
        logs = twin(inputs_embeds=vectors).logits[0, -len(row.answer) :].log_softmax(-1)
    exact = logs.gather(-1, torch.tensor(row.answer)[:, None])[:, 0]
    assert len(row.trace.tokens) == len(row.trace.token_log_probs) == len(row.answer)
    assert row.trace.token_log_probs == pytest.approx(exact.tolist(), rel=1e-5, abs=1e-5)
    assert row.trace.token_confidences == pytest.approx(exact.exp().tolist(), rel=1e-5, abs=1e-5)


def test_the_norm_of_the_last_layer_is_that_of_its_raw_output(make_model: Any, make_engine: Any) -> None:
    """Not of what the final norm makes of it, which is what `hidden_states[-1]` holds."""
    model = make_model("llama")
    engine = make_engine("llama", model=model)
    (row,) = read(engine, [Request(prompt="hello", sampling=Sampling(max_new_tokens=5))], "slots")
    seen: list[Tensor] = []
    model.model.layers[-1].register_forward_hook(lambda _m, _a, out: seen.append(out[0]))
    ids = torch.tensor([row.prompt + row.answer[:-1]])
    with torch.inference_mode():
        after_norm = model(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states[-1][0]
    generating = slice(len(row.prompt) - 1, None)
    assert row.trace.layer_norms[-1] == pytest.approx(float(seen[0][generating].norm(dim=-1).mean()), rel=1e-5)
    assert row.trace.layer_norms[-1] != pytest.approx(float(after_norm[generating].norm(dim=-1).mean()), rel=1e-2)
