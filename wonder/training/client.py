"""`LensRuns`: start a lens's training, see how it stands, and change its course; refusals are Wonder's errors."""

from datetime import timedelta
from typing import Any, Final, TypeVar

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleUpdate,
    ScheduleUpdateInput,
    WorkflowFailureError,
    WorkflowHandle,
    WorkflowQueryFailedError,
    WorkflowUpdateFailedError,
)
from temporalio.exceptions import ApplicationError, FailureError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from wonder.errors import SpecError, TrainingError, UnknownRun, WonderError, WorkerMissing, by_name
from wonder.names import LENS_PROGRESS_QUERY, LENS_SWEEP, LENS_TRAINING, WORKFLOW_QUEUE, lens_run_id, train_queue
from wonder.training.types import ExtendInput, LensProgress, LensReport, LensResult, LensRun, SweepResult, SweepRun

T = TypeVar("T")

ANSWER: Final = timedelta(seconds=10)
"""How long a workflow worker may take to answer."""


class LensRuns:
    """Runs of `wonder.LensTraining` on a server; a run is named by its workflow id, or by the lens's name."""

    def __init__(self, client: Client, *, task_queue: str = WORKFLOW_QUEUE) -> None:
        """`task_queue` is the one on which workflow workers serve lens training."""
        self._client = client
        self._queue = task_queue

    async def train(self, given: LensRun, id: str = "") -> WorkflowHandle[Any, LensResult]:
        """Start a run; a lens has one run at a time.

        Raises:
            SpecError: A run of this id goes on.
        """
        workflow_id = id or lens_run_id(str(given.spec.get("name", "lens")))
        return await self._start(LENS_TRAINING, given, workflow_id, LensResult)

    async def sweep(self, given: SweepRun, id: str = "") -> WorkflowHandle[Any, SweepResult]:
        """Start a sweep.

        Raises:
            SpecError: One of this id goes on.
        """
        workflow_id = id or lens_run_id(f"{given.spec.get('name', 'lens')}-sweep")
        return await self._start(LENS_SWEEP, given, workflow_id, SweepResult)

    async def status(self, run: str) -> LensProgress:
        """How a run stands, with what its job's newest heartbeat says.

        Raises:
            UnknownRun: There is none of that name.
            WorkerMissing: No workflow worker answers.
        """
        handle = await self.find(run)
        try:
            found: LensProgress = await handle.query(LENS_PROGRESS_QUERY, result_type=LensProgress, rpc_timeout=ANSWER)
            described = await handle.describe()
        except RPCError as error:
            raise _unanswered(error, handle.id) from error
        except WorkflowQueryFailedError as error:
            raise UnknownRun(f"{handle.id} is no run of a lens's training ({error})") from error
        for pending in described.raw_description.pending_activities:
            if pending.HasField("heartbeat_details"):
                beat = await self._client.data_converter.decode(pending.heartbeat_details.payloads, [dict])
                if beat and beat[0].get("stage"):
                    report = LensReport.model_validate(beat[0])
                    newest = {"step": max(found.step, report.step or 0)}
                    newest["checkpoint"] = max(found.checkpoint, report.checkpoint)
                    found = found.model_copy(update={"report": report, **newest})
        return found

    async def change(self, run: str, verb: str, more: ExtendInput | None = None) -> LensProgress:
        """Pause, resume, stop or extend a run.

        Raises:
            SpecError: It cannot be done now, or not so; nothing was changed.
            UnknownRun: There is no such run, or it is over.
            WorkerMissing: No workflow worker answers.
        """
        handle = await self.find(run)
        given = [] if more is None else [more]
        try:
            found: LensProgress = await handle.execute_update(
                verb, args=given, result_type=LensProgress, rpc_timeout=ANSWER
            )
        except WorkflowUpdateFailedError as error:
            raise _refused(error, handle.id) from error
        except RPCError as error:
            raise _unanswered(error, handle.id) from error
        return found

    async def result(self, run: str) -> LensResult:
        """Wait for the end of a run.

        Raises:
            WonderError: It failed, with the sentence of what failed.
        """
        return await self._result((await self.find(run)).id, LensResult)

    async def sweep_result(self, id: str) -> SweepResult:
        """Wait for the end of a sweep.

        Raises:
            WonderError: It failed, with the sentence of what failed.
        """
        return await self._result(id, SweepResult)

    async def _result(self, id: str, kind: type[T]) -> T:
        try:
            found: T = await self._client.get_workflow_handle(id, result_type=kind).result()
        except WorkflowFailureError as error:
            raise reason_of(error) from error
        return found

    async def has_worker(self, pool: str) -> bool:
        """Whether anybody polls a pool's queue."""
        found = await self._client.workflow_service.describe_task_queue(
            DescribeTaskQueueRequest(
                namespace=self._client.namespace,
                task_queue=TaskQueue(name=train_queue(pool)),
                task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
            )
        )
        return bool(found.pollers)

    async def schedule(
        self, id: str, given: LensRun, cron: str, *, overlap: ScheduleOverlapPolicy = ScheduleOverlapPolicy.SKIP
    ) -> bool:
        """Train again and again; a schedule of that id is changed, and stays paused where it is. True: it is new.

        Raises:
            SpecError: Every run would find the work of the first one done, or the times cannot be read.
        """
        if "{time}" not in str(given.spec.get("folder", "")):
            raise SpecError(
                f"folder {given.spec.get('folder')!r} is the same for every run, which would find its work done: put "
                "{time} into it, which becomes the time that a run is due at"
            )
        action = ScheduleActionStartWorkflow(
            LENS_TRAINING,
            given,
            id=lens_run_id(f"{given.spec.get('name', 'lens')}-scheduled"),
            task_queue=self._queue,
            static_summary=f"train the lens {given.spec.get('name', 'lens')} again",
        )
        made = Schedule(
            action=action,
            spec=ScheduleSpec(cron_expressions=[cron]),
            policy=SchedulePolicy(overlap=overlap, catchup_window=timedelta(hours=6)),
        )
        try:
            await self._client.create_schedule(id, made)
        except ScheduleAlreadyRunningError:

            def changed(was: ScheduleUpdateInput) -> ScheduleUpdate:
                made.state = was.description.schedule.state
                return ScheduleUpdate(schedule=made)

            await self._client.get_schedule_handle(id).update(changed)
            return False
        except RPCError as error:
            said = f"{cron!r} is refused ({error.message}): write minute hour day month weekday"
            raise SpecError(said) from error
        return True

    async def find(self, run: str) -> WorkflowHandle[Any, Any]:
        """A run by the lens's name, or by its workflow id.

        Raises:
            UnknownRun: There is none.
        """
        for id in dict.fromkeys((lens_run_id(run), run)):
            handle = self._client.get_workflow_handle(id)
            try:
                await handle.describe()
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND:
                    raise _unanswered(error, id) from error
            else:
                return handle
        raise UnknownRun(f"there is no run {lens_run_id(run)} or {run}: `temporal workflow list` shows what there is")

    async def _start(
        self, kind: str, given: LensRun | SweepRun, id: str, result: type[Any]
    ) -> WorkflowHandle[Any, Any]:
        try:
            return await self._client.start_workflow(
                kind, given, id=id, task_queue=self._queue, result_type=result, static_summary=kind
            )
        except WorkflowAlreadyStartedError:
            raise SpecError(
                f"{id} goes on already: `wonder lens status {id}` shows it; stop it first, or choose another --id"
            ) from None


def reason_of(error: WorkflowFailureError) -> WonderError:
    """Why a run ended, as one of our errors."""
    cause: BaseException | None = error.cause
    while isinstance(cause, FailureError) and not isinstance(cause, ApplicationError) and cause.cause is not None:
        cause = cause.cause
    if isinstance(cause, ApplicationError):
        return (by_name(cause.type or "") or TrainingError)(cause.message)
    return TrainingError(f"the run ended: {cause}")


def _refused(error: WorkflowUpdateFailedError, id: str) -> WonderError:
    cause = error.cause
    if isinstance(cause, ApplicationError) and (kind := by_name(cause.type or "")) is not None:
        return kind(cause.message)
    said = cause.message if isinstance(cause, FailureError) else str(cause)
    return SpecError(f"{id} refused: {said}")


def _unanswered(error: RPCError, id: str) -> WonderError:
    if error.status is RPCStatusCode.NOT_FOUND:
        return UnknownRun(f"there is no run {id} that goes on: `wonder lens status {id}` shows how it ended")
    return WorkerMissing(f"no worker answered for {id} ({error.message}): start `wonder-cpu-worker`, or `wonder dev`")
