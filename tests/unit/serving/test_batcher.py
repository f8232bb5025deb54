"""Coroutines in front of a real engine."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from wonder.actions.contracts import ThinkRequest
from wonder.engine.engine import TraceEngine
from wonder.errors import EngineFailed, PromptTooLong
from wonder.serving.batcher import Batcher
from wonder.trace.sampling import Sampling


@pytest.fixture(scope="module")
def engine() -> Iterator[TraceEngine]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    loaded = TraceEngine.load(device="cpu")
    loaded._runtime = loaded._runtime.__class__(**{**vars(loaded._runtime), "end_ids": frozenset()})
    yield loaded
    loaded.close()
    torch.set_num_threads(threads)


def ask(prompt: str = "Ticket: late parcel.", tokens: int = 5) -> ThinkRequest:
    return ThinkRequest(action="a", model="m", prompt=prompt, sampling=Sampling(max_new_tokens=tokens))


def live(engine: TraceEngine) -> list[Any]:
    assert engine._worker is not None
    return engine._worker._loop.live  # type: ignore[attr-defined]


async def until(condition: Any) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - another thread changes it, there is no event to wait for
            await asyncio.sleep(0.005)


async def test_concurrent_requests_share_forward_passes_and_get_their_own_answers(engine: TraceEngine) -> None:
    prompts = [f"Ticket: number {at}" for at in range(6)]
    async with Batcher(engine, max_batch=4) as batcher:
        messages = await asyncio.gather(*(batcher.submit(ask(prompt, 30)) for prompt in prompts))
    sizes = [message.thought_trace.batch_size for message in messages if message.thought_trace]
    assert 1 < max(sizes) <= 4
    for prompt, message in zip(prompts, messages, strict=True):
        assert message.text == engine.generate_one(ask(prompt, 30)).text
        assert message.thought_trace is not None
        timings = message.thought_trace.timings
        assert timings.total_s >= timings.queue_s + timings.prefill_s


async def test_tokens_come_into_the_event_loop_with_their_confidence(engine: TraceEngine) -> None:
    events: list[tuple[Any, str]] = []
    async with Batcher(engine) as batcher:
        told = lambda event: events.append((event, threading.current_thread().name))  # noqa: E731
        message = await batcher.submit(ask(tokens=7), on_token=told)
        await asyncio.sleep(0)
    assert message.thought_trace is not None
    found = [event.confidence for event, _ in events]
    assert found == pytest.approx(message.thought_trace.token_confidences, rel=1e-4)
    assert [event.index for event, _ in events] == list(range(7))
    assert {name for _, name in events} == {threading.current_thread().name}


async def test_a_request_joins_at_any_step_and_a_cancelled_one_frees_its_row(engine: TraceEngine) -> None:
    async with Batcher(engine, max_batch=4) as batcher:
        long = asyncio.create_task(batcher.submit(ask(tokens=180)))
        await until(lambda: engine._worker is not None and len(live(engine)) == 1)
        short = await batcher.submit(ask("Ticket: other", 3))
        assert short.thought_trace is not None
        assert short.thought_trace.batch_size == 2 or long.done()
        other = asyncio.create_task(batcher.submit(ask(tokens=180)))
        await until(lambda: other.done() or len(live(engine)) >= 1)
        other.cancel()
        with pytest.raises(asyncio.CancelledError):
            await other
        assert (await long).text


async def test_cancelling_all_empties_the_engine(engine: TraceEngine) -> None:
    async with Batcher(engine, max_batch=4) as batcher:
        tasks = [asyncio.create_task(batcher.submit(ask(tokens=200))) for _ in range(6)]
        await until(lambda: engine._worker is not None and len(live(engine)) == 4)
        for task in tasks:
            task.cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(item, asyncio.CancelledError) for item in found)
        await until(lambda: not live(engine))
        assert (await batcher.submit(ask())).text


async def test_what_the_engine_refuses_is_raised_as_it_is(engine: TraceEngine) -> None:
    async with Batcher(engine) as batcher:
        good, bad = await asyncio.gather(
            batcher.submit(ask()), batcher.submit(ask("x" * 10_000_000)), return_exceptions=True
        )
    assert not isinstance(good, BaseException)
    assert isinstance(bad, PromptTooLong)


async def test_a_broken_engine_fails_retryably(engine: TraceEngine) -> None:
    def broken(_module: Any, _args: Any) -> None:
        raise RuntimeError("shape mismatch")

    handle = engine.model.model.register_forward_pre_hook(broken)
    async with Batcher(engine) as batcher:
        with pytest.raises(EngineFailed, match=r"RuntimeError: shape mismatch"):
            await batcher.submit(ask())
        handle.remove()
        assert (await batcher.submit(ask())).text
    assert EngineFailed.retryable


async def test_a_caller_that_goes_while_its_request_is_being_queued_leaves_nothing_behind() -> None:
    begun, gone, cancelled, queued = (threading.Event() for _ in range(4))

    class Slow:
        def submit(self, request: ThinkRequest, **_options: Any) -> Any:  # noqa: ARG002 — the protocol's
            begun.set()
            assert gone.wait(60)
            queued.set()
            return self

        def cancel(self) -> bool:
            cancelled.set()
            return True

        def when_done(self, callback: Any) -> None:  # noqa: ARG002 — the protocol's
            raise AssertionError("nobody waits for it")

        def result(self) -> Any:
            raise AssertionError("nobody waits for it")

    async with Batcher(Slow()) as batcher:
        task = asyncio.create_task(batcher.submit(ask()))
        await until(begun.is_set)
        task.cancel()
        gone.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(cancelled.is_set)
    assert queued.is_set()


async def test_leaving_ends_what_is_under_way(engine: TraceEngine) -> None:
    async with Batcher(engine) as batcher:
        task = asyncio.create_task(batcher.submit(ask(tokens=900)))
        await until(lambda: engine._worker is not None and len(live(engine)) == 1)
    with pytest.raises(EngineFailed, match="the worker stopped before"):
        await asyncio.wait_for(task, 60)
