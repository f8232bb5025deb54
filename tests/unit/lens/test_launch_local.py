"""Jobs of this machine: what survives, what is never mistaken, what is refused."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from lens_training.launch.base import JobSpec
from lens_training.launch.local import LocalLauncher
from lens_training.launch.processes import marked, started
from tests.unit.lens.launching import LONG, Place, appears, starts, until
from wonder.errors import JobConflict, JobRefused, LauncherUnavailable

SUBMIT = """
import asyncio, os, signal, sys
from pathlib import Path
from lens_training.launch.base import JobSpec
from lens_training.launch.local import LocalLauncher
asyncio.run(LocalLauncher(Path(sys.argv[1])).submit(JobSpec.model_validate_json(sys.argv[2])))
os.killpg(0, signal.SIGKILL)
"""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(launcher=lambda: LocalLauncher(tmp_path / "jobs"), folder=tmp_path)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with any job."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def record(place: Place, job: JobSpec, name: str) -> Path:
    [path] = [path for path in (place.folder / "jobs").glob(f"*/{name}.json") if _key(path) == job.key]
    return path


def _key(path: Path) -> str:
    return str(json.loads((path.parent / "job.json").read_text())["key"])


async def kill(path: Path) -> None:
    pid = json.loads(path.read_text())["pid"]
    os.kill(pid, signal.SIGKILL)
    while started(pid) is not None:  # noqa: ASYNC110 - what ends is no task of ours
        await asyncio.sleep(0.01)


async def test_a_job_survives_the_death_of_the_worker_and_its_process_group(place: Place) -> None:
    job = place.job("trains")
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SUBMIT, str(place.folder / "jobs"), job.model_dump_json(), start_new_session=True
    )
    assert await worker.wait() == -signal.SIGKILL
    launcher = place.launcher()
    ref = await launcher.find(job.key)
    assert ref is not None
    await appears(Path(job.run_folder) / "step-0")
    assert (await launcher.poll(ref)).state == "running"
    await launcher.cancel(ref, LONG)
    assert (Path(job.run_folder) / "checkpoint-0").exists()
    assert len(starts(job)) == 1


async def test_a_recycled_process_number_is_never_mistaken(place: Place, sleeper: subprocess.Popen[bytes]) -> None:
    launcher, job = place.launcher(), place.job("trains")
    ref = await launcher.submit(job)
    await appears(Path(job.run_folder) / "step-0")
    watcher, child = record(place, job, "started"), record(place, job, "child")
    found, process = json.loads(watcher.read_text()), json.loads(child.read_text())
    await kill(watcher)
    await kill(child)
    # Both numbers now mean somebody else.
    watcher.write_text(json.dumps(found | {"pid": sleeper.pid}))
    child.write_text(json.dumps(process | {"pid": sleeper.pid}))
    assert (await until(launcher, ref, "lost")).reason == "it was killed together with its watcher"
    await launcher.cancel(ref, timedelta(0))
    assert sleeper.poll() is None
    began = started(sleeper.pid)
    assert began is not None
    watcher.write_text(json.dumps(found | {"pid": sleeper.pid, "began": began, "boot": "another"}))
    assert (await launcher.poll(ref)).reason == "the machine went down"


async def test_a_reservation_whose_maker_died_is_begun_by_the_next_submit(place: Place) -> None:
    job = place.job("ends")
    ref = await place.launcher().submit(job)
    await until(place.launcher(), ref, "succeeded")
    for path in record(place, job, "job").parent.iterdir():
        if path.name != "job.json":
            path.unlink()
    assert await place.launcher().find(job.key) is None
    assert (await place.launcher().poll(ref)).state == "lost"
    assert await place.launcher().submit(job) == ref
    await until(place.launcher(), ref, "succeeded")
    assert len(starts(job)) == 2


async def test_a_job_without_its_watcher_is_alive_and_then_lost(place: Place) -> None:
    launcher, job = place.launcher(), place.job("trains")
    ref = await launcher.submit(job)
    await appears(Path(job.run_folder) / "step-0")
    await kill(record(place, job, "started"))
    state = await launcher.poll(ref)
    assert (state.state, state.reason) == ("running", "its watcher is gone, and how it ends will not be known")
    with pytest.raises(JobConflict):
        await launcher.submit(job.model_copy(update={"key": "other"}))
    (Path(job.run_folder) / "finish").touch()
    assert (await until(launcher, ref, "lost")).exit_code is None
    await until(launcher, await launcher.submit(job.model_copy(update={"key": "other"})), "succeeded")


@pytest.mark.slow  # torchrun takes seconds to start
async def test_ranks_that_outlive_torchrun_hold_the_run_folder_until_they_are_stopped(place: Place) -> None:
    launcher, job = place.launcher(), place.job("trains", nproc=2)
    ref = await launcher.submit(job)
    run = Path(job.run_folder)
    await asyncio.gather(appears(run / "step-0"), appears(run / "step-1"))
    for name in ("started", "child"):
        await kill(record(place, job, name))
    assert (await launcher.poll(ref)).state == "running"
    with pytest.raises(JobConflict):
        await launcher.submit(job.model_copy(update={"key": "other"}))
    await launcher.cancel(ref, LONG)
    assert (await launcher.poll(ref)).state == "cancelled"
    assert (run / "checkpoint-0").exists()
    assert (run / "checkpoint-1").exists()


@pytest.mark.slow  # torchrun takes seconds to start
async def test_when_torchrun_is_killed_its_ranks_are_stopped(place: Place) -> None:
    launcher, job = place.launcher(), place.job("trains", nproc=2)
    ref = await launcher.submit(job)
    run = Path(job.run_folder)
    await asyncio.gather(appears(run / "step-0"), appears(run / "step-1"))
    await kill(record(place, job, "child"))
    state = await until(launcher, ref, "failed")
    assert (state.exit_code, state.reason.partition(":")[0]) == (137, "killed by SIGKILL")
    assert (run / "checkpoint-0").exists()
    assert not list(marked(json.loads(record(place, job, "started").read_text())["mark"]))


async def test_ranks_that_do_not_stop_are_killed_after_the_jobs_own_grace(place: Place) -> None:
    launcher, job = place.launcher(), place.job("stubborn", nproc=2, grace_s=1)
    ref = await launcher.submit(job)
    run = Path(job.run_folder)
    await asyncio.gather(appears(run / "step-0"), appears(run / "step-1"))
    # Otherwise torchrun leaves them 30 s.
    assert b"TORCH_ELASTIC_SHUTDOWN_TIMEOUT=1" in Path("/proc", starts(job)[0][1], "environ").read_bytes().split(b"\0")
    await launcher.cancel(ref, timedelta(minutes=10))
    assert not any(Path("/proc", pid).exists() for _, pid, _ in starts(job))


async def test_a_job_whose_time_is_over_writes_its_checkpoint_and_fails(place: Place) -> None:
    launcher, job = place.launcher(), place.job("trains", wall_s=2)
    state = await until(launcher, await launcher.submit(job), "failed")
    assert (state.exit_code, state.reason) == (0, "its 2 s were over")
    assert (Path(job.run_folder) / "checkpoint-0").exists()


async def test_a_job_that_cannot_be_run_says_so(place: Place, tmp_path: Path) -> None:
    launcher = place.launcher()
    state = await until(launcher, await launcher.submit(place.job("ends", workdir=str(tmp_path / "no"))), "failed")
    assert state.exit_code == 127
    assert "No such file or directory" in state.reason
    other = LocalLauncher(tmp_path / "jobs", python="/no/python")
    state = await until(other, await other.submit(place.job("ends")), "failed")
    assert "/no/python" in state.reason


async def test_what_this_machine_cannot_do_is_refused(place: Place) -> None:
    launcher = place.launcher()
    with pytest.raises(JobRefused, match="2 nodes"):
        await launcher.submit(place.job("ends", nodes=2))
    with pytest.raises(JobRefused, match="lower gpus_per_node"):
        await launcher.submit(place.job("ends", gpus_per_node=99))
    with pytest.raises(JobRefused, match="folder of this machine"):
        await launcher.submit(place.job("ends", run_folder="s3://bucket/run"))


async def test_a_job_is_seen_only_where_it_runs(place: Place, tmp_path: Path) -> None:
    ref = await place.launcher().submit(place.job("ends"))
    with pytest.raises(LauncherUnavailable, match="ask the worker there"):
        await LocalLauncher(tmp_path / "jobs", host="elsewhere").poll(ref)
    (tmp_path / "file").touch()
    with pytest.raises(LauncherUnavailable, match="make room or access"):
        await LocalLauncher(tmp_path / "file").submit(place.job("ends"))
    await until(place.launcher(), ref, "succeeded")
