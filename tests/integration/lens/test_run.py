"""A lens's run as a workflow: real server, real workers, real trainers."""

import asyncio
import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import ScheduleActionExecutionStartWorkflow, WorkflowExecutionStatus, WorkflowFailureError
from temporalio.exceptions import ApplicationError

from lens_training.evaluate.record import read_evaluation
from lens_training.launch.base import short_hash
from lens_training.train.kept import latest_step
from lens_training.train.progress import read_progress, read_status
from tests.integration.lens.conftest import QUEUE, Lab, appears, steps, until
from wonder.errors import SpecError, UnknownRun
from wonder.lens.manifest import read_manifest
from wonder.lens.registry import LensRegistry
from wonder.training.client import LensRuns
from wonder.training.types import ExtendInput, LensRun

pytestmark = pytest.mark.timeout(600)


def jobs(lab: Lab) -> list[str]:
    """Keys of the jobs that were begun, without the run's own part."""
    found = [json.loads((path.parent / "job.json").read_text())["key"] for path in lab.jobs.glob("*/started.json")]
    return sorted("/".join(key.split("/")[3:]) for key in found)


async def failure_of(lab: Lab, spec: dict[str, Any], within_s: float = 60, **more: Any) -> ApplicationError:
    handle = await lab.start(spec, **more)
    with pytest.raises(WorkflowFailureError) as caught:
        await asyncio.wait_for(handle.result(), within_s)
    assert isinstance(caught.value.cause, ApplicationError), caught.value.cause
    return caught.value.cause


async def test_from_texts_to_the_registry_by_workers_of_which_one_is_killed(lab: Lab) -> None:
    """Every stage by its real job; the first worker dies in the first segment, and a new history begins after it."""
    first = await lab.worker()
    registry = lab.root / f"registry-{lab.pool}"
    spec = lab.spec(
        folder=str(lab.root / lab.pool),
        run=steps(160),
        launch={"segment_steps": 80},
        evaluation={"rows": 64, "draws": 100, "samples": 2},
        gate={"minimum_fve": -100, "maximum_shuffled_fve": None},
        register_as={"registry": str(registry), "name": "stories"},
    )
    handle = await lab.start(spec, at=0, until="register", continue_after=1)
    folder = lab.root / lab.pool / spec["run_name"]
    await appears(folder / "step_00000020")
    first.send_signal(signal.SIGKILL)
    await lab.worker()
    result = await asyncio.wait_for(handle.result(), 500)
    assert (result.outcome, result.step, result.steps, result.segments) == ("registered", 160, 160, 2)
    assert result.restarts == 0
    assert jobs(lab) == ["dump/0", "evaluate/0", "export/0", "register/0", "tokens/0", "train/1/0", "train/2/0"]
    status = read_status(folder)
    assert status is not None
    assert (status.state, status.step, status.epoch) == ("completed", 160, 1)
    assert [record.step for record in read_progress(folder)] == list(range(20, 161, 20))
    first_history = await lab.client.get_workflow_handle(handle.id, run_id=handle.first_execution_run_id).describe()
    assert first_history.status is WorkflowExecutionStatus.CONTINUED_AS_NEW
    evaluation = read_evaluation(folder)
    assert evaluation is not None
    assert result.evaluation["fve"] == round(evaluation.greedy.fve.value, 4)
    (entry,) = LensRegistry(registry).entries()
    assert entry.version == read_manifest(Path(result.bundle)).digest


async def test_a_run_is_paused_extended_resumed_and_stopped(lab: Lab) -> None:
    await lab.worker()
    spec = lab.spec(run=steps(5000))
    handle = await lab.start(spec)
    folder = lab.root / "data" / spec["run_name"]
    runs = LensRuns(lab.client)
    with pytest.raises(SpecError, match="cannot be resumed: it is running"):
        await runs.change(handle.id, "resume")
    await appears(folder / "step_00000020")
    live = await runs.status(handle.id)
    assert live.report is not None
    assert live.report.job == short_hash(f"{handle.id}/{(handle.first_execution_run_id or '')[:8]}/train/1/0")
    assert (await runs.change(handle.id, "pause")).state == "pausing"
    paused = await until(handle, lambda found: found.state == "paused")
    assert paused.step == paused.checkpoint == latest_step(folder) >= 20
    status = read_status(folder)
    assert status is not None
    assert (status.state, status.step, status.epoch) == ("preempted", paused.step, 0)
    for bad, says in (
        (ExtendInput(), "in one of two ways"),
        (ExtendInput(steps=5, phases=[{"objective": "grpo", "steps": 3}]), "in one of two ways"),
        (ExtendInput(phases=[{"objective": "gpro", "steps": 3}]), r"phases\[0\]: objective is 'gpro'"),
        (ExtendInput(phases=[{"objective": "grpo", "steps": 3, "group": 1}]), "needs at least 2"),
    ):
        with pytest.raises(SpecError, match=says):
            await runs.change(handle.id, "extend", bad)
    assert (await runs.status(handle.id)).steps == 5000
    assert (await runs.change(handle.id, "extend", ExtendInput(steps=70))).steps == 5070
    assert (await runs.change(handle.id, "resume")).state == "running"
    await until(handle, lambda found: found.checkpoint > paused.step)
    assert (await runs.change(handle.id, "stop")).state == "stopping"
    result = await asyncio.wait_for(handle.result(), 60)
    assert (result.outcome, result.steps, result.restarts) == ("stopped", 5070, 0)
    assert result.step == latest_step(folder) > paused.step
    status = read_status(folder)
    assert status is not None
    assert (status.state, status.epoch) == ("preempted", 1)
    assert jobs(lab) == ["train/1/0", "train/1/1"]
    with pytest.raises(UnknownRun, match=r"no run .* that goes on"):
        await runs.change(handle.id, "pause")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"lunch": {}}, "lunch is no setting: did you mean launch"),
        ({"run": {"phases": []}}, r"run\.phases"),
        ({"folder": ""}, "folder"),
        ({"lens": {"length": 50}}, r"dump\.minimum_position"),
    ],
)
async def test_a_specification_that_cannot_be_ends_the_run_at_once(lab: Lab, change: dict[str, Any], says: str) -> None:
    cause = await failure_of(lab, lab.spec(run=steps(10)) | change)
    assert cause.type == "SpecError"
    with pytest.raises(SpecError, match=says):
        raise SpecError(cause.message)


async def test_a_launcher_that_does_not_answer_ends_the_run_with_its_sentence(lab: Lab) -> None:
    lab.jobs.write_text("a file where the folder of jobs was")
    await lab.worker("--patience", "1")
    cause = await failure_of(lab, lab.spec(run=steps(10)))
    assert cause.type == "LauncherUnavailable"
    assert "make room or access" in cause.message


async def test_a_kind_of_launcher_that_a_worker_lacks_is_said(lab: Lab) -> None:
    await lab.worker()
    cause = await failure_of(lab, lab.spec(run=steps(10), launch={"kind": "local", "nodes": 3}))
    assert cause.type == "JobRefused"
    assert "3 nodes" in cause.message


async def test_a_schedule_gives_every_run_a_folder_of_its_time_and_is_changed_in_place(lab: Lab) -> None:
    runs, id = LensRuns(lab.client, task_queue=QUEUE), f"schedule-{lab.pool}"
    given = LensRun(spec=lab.spec(run=steps(10), name=f"lens-{lab.pool}"), pool=lab.pool)
    with pytest.raises(SpecError, match=r"is the same for every run, .* put \{time\} into it"):
        await runs.schedule(id, given, "0 3 * * 0")
    given = given.model_copy(update={"spec": given.spec | {"folder": "data/{time}"}})
    with pytest.raises(SpecError, match="is refused"):
        await runs.schedule(id, given, "whenever")
    assert await runs.schedule(id, given, "0 3 * * 0")
    assert not await runs.schedule(id, given, "0 4 * * 0")
    schedule = lab.client.get_schedule_handle(id)
    await schedule.trigger()
    while not (done := (await schedule.describe()).info.recent_actions):  # noqa: ASYNC110 - the server decides
        await asyncio.sleep(0.1)
    started = done[0].action
    assert isinstance(started, ScheduleActionExecutionStartWorkflow)
    found = await runs.status(started.workflow_id)
    assert re.fullmatch(rf"data/\d{{8}}T\d{{6}}/run-{lab.pool}", found.folder)
    assert not await runs.has_worker(lab.pool)
    await schedule.delete()
    await lab.client.get_workflow_handle(started.workflow_id).terminate()
