"""One request on its way through an engine, and the handle by which its caller follows it."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Protocol

from wonder.engine.constrain import Constraint
from wonder.engine.injection_batch import Injected
from wonder.engine.loop import BatchResult, Row
from wonder.engine.recorder import ReadPlan
from wonder.engine.request import EngineRequest
from wonder.engine.sampling import RowDraw
from wonder.engine.slot_recorder import RowReadings
from wonder.trace.schema import AgentMessage

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class TokenEvent:
    """A token, as it comes."""

    index: int
    """Counted from 0."""
    text: str
    """What became certain with it: nothing, while a character lacks bytes."""
    confidence: float | None
    """Probability under the raw logits; None where nothing is read for this request, or it is not finite."""


OnToken = Callable[[TokenEvent], None]
"""Called on the engine's thread, so it should only pass the event on; where it raises, its request ends with that."""


@dataclass(frozen=True)
class Answered:
    """What the loop has made of a request: everything is on the host."""

    batch: BatchResult
    index: int
    """Row in the batch."""
    plan: ReadPlan | None
    queue_s: float


class Job:
    """A request in the engine. Ended by the engine's thread, or at any time from outside by cancelling."""

    def __init__(
        self,
        request: EngineRequest,
        prompt: Sequence[int],
        row: Row,
        plan: ReadPlan | None,
        *,
        constrain: Callable[[], Constraint | None] = lambda: None,
        injected: Injected | None = None,
        priority: int = 0,
        on_token: OnToken | None = None,
    ) -> None:
        self.request = request
        self.prompt = list(prompt)
        self.row = row
        self.constrain = constrain
        """Begins the constraint of an answer anew."""
        self.constraint = constrain()
        self.injected = injected
        self.draw = RowDraw(request.sampling)
        self.readings = None if plan is None else RowReadings(plan)
        self.plan = plan
        self.priority = priority
        self.passed_over = 0
        """How many younger requests were admitted before this one."""
        self.on_token = on_token
        self.asked_s = time.perf_counter()
        self.began_s = 0.0
        self.prefill_s = 0.0
        self.told = 0
        """Tokens that the caller has been told of: none twice, also where an answer had to be begun again."""
        self.neighbours = 1
        """Largest number of rows in a forward pass with this one."""
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._outcome: Answered | BaseException | None = None
        self._callbacks: list[Callable[[], None]] = []

    @property
    def length(self) -> int:
        """Tokens fed so far, once the prompt has been: the last token drawn is fed in the next step."""
        return len(self.prompt) + len(self.row.tokens) - 1

    @property
    def columns(self) -> int:
        """Columns of the cache that it may need."""
        return len(self.prompt) + self.request.sampling.max_new_tokens - 1

    @property
    def is_over(self) -> bool:
        """Whether there is an outcome."""
        return self._over.is_set()

    @property
    def has_failed(self) -> bool:
        """Whether it is over without an answer."""
        return self.is_over and not isinstance(self._outcome, Answered)

    @property
    def answered(self) -> Answered | None:
        """The answer, if there is one."""
        return self._outcome if isinstance(self._outcome, Answered) else None

    def end(self, outcome: Answered | BaseException) -> bool:
        """Set the outcome; the first one counts.

        Returns:
            Whether it was the first.
        """
        with self._lock:
            if self._over.is_set():
                return False
            self._outcome = outcome
            self.readings = None
            self._over.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            try:
                callback()
            except Exception:  # on the engine's thread, where it would sink everybody else
                LOG.exception("a callback of a request failed")
        return True

    def await_end(self, timeout_s: float | None = None) -> None:
        """Wait until it is over, however it ends.

        Raises:
            TimeoutError: It is not over yet.
        """
        if not self._over.wait(timeout_s):
            raise TimeoutError(f"no answer within {timeout_s} s; the request goes on until it is cancelled")

    def wait(self, timeout_s: float | None = None) -> Answered:
        """The outcome.

        Raises:
            TimeoutError: It is not there yet.
            BaseException: What the request ended with instead.
        """
        self.await_end(timeout_s)
        outcome = self._outcome
        if isinstance(outcome, Answered):
            return outcome
        assert outcome is not None
        raise outcome

    def when_over(self, callback: Callable[[], None]) -> None:
        """Call this once there is an outcome, on the thread that sets it."""
        with self._lock:
            if not self._over.is_set():
                self._callbacks.append(callback)
                return
        callback()

    def emit(self, text: str, confidence: float | None) -> None:
        """Tell the caller of a token."""
        self.told = len(self.row.tokens)
        if self.on_token is None:
            return
        try:
            self.on_token(TokenEvent(len(self.row.tokens) - 1, text, confidence))
        except Exception as error:
            self.end(error)


class Finisher(Protocol):
    """Makes a message of an outcome; on the caller's thread, so that the model never waits for it."""

    def __call__(self, job: Job, answered: Answered, samples: Sequence[Job], /) -> AgentMessage: ...


class Handle:
    """A request that was submitted, with the further answers that were asked for."""

    def __init__(self, job: Job, finisher: Finisher, samples: Sequence[Job] = ()) -> None:
        self._job = job
        self._samples = samples
        self._finisher = finisher
        self._lock = threading.Lock()
        self._message: AgentMessage | None = None

    def result(self, timeout_s: float | None = None) -> AgentMessage:
        """Wait for the message.

        Raises:
            WonderError: Why the request cannot be answered.
            CancelledError: It was cancelled.
            TimeoutError: It is not there yet.
        """
        end_s = None if timeout_s is None else time.monotonic() + timeout_s
        try:
            answered = self._job.wait(timeout_s)
            for sample in self._samples:
                sample.await_end(None if end_s is None else max(0.0, end_s - time.monotonic()))
        except TimeoutError:
            raise
        except BaseException:
            self.cancel()
            raise
        with self._lock:
            if self._message is None:
                self._message = self._finisher(self._job, answered, self._samples)
            return self._message

    def cancel(self) -> bool:
        """Give the request up; its row is free by the next step, and its trace is dropped.

        Returns:
            Whether it was still under way.
        """
        ended = [job.end(CancelledError("the request was cancelled")) for job in (self._job, *self._samples)]
        return any(ended)

    @property
    def done(self) -> bool:
        """Whether there is an answer, or an error, or it was cancelled."""
        return self._job.is_over and (self._job.has_failed or all(sample.is_over for sample in self._samples))

    def when_done(self, callback: Callable[[], None]) -> None:
        """Call this once it is done, on whichever thread finds out."""
        waiting = [*self._samples]

        def next_one() -> None:
            if waiting and not self._job.has_failed:
                waiting.pop().when_over(next_one)
            else:
                callback()

        self._job.when_over(next_one)
