"""The slot loop: requests are admitted, fed, advanced by one token per step, and leave, each on its own."""

import time
from dataclasses import replace
from typing import Final

import torch

from wonder.engine.attempt import Attempt
from wonder.engine.batching import PASS_TOKENS, PASS_TOKENS_ELSEWHERE, passes
from wonder.engine.faults import failure, told
from wonder.engine.job import Answered, Job
from wonder.engine.layout import Layout
from wonder.engine.lens import read_lens, row_states
from wonder.engine.loop import BatchResult, Runtime
from wonder.engine.memory import is_out_of_memory, no_room
from wonder.engine.queue import Queue
from wonder.engine.slot_readings import finish
from wonder.engine.slot_runner import Pass, SlotRunner
from wonder.errors import WonderError

CHUNK = 512
"""Prompt tokens fed between two steps of rows that are decoding, so that none of them starves."""
IDLE_CHUNK = 2048
"""The same while no row is decoding: larger pieces cost less, and a newcomer waits for one at most."""


CALM: Final = 64
"""Passes without a lack of room after which a device is trusted with twice as much at once again."""
LEAST: Final = 32
"""Tokens of the smallest piece in which a prompt is fed to a device that has no room for more."""


class SlotLoop:
    """Advances all requests of an engine; lives on one thread.

    `live[i]` is the request in row i of the cache. A prompt that is fed in pieces has the row after them.
    """

    def __init__(
        self, runtime: Runtime, *, max_rows: int, max_tokens: int, chunk: int = CHUNK, idle_chunk: int = IDLE_CHUNK
    ) -> None:
        """Set the bounds.

        Args:
            runtime: The model.
            max_rows: Most requests in one forward pass.
            max_tokens: Most rows × columns of the cache; a single request may exceed it.
            chunk: See the module's constants.
            idle_chunk: See the module's constants.
        """
        self.runner = SlotRunner(runtime, max_rows)
        self.live: list[Job] = []
        self.queue = Queue()
        self._runtime = runtime
        self._max_rows = max_rows
        self._max_tokens = max_tokens
        self._chunk = chunk
        self._idle_chunk = idle_chunk
        self._partial: Job | None = None
        self._fed = 0
        self._entering: list[Job] = []
        """Out of the queue, and not yet live."""
        self._second_chance = True
        """Of a piece that is as small as it gets."""
        self._most_fed = idle_chunk
        """Prompt tokens fed at once, fewer for a while after the device had no room for more."""
        self._calm = 0
        self._at_once = max_rows
        """Rows in one pass, fewer for a while after the device had no room for more."""
        self._most_live = max_rows
        """Live rows above which nobody is admitted, because the device had no room for the cache of one more."""

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return bool(self.live or self.queue or self._partial)

    def add(self, job: Job) -> None:
        """Queue a request."""
        self.queue.add(job)

    @torch.inference_mode()
    def step(self) -> None:
        """Let go of who has left, feed prompts, and give every live row one more token.

        Raises:
            WonderError: Nothing that is under way can go on.
        """
        try:
            self._step()
        except WonderError:
            raise
        except Exception as error:
            raise failure(error, self._runtime.model) from error

    def _step(self) -> None:
        self._let_go()
        self._admit()
        self._let_go()
        if self.live:
            self._advance(0, len(self.live))
            self._let_go()
        if not self.has_work:
            self.rest()

    def rest(self) -> None:
        """Nothing is under way: leave the model as if nobody were watching it."""
        self._runtime.taps.watch(())
        self._runtime.experts.for_prompts()
        self._at_once = self._most_live = self._max_rows
        self._most_fed = self._idle_chunk

    def abort(self, error: BaseException) -> None:
        """End everything with this error, and start afresh."""
        partial = [self._partial] if self._partial else []
        for job in [*self.live, *partial, *self._entering, *self.queue.take_all()]:
            job.end(error)
        self.live, self._partial, self._entering = [], None, []
        self.runner = SlotRunner(self._runtime, self._max_rows)
        self.rest()

    def _let_go(self) -> None:
        """Free the rows of requests that are over, cancelled ones included."""
        self.queue.drop_ended()
        if self._partial is not None and self._partial.is_over:
            self.runner.cache.clear(len(self.live), 0, len(self._partial.prompt))
            self._partial = None
        for row in range(len(self.live) - 1, -1, -1):
            if self.live[row].is_over:
                self._leave(row)

    def _leave(self, row: int) -> None:
        """Keep the live rows together: the last one takes the place of the one that leaves."""
        last = len(self.live) - 1
        # One column more than it holds: a pass that failed may have written there.
        written = self.live[row].length + 1
        if row < last:
            self.runner.move(last, row, self.live[last].length, written)
            self.live[row] = self.live[last]
        else:
            self.runner.cache.clear(row, 0, written)
        self.live.pop()
        if self._partial is not None:
            self.runner.move(last + 1, last, self._fed, 0)

    def _admit(self) -> None:
        room = min(self._chunk if self.live else self._idle_chunk, self._most_fed)
        if self._partial is not None:
            self._feed_piece(room)
            return
        admitted: list[Job] = []
        if len(self.live) > self._most_live:
            return
        while (job := self.queue.best()) is not None and self._fits([*self.live, *admitted, job]):
            if len(job.prompt) > room and admitted:
                break
            if not self._lay_out([*self.live, *admitted, job]):
                break
            self.queue.take(job)
            job.began_s = time.perf_counter()
            if len(job.prompt) > room:
                self._partial, self._fed = job, 0
                self._feed_piece(room)
                return
            room -= len(job.prompt)
            admitted.append(job)
            self._entering.append(job)
        admitted.sort(key=lambda job: len(job.prompt))
        cost = PASS_TOKENS.get(self._runtime.device.type, PASS_TOKENS_ELSEWHERE)
        for size in passes([len(job.prompt) for job in admitted], cost):
            self._feed(admitted[:size])
            del admitted[:size]
        self._entering = []

    def _fits(self, jobs: list[Job]) -> bool:
        columns = max(job.columns for job in jobs)
        return len(jobs) <= self._max_rows and (len(jobs) == 1 or len(jobs) * columns <= self._max_tokens)

    def _lay_out(self, jobs: list[Job]) -> bool:
        """Make room in the cache; where the device has none, the newest one waits, or fails if it is alone."""
        cache, newest = self.runner.cache, jobs[-1]
        try:
            cache.reserve(len(jobs), max(job.columns for job in jobs), len(self.live), self._max_tokens)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if len(jobs) == 1:
                self.queue.take(newest)
                newest.end(no_room(self._runtime.device, newest))
                self.runner = SlotRunner(self._runtime, self._max_rows)
            else:
                self._most_live = max(0, len(self.live) - 1)
            return False
        self._most_live = self._max_rows
        return True

    def _feed(self, jobs: list[Job], *, again: bool = True) -> None:
        """Feed whole prompts in one pass, the last of which is the longest; the shorter ones are padded.

        Where that fails, each half, so that only who cannot be served fails.
        """
        if len(jobs) > self._at_once:
            self._feed(jobs[: self._at_once])
            self._feed(jobs[self._at_once :])
            return
        first = len(self.live)
        attempt = Attempt(jobs)
        try:
            done = self.runner.prefill(
                first,
                [job.prompt for job in jobs],
                0,
                [job.readings for job in jobs],
                [job.draw for job in jobs],
                [job.constraint for job in jobs],
                [job.injected for job in jobs],
            )
        except Exception as error:
            full = self._failed(jobs, error, again=again)
            for row in range(first, first + len(jobs)):
                self.runner.cache.clear(row, 0, len(jobs[-1].prompt))
        else:
            assert done is not None
            self._begin(jobs, done)
            return
        # Outside the handler: while the error is held, so are the frames and tensors of the attempt.
        attempt.undo()
        if full:
            self._mistrust(len(jobs))
        if len(jobs) > 1:
            half = (len(jobs) + 1) // 2
            self._feed(jobs[:half])
            self._feed(jobs[half:])
        elif jobs[0].is_over:
            return
        elif len(jobs[0].prompt) > LEAST and self._partial is None:
            self._most_fed = max(LEAST, len(jobs[0].prompt) // 2)
            self._partial, self._fed = jobs[0], 0  # fed in pieces from the next step on
        else:
            self._feed(jobs, again=False)

    def _feed_piece(self, room: int) -> None:
        """Feed the next piece of the prompt that is too long to be fed at once."""
        job = self._partial
        assert job is not None
        piece = job.prompt[self._fed : self._fed + room]
        is_last = self._fed + len(piece) == len(job.prompt)
        draws = [job.draw] if is_last else None
        attempt = Attempt([job])
        try:
            done = self.runner.prefill(
                len(self.live), [piece], self._fed, [job.readings], draws, [job.constraint], [job.injected]
            )
        except Exception as error:
            self._failed([job], error, again=len(piece) > LEAST or self._second_chance)
        else:
            self._fed += len(piece)
            self._second_chance = True
            if done is not None:
                self._partial = None
                self._begin([job], done)
            return
        # With the next step its row is freed, or it is fed a smaller piece.
        attempt.undo()
        self._second_chance = len(piece) > LEAST
        self._most_fed, self._calm = max(LEAST, len(piece) // 2), 0
        _free()

    def _begin(self, jobs: list[Job], done: Pass) -> None:
        """The prompts are fed, and the first tokens known."""
        now = time.perf_counter()
        for job in jobs:
            job.prefill_s = now - job.began_s
            job.neighbours = max(job.neighbours, len(jobs))
        self.live += jobs
        self._push(jobs, done)

    def _advance(self, first: int, stop: int) -> None:
        for start in range(first, stop, self._at_once):
            self._decode(start, min(start + self._at_once, stop))

    def _decode(self, first: int, stop: int, *, again: bool = True) -> None:
        """One step of some rows; where that fails, of each half, so that only who cannot be served fails."""
        jobs = self.live[first:stop]
        if all(job.is_over for job in jobs):
            return
        attempt = Attempt(jobs)
        try:
            done = self.runner.decode(
                first,
                [job.row.tokens[-1] for job in jobs],
                [job.length for job in jobs],
                [job.readings for job in jobs],
                [job.draw for job in jobs],
                [job.constraint for job in jobs],
                [job.injected for job in jobs],
            )
        except Exception as error:
            full = self._failed(jobs, error, again=again)
        else:
            for job in jobs:
                job.neighbours = max(job.neighbours, len(jobs))
            self._push(jobs, done)
            self._recover()
            return
        attempt.undo()
        if full:
            self._mistrust(len(jobs))
        if len(jobs) > 1:
            half = first + (len(jobs) + 1) // 2
            self._decode(first, half)
            self._decode(half, stop)
        else:
            self._decode(first, stop, again=False)

    def _failed(self, jobs: list[Job], error: Exception, *, again: bool) -> bool:
        """Tell a request that failed alone why; one that found no room gets a second chance if `again`.

        Returns:
            Whether it was for lack of room.

        Raises:
            DeviceLost: Nobody can go on.
        """
        full, found = is_out_of_memory(error), told(error, jobs[0], self._runtime)
        if len(jobs) == 1 and not (full and again):
            jobs[0].end(found)
        return full

    def _mistrust(self, rows: int) -> None:
        """The device has no room for so many rows in one pass."""
        self._at_once, self._calm = (rows + 1) // 2, 0
        _free()

    def _recover(self) -> None:
        """A device that had no room once is not mistrusted for ever."""
        if self._at_once < self._max_rows or self._most_fed < self._idle_chunk:
            self._calm += 1
            if self._calm >= CALM:
                self._at_once = min(2 * self._at_once, self._max_rows)
                self._most_fed = min(2 * self._most_fed, self._idle_chunk)
                self._calm = 0

    def _push(self, jobs: list[Job], done: Pass) -> None:
        """Hand every row its token, and the finished ones their outcome."""
        streams = any(job.on_token is not None and not job.is_over for job in jobs)
        confidences = done.confidences() if streams else [None] * len(jobs)
        for job, token, confidence in zip(jobs, done.tokens, confidences, strict=True):
            if job.is_over:
                continue
            try:
                self._hand(job, token, confidence)
            except Exception as error:
                self._failed([job], error, again=False)

    def _hand(self, job: Job, token: int, confidence: float | None) -> None:
        job.row.push(token)
        if job.constraint is not None:
            job.constraint.accept(token)
        job.row.finished_s = time.perf_counter() - job.began_s
        job.emit(job.row.latest, confidence if job.plan is not None else None)
        if job.row.finished and not job.is_over:
            self._finish(job)

    def _finish(self, job: Job) -> None:
        try:
            job.end(self._answered(job))
            return
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        _free()
        job.end(self._answered(job))

    def _answered(self, job: Job) -> Answered:
        readings = None
        # Taken once: a caller who cancels now takes the job's own reference away.
        if (found := job.readings) is not None:
            self.runner.aggregates(found, self.live.index(job))
            anatomy, recorder = self._runtime.anatomy, self.runner.recorder
            collected = finish(found, anatomy.config, anatomy.n_layers, len(job.prompt), anatomy.vocabulary)
            readings = collected.as_batch(recorder.experts, recorder.unread)
            if (lens := self._runtime.lens) is not None and (wanted := found.plan.lens_layers):
                tokens_N1 = torch.tensor(job.row.tokens)[:, None]
                through = read_lens(lens, wanted, row_states(found.kept, wanted), tokens_N1)
                readings = replace(readings, lens=through)
            if wanted := found.plan.explain_layers:
                states_WN1D = row_states(found.kept, wanted).transpose(0, 1).cpu()
                readings = replace(readings, states_NBD=dict(zip(wanted, states_WN1D, strict=True)))
        layout = Layout(torch.tensor([job.prompt]), [len(job.prompt)], "left")
        batch = BatchResult([job.row], layout, readings, job.prefill_s, job.neighbours, "slots")
        return Answered(batch, 0, job.plan, job.began_s - job.asked_s)


def _free() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
