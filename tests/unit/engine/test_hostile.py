"""Requests that no engine can serve are refused with a sentence before they cost anything, and nobody notices them."""

import math
import time
from typing import Any

import pytest

from tests.unit.engine.test_many_requests import FULL, ask, numbers, traced
from wonder.actions.contracts import ThinkRequest
from wonder.engine.request import Request
from wonder.errors import PromptTooLong, RequestError, SettingNotSupported, WonderError
from wonder.trace.capture import ThoughtCapture
from wonder.trace.sampling import Sampling


def sampling(**settings: Any) -> Request:
    """Settings that nobody has validated, as they may come from another program."""
    return Request(prompt="x", sampling=Sampling.model_construct(**{**Sampling().model_dump(), **settings}))


def capture(**settings: Any) -> Request:
    found = ThoughtCapture.model_construct(**{**ThoughtCapture().model_dump(), **settings})
    return Request(prompt="x", capture=found)


HOSTILE: dict[str, tuple[str, Any]] = {
    "a prompt of 10 MB": ("10485760 characters, more than", lambda: Request(prompt="x" * (10 * 2**20))),
    "10^9 new tokens": ("sampling.max_new_tokens is 1000000000", lambda: sampling(max_new_tokens=10**9)),
    "no new tokens": ("sampling.max_new_tokens is 0", lambda: sampling(max_new_tokens=0)),
    "more than the model holds": ("together 20002", lambda: sampling(max_new_tokens=20000)),
    "a negative temperature": ("sampling.temperature is -1.0", lambda: sampling(temperature=-1.0)),
    "a temperature that is no number": ("sampling.temperature is nan", lambda: sampling(temperature=math.nan)),
    "an endless temperature": ("sampling.temperature is inf", lambda: sampling(temperature=math.inf)),
    "top_p that is no number": ("sampling.top_p is nan", lambda: sampling(top_p=math.nan)),
    "min_p that is no number": ("sampling.min_p is nan", lambda: sampling(min_p=math.nan)),
    "a negative top_k": ("sampling.top_k is -5", lambda: sampling(top_k=-5)),
    "a million stop strings": ("sampling.stop has 1000000 strings", lambda: sampling(stop=["a"] * 10**6)),
    "stop strings that are numbers": ("sampling.stop.0 is 7", lambda: sampling(stop=[7])),
    "an unknown layer": (
        "attention_layers asks for layer 99, this model has layers 0..3",
        lambda: capture(compute_attention_entropy=True, attention_layers=[99]),
    ),
    "a layer before the first": (
        "thought_capture.attention_layers",
        lambda: capture(compute_attention_entropy=True, attention_layers=[-1]),
    ),
    "states of no layer": ("capture_hidden_states asks for layer 4", lambda: capture(capture_hidden_states=[4])),
    "10^9 alternatives": ("thought_capture.top_alternatives is", lambda: capture(top_alternatives=10**9)),
    "10^9 pairs": ("thought_capture.key_pairs_per_layer is", lambda: capture(key_pairs_per_layer=10**9)),
    "a probe that is not there": ("no_such_concept", lambda: capture(run_concept_probes=["no_such_concept"])),
    "a code of 10^9 numbers": ("thought_capture.compression_dims is", lambda: capture(compression_dims=10**9)),
    "half a character": ("half of a pair", lambda: Request(prompt="x\ud800y")),
    "nothing to say": ("the prompt has no tokens|room for", lambda: ask("", 1024)),
}  # fmt: skip


def test_hostile_requests_are_refused_with_a_sentence_and_change_no_bit_of_a_neighbours_trace(
    make_engine: Any, store: Any
) -> None:
    engine = make_engine("llama", store=store)
    (want,) = traced(engine, [ask("neighbour", 200)])
    requests = {name: (reason, make()) for name, (reason, make) in HOSTILE.items()}
    neighbour = engine._desk.job(ask("neighbour", 200))
    engine._started().submit([neighbour])
    began = time.thread_time()
    for name, (reason, request) in requests.items():
        with pytest.raises((PromptTooLong, SettingNotSupported, RequestError), match=reason) as refused:
            engine.submit(request)
        assert not refused.value.retryable, name
        assert len(str(refused.value)) < 500, name
    assert time.thread_time() - began < 5
    trace, _ = engine._desk.read(neighbour, neighbour.wait(60))
    assert numbers(trace) == numbers(want)
    results = engine.generate([ask("a"), *(request for _, request in requests.values()), ask("b")])
    assert [isinstance(result, WonderError) for result in results] == [False, *[True] * len(requests), False]


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-1", '"hot"', "1e400"])
def test_no_number_from_the_wire_gets_past_the_settings(value: str) -> None:
    text = f'{{"action": "a", "model": "m", "prompt": "p", "sampling": {{"temperature": {value}}}}}'
    with pytest.raises(ValueError, match="temperature"):
        ThinkRequest.model_validate_json(text)


def test_a_row_whose_numbers_are_no_numbers_is_unknown_and_its_neighbour_is_untouched(
    make_model: Any, make_engine: Any
) -> None:
    model = make_model("llama")
    model.model.embed_tokens.weight.data[200] = math.nan
    engine = make_engine("llama", model=model)
    (want,) = traced(engine, [ask("neighbour", 9)])
    trace, beside = traced(engine, [ask(engine.tokenizer.decode([200]) * 3, 4, FULL), ask("neighbour", 9)])
    assert trace.overall_confidence is None
    assert trace.confidence_status == "unknown"
    assert beside.tokens == want.tokens
    assert beside.token_confidences == pytest.approx(want.token_confidences, abs=1e-5)
