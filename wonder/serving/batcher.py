"""Requests arrive one at a time; the engine wants many at once: a queue, one thread, futures."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from wonder.actions.contracts import ThinkRequest
from wonder.errors import EngineFailed
from wonder.trace.schema import AgentMessage


class Engine(Protocol):
    """What is served: `wonder.engine.TraceEngine`, or anything that answers like it."""

    def generate(self, requests: Sequence[ThinkRequest]) -> Sequence[AgentMessage | Exception]:
        """Answer all requests in shared forward passes; one that fails gets its exception as its answer."""
        ...


@dataclass
class _Waiting:
    request: ThinkRequest
    answer: asyncio.Future[AgentMessage]
    since: float


class Batcher:
    """Collects concurrent requests into batches and runs them on a thread of its own.

    The thread is the only one that touches the model. A caller that is cancelled leaves the queue; one that is
    already in a batch is answered into the void, and disturbs nobody.
    """

    def __init__(self, engine: Engine, *, max_batch: int = 8, max_wait_s: float = 0.0) -> None:
        """Set the bounds of a batch.

        Args:
            engine: What answers.
            max_batch: Requests that share a batch at most.
            max_wait_s: How long an idle engine waits for company after the first request. Zero is right for most:
                the next batch gathers while one runs, and a lone request is not held up.
        """
        self.engine = engine
        self.max_batch = max_batch
        self.max_wait_s = max_wait_s
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="wonder-engine")
        self._loop: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Batcher":
        self._loop = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._loop is not None:
            self._loop.cancel()
            with suppress(asyncio.CancelledError):
                await self._loop
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def submit(self, request: ThinkRequest) -> AgentMessage:
        """Queue a request and wait for its answer.

        Raises:
            WonderError: What the engine says about this request.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting(request, loop.create_future(), loop.time())
        await self._queue.put(waiting)
        return await waiting.answer

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self._queue.get()]
            end = loop.time() + self.max_wait_s
            while len(batch) < self.max_batch:
                try:
                    batch.append(self._queue.get_nowait())
                except asyncio.QueueEmpty:
                    if (left := end - loop.time()) <= 0:
                        break
                    try:
                        batch.append(await asyncio.wait_for(self._queue.get(), left))
                    except TimeoutError:
                        break
            if live := [waiting for waiting in batch if not waiting.answer.done()]:
                await self._answer(loop, live)

    async def _answer(self, loop: asyncio.AbstractEventLoop, batch: list[_Waiting]) -> None:
        started = loop.time()
        requests = [waiting.request for waiting in batch]
        try:
            answers: Sequence[AgentMessage | Exception] = await loop.run_in_executor(
                self._thread, self.engine.generate, requests
            )
        except asyncio.CancelledError:
            for waiting in batch:
                waiting.answer.cancel()
            raise
        except Exception as error:
            # Nothing is known against any single request, so each may be tried again, here or elsewhere.
            reason = f"the engine broke on a batch of {len(batch)} ({type(error).__name__}: {error})"
            answers = [EngineFailed(reason) for _ in batch]
        for waiting, answer in zip(batch, answers, strict=True):
            if waiting.answer.done():
                continue
            if isinstance(answer, Exception):
                waiting.answer.set_exception(answer)
            else:
                waiting.answer.set_result(_with_queue_time(answer, started - waiting.since))


def _with_queue_time(message: AgentMessage, queue_s: float) -> AgentMessage:
    """The message with the time its request waited for a place in a batch."""
    trace = message.thought_trace
    if trace is None:
        return message
    timings = trace.timings.model_copy(
        update={"queue_s": round(queue_s, 6), "total_s": round(trace.timings.total_s + queue_s, 6)}
    )
    return message.model_copy(update={"thought_trace": trace.model_copy(update={"timings": timings})})
