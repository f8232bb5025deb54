"""A device without room, a broken pass, a device that is lost: who has to notice does, and nobody else."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import transformers as hf
from torch.utils._python_dispatch import TorchDispatchMode

from tests.unit.engine.conftest import build
from tests.unit.engine.slot_driver import drain, everything, job, loop_of, solo
from tests.unit.engine.test_many_requests import ask, assert_same, neighbours, numbers, traced
from wonder.engine.engine import TraceEngine
from wonder.engine.faults import is_lost
from wonder.engine.job import TokenEvent
from wonder.engine.request import Request
from wonder.engine.scheduler import CALM
from wonder.errors import DeviceLost, EngineFailed, OutOfMemory, WonderError
from wonder.trace.capture import ThoughtCapture
from wonder.trace.sampling import Sampling
from wonder.trace.schema import AgentMessage

FULL_DEVICE = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 139.80 GiB"
ASSERT = (
    "CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously reported at some other API "
    "call, so the stacktrace below might be incorrect."
)


@contextmanager
def no_room_when(engine: TraceEngine, full: Any) -> Iterator[None]:
    """A device that runs out of memory in the middle of a pass, when this holds of its rows, width and longest row."""
    inner = engine._runtime.anatomy.blocks[2]

    def raises(_module: Any, args: Any, kwargs: Any) -> None:
        states = kwargs.get("hidden_states", args[0] if args else None)
        positions = kwargs.get("position_ids")
        reach = int(positions.max()) + 1 if positions is not None else states.shape[1]
        if full(states.shape[0], states.shape[1], reach):
            raise torch.cuda.OutOfMemoryError(FULL_DEVICE)

    handle = inner.register_forward_pre_hook(raises, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def bloom(make_engine: Any, **options: Any) -> TraceEngine:
    """A model that the slot cache cannot hold."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = hf.AutoModelForCausalLM.from_config(
            hf.BloomConfig(vocab_size=320, hidden_size=32, n_layer=3, n_head=4)
        ).eval()
    engine: TraceEngine = make_engine("bloom", model=model, **options)
    assert engine.info.unsupported["slots"]
    return engine


def sampled(count: int) -> list[Request]:
    return [ask(f"prompt {at}" * (1 + at % 3), 5 + at, temperature=1.2, seed=at) for at in range(count)]


def test_a_pass_without_room_is_split_and_every_answer_and_trace_stay_what_they_are(make_engine: Any) -> None:
    engine = make_engine("qwen3_moe", max_batch=8)
    requests = [*neighbours(6), *sampled(4)]
    texts, want = [message.text for message in engine.generate(requests)], traced(engine, requests)
    with no_room_when(engine, lambda rows, _width, _reach: rows > 2):
        assert [message.text for message in engine.generate(requests)] == texts
        found = traced(engine, requests)
    for one, other in zip(want, found, strict=True):
        assert other.batch_size <= 2
        assert_same(numbers(other), numbers(one))


def test_only_who_does_not_fit_alone_is_refused_and_a_prompt_that_fits_in_pieces_is_fed_in_pieces(
    make_engine: Any,
) -> None:
    engine = make_engine("llama")
    neighbour, long, large = ask("beside", 20), ask("y" * 150, 3), ask("x" * 250, 3)
    want = traced(engine, [neighbour, long])
    with no_room_when(engine, lambda _rows, width, reach: width > 40 or reach > 200):
        found = traced(engine, [neighbour, large, long])
    assert isinstance(found[1], OutOfMemory)
    assert found[1].retryable
    assert "no room for a prompt of 251 tokens and 3 new ones, alone in its batch" in str(found[1])
    for one, other in zip(want, (found[0], found[2]), strict=True):
        assert_same(numbers(other), numbers(one))


@pytest.mark.parametrize("path", ["slots", "padded"])
def test_a_lack_of_room_that_passes_is_noticed_by_nobody(path: str, make_engine: Any) -> None:
    engine = make_engine("llama") if path == "slots" else bloom(make_engine)
    want = engine.generate_one(ask("alone", 9, temperature=1.1, seed=3))
    calls = iter([False, True, False, False, path == "slots"])
    with no_room_when(engine, lambda *_: next(calls, False)):
        assert engine.generate_one(ask("alone", 9, temperature=1.1, seed=3)).text == want.text


def test_a_padded_batch_without_room_is_split_and_tells_no_token_twice(make_engine: Any) -> None:
    engine = bloom(make_engine)
    requests = [ask(f"prompt {at}", 6) for at in range(5)]
    want = [engine.generate_one(request).text for request in requests]
    events: list[TokenEvent] = []
    steps = iter(range(1000))
    with no_room_when(engine, lambda rows, width, _reach: (rows > 2 and next(steps) >= 2) or width > 100):
        handles = [engine.submit(request, on_token=events.append) for request in requests]
        drawn = engine.submit(ask("drawn", 6, temperature=1.5), on_token=(mine := []).append)
        large = engine.submit(ask("x" * 150))
        assert [handle.result(60).text for handle in handles] == want
        with pytest.raises(OutOfMemory, match=r"15\d tokens"):
            large.result(60)
        text = drawn.result(60).text
    assert sorted(event.index for event in events) == sorted([*range(6)] * 5)
    assert [event.index for event in mine] == list(range(6))
    assert "".join(event.text for event in mine).strip() == text


class FailingAllocation(TorchDispatchMode):
    """Lets one operation that needs memory of its own find none."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.left = at

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        if not func.is_view and not name.endswith("_") and "empty" not in name:
            self.left -= 1
            if self.left == -1:
                raise torch.cuda.OutOfMemoryError(FULL_DEVICE)
        return func(*args, **(kwargs or {}))


def answered(engine: TraceEngine, requests: list[Request], fails_at: int | None) -> tuple[list[Any], bool]:
    """Traces of requests that arrive in two waves, and whether the allocation was reached."""
    loop = loop_of(engine, rows=3, chunk=8, idle_chunk=8)
    jobs = [engine._desk.job(request) for request in requests]
    mode = FailingAllocation(-2 if fails_at is None else fails_at)
    with mode:
        for item in jobs[:2]:
            loop.add(item)
        loop.step()
        loop.step()
        for item in jobs[2:]:
            loop.add(item)
        drain(loop)
    return [numbers(engine._desk.read(item, item.wait(0))[0]) for item in jobs], mode.left < 0


def test_whichever_allocation_fails_every_request_ends_with_the_numbers_it_has_anyway(make_engine: Any) -> None:
    engine = make_engine("mixtral")
    capture = ThoughtCapture(
        capture_attention=True, compute_attention_entropy=True, attention_layers="all", capture_expert_routing=True
    )
    requests = [
        ask("two", 4, capture),
        ask("the longer prompt of the two", 3, capture, temperature=1.3, seed=5),
        ask("two", 5, capture, temperature=0.9, seed=6),
        ask("late", 3, capture),
    ]
    want, _ = answered(engine, requests, None)
    at, reached = 0, True
    while reached:
        try:
            found, reached = answered(engine, requests, at)
        except WonderError as error:
            raise AssertionError(f"allocation {at} sank a request: {error}") from error
        assert_same(found, want)
        at += 397


def test_a_device_that_had_no_room_once_is_not_mistrusted_for_ever(make_engine: Any) -> None:
    model = build("llama")
    model.generation_config.eos_token_id = model.config.eos_token_id = None
    engine = make_engine("llama", model=model)
    engine._runtime = engine._runtime.__class__(**{**vars(engine._runtime), "end_ids": frozenset()})
    loop = loop_of(engine, rows=8)
    for seed in range(8):
        loop.add(job(engine._runtime, [1, 40 + seed], Sampling(max_new_tokens=CALM * 3 + 20)))
    loop.step()
    with no_room_when(engine, lambda rows, *_: rows > 4):
        loop.step()
    assert loop._at_once == 4
    for _ in range(CALM):
        loop.step()
    assert loop._at_once == 8


LOST = [
    ASSERT,
    "CUDA error: an illegal memory access was encountered",
    "CUDA error: unspecified launch failure",
    "CUDA error: misaligned address",
    "CUDA error: uncorrectable ECC error encountered",
    "HIP error: the operation cannot be performed: illegal address",
]
NOT_LOST = [
    "shape mismatch: device-side assert is only mentioned",
    "CUDA error: invalid configuration argument",
    "CUDA error: out of memory",
    FULL_DEVICE,
]


@pytest.mark.parametrize("text", LOST)
@pytest.mark.parametrize("kind", [torch.AcceleratorError, RuntimeError])
def test_errors_that_break_the_device_are_known(kind: Any, text: str, make_model: Any) -> None:
    assert is_lost(kind(text), make_model("llama"))


@pytest.mark.parametrize("text", NOT_LOST)
def test_others_are_not_taken_for_them(text: str, make_model: Any) -> None:
    model = make_model("llama")
    assert not is_lost(RuntimeError(text), model)
    assert not is_lost(ValueError(ASSERT), model)


def test_the_code_of_an_accelerator_error_counts_when_its_words_say_nothing(make_model: Any) -> None:
    error = torch.AcceleratorError("CUDA error: something of a later release")
    assert not is_lost(error, make_model("llama"))
    error.error_code = 719  # type: ignore[attr-defined]
    assert is_lost(error, make_model("llama"))


@pytest.mark.parametrize("path", ["slots", "padded"])
def test_a_lost_device_ends_everything_retryably_and_takes_nothing_more(path: str, make_engine: Any) -> None:
    engine = make_engine("llama", max_batch=2) if path == "slots" else bloom(make_engine, max_batch=2)
    told: list[DeviceLost] = []
    heard = threading.Event()
    engine.when_lost(lambda error: (told.append(error), heard.set()))
    calls = iter(range(1000))

    def raises(*_: Any) -> None:
        if next(calls) >= 3:
            raise torch.AcceleratorError(ASSERT)

    engine._runtime.anatomy.blocks[1].register_forward_pre_hook(raises)
    handles = [engine.submit(ask(f"prompt {at}" * (1 + 30 * (at == 1)), 30)) for at in range(6)]
    for handle in handles:
        with pytest.raises(DeviceLost, match=r"device-side assert triggered .* must be started anew"):
            handle.result(30)
    assert DeviceLost.retryable
    assert heard.wait(10)
    assert len(told) == 1
    with pytest.raises(DeviceLost):
        engine.submit(ask())
    with pytest.raises(DeviceLost):
        engine.generate([ask("a"), ask("b")])
    late: list[DeviceLost] = []
    engine.when_lost(late.append)
    assert late == told


@pytest.mark.parametrize("path", ["slots", "padded"])
def test_a_pass_that_breaks_fails_its_culprit_only(path: str, make_engine: Any) -> None:
    engine = make_engine("llama") if path == "slots" else bloom(make_engine)
    requests = [ask("same", 9), ask(engine.tokenizer.decode([200]) * 4, 9), ask("other", 9)]
    want = engine.generate(requests)

    def broken(_module: Any, _args: Any, kwargs: Any) -> None:
        if 200 in kwargs["input_ids"]:
            raise RuntimeError("shape mismatch")

    handle = engine.model.register_forward_pre_hook(broken, with_kwargs=True)
    found = engine.generate(requests)
    handle.remove()
    assert isinstance(found[1], EngineFailed)
    assert "RuntimeError: shape mismatch" in str(found[1])
    assert isinstance(found[1].__cause__, RuntimeError)
    assert [found[at].text for at in (0, 2)] == [want[at].text for at in (0, 2)]
    assert isinstance(engine.generate([ask()])[0], AgentMessage)


def test_one_prompt_in_many_pieces_survives_a_lost_piece(make_engine: Any) -> None:
    engine = make_engine("llama")
    ids = [1, *(3 + at % 200 for at in range(199))]
    loop = loop_of(engine, rows=2, chunk=64, idle_chunk=64)
    item = job(engine._runtime, ids, Sampling(max_new_tokens=6), everything(engine))
    loop.add(item)
    widths: list[int] = []

    def full(_rows: int, width: int, _reach: int) -> bool:
        widths.append(width)
        return len(widths) == 3

    with no_room_when(engine, full):
        drain(loop)
    assert widths[:5] == [64, 64, 64, 32, 32]
    assert item.row.tokens == solo(engine._runtime, ids, Sampling(max_new_tokens=6))
