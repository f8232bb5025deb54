"""Every number of a trace equals its definition, for every family, in a padded batch and in the slot cache."""

from typing import Any

import pytest
import torch

from tests.unit.engine.conftest import build
from tests.unit.engine.reference import Reference, eager_twin, read, reference, statistics
from wonder.engine.request import Request
from wonder.trace.capture import ThoughtCapture
from wonder.trace.layers import middle_third
from wonder.trace.readings import value_tokens
from wonder.trace.sampling import Sampling
from wonder.trace.schema import ThoughtTrace

FULL = ThoughtCapture(
    capture_hidden_states=True,
    capture_attention=True,
    capture_expert_routing=True,
    compute_attention_entropy=True,
    compute_attention_statistics=True,
    attention_rows="all",
    attention_layers="all",
    boosted_probability=True,
)
PROMPTS = ["hi", "a prompt that is longer than every window", "wörld 12"]
FAMILIES = [
    "llama", "qwen3", "mistral", "gpt2", "gemma2", "gemma3", "qwen3_moe", "mixtral", "llama4", "deepseek_v3", "gpt_oss",
    "llama4_scout", "llama4_maverick", "glm4_moe", "gemma", "phi3",
]  # fmt: skip


def requests(capture: ThoughtCapture = FULL, tokens: int = 9) -> list[Request]:
    lengths = [tokens, tokens - 4, tokens + 2]
    return [
        Request(prompt=prompt, capture=capture, sampling=Sampling(max_new_tokens=count))
        for prompt, count in zip(PROMPTS, lengths, strict=True)
    ]


def close(one: list[float | None], other: list[float], tolerance: float = 1e-5) -> None:
    assert one == pytest.approx(other, rel=tolerance, abs=tolerance)


def check_heads(trace: ThoughtTrace, want: Reference, prompt: int) -> None:
    tokens = value_tokens(trace.field_confidences)
    if isinstance(tokens, str):
        tokens = tuple(range(len(trace.tokens)))
    heads = statistics(want, prompt, tokens, FULL.rauq_alpha)
    close(trace.rauq_layers, heads.rauq)
    if None in heads.previous:  # a value of one token
        assert trace.previous_token_attention == heads.previous
    else:
        close(trace.previous_token_attention, heads.previous)  # type: ignore[arg-type]
    close(trace.lookback_ratio, heads.lookback)
    middle = len(heads.rauq) // 2
    assert trace.attention_score == pytest.approx(heads.own[middle], rel=1e-5, abs=1e-5)
    assert trace.rauq == pytest.approx(max(heads.rauq[layer] for layer in middle_third(len(heads.rauq))), rel=1e-5)


@pytest.mark.parametrize("path", ["left", "right", "slots"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_number_equals_its_definition(family: str, path: str, make_engine: Any, store: Any) -> None:
    model = build(family)
    twin = eager_twin(model)
    engine = make_engine(family, model=model, store=store, padding_side="right" if path == "right" else "left")
    for row in read(engine, requests(), path):
        trace, tensors = row.trace, row.tensors
        want = reference(twin, row.prompt, row.answer)
        assert row.answer == want.greedy
        assert len(trace.tokens) == len(row.answer)
        close(trace.token_confidences, want.chosen)
        close(trace.logits_entropy, want.entropy)
        close(trace.token_margins, want.margin)
        close(trace.token_log_probs, want.log_chosen)
        close(trace.top5_negentropy, want.negentropy)
        close(trace.self_certainty, want.certainty)
        assert trace.boosted_probs is not None
        close(trace.boosted_probs, want.boosted)
        close(trace.layer_norms, want.norms)
        close(trace.representation_shifts, want.shifts)
        close(trace.attention_entropy, want.attention_entropy)
        close(trace.attention_entropy_normalized, want.attention_normalized)
        close(trace.attention_sink_mass, want.sink)
        close(trace.prompt_attention_entropy, want.prompt_entropy)
        close(trace.prompt_attention_entropy_normalized, want.prompt_normalized)
        check_heads(trace, want, len(row.prompt))
        for layer, pairs in enumerate(want.pairs):
            found = [pair for pair in trace.key_attention_pairs if pair.layer == layer]
            close([pair.weight for pair in found], [weight for *_, weight in pairs[: len(found)]])
            weights = {(query, key): weight for query, key, weight in pairs}
            for pair in found:
                assert pair.weight == pytest.approx(weights[pair.query, pair.key], abs=1e-5)
        assert trace.expert_distribution.keys() == want.experts.keys()
        for key, shares in want.experts.items():
            close(trace.expert_distribution[key], shares)
            assert set(trace.expert_selections[key]) == {i for i, share in enumerate(shares) if share > 0}
        assert trace.router_entropy == pytest.approx(want.router_entropy, rel=1e-5, abs=1e-5)
        for name, states in want.states.items():
            torch.testing.assert_close(tensors[f"hidden.{name}"].double(), states, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "mistral", "gpt2", "gemma2", "llama4", "deepseek_v3", "gpt_oss", "falcon"])
def test_a_request_gets_the_same_trace_alone_and_among_ragged_neighbours(family: str, make_engine: Any) -> None:
    capture = FULL.model_copy(update={"capture_hidden_states": False})
    engines = {side: make_engine(family, padding_side=side) for side in ("left", "right")}
    alone = [read(engines["left"], [request])[0].trace for request in requests(capture)]
    for engine, path in ((engines["left"], "padded"), (engines["right"], "padded"), (engines["left"], "slots")):
        together = [row.trace for row in read(engine, requests(capture), path)]
        for one, other in zip(alone, together, strict=True):
            assert one.tokens == other.tokens
            close(one.token_confidences, other.token_confidences)  # type: ignore[arg-type]
            close(one.logits_entropy, other.logits_entropy)  # type: ignore[arg-type]
            close(one.layer_norms, other.layer_norms)  # type: ignore[arg-type]
            close(one.representation_shifts, other.representation_shifts)  # type: ignore[arg-type]
            close(one.attention_entropy, other.attention_entropy)  # type: ignore[arg-type]
            assert one.expert_distribution == other.expert_distribution
            assert one.overall_confidence == pytest.approx(other.overall_confidence, rel=1e-4)
