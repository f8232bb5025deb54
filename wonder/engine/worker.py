"""The one thread that touches a model: it runs while there is work, and is not there otherwise."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import torch

from wonder.engine.job import Job
from wonder.errors import DeviceLost, EngineFailed

LOG = logging.getLogger(__name__)


class Loop(Protocol):
    """What advances requests."""

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        ...

    def add(self, job: Job) -> None:
        """Queue a request."""
        ...

    def step(self) -> None:
        """Do a bounded amount of work.

        Raises:
            WonderError: Nothing that is under way can go on; of `DeviceLost` no loop of this process recovers.
        """
        ...

    def abort(self, error: BaseException) -> None:
        """End everything with this error."""
        ...


class Worker:
    """Feeds a loop. An executor's thread, because that one is joined at exit and gone when its owner is collected."""

    def __init__(
        self, loop: Loop, *, company_s: float = 0.0, when_lost: Callable[[DeviceLost], None] = lambda _error: None
    ) -> None:
        """Nothing runs before the first request.

        Args:
            loop: To be fed.
            company_s: How long an idle loop waits for more requests after the first one.
            when_lost: Called once should the device be lost, after everything under way has ended with that.
        """
        self._loop = loop
        self._company_s = company_s
        self._when_lost = when_lost
        self._lost: DeviceLost | None = None
        self._lock = threading.Lock()
        self._arrived: list[Job] = []
        self._runs = False
        self._closed = False
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="wonder-engine")

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queue requests; they are all there before the next step.

        Raises:
            EngineFailed: The engine has been closed.
            DeviceLost: The device broke before.
        """
        with self._lock:
            if self._closed:
                raise EngineFailed("this engine has been closed: load it again")
            if self._lost is not None:
                raise DeviceLost(str(self._lost))
            self._arrived += jobs
            if not self._runs and self._arrived:
                self._runs = True
                self._executor.submit(self._drain, torch.get_num_threads())

    def close(self) -> None:
        """End what is under way, and the thread."""
        with self._lock:
            self._closed = True
        self._executor.shutdown(wait=True)

    def _drain(self, threads: int) -> None:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)  # of this thread: it does not follow what another one sets later
        if self._company_s:
            time.sleep(self._company_s)
        while True:
            with self._lock:
                arrived, self._arrived = self._arrived, []
                closed = self._closed
                for job in arrived:
                    self._loop.add(job)
                if not self._loop.has_work:
                    self._runs = False
                    return
            if closed:
                self._loop.abort(EngineFailed("the engine was closed before this request was answered"))
                continue
            try:
                self._loop.step()
            except DeviceLost as error:
                self._lose(error)
                return
            except BaseException as error:
                # Nothing is known against any single request.
                self._abort(error)

    def _abort(self, error: BaseException) -> None:
        try:
            self._loop.abort(error)
        except Exception:  # everybody has their outcome by then, and this thread must go on
            LOG.exception("the engine's loop could not start afresh")

    def _lose(self, error: DeviceLost) -> None:
        """Nothing can be done on this device any more, by anybody in this process."""
        with self._lock:
            self._lost = error
            arrived, self._arrived = self._arrived, []
            self._runs = False
        LOG.error("%s", error)
        for job in arrived:
            job.end(DeviceLost(str(error)))
        self._abort(error)
        self._when_lost(error)
