"""The loop for models that the slot cache cannot hold: batches that begin and end together."""

import time
from collections.abc import Callable

import torch

from wonder.engine.batching import split
from wonder.engine.faults import told
from wonder.engine.job import Answered, Job
from wonder.engine.loop import BatchResult, Row, Runtime, run_batch
from wonder.engine.memory import is_out_of_memory
from wonder.engine.queue import Queue
from wonder.engine.slot_recorder import join

COMPANY_S = 0.002
"""How long a batch waits for others before it begins: whoever comes later has to wait until it ends."""


class PaddedLoop:
    """Answers one batch per step; lives on one thread."""

    def __init__(self, runtime: Runtime, *, max_rows: int, max_tokens: int) -> None:
        """Set the bounds: most requests of a batch, and most rows × columns; a single request may exceed them."""
        self._runtime = runtime
        self._max_rows = max_rows
        self._max_tokens = max_tokens
        self.queue = Queue()
        self._running: list[Job] = []

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return bool(self.queue)

    def add(self, job: Job) -> None:
        """Queue a request."""
        self.queue.add(job)

    def step(self) -> None:
        """Run the batch of the request that is next.

        Raises:
            DeviceLost: Nothing that is under way can go on.
        """
        self.queue.drop_ended()
        best = self.queue.best()
        if best is None:
            return
        jobs = list(self.queue)
        groups = split(
            [len(job.prompt) for job in jobs],
            [job.request.sampling.max_new_tokens for job in jobs],
            self._max_rows,
            self._max_tokens,
            equal_lengths=self._runtime.equal_lengths,
        )
        group = [jobs[at] for at in next(group for group in groups if jobs.index(best) in group)]
        for job in group:
            self.queue.take(job)
        self._running = group
        self._answer(group)
        self._running = []

    def abort(self, error: BaseException) -> None:
        """End everything with this error."""
        for job in [*self._running, *self.queue.take_all()]:
            job.end(error)
        self._running = []

    def _answer(self, jobs: list[Job], *, again: bool = True) -> None:
        """Run one batch; where that fails, run its halves, so that only who cannot be served fails."""
        try:
            self._run(jobs)
            return
        except Exception as error:
            full, found = is_out_of_memory(error), told(error, jobs[0], self._runtime)
            if len(jobs) == 1 and not (full and again):
                jobs[0].end(found)
                return
        # Outside the handler: while the error is held, so are the frames and tensors of the attempt.
        if full and torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(jobs) == 1:
            self._answer(jobs, again=False)
            return
        half = len(jobs) // 2
        self._answer(jobs[:half])
        self._answer(jobs[half:])

    def _run(self, jobs: list[Job]) -> None:
        plans = frozenset(job.plan for job in jobs if job.plan is not None)
        plan = join(plans) if plans else None
        began_s = time.perf_counter()
        for job in jobs:
            # Anew for every attempt: a batch that is split after running out of memory starts its answers again.
            job.row, job.constraint, job.began_s = Row(job.request.sampling, self._runtime), job.constrain(), began_s
            job.draw.rewind()

        def on_step(confidences: Callable[[], list[float | None]]) -> None:
            streams = any(job.on_token is not None and not job.is_over for job in jobs)
            known = confidences() if streams else [None] * len(jobs)
            for at, job in enumerate(jobs):
                if len(job.row.tokens) > job.told and not job.is_over:
                    job.emit(job.row.latest, None if job.plan is None else known[at])
                if job.is_over:
                    job.row.finished = job.row.finished or "stop"

        batch: BatchResult = run_batch(
            self._runtime,
            [job.prompt for job in jobs],
            [job.request.sampling for job in jobs],
            plan,
            rows=[job.row for job in jobs],
            draws=[job.draw for job in jobs],
            constraints=[job.constraint for job in jobs],
            injections=[job.injected for job in jobs],
            on_step=on_step,
        )
        for index, job in enumerate(jobs):
            job.end(Answered(batch, index, plan, began_s - job.asked_s))
