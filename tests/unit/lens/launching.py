"""What every launcher is held to, wherever it runs; a suite brings its own fixture `place`."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from lens_training.launch.base import JobLauncher, JobRef, JobSpec, JobState
from wonder.errors import JobConflict, JobLost, LauncherUnavailable

SCRIPT = Path(__file__).with_name("small_job.py")
PATIENCE_S = 120
LONG = timedelta(seconds=60)


@dataclass
class Place:
    """Somewhere that jobs run."""

    launcher: Callable[[], JobLauncher]
    """A new one each time, as after the worker was lost."""
    folder: Path
    outage: Callable[[], AbstractAsyncContextManager[None]] | None = None
    """The place does not answer meanwhile; None where there is nothing between launcher and job."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What every job of this place needs."""
    log_is_a_file: bool = False
    """So that it can be read during an outage."""
    prefix: str = ""
    """Of run folders, where they are no folders of this machine."""
    hold: Callable[[], AbstractContextManager[None]] = nullcontext
    """Nothing that is submitted begins meanwhile."""
    jobs: int = 0

    def job(self, mode: str, **changes: Any) -> JobSpec:
        self.jobs += 1
        name = f"run-{self.jobs}"
        run = self.folder / name
        run.mkdir(exist_ok=True)
        whole = {
            "key": f"{self.folder.name}/{name}/0",
            "argv": [str(SCRIPT), str(run), mode],
            "env": {"COLOUR": "blue; $(touch no) 'and' \"green\""},
            "workdir": str(run),
            "run_folder": f"{self.prefix}{run}",
            **self.settings,
        }
        return JobSpec.model_validate(whole | changes)


def run_of(job: JobSpec) -> Path:
    """Where the small trainer writes, on this machine."""
    return Path(job.argv[1])


async def until(launcher: JobLauncher, ref: JobRef, *wanted: str) -> JobState:
    deadline = time.monotonic() + PATIENCE_S
    while (found := await launcher.poll(ref)).state not in wanted:
        assert not found.over, found
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.05)
    return found


async def appears(path: Path) -> str:
    deadline = time.monotonic() + PATIENCE_S
    while not path.exists() or not path.read_text():
        assert time.monotonic() < deadline, path
        await asyncio.sleep(0.02)
    return path.read_text()


def starts(job: JobSpec) -> list[list[str]]:
    """Rank, process and first step of each start."""
    return [line.split() for line in (run_of(job) / "starts").read_text().splitlines()]


async def test_a_job_runs_to_its_end_and_its_log_is_read_by_offset(place: Place) -> None:
    launcher, job = place.launcher(), place.job("ends")
    ref = await launcher.submit(job)
    assert (ref.kind, ref.key) == (launcher.kind, job.key)
    state = await until(launcher, ref, "succeeded")
    assert state.exit_code == 0
    assert state.reason == ""
    whole, end = await launcher.logs(ref, 0)
    text = whole.decode()
    assert text.endswith(f"done in {Path(job.workdir).name} {job.env['COLOUR']}\n")
    assert "begun at 0" in text
    assert end == len(whole)
    assert await launcher.logs(ref, 7) == (whole[7:], end)
    assert await launcher.logs(ref, end) == (b"", end)


async def test_submitting_twice_starts_one_job_even_when_it_is_over(place: Place) -> None:
    launcher, job = place.launcher(), place.job("ends")
    first = await launcher.submit(job)
    assert await launcher.submit(job) == first
    await until(launcher, first, "succeeded")
    assert await place.launcher().submit(job) == first
    assert (await launcher.poll(first)).state == "succeeded"
    assert len(starts(job)) == 1


async def test_submits_that_race_start_one_job(place: Place) -> None:
    job = place.job("trains")
    found = await asyncio.gather(*(place.launcher().submit(job) for _ in range(4)))
    assert len(set(found)) == 1
    await appears(run_of(job) / "step-0")
    (run_of(job) / "finish").touch()
    await until(place.launcher(), found[0], "succeeded")
    assert len(starts(job)) == 1


async def test_another_job_of_a_run_folder_is_refused_while_the_first_lives(place: Place) -> None:
    launcher, job = place.launcher(), place.job("trains")
    other = job.model_copy(update={"key": job.key + "-other"})
    ref = await launcher.submit(job)
    with pytest.raises(JobConflict, match="cancel it"):
        await place.launcher().submit(other)
    await appears(run_of(job) / "step-0")
    with pytest.raises(JobConflict):
        await launcher.submit(other)
    (run_of(job) / "finish").touch()
    await until(launcher, ref, "succeeded")
    assert (await until(launcher, await launcher.submit(other), "succeeded")).exit_code == 0
    assert len(starts(job)) == 2


async def test_of_jobs_that_race_for_a_run_folder_one_lives(place: Place) -> None:
    job = place.job("trains")
    rivals = [job.model_copy(update={"key": f"{job.key}-{number}"}) for number in range(3)]
    with place.hold():
        found = await asyncio.gather(*(place.launcher().submit(rival) for rival in rivals), return_exceptions=True)
    refs = [answer for answer in found if isinstance(answer, JobRef)]
    assert len(refs) == 1
    assert all(isinstance(answer, JobConflict) for answer in found if not isinstance(answer, JobRef))
    await appears(run_of(job) / "step-0")
    (run_of(job) / "finish").touch()
    await until(place.launcher(), refs[0], "succeeded")
    assert len(starts(job)) == 1


async def test_a_job_is_found_again_by_its_key(place: Place) -> None:
    job = place.job("trains")
    assert await place.launcher().find(job.key) is None
    ref = await place.launcher().submit(job)
    await appears(run_of(job) / "step-0")
    launcher = place.launcher()
    assert await launcher.find(job.key) == ref
    assert (await until(launcher, ref, "running")).state == "running"
    (run_of(job) / "finish").touch()
    await until(launcher, ref, "succeeded")
    assert await place.launcher().find(job.key) == ref


async def test_a_job_that_fails_says_why(place: Place) -> None:
    launcher = place.launcher()
    ref = await launcher.submit(place.job("fails"))
    state = await until(launcher, ref, "failed")
    assert state.exit_code == 1
    assert "exit code" in state.reason
    assert b"ValueError: the corpus is gone" in (await launcher.logs(ref, 0))[0]


async def test_a_cancelled_job_has_time_to_write_its_checkpoint(place: Place) -> None:
    launcher, job = place.launcher(), place.job("trains")
    ref = await launcher.submit(job)
    run = run_of(job)
    await appears(run / "step-0")
    await launcher.cancel(ref, LONG)
    state = await launcher.poll(ref)
    assert state.state == "cancelled"
    assert int((run / "checkpoint-0").read_text()) == int((run / "step-0").read_text())
    await launcher.cancel(ref, LONG)
    assert await launcher.poll(ref) == state


async def test_a_job_that_does_not_stop_is_killed(place: Place) -> None:
    launcher, job = place.launcher(), place.job("stubborn", grace_s=1)
    ref = await launcher.submit(job)
    run = run_of(job)
    await appears(run / "step-0")
    await launcher.cancel(ref, timedelta(seconds=1))
    assert (await launcher.poll(ref)).state == "cancelled"
    assert not (run / "checkpoint-0").exists()
    assert not Path("/proc", starts(job)[0][1]).exists()


async def test_cancelling_what_is_over_changes_nothing(place: Place) -> None:
    launcher = place.launcher()
    ref = await launcher.submit(place.job("ends"))
    await until(launcher, ref, "succeeded")
    await launcher.cancel(ref, LONG)
    assert (await launcher.poll(ref)).state == "succeeded"


async def test_a_killed_job_has_failed(place: Place) -> None:
    launcher, job = place.launcher(), place.job("trains")
    ref = await launcher.submit(job)
    await appears(run_of(job) / "step-0")
    os.kill(int(starts(job)[0][1]), signal.SIGKILL)
    state = await until(launcher, ref, "failed", "lost")
    assert state.reason
    assert state.exit_code in {137, None}


async def test_a_job_that_nobody_knows_is_lost(place: Place) -> None:
    launcher = place.launcher()
    stranger = JobRef(kind=launcher.kind, job_id="999999", key="no/such/job")
    assert (await launcher.poll(stranger)).state == "lost"
    await launcher.cancel(stranger, LONG)
    with pytest.raises(JobLost):
        await launcher.logs(stranger, 0)


async def check_several_processes_are_one_job(place: Place) -> None:
    """Two ranks under torchrun, which takes seconds to start."""
    launcher, job = place.launcher(), place.job("trains", nproc=2)
    ref = await launcher.submit(job)
    run = run_of(job)
    await asyncio.gather(appears(run / "step-0"), appears(run / "step-1"))
    await launcher.cancel(ref, LONG)
    assert (await launcher.poll(ref)).state == "cancelled"
    for rank in range(2):
        assert (run / f"checkpoint-{rank}").read_text() == (run / f"step-{rank}").read_text()


async def check_an_outage_is_retryable_and_loses_nothing(place: Place) -> None:
    """For places with something between launcher and job that may not answer."""
    assert place.outage is not None
    launcher, job = place.launcher(), place.job("trains")
    ref = await launcher.submit(job)
    run = run_of(job)
    await appears(run / "step-0")
    async with place.outage():
        calls = [launcher.poll(ref), launcher.cancel(ref, LONG), launcher.submit(place.job("ends"))]
        calls += [] if place.log_is_a_file else [launcher.logs(ref, 0), launcher.find(job.key)]
        for answer in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(answer, LauncherUnavailable), answer
    assert LauncherUnavailable.retryable
    assert (await until(launcher, ref, "running")).state == "running"
    (run / "finish").touch()
    await until(launcher, ref, "succeeded")
    assert len(starts(job)) == 1
