"""The activities of a pool: start a job, follow it to its end, end it. They keep nothing, so any worker can go on."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar

from temporalio import activity
from temporalio.client import WorkflowExecutionStatus
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError

from lens_training.job.making import epoch_of, job_for
from lens_training.job.orders import JobEnd, JobOrder, JobTicket, WatchOrder
from lens_training.job.watching import Watch
from lens_training.launch.base import JobLauncher
from lens_training.run_spec import LaunchSpec, RunSpec
from lens_training.spec import parse
from lens_training.train.kept import go_back
from lens_training.train.segment import next_epoch, take_lease
from wonder.errors import JobConflict, JobLost, LauncherUnavailable, WonderError
from wonder.names import LENS_REPORT_SIGNAL, STOP_JOB, SUBMIT_JOB, WATCH_JOB
from wonder.training.types import LensReport

T = TypeVar("T")

BEAT_S: Final = 5.0
"""Between heartbeats."""
FIRST_REPORT_S: Final = 15.0
REPORT_SHARE: Final = 0.02
"""The run is told of progress after so long, and later every 2 % of the time that has passed: a signal is an event of
the history, and a day of them is about 200."""


class TrainingJobs:
    """What a worker of the role `train` serves; which launcher runs a job is the composition's choice."""

    def __init__(
        self,
        choose: Callable[[LaunchSpec], JobLauncher],
        *,
        glance_s: float = 2.0,
        patience_s: float = 900.0,
        first_report_s: float = FIRST_REPORT_S,
    ) -> None:
        """Choose how closely jobs are followed.

        Args:
            choose: The launcher for a specification's `launch`.
            glance_s: Between looks at a job; at most 5.
            patience_s: How long a place where jobs run may refuse or not answer.
            first_report_s: Until the run itself is first told of progress.
        """
        self._choose = choose
        self._glance_s = min(glance_s, BEAT_S)
        self._patience_s = patience_s
        self._first_report_s = first_report_s

    @property
    def activities(self) -> Sequence[Callable[..., Any]]:
        """All of them, for a worker."""
        return [self.submit_job, self.watch_job, self.stop_job]

    @activity.defn(name=SUBMIT_JOB)
    async def submit_job(self, order: JobOrder) -> JobTicket:
        """Start a job, or find the one that this order started before."""
        with _speaking():
            return await self._submit(order)

    @activity.defn(name=WATCH_JOB)
    async def watch_job(self, watched: WatchOrder) -> JobEnd:
        """Follow a job to its end; cancelled, end it with a checkpoint.

        A worker that is drained leaves the job as it is, for the next one to follow.
        """
        with _speaking():
            watch = self._watch(watched)
            following = asyncio.create_task(self._follow(watch))
            draining = asyncio.create_task(activity.wait_for_worker_shutdown())
            cancelled = False
            try:
                await asyncio.wait({following, draining}, return_when=asyncio.FIRST_COMPLETED)
                if following.done():
                    return following.result()
            except asyncio.CancelledError:
                cancelled = True
            finally:
                for task in (following, draining):
                    task.cancel()
                await asyncio.gather(following, draining, return_exceptions=True)
            if not cancelled:
                raise ApplicationError("this worker is drained; the job goes on", type="WorkerDrained")
            if await _is_unwanted():
                return await self._beating(watch.cancel())
            raise asyncio.CancelledError

    @activity.defn(name=STOP_JOB)
    async def stop_job(self, watched: WatchOrder) -> JobEnd:
        """End a job that nobody follows, with a checkpoint."""
        with _speaking():
            if watched.ticket is None:
                spec = parse(RunSpec, watched.order.spec)
                found = await self._choose(spec.launch).find(watched.order.key)
                if found is None:
                    return JobEnd(how="preempted", message="stopped before it began")
                epoch = epoch_of(watched.order, spec) if watched.order.stage == "train" else 0
                watched = watched.model_copy(update={"ticket": JobTicket(ref=found, epoch=epoch)})
            return await self._beating(self._watch(watched).cancel())

    def _watch(self, watched: WatchOrder) -> Watch:
        spec = parse(RunSpec, watched.order.spec)
        if watched.ticket is None:
            raise JobLost(f"{watched.order.key} is to be followed, and was never started")
        return Watch(self._choose(spec.launch), watched.order, watched.ticket, self._patience_s)

    async def _submit(self, order: JobOrder) -> JobTicket:
        spec = parse(RunSpec, order.spec)
        launcher = self._choose(spec.launch)
        deadline = time.monotonic() + self._patience_s
        while True:
            try:
                return await self._beating(self._submit_once(launcher, order, spec))
            except (LauncherUnavailable, JobConflict):
                if time.monotonic() >= deadline:
                    raise
            activity.heartbeat({"stage": order.stage, "state": "waits for the launcher"})
            await asyncio.sleep(self._glance_s)

    async def _submit_once(self, launcher: JobLauncher, order: JobOrder, spec: RunSpec) -> JobTicket:
        found = await launcher.find(order.key)
        if order.stage != "train":
            return JobTicket(ref=found or await launcher.submit(job_for(order, spec, 0)))
        if found is None:
            if order.back_to is not None:
                go_back(spec.run_folder, order.back_to)
            epoch = next_epoch(spec.run_folder)
            found = await launcher.submit(job_for(order, spec, epoch))
            # From here on no earlier attempt publishes anything, even one that the launcher has lost sight of.
            take_lease(spec.run_folder, epoch)
            return JobTicket(ref=found, epoch=epoch)
        return JobTicket(ref=found, epoch=epoch_of(order, spec))

    async def _follow(self, watch: Watch) -> JobEnd:
        began = told = time.monotonic()
        told_last: list[dict[str, Any]] = []
        while True:
            looking = asyncio.create_task(watch.look())
            try:
                while not (await asyncio.wait({looking}, timeout=self._glance_s))[0]:
                    activity.heartbeat(*told_last)
            finally:
                looking.cancel()
            report, end = looking.result()
            told_last = [report.model_dump(mode="json", exclude_defaults=True)]
            activity.heartbeat(*told_last)
            if end is not None:
                return end
            now = time.monotonic()
            if now - told >= max(self._first_report_s, REPORT_SHARE * (now - began)):
                told = now
                await _tell(report)
            await asyncio.sleep(self._glance_s)

    async def _beating(self, work: Awaitable[T]) -> T:
        """Heartbeat while something takes its time; a second cancellation changes nothing."""
        task = asyncio.ensure_future(work)
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({task}, timeout=self._glance_s)
            activity.heartbeat()
        return task.result()


@contextmanager
def _speaking() -> Iterator[None]:
    """Our errors as failures that carry their name and their sentence; whoever ordered the job decides what follows."""
    try:
        yield
    except WonderError as error:
        raise ApplicationError(str(error), type=type(error).__name__, non_retryable=True) from None


async def _tell(report: LensReport) -> None:
    """Let the run know how far it is; a server that does not answer now is told next time."""
    info = activity.info()
    if info.workflow_id is None:
        return
    with suppress(RPCError):
        await activity.client().get_workflow_handle(info.workflow_id).signal(LENS_REPORT_SIGNAL, report)


async def _is_unwanted() -> bool:
    """Whether the job itself should end, and not only this watch over it.

    A watch that timed out, or whose worker is drained, is followed by another one. One that the server no longer knows
    may belong to a run that was terminated: then nobody would ever end the job.
    """
    details = activity.cancellation_details()
    if details is None or details.worker_shutdown or details.timed_out or details.paused or details.reset:
        return False
    if details.cancel_requested:
        return True
    info = activity.info()
    if not details.not_found or info.workflow_id is None:
        return False
    handle = activity.client().get_workflow_handle(info.workflow_id, run_id=info.workflow_run_id)
    try:
        found = await handle.describe()
    except RPCError:
        return False  # a server that was started anew knows nothing for a moment, not even its namespaces
    ended = (WorkflowExecutionStatus.TERMINATED, WorkflowExecutionStatus.CANCELED, WorkflowExecutionStatus.TIMED_OUT)
    return found.status in ended or found.status is WorkflowExecutionStatus.FAILED
