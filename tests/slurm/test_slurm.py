"""The Slurm launcher on a real cluster: the suite of all launchers, preemption, requeueing, two nodes."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from lens_training.launch.slurm import SlurmLauncher
from tests.slurm.cluster import Cluster
from tests.unit.lens.launching import *  # noqa: F403 - the suite
from tests.unit.lens.launching import (
    LONG,
    JobRef,
    JobSpec,
    Place,
    appears,
    check_an_outage_is_retryable_and_loses_nothing,
    check_several_processes_are_one_job,
    starts,
    until,
)
from wonder.errors import JobRefused


@pytest.fixture
def place(slurm: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("SLURM_CONF", str(slurm.conf))

    @asynccontextmanager
    async def outage() -> AsyncIterator[None]:
        await asyncio.to_thread(slurm.stop_controller)
        try:
            yield
        finally:
            await asyncio.to_thread(slurm.start_controller)

    return Place(
        launcher=lambda: SlurmLauncher(tmp_path / "jobs", interval_s=0.1, timeout_s=3),
        folder=tmp_path,
        outage=outage,
        settings={"cpus": 1},
        log_is_a_file=True,
    )


async def test_an_outage_of_the_controller_is_retryable_and_loses_nothing(place: Place) -> None:
    await check_an_outage_is_retryable_and_loses_nothing(place)


async def test_several_processes_are_one_job(place: Place) -> None:
    await check_several_processes_are_one_job(place)


async def starts_again(launcher: SlurmLauncher, job: JobSpec, ref: JobRef, slurm: Cluster) -> None:
    await until(launcher, ref, "pending")
    # Else Slurm waits two minutes; at once it is refused, because credentials of the same second are revoked ones.
    slurm.ask("scontrol", "update", f"jobid={ref.job_id}", "starttime=now+3seconds")
    while len(starts(job)) == 1:
        assert not (await launcher.poll(ref)).over
        await asyncio.sleep(0.1)


async def test_a_preempted_job_writes_its_checkpoint_and_goes_on_from_it(place: Place, slurm: Cluster) -> None:
    launcher, job = place.launcher(), place.job("trains", cpus=8)
    urgent = SlurmLauncher(place.folder / "urgent", options=["--partition=high"], interval_s=0.1)
    ref = await launcher.submit(job)
    run = Path(job.run_folder)
    await appears(run / "step-0")
    # Both nodes, all cores: there is room for it only if the other one goes.
    other = place.job("trains", nodes=2, cpus=8)
    await urgent.submit(other)
    saved = int(await appears(run / "checkpoint-0"))
    state = await until(launcher, ref, "pending")
    assert "requeued 1 times" in state.reason
    await appears(Path(other.run_folder) / "step-1")
    (Path(other.run_folder) / "finish").touch()
    await starts_again(launcher, job, ref, slurm)
    (run / "finish").touch()
    await until(launcher, ref, "succeeded")
    assert [int(first) for _, _, first in starts(job)] == [0, saved]
    assert saved > 0
    log = (await launcher.logs(ref, 0))[0].decode()
    assert "begun at 0" in log
    assert f"begun at {saved}" in log


async def test_a_job_requeued_by_hand_goes_on_from_its_checkpoint(place: Place, slurm: Cluster) -> None:
    launcher, job = place.launcher(), place.job("trains")
    ref = await launcher.submit(job)
    run = Path(job.run_folder)
    await appears(run / "step-0")
    slurm.ask("scontrol", "requeue", ref.job_id)
    saved = int(await appears(run / "checkpoint-0"))
    await starts_again(launcher, job, ref, slurm)
    assert await launcher.submit(job) == ref
    await launcher.cancel(ref, LONG)
    assert (await launcher.poll(ref)).state == "cancelled"
    assert [int(first) for _, _, first in starts(job)] == [0, saved]


async def test_several_nodes_are_one_job(place: Place) -> None:
    launcher, job = place.launcher(), place.job("trains", nodes=2, nproc=2)
    ref = await launcher.submit(job)
    run = Path(job.run_folder)
    await asyncio.gather(*(appears(run / f"step-{rank}") for rank in range(4)))
    await launcher.cancel(ref, LONG)
    assert (await launcher.poll(ref)).state == "cancelled"
    for rank in range(4):
        assert (run / f"checkpoint-{rank}").read_text() == (run / f"step-{rank}").read_text()


async def test_a_waiting_job_is_cancelled_at_once_and_never_starts(place: Place) -> None:
    launcher = place.launcher()
    big = place.job("trains", nodes=2, cpus=8)
    first = await launcher.submit(big)
    await appears(Path(big.run_folder) / "step-0")
    job = place.job("trains", cpus=8)
    ref = await launcher.submit(job)
    assert (await launcher.poll(ref)).state == "pending"
    await launcher.cancel(ref, LONG)
    assert (await launcher.poll(ref)).state == "cancelled"
    await launcher.cancel(first, LONG)
    assert not (Path(job.run_folder) / "starts").exists()


async def test_a_twin_that_a_lost_answer_left_in_the_queue_does_nothing(place: Place, slurm: Cluster) -> None:
    launcher, job = place.launcher(), place.job("ends")
    ref = await launcher.submit(job)
    await until(launcher, ref, "succeeded")
    [file] = (place.folder / "jobs").glob("*/job.slurm")
    twin = slurm.ask("sbatch", "--parsable", str(file)).strip()
    await until(launcher, ref.model_copy(update={"job_id": twin}), "succeeded")
    assert len(starts(job)) == 1
    assert await place.launcher().find(job.key) == ref


async def test_how_a_job_ended_is_known_when_slurm_has_forgotten_it(place: Place) -> None:
    launcher, job = place.launcher(), place.job("fails")
    ref = await launcher.submit(job)
    seen = await until(launcher, ref, "failed")
    forgotten = ref.model_copy(update={"job_id": "987654"})
    state = await launcher.poll(forgotten)
    assert (state.state, state.exit_code, state.reason) == ("failed", 1, seen.reason)


async def test_a_job_that_slurm_will_never_take_is_refused(place: Place) -> None:
    launcher = SlurmLauncher(place.folder / "jobs", options=["--partition=none"])
    job = place.job("ends")
    with pytest.raises(JobRefused, match="invalid partition"):
        await launcher.submit(job)
    ref = await place.launcher().submit(job)
    await until(place.launcher(), ref, "succeeded")


async def test_time_that_is_over_is_not_preemption(place: Place, slurm: Cluster) -> None:
    launcher = place.launcher()
    over, preempted = place.job("trains", wall_s=1, grace_s=30), place.job("trains")
    refs = [await launcher.submit(job) for job in (over, preempted)]
    for job in (over, preempted):
        await appears(Path(job.run_folder) / "step-0")
    for ref in refs:
        slurm.ask("scancel", "--batch", "--signal=USR1", ref.job_id)
    state = await until(launcher, refs[0], "failed")
    assert (state.reason, state.exit_code) == ("time over", 1)
    assert (Path(over.run_folder) / "checkpoint-0").exists()
    await until(launcher, refs[1], "pending")
    await launcher.cancel(refs[1], timedelta(seconds=5))
    assert json.loads(next((place.folder / "jobs").glob("*/exit.json")).read_text())["reason"] == "time over"
