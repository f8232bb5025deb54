"""Traps of reading attention, each of which common code falls into."""

from typing import Any

import pytest
import torch
from transformers import AttentionMaskInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from tests.unit.engine.conftest import build
from tests.unit.engine.reference import read
from tests.unit.engine.slot_driver import solo
from wonder.engine.loop import run_batch
from wonder.engine.recorder import ReadPlan
from wonder.engine.request import Request
from wonder.engine.sampling import RowDraw
from wonder.engine.slot_recorder import RowReadings
from wonder.engine.slot_runner import SlotRunner
from wonder.trace.capture import ThoughtCapture
from wonder.trace.sampling import Sampling

ATTENTION = ThoughtCapture(
    capture_attention=True,
    compute_attention_entropy=True,
    compute_attention_statistics=True,
    attention_rows="all",
    attention_layers="all",
)
FIELDS = (
    "attention_entropy",
    "attention_entropy_normalized",
    "attention_sink_mass",
    "prompt_attention_entropy",
    "prompt_attention_entropy_normalized",
    "rauq_layers",
    "lookback_ratio",
)


def ask(prompt: str = "what is asked here", tokens: int = 6) -> Request:
    return Request(prompt=prompt, capture=ATTENTION, sampling=Sampling(max_new_tokens=tokens))


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("path", ["left", "slots"])
def test_attention_that_was_asked_for_is_there_whatever_the_implementation(
    implementation: str, path: str, make_engine: Any
) -> None:
    """transformers gives empty tuples with sdpa, and other text with eager."""
    model = build("llama")
    model.set_attn_implementation(implementation)
    (row,) = read(make_engine("llama", model=model), [ask()], path)
    for name in FIELDS:
        values = getattr(row.trace, name)
        assert len(values) == 4, name
        assert None not in values, name
        assert name not in row.trace.missing
    assert row.trace.key_attention_pairs


def test_where_it_cannot_be_had_there_is_a_reason_and_no_number(make_engine: Any) -> None:
    (row,) = read(make_engine("falcon"), [ask()])
    for name in (*FIELDS, "key_attention_pairs"):
        assert getattr(row.trace, name) == []
        assert row.trace.missing[name]


def test_the_watched_attention_keeps_its_masks(make_engine: Any) -> None:
    """Without a mask function of the same name there is no mask, and padding is attended, silently."""
    prompts = [[1, 40, 41], [1, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59], [1, 60, 61, 62, 63]]
    sampling = Sampling(max_new_tokens=8)
    engine = make_engine("llama")
    runtime = engine._runtime
    alone = [solo(runtime, prompt, sampling) for prompt in prompts]
    assert [row.tokens for row in run_batch(runtime, prompts, [sampling] * 3, None).rows] == alone
    name = str(runtime.model.config._attn_implementation)
    kept = ALL_MASK_ATTENTION_FUNCTIONS[name]
    AttentionMaskInterface.register(name, lambda *_args, **_kwargs: None)
    try:
        without = [row.tokens for row in run_batch(runtime, prompts, [sampling] * 3, None).rows]
    finally:
        AttentionMaskInterface.register(name, kept)
    assert without != alone
    assert without[1] == alone[1]  # the row without padding


def uniform(family: str) -> Any:
    """A model whose queries are zero, so that every visible key gets the same attention."""
    model = build(family)
    for name, weight in model.named_parameters():
        if "q_proj" in name:
            weight.data.zero_()
    return model


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma3", "llama4"])
@pytest.mark.parametrize("path", ["left", "right", "slots"])
def test_the_normaliser_is_the_number_of_keys_of_that_row_and_layer(family: str, path: str, make_engine: Any) -> None:
    """ln(padded length) would give every windowed layer, and every short row of a batch, less than 1."""
    engine = make_engine(family, model=uniform(family), padding_side="right" if path == "right" else "left")
    requests = [ask("hi"), ask("a prompt that is longer than every window"), ask("medium", 3)]
    for row in read(engine, requests, path):
        assert row.trace.attention_entropy_normalized == pytest.approx([1.0] * 4, abs=1e-5)
        assert row.trace.prompt_attention_entropy_normalized == pytest.approx([1.0] * 4, abs=1e-5)


def test_with_sinks_the_weights_sum_to_less_than_one_and_the_entropy_is_that_of_the_rest(make_engine: Any) -> None:
    model = build("gpt_oss")
    for name, weight in model.named_parameters():
        if "q_proj" in name:
            weight.data.zero_()
        if name.endswith("sinks"):
            weight.data.fill_(3.0)
    (row,) = read(make_engine("gpt_oss", model=model), [ask()], "slots")
    assert row.trace.attention_entropy_normalized == pytest.approx([1.0] * 4, abs=1e-5)
    assert max(pair.weight for pair in row.trace.key_attention_pairs) < 1 / 8


def with_a_sink() -> Any:
    """A GPT-2 in which every query looks for the key of the first position."""
    model = build("gpt2")
    direction = torch.randn(32)
    model.transformer.wpe.weight.data[0] = 50 * direction
    first = torch.nn.functional.layer_norm(direction, (32,))
    for block in model.transformer.h:
        projection = block.attn.c_attn
        key = first @ projection.weight.data[:, 32:64] + projection.bias.data[32:64]
        projection.weight.data[:, :32] *= 0.1
        projection.bias.data[:32] = 8 * key
    return model


@pytest.mark.parametrize("path", ["left", "slots"])
def test_the_first_position_is_a_number_of_its_own_and_no_pair(path: str, make_engine: Any) -> None:
    """In trained models it soaks up idle attention, and would be the strongest link of every token."""
    (row,) = read(make_engine("gpt2", model=with_a_sink()), [ask()], path)
    masses = [mass for mass in row.trace.attention_sink_mass if mass is not None]
    assert len(masses) == 4
    assert min(masses) > 0.5
    assert len(row.trace.key_attention_pairs) == 4 * 4
    assert all(pair.key > 0 and pair.weight < min(masses) for pair in row.trace.key_attention_pairs)


def owned_bytes(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage().nbytes())


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_nothing_that_is_kept_of_a_prompt_holds_the_whole_of_it(family: str, make_engine: Any) -> None:
    """A view of the last row keeps all rows alive."""
    runtime = make_engine(family)._runtime
    length, layers = 400, 4
    runner = SlotRunner(runtime, 1)
    readings = RowReadings(ReadPlan((0, 1, 2, 3), 4, (0, 1, 2, 3), True, 3, heads=True, prompt_rows=True))
    kept: dict[str, Any] = {}
    take = runtime.taps.take_attention

    def taken() -> Any:
        kept["seen"] = take()
        return kept["seen"]

    runtime.taps.take_attention = taken
    try:
        with torch.inference_mode():
            runner.cache.reserve(1, length + 8, 0, length + 8)
            prompt = [1, *(20 + at % 200 for at in range(length - 1))]
            done = runner.prefill(0, [prompt], 0, [readings], [RowDraw(Sampling())])
    finally:
        runtime.taps.take_attention = take
    assert done is not None
    assert len(kept["seen"]) == layers
    for seen in kept["seen"]:
        assert seen.key is None  # only a step's keys lie in the cache anyway
        assert seen.query is None
        for tensor in (seen.product, seen.weights):
            if tensor is not None:
                assert owned_bytes(tensor) <= 4 * 4 * length * 4  # rows × heads × keys
        assert owned_bytes(seen.rows.entropy_BQ) <= 4 * length * 4
    step = readings.steps[0][0]
    small = 64 * 1024
    assert owned_bytes(step.floats_BF) < small
    assert all(owned_bytes(states) < small for states in readings.states.values())
    assert readings.last_states is not None
    assert owned_bytes(readings.last_states[0]) < small
    assert all(owned_bytes(sums) < 256 for sums in readings.prompt_sums.values())
