"""Many callers, one engine: requests come, go and misbehave, and nobody else notices."""

import time
from collections.abc import Sequence
from concurrent.futures import CancelledError
from typing import Any

import pytest
import torch
import transformers as hf

from tests.unit.engine.conftest import COMMON, build
from tests.unit.engine.reference import read_slots
from wonder.engine.engine import TraceEngine
from wonder.engine.job import Handle, TokenEvent
from wonder.engine.request import Request
from wonder.errors import EngineFailed, WonderError
from wonder.trace.capture import ThoughtCapture
from wonder.trace.sampling import Sampling
from wonder.trace.schema import AgentMessage, ThoughtTrace

FULL = ThoughtCapture(
    capture_attention=True, capture_expert_routing=True, compute_attention_entropy=True, attention_layers="all"
)
TEXT = "the quick brown fox jumps over a lazy dog and then it rests for many days"


def ask(prompt: str = "hello", tokens: int = 6, capture: ThoughtCapture = FULL, **sampling: Any) -> Request:
    return Request(prompt=prompt, sampling=Sampling(max_new_tokens=tokens, **sampling), capture=capture)


def neighbours(count: int, tokens: int = 12) -> list[Request]:
    """Ragged ones: other lengths, other settings, other captures."""
    found = []
    for at in range(count):
        capture = [FULL, ThoughtCapture(), ThoughtCapture(enabled=False)][at % 3]
        found.append(ask(TEXT[: 5 * at + 1] * (1 + at % 3), 3 + at % tokens, capture, seed=at))
    return found


def numbers(trace: ThoughtTrace) -> dict[str, Any]:
    """All that a trace says of the thought, without how and when it was computed."""
    return trace.model_dump(exclude={"timings", "batch_size"})


def traced(engine: TraceEngine, requests: Sequence[Request]) -> list[ThoughtTrace | WonderError]:
    """As `engine.generate`, but with every number as it was computed: a message's are rounded."""
    jobs = [engine._desk.job(request) for request in requests]
    engine._started().submit(jobs)
    found: list[ThoughtTrace | WonderError] = []
    for job in jobs:
        try:
            found.append(engine._desk.read(job, job.wait(60))[0])
        except WonderError as error:
            found.append(error)
    return found


def assert_same(one: Any, other: Any, tolerance: float = 1e-5) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key], tolerance)
    elif isinstance(one, list):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_same(left, right, tolerance)
    elif isinstance(one, float) and isinstance(other, float):
        assert one == pytest.approx(other, rel=tolerance, abs=tolerance)
    else:
        assert one == other


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "qwen3_moe", "llama4", "deepseek_v3", "gpt_oss"])
def test_a_trace_is_the_same_alone_among_16_and_after_neighbours_were_cancelled(family: str, make_engine: Any) -> None:
    engine = make_engine(family)
    request = ask("what is it that the fox is thinking of", 14)
    (alone,) = read_slots(engine, [request])
    crowd = neighbours(15)
    among = read_slots(engine, [*crowd[:8], request, *crowd[8:]])[8]
    assert among.trace.batch_size == 16
    handles: list[Handle] = []

    def cancel_them(event: TokenEvent) -> None:
        if event.index == 5:
            for handle in handles[1::2]:
                handle.cancel()

    jobs = [engine._desk.job(item) for item in crowd]
    mine = engine._desk.job(request, on_token=cancel_them)
    handles += [Handle(item, engine._desk.message) for item in jobs]
    engine._started().submit([*jobs[:8], mine, *jobs[8:]])
    answered = mine.wait(60)
    trace, _ = engine._desk.read(mine, answered)
    assert among.answer == alone.answer == mine.row.tokens
    assert_same(numbers(among.trace), numbers(alone.trace))
    assert_same(numbers(trace), numbers(alone.trace))
    for handle in handles:
        handle.cancel()


def test_a_request_joins_those_that_are_being_answered(make_engine: Any) -> None:
    engine = make_engine("llama")
    engine._runtime = engine._runtime.__class__(**{**vars(engine._runtime), "end_ids": frozenset()})
    late: list[Handle] = []

    def join(event: TokenEvent) -> None:
        if event.index == 3:
            late.append(engine.submit(ask("late", 2)))

    long = engine.submit(ask("long", 60), on_token=join)
    message = long.result(60)
    assert late[0].result(60).thought_trace.batch_size == 2
    assert message.thought_trace.batch_size == 2
    assert message.thought_trace.batching == "slots"
    assert late[0].done


@pytest.mark.parametrize("family", ["llama", "bloom"])
def test_tokens_come_with_their_text_and_confidence(family: str, make_engine: Any) -> None:
    """In the slot loop, and in padded batches of a model that the slots cannot hold."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = None if family == "llama" else hf.AutoModelForCausalLM.from_config(models_without_slots()[family]())
    engine = make_engine(family, model=model)
    assert (engine._support.slots is None) == (family == "llama")
    events: list[TokenEvent] = []
    message = engine.submit(ask("stream", 9), on_token=events.append).result(60)
    trace = message.thought_trace
    assert [event.index for event in events] == list(range(len(trace.tokens)))
    assert "".join(event.text for event in events) == "".join(trace.tokens).removesuffix("</s>")
    assert [event.confidence for event in events] == pytest.approx(trace.token_confidences, rel=1e-4)
    plain: list[TokenEvent] = []
    engine.submit(ask("stream", 2, ThoughtCapture(enabled=False)), on_token=plain.append).result(60)
    assert [event.confidence for event in plain] == [None, None]


def test_a_listener_that_breaks_ends_its_own_request_only(make_engine: Any) -> None:
    engine = make_engine("llama")

    def broken(_event: TokenEvent) -> None:
        raise ValueError("no ear")

    good, bad = engine.submit(ask("good", 8)), engine.submit(ask("bad", 8), on_token=broken)
    with pytest.raises(ValueError, match="no ear"):
        bad.result(60)
    assert good.result(60).text == engine.generate_one(ask("good", 8)).text


def test_a_cancelled_request_says_so_and_the_others_go_on(make_engine: Any) -> None:
    engine = make_engine("llama", max_batch=2)
    engine._runtime = engine._runtime.__class__(**{**vars(engine._runtime), "end_ids": frozenset()})
    long, waiting = engine.submit(ask("long", 900)), engine.submit(ask("short", 4))
    third = engine.submit(ask("third", 4))
    assert long.cancel()
    assert not long.cancel()
    with pytest.raises(CancelledError):
        long.result(60)
    assert waiting.result(60).text == engine.generate_one(ask("short", 4)).text
    assert third.result(60).text
    finished = engine.submit(ask("x", 1))
    finished.result(60)
    assert not finished.cancel()
    with pytest.raises(TimeoutError):
        engine.submit(ask("long", 900)).result(0.0)


def test_a_closed_engine_refuses_and_ends_what_was_under_way(make_engine: Any) -> None:
    engine = make_engine("llama")
    engine._runtime = engine._runtime.__class__(**{**vars(engine._runtime), "end_ids": frozenset()})
    handle = engine.submit(ask("long", 1000))
    engine.close()
    with pytest.raises(EngineFailed, match="was closed before this request"):
        handle.result(60)
    with pytest.raises(EngineFailed, match="has been closed"):
        engine.submit(ask())


def test_an_idle_engine_leaves_the_model_unwatched(make_engine: Any) -> None:
    engine = make_engine("llama")
    engine.generate([ask()])
    deadline = time.monotonic() + 60
    while engine._worker._runs and time.monotonic() < deadline:
        time.sleep(0.01)
    assert engine._runtime.taps._attention == []
    assert all("_wonder_tap" not in module.__dict__ for module in engine._runtime.taps.attention_modules.values())


def test_a_failing_pass_fails_those_who_made_it_fail_and_nobody_after_them(make_engine: Any) -> None:
    engine = make_engine("llama")

    def broken(_module: Any, args: Any, kwargs: Any) -> None:
        if 200 in kwargs["input_ids"]:
            raise RuntimeError("shape mismatch")

    handle = engine.model.register_forward_pre_hook(broken, with_kwargs=True)
    bad = engine.tokenizer.decode([200])
    good, failing = [engine.submit(ask("same", 3)) for _ in range(2)], engine.submit(ask(bad * 4, 3))
    with pytest.raises(EngineFailed, match="RuntimeError: shape mismatch"):
        failing.result(60)
    assert {item.result(60).text for item in good} == {engine.generate_one(ask("same", 3)).text}
    handle.remove()
    assert engine.generate_one(ask(bad * 4, 3)).text is not None


def models_without_slots() -> dict[str, Any]:
    return {
        "minimax": lambda: hf.MiniMaxConfig(**COMMON, head_dim=8, num_local_experts=2, num_experts_per_tok=1),
        "bloom": lambda: hf.BloomConfig(vocab_size=320, hidden_size=32, n_layer=3, n_head=4),
        "falcon": lambda: hf.FalconConfig(
            vocab_size=320, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, alibi=True
        ),
        "gpt_neo": lambda: hf.GPTNeoConfig(
            vocab_size=320,
            hidden_size=32,
            num_layers=4,
            num_heads=4,
            attention_types=[[["global", "local"], 2]],
            window_size=4,
        ),
    }


@pytest.mark.parametrize("family", list(models_without_slots()))
def test_models_that_the_slot_cache_cannot_hold_go_the_old_way_and_the_trace_says_so(
    family: str, make_engine: Any
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = hf.AutoModelForCausalLM.from_config(models_without_slots()[family]()).eval()
    engine: TraceEngine = make_engine(family, model=model)
    assert engine.info.unsupported["slots"]
    pair = [ask("ab", 6), ask("a longer one", 6)]
    together = engine.generate(pair)
    kinds = {message.thought_trace.batching for message in together}
    assert kinds == ({"alone"} if engine._runtime.equal_lengths else {"padded"})
    events: list[TokenEvent] = []
    for request, message in zip(pair, together, strict=True):
        again = engine.submit(request, on_token=events.append).result(60)
        assert again.text == message.text
        assert again.thought_trace.batching == "alone"
    assert [event.index for event in events[:6]] == list(range(6))


def test_a_cancelled_request_of_a_padded_batch_is_dropped(make_engine: Any) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = hf.AutoModelForCausalLM.from_config(models_without_slots()["bloom"]()).eval()
    engine: TraceEngine = make_engine("bloom", model=model)
    handles: list[Handle] = []
    handles.append(engine.submit(ask("ab", 2000), on_token=lambda event: event.index == 3 and handles[0].cancel()))
    with pytest.raises(CancelledError):
        handles[0].result(30)
    assert isinstance(engine.generate_one(ask("ab", 3)), AgentMessage)


def test_weights_in_half_precision_are_answered_too(make_engine: Any) -> None:
    engine = make_engine("llama", model=build("llama").to(torch.bfloat16))
    for message in engine.generate(neighbours(6)):
        assert isinstance(message, AgentMessage)
        assert message.thought_trace.batching == "slots"
