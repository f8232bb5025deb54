"""`wonder.LensTraining`: from texts to a registered lens, through whatever happens to the machines on the way."""

import asyncio
from datetime import timedelta
from typing import Any, Final

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

from lens_training.evaluate.gate import gate
from lens_training.job.endings import Verdict, after
from lens_training.job.extending import extended
from lens_training.job.memory import Memory
from lens_training.job.orders import JobEnd, JobOrder, JobTicket, WatchOrder
from wonder.errors import LensNotPromoted, SpecError, TrainingError, WonderError, by_name
from wonder.names import (
    LENS_PROGRESS_QUERY,
    LENS_REPORT_SIGNAL,
    LENS_TRAINING,
    STOP_JOB,
    SUBMIT_JOB,
    WATCH_JOB,
    train_queue,
)
from wonder.training.types import (
    STAGES,
    ExtendInput,
    LensProgress,
    LensReport,
    LensResult,
    LensRun,
    Outcome,
    Stage,
    State,
    Tries,
)

LONG: Final = timedelta(days=3650)
"""Heartbeats tell whether a watch is alive, not how long it takes."""
AGAIN: Final = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=30))
ENDS: Final[dict[Stage, Outcome]] = {
    "train": "trained",
    "evaluate": "evaluated",
    "gate": "evaluated",
    "export": "exported",
    "register": "registered",
}


@workflow.defn(name=LENS_TRAINING)
class LensTraining:
    """Drives one run, stage by stage.

    Every job is ordered under a key of its own and followed apart from that, so that a worker that dies is followed by
    one that finds the job where it is. What was done is known from what the jobs write, never from memory: a stage that
    is done does nothing again.
    """

    @workflow.init
    def __init__(self, given: LensRun) -> None:
        self._run = Memory(given)
        self._began = self._run.carried.segments

    @workflow.run
    async def run(self, given: LensRun) -> LensResult:
        """Go through the stages that are left.

        Raises:
            SpecError: The specification cannot be.
            WonderError: A stage failed for good, with the sentence of what failed.
        """
        if self._run.refusal is not None:
            raise self._run.refusal
        self._run.publish(opening=True)
        try:
            outcome = await self._stages(STAGES.index(given.until))
        except LensNotPromoted as error:
            outcome, self._run.reasons = "refused", [str(error)]
        except WonderError as error:
            self._run.note(f"failed: {error}")
            await self._over("failed")
            raise
        await self._over("stopped" if outcome == "stopped" else "refused" if outcome == "refused" else "done")
        if self._run.cancelled:
            raise asyncio.CancelledError
        return self._run.result(outcome)

    async def _stages(self, last: int) -> Outcome:
        while self._run.carried.at <= last:
            stage = self._run.stage
            if stage == "train" and self._run.spec.run is None:
                return "data"
            if not await self._work(stage):
                return "refused" if self._run.reasons else "stopped"
            self._run.carried.at += 1
            self._run.carried.tries = Tries()
            self._run.live = None
            self._run.publish()
        if STAGES[last] == "register" and not self._run.spec.register_as.registry:
            return "exported"
        return ENDS.get(STAGES[last], "data")

    async def _work(self, stage: Stage) -> bool:
        """One stage; whether it is done, else the run was told to stop or the lens was refused."""
        slices = self._run.spec.launch.dump_slices
        if stage == "train":
            return await self._train()
        if stage == "gate":
            return self._passes()
        if stage == "merge" and slices == 1:
            return True  # a dump of one slice merges itself
        if stage == "register" and not self._run.spec.register_as.registry:
            return True
        parts = [f"{at}/{slices}" for at in range(slices)] if stage == "dump" and slices > 1 else [""]
        try:
            # All of them come to their end, so that none is left running where another one failed.
            ends = await asyncio.gather(*(self._job(stage, part) for part in parts), return_exceptions=True)
        except asyncio.CancelledError:
            return False  # each part has stopped its job
        for end in ends:
            if isinstance(end, BaseException):
                raise end
        return all(ends)

    async def _job(self, stage: Stage, part: str) -> bool:
        """One job of a stage until it is done; False where the run was told to stop."""
        tries = Tries()
        while await self._may_go_on():
            end = await self._once(self._order(stage, part, tries))
            if end is None:
                continue
            verdict = after(end, tries, training=False, asked=self._run.halted)
            tries = verdict.tries
            if await self._is_done(verdict, f"{stage} {part}".strip()):
                if stage == "evaluate":
                    self._run.judged = end
                return True
        return False

    async def _train(self) -> bool:
        """Segments until every step is done; whether they are."""
        while await self._may_go_on():
            await self._continue_as_new()
            kept = self._run.carried
            end = await self._once(self._order("train", "", kept.tries))
            if end is None:
                continue
            kept.step, kept.checkpoint = end.step, end.checkpoint
            verdict = after(end, kept.tries, training=True, asked=self._run.halted)
            kept.tries = verdict.tries
            if await self._is_done(verdict, "train"):
                kept.segments += 1
                kept.segment += 1
                if end.how == "completed" and kept.step >= self._run.steps:
                    return True
        return False

    async def _is_done(self, verdict: Verdict, what: str) -> bool:
        """Act on a verdict: whether the job was one that ended well.

        Raises:
            WonderError: It failed for good.
        """
        if verdict.then == "go_on":
            return True
        if verdict.then == "fail":
            kind = by_name(verdict.error) or TrainingError
            raise kind(f"{what}: {verdict.note}")
        if verdict.note:
            self._run.carried.restarts += 1
            self._run.note(f"{what}: {verdict.note}")
            if verdict.wait_s:
                await self._sleep(verdict.wait_s)
        return False

    # Jobs ---------------------------------------------------------------------------------------------------------

    def _order(self, stage: Stage, part: str, tries: Tries) -> JobOrder:
        info = workflow.info()
        run = f"{info.workflow_id}/{info.first_execution_run_id[:8]}"
        what = f"train/{self._run.carried.segment}" if stage == "train" else f"{stage}-{part}" if part else stage
        order = JobOrder(
            key=f"{run}/{what}/{tries.attempt}", stage=stage, part=part, spec=self._run.spec.model_dump(mode="json")
        )
        if stage != "train":
            return order
        launch = self._run.spec.launch
        until = None if launch.segment_steps is None else self._run.carried.step + launch.segment_steps
        return order.model_copy(
            update={
                "until_step": until,
                "max_seconds": launch.segment_seconds,
                "rate_scale": tries.rate_scale,
                "pieces": tries.pieces,
                "back_to": tries.back_to,
            }
        )

    async def _once(self, order: JobOrder) -> JobEnd | None:
        """Start a job and follow it to its end, or end it where the run is to pause or stop; None: it never began."""
        self._run.live = None
        self._run.publish()
        ticket: JobTicket | None = None
        try:
            ticket = await self._unless_halted(SUBMIT_JOB, order, JobTicket)
            found: JobEnd = await self._unless_halted(WATCH_JOB, WatchOrder(order=order, ticket=ticket), JobEnd)
        except ActivityError as error:
            if ticket is None and is_cancelled_exception(error):
                return None
            if not self._run.halted or isinstance(_ours(error), WonderError):
                raise _ours(error) from error
            # Nobody was following the job when the wish came, so nobody has ended it.
            found = await self._activity(STOP_JOB, WatchOrder(order=order, ticket=ticket), JobEnd)
        return found

    async def _unless_halted(self, name: str, given: JobOrder | WatchOrder, result: type[Any]) -> Any:
        """An activity that is cancelled, and waited for, once the run is to pause or stop."""
        running = self._activity(name, given, result)
        try:
            await workflow.wait_condition(lambda: running.done() or self._run.halted)
        except asyncio.CancelledError:
            self._run.cancel()
        if not running.done():
            running.cancel()
        return await running

    def _activity(self, name: str, given: JobOrder | WatchOrder, result: type[Any]) -> workflow.ActivityHandle[Any]:
        order = given.order if isinstance(given, WatchOrder) else given
        verb = {SUBMIT_JOB: "start", WATCH_JOB: "follow", STOP_JOB: "end"}[name]
        segment = f"segment {self._run.carried.segment}"
        what = segment if order.stage == "train" else f"{order.stage} {order.part}".strip()
        return workflow.start_activity(
            name,
            given,
            result_type=result,
            task_queue=train_queue(self._run.given.pool),
            start_to_close_timeout=LONG,
            heartbeat_timeout=timedelta(seconds=self._run.given.heartbeat_timeout_s),
            retry_policy=AGAIN,
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            summary=f"{verb} {what}",
        )

    # Wishes -------------------------------------------------------------------------------------------------------

    async def _may_go_on(self) -> bool:
        """Wait while the run is paused; False once it is to stop."""
        if self._run.wish == "pause":
            self._run.wish, self._run.carried.paused, self._run.state = None, True, "paused"
            self._run.note(f"paused at step {self._run.carried.step}" if self._run.carried.step else "paused")
        try:
            self._run.publish()
            await workflow.wait_condition(lambda: not self._run.carried.paused or self._run.wish == "stop")
        except asyncio.CancelledError:
            self._run.cancel()
        return self._run.wish != "stop"

    async def _sleep(self, seconds: float) -> None:
        """Until the time is up, or the run is to pause or stop."""
        try:
            await workflow.wait_condition(lambda: self._run.halted, timeout=seconds, timeout_summary="try again")
        except TimeoutError:
            return
        except asyncio.CancelledError:
            self._run.cancel()

    @workflow.update(description="Stop the job with a checkpoint, and wait until the run is resumed")
    def pause(self) -> LensProgress:
        """Ask for it; the query tells when it is done."""
        self._run.wish, self._run.state = "pause", "pausing"
        self._run.publish()
        return self._run.progress()

    @pause.validator
    def _check_pause(self) -> None:
        self._run.check("paused", ("running",))

    @workflow.update(description="Go on with a paused run")
    def resume(self) -> LensProgress:
        """Go on from the newest checkpoint."""
        if self._run.wish == "pause":
            self._run.wish = None
        self._run.carried.paused, self._run.state = False, "running"
        self._run.note("resumed")
        self._run.publish()
        return self._run.progress()

    @resume.validator
    def _check_resume(self) -> None:
        self._run.check("resumed", ("paused", "pausing"))

    @workflow.update(description="Stop the job with a checkpoint, and end the run; another one may go on from there")
    def stop(self) -> LensProgress:
        """Ask for it; the run's result tells the checkpoint."""
        self._run.wish, self._run.state = "stop", "stopping"
        self._run.publish()
        return self._run.progress()

    @stop.validator
    def _check_stop(self) -> None:
        self._run.check("stopped", ("running", "pausing", "paused"))

    @workflow.update(description='Train further: {"steps": 500}, or {"phases": [{"objective": "grpo", "steps": 500}]}')
    def extend(self, more: ExtendInput) -> LensProgress:
        """Append phases; a segment that runs goes on undisturbed."""
        self._run.spec = extended(self._run.spec, more)
        self._run.note(f"extended to {self._run.steps:,} steps")
        self._run.publish()
        return self._run.progress()

    @extend.validator
    def _check_extend(self, more: ExtendInput) -> None:
        self._run.check("extended", ("running", "pausing", "paused"))
        if self._run.carried.at > STAGES.index("train"):
            raise SpecError(
                f"the run is at {self._run.stage}, training is over: start another one with more phases there"
            )
        extended(self._run.spec, more)

    @workflow.signal(name=LENS_REPORT_SIGNAL, description="How far the job is; sent by whoever follows it")
    def report(self, found: LensReport) -> None:
        """Keep it for those who look."""
        self._run.live = found
        self._run.publish()

    @workflow.query(name=LENS_PROGRESS_QUERY, description="How the run stands")
    def progress(self) -> LensProgress:
        """How it stands."""
        return self._run.progress()

    # Ends ---------------------------------------------------------------------------------------------------------

    def _passes(self) -> bool:
        """Hold what was measured against the bars; the reasons are kept where it does not reach them."""
        if self._run.judged is None or self._run.judged.evaluation is None:
            raise SpecError("nothing was measured, so there is nothing to judge: evaluate before the gate")
        verdict = gate(self._run.judged.evaluation, self._run.spec.gate, self._run.judged.current)
        self._run.reasons = [] if verdict.passed else verdict.reasons
        self._run.note(f"gate {'passed' if verdict.passed else 'refused'}: {'; '.join(verdict.reasons)}")
        return verdict.passed

    async def _continue_as_new(self) -> None:
        """Begin a new history when this one has grown; only between segments."""
        due = self._run.carried.segments - self._began >= self._run.given.continue_after
        if not due and not workflow.info().is_continue_as_new_suggested():
            return
        await workflow.wait_condition(workflow.all_handlers_finished)
        spec = self._run.spec.model_dump(mode="json")
        workflow.continue_as_new(self._run.given.model_copy(update={"spec": spec, "carried": self._run.carried}))

    async def _over(self, state: State) -> None:
        self._run.state, self._run.live = state, None
        self._run.publish()
        await workflow.wait_condition(workflow.all_handlers_finished)


def _ours(error: ActivityError) -> BaseException:
    """The failure of an activity as one of our own errors, where it is one."""
    cause = error.cause
    if isinstance(cause, ApplicationError) and cause.type and (kind := by_name(cause.type)) is not None:
        return kind(cause.message)
    return error
