"""From coroutines to the engine: a request joins those that are being answered at the next step."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Protocol

from wonder.actions.contracts import ThinkRequest
from wonder.errors import EngineFailed, WonderError
from wonder.trace.schema import AgentMessage

HELPERS = 4
"""Threads that tokenize prompts and write artifacts, so that neither the event loop nor the model waits for it."""


class Token(Protocol):
    """A token, as it comes; `wonder.engine.job.TokenEvent` is one."""

    @property
    def index(self) -> int:
        """Counted from 0."""
        ...

    @property
    def text(self) -> str:
        """What became certain with it."""
        ...

    @property
    def confidence(self) -> float | None:
        """Probability under the raw logits; None where it is not read."""
        ...


OnToken = Callable[[Token], None]


class Handle(Protocol):
    """A request that is under way."""

    def result(self) -> AgentMessage:
        """Wait for the answer; raises why there is none."""
        ...

    def cancel(self) -> bool:
        """Give it up; its place is free by the next step."""
        ...

    def when_done(self, callback: Callable[[], None]) -> None:
        """Call this once it is done, on any thread."""
        ...


class Engine(Protocol):
    """What is served: `wonder.engine.TraceEngine`, or anything that answers like it."""

    def submit(self, request: ThinkRequest, *, on_token: OnToken | None = None) -> Handle:
        """Queue a request; raises what is wrong with it. Every token is told as it comes, on any thread."""
        ...


class Batcher:
    """Passes concurrent requests to an engine, which lets them share forward passes.

    A caller that is cancelled frees its place in the engine within one step, and disturbs nobody.
    """

    def __init__(self, engine: Engine, *, max_batch: int = 8) -> None:
        """`max_batch` is how many requests are in the engine at most; the others wait here."""
        self.engine = engine
        self.max_batch = max_batch
        self._places = asyncio.Semaphore(max_batch)
        self._helpers = ThreadPoolExecutor(HELPERS, thread_name_prefix="wonder-serving")
        self._open: set[Handle] = set()
        self._closed = False

    async def __aenter__(self) -> "Batcher":
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._closed = True
        for handle in list(self._open):
            handle.cancel()
        self._helpers.shutdown(wait=True, cancel_futures=True)

    async def submit(self, request: ThinkRequest, *, on_token: OnToken | None = None) -> AgentMessage:
        """Have a request answered.

        Args:
            request: Checked by the engine.
            on_token: Told of every token as it comes, in the event loop; where it raises, the loop's own handler is
                told, and the answer goes on.

        Raises:
            WonderError: What the engine says about this request.
        """
        loop = asyncio.get_running_loop()
        asked_s = loop.time()
        async with self._places:
            waited_s = loop.time() - asked_s
            self._check_open()
            try:
                message = await self._answer(loop, request, on_token)
            except WonderError:
                raise
            except Exception as error:
                # Nothing is known against the request, so it may be tried again, here or elsewhere.
                raise EngineFailed(
                    f"the engine broke while it served this request ({type(error).__name__}: {error})"
                ) from error
        return _with_wait(message, waited_s)

    def _check_open(self) -> None:
        if self._closed:
            raise EngineFailed("the worker stopped before this request was answered")

    async def _answer(
        self, loop: asyncio.AbstractEventLoop, request: ThinkRequest, on_token: OnToken | None
    ) -> AgentMessage:
        submit = (
            self.engine.submit if on_token is None else partial(self.engine.submit, on_token=_within(loop, on_token))
        )
        entering = loop.run_in_executor(self._helpers, submit, request)
        try:
            handle = await asyncio.shield(entering)
        except asyncio.CancelledError:
            entering.add_done_callback(_cancel_late)
            raise
        done = asyncio.Event()

        def tell() -> None:
            with suppress(RuntimeError):  # the event loop may have closed meanwhile
                loop.call_soon_threadsafe(done.set)

        self._open.add(handle)
        handle.when_done(tell)
        try:
            await done.wait()
            self._check_open()
            return await loop.run_in_executor(self._helpers, handle.result)
        except asyncio.CancelledError:
            handle.cancel()
            raise
        finally:
            self._open.discard(handle)


def _within(loop: asyncio.AbstractEventLoop, on_token: OnToken) -> OnToken:
    """From the engine's thread into the event loop."""

    def tell(token: Token) -> None:
        with suppress(RuntimeError):  # the event loop may have closed meanwhile
            loop.call_soon_threadsafe(on_token, token)

    return tell


def _cancel_late(entering: "asyncio.Future[Handle]") -> None:
    """The caller went while its request was being queued."""
    if not entering.cancelled() and entering.exception() is None:
        entering.result().cancel()


def _with_wait(message: AgentMessage, waited_s: float) -> AgentMessage:
    """The message with the time its request waited for a place in the engine."""
    trace = message.thought_trace
    if trace is None:
        return message
    timings = trace.timings.model_copy(
        update={
            "queue_s": round(trace.timings.queue_s + waited_s, 6),
            "total_s": round(trace.timings.total_s + waited_s, 6),
        }
    )
    return message.model_copy(update={"thought_trace": trace.model_copy(update={"timings": timings})})
