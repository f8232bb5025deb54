import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wonder.trace.schema import (
    TRACE_LIMIT_BYTES,
    CompressedState,
    FieldConfidence,
    KeyAttentionPair,
    ThoughtTrace,
    TokenAlternative,
)
from wonder.trace.size import encoded_bytes, fit, quantiles, rounded, strip_to_scalars


def trace(
    tokens: int, layers: int = 8, experts: int = 0, alternatives: int = 3, fields: int = 1, seed: int = 0
) -> ThoughtTrace:
    rng = random.Random(seed)

    def numbers(count: int, high: float = 1.0) -> list[Any]:
        return [rng.random() * high for _ in range(count)]

    def options() -> list[TokenAlternative]:
        return [
            TokenAlternative(token=f" tok{rng.randint(0, 9999)}", probability=rng.random()) for _ in range(alternatives)
        ]

    return ThoughtTrace(
        action="classify",
        model="model",
        tokens=[f" tok{rng.randint(0, 9999)}" for _ in range(tokens)],
        token_confidences=numbers(tokens),
        logits_entropy=numbers(tokens, 9.0),
        token_margins=numbers(tokens),
        generation_probs=numbers(tokens),
        top_alternatives=[options() for _ in range(tokens)],
        field_confidences={
            f"field{i}": FieldConfidence(start=i, stop=i + 1, confidence=rng.random()) for i in range(fields)
        },
        overall_confidence=0.123456789,
        attention_entropy=numbers(layers, 5.0),
        attention_entropy_normalized=numbers(layers),
        attention_sink_mass=numbers(layers),
        prompt_attention_entropy=numbers(layers, 5.0),
        prompt_attention_entropy_normalized=numbers(layers),
        rauq=0.123456789,
        rauq_layers=numbers(layers, 3.0),
        previous_token_attention=numbers(layers),
        attention_score=-1.23456789,
        lookback_ratio=numbers(layers),
        key_attention_pairs=[
            KeyAttentionPair(layer=i % layers, query=i, key=1, weight=rng.random(), query_token=" a", key_token=" b")
            for i in range(4 * layers)
        ],
        layer_norms=numbers(layers, 100.0),
        representation_shifts=numbers(layers - 1),
        expert_selections={str(i): list(range(experts)) for i in range(layers)} if experts else {},
        expert_distribution={str(i): numbers(experts) for i in range(layers)} if experts else {},
        compressed_state=CompressedState(method="pca", layer=1, basis="b", values=numbers(64, 10)),
    )


def test_a_small_trace_is_only_rounded() -> None:
    whole = trace(20)
    small, moved = fit(whole)
    assert moved == {}
    assert small == rounded(whole)
    assert small.overall_confidence == 0.123457
    assert small.missing == {}


def test_alternatives_outside_the_values_and_the_doubtful_tokens_go_first() -> None:
    whole = trace(600, alternatives=3)
    whole = whole.model_copy(update={"field_confidences": {"team": FieldConfidence(start=5, stop=8, confidence=0.5)}})
    small, moved = fit(whole)
    kept = {i for i, items in enumerate(small.top_alternatives) if items}
    doubtful = sorted(range(600), key=lambda i: whole.token_confidences[i] or 0)[:32]
    assert kept == {5, 6, 7} | set(doubtful)
    assert list(moved) == ["top_alternatives"]
    assert len(moved["top_alternatives"]) == 600
    assert "moved to the artifact" in small.missing["top_alternatives"]


def test_arrays_that_go_leave_quantiles_and_a_reason() -> None:
    whole = trace(3000)
    small, moved = fit(whole, destination="dropped")
    assert small.token_margins == []
    assert moved["token_margins"] == whole.token_margins
    assert small.quantiles["token_margins"].count == 3000
    assert small.quantiles["token_margins"].median == pytest.approx(0.5, abs=0.05)
    assert small.missing["token_margins"] == "3000 entries dropped, to keep the trace small"
    assert small.overall_confidence == 0.123457
    assert small.layer_norms


@pytest.mark.parametrize(
    ("tokens", "layers", "experts", "fields"),
    [(512, 80, 16, 4), (32_768, 8, 0, 1), (64, 94, 256, 1), (32_768, 128, 256, 2000), (1, 4000, 0, 0)],
)
def test_the_largest_traces_fit(tokens: int, layers: int, experts: int, fields: int) -> None:
    whole = trace(tokens, layers, experts, fields=fields)
    small, moved = fit(whole)
    assert encoded_bytes(small) <= TRACE_LIMIT_BYTES
    assert moved
    assert ThoughtTrace.model_validate_json(small.model_dump_json()) == small


texts = st.text(max_size=20) | st.sampled_from(["\x00" * 4000, "é" * 20_000, '"' * 9000])


@settings(max_examples=40, deadline=None)
@given(
    texts,
    texts,
    st.dictionaries(texts, texts, max_size=5),
    st.integers(0, 3000),
    st.integers(0, 500),
    st.sampled_from([4096, 8192, TRACE_LIMIT_BYTES]),
)
def test_no_trace_exceeds_the_limit(
    action: str, token: str, words: dict[str, str], tokens: int, fields: int, limit: int
) -> None:
    whole = trace(0).model_copy(
        update={
            "action": action,
            "model": token,
            "tokens": [token[:30]] * tokens,
            "token_confidences": [None if i % 7 else 0.1 for i in range(tokens)],
            "missing": words,
            "bundles": words,
            "confidence_reason": action,
            "active_concepts": {f"{token[:50]}{i}": 0.5 for i in range(fields)},
            "field_confidences": {
                f"{action[:500]}{i}": FieldConfidence(start=0, stop=1, confidence=None) for i in range(fields)
            },
        }
    )
    small, _ = fit(whole, limit)
    assert encoded_bytes(small) <= limit
    assert small.overall_confidence == 0.123457


def test_stripping_leaves_the_scalars() -> None:
    small = strip_to_scalars(trace(100, experts=4), "are in the artifact")
    assert encoded_bytes(small) < 8000
    assert small.tokens == []
    assert small.expert_distribution == {}
    assert small.overall_confidence == 0.123457
    assert small.field_confidences
    assert small.quantiles["token_confidences"].count == 100
    assert small.missing["tokens"] == "100 entries are in the artifact, to keep the trace small"


def test_quantiles_skip_what_is_unknown() -> None:
    assert quantiles([None, float("nan")]) is None
    summary = quantiles([None, 3.0, 1.0, 2.0])
    assert summary is not None
    assert (summary.count, summary.min, summary.median, summary.max) == (3, 1.0, 2.0, 3.0)
