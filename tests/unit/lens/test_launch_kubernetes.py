"""What only the Kubernetes launcher meets: evictions, deadlines, reservations, rights."""

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lens_training.launch.base import JobSpec
from lens_training.launch.fake_kubernetes import FakeKubernetes
from lens_training.launch.kubernetes import KubernetesLauncher
from lens_training.launch.kubernetes_job import job_name, manifest
from lens_training.launch.rest import Rest
from tests.unit.lens.launching import LONG, Place, appears, starts, until
from wonder.errors import JobRefused, LauncherUnavailable


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeKubernetes]:
    made = FakeKubernetes(tmp_path / "fake")
    yield made
    made.close()


@pytest.fixture
def place(fake: FakeKubernetes, tmp_path: Path) -> Place:
    return Place(
        launcher=lambda: KubernetesLauncher(fake.url, python=sys.executable, interval_s=0.05),
        folder=tmp_path,
        settings={"image": "trainer:1"},
    )


async def test_an_evicted_job_writes_its_checkpoint_and_says_it_was_preempted(
    place: Place, fake: FakeKubernetes
) -> None:
    launcher, job = place.launcher(), place.job("trains")
    ref = await launcher.submit(job)
    await appears(Path(job.run_folder) / "step-0")
    fake.evict(ref.job_id)
    state = await until(launcher, ref, "failed")
    assert state.reason.startswith("preempted or its node was lost")
    assert (Path(job.run_folder) / "checkpoint-0").exists()


async def test_a_job_whose_time_is_over_fails(place: Place) -> None:
    launcher, job = place.launcher(), place.job("trains", wall_s=1)
    assert (await until(launcher, await launcher.submit(job), "failed")).reason == "time over"


async def test_the_reason_of_a_failure_is_the_last_line_it_said(place: Place) -> None:
    launcher = place.launcher()
    state = await until(launcher, await launcher.submit(place.job("fails")), "failed")
    assert state.reason == "exit code 1: ValueError: the corpus is gone"
    assert state.node == "fake-node"


async def test_a_job_whose_maker_died_before_it_began_is_begun_by_the_next_submit(
    place: Place, fake: FakeKubernetes
) -> None:
    job = place.job("ends")
    status, _ = Rest(fake.url).ask(
        "POST", "/apis/batch/v1/namespaces/default/jobs", manifest(job, sys.executable, {}, {})
    )
    assert status == 201
    launcher = place.launcher()
    assert await launcher.find(job.key) is None
    ref = await launcher.submit(job)
    await until(launcher, ref, "succeeded")
    assert len(starts(job)) == 1


async def test_a_deleted_job_is_lost(place: Place, fake: FakeKubernetes) -> None:
    launcher = place.launcher()
    ref = await launcher.submit(place.job("trains"))
    Rest(fake.url).ask("DELETE", f"/apis/batch/v1/namespaces/default/jobs/{ref.job_id}")
    state = await launcher.poll(ref)
    assert (state.state, "was deleted" in state.reason) == ("lost", True)


@pytest.mark.slow  # two agents of torchrun
async def test_several_nodes_are_one_job(place: Place, fake: FakeKubernetes) -> None:
    launcher, job = place.launcher(), place.job("trains", nodes=2)
    ref = await launcher.submit(job)
    run = Path(job.run_folder)
    await asyncio.gather(appears(run / "step-0"), appears(run / "step-1"))
    assert [service["spec"]["clusterIP"] for service in fake.services] == ["None"]
    await launcher.cancel(ref, LONG)
    assert (run / "checkpoint-0").exists()
    assert (run / "checkpoint-1").exists()


async def test_what_the_cluster_will_never_take_is_refused(place: Place, fake: FakeKubernetes) -> None:
    with pytest.raises(JobRefused, match="names no image"):
        await place.launcher().submit(place.job("ends", image=""))
    wrong = KubernetesLauncher(fake.url, pod={"restartPolicy": "OnFailure"})
    with pytest.raises(JobRefused, match="podFailurePolicy"):
        await wrong.submit(place.job("ends"))


async def test_a_token_that_is_not_accepted_is_retryable_because_tokens_are_renewed(tmp_path: Path) -> None:
    fake, token = FakeKubernetes(tmp_path / "fake", token="second"), tmp_path / "token"
    token.write_text("first")
    launcher = KubernetesLauncher(fake.url, token=token)
    with pytest.raises(LauncherUnavailable, match="401"):
        await launcher.find("a")
    token.write_text("second")
    assert await launcher.find("a") is None
    fake.close()


def test_the_job_asks_for_what_the_specification_says() -> None:
    job = JobSpec(
        key="lens/3/0", argv=["-m", "lens_training.train.main", "SEGMENT.json"], env={"A": "$(B) costs $5"}, nproc=8,
        nodes=2, gpus_per_node=8, cpus=64, memory_gb=512, wall_s=3600, grace_s=300, image="trainer:1", workdir="/work",
        run_folder="/runs/lens",
    )  # fmt: skip
    made = manifest(job, "python", {"nodeSelector": {"gpu": "h100"}}, {"volumeMounts": [{"name": "runs"}]})
    name, spec = job_name(job.key), made["spec"]
    pod = spec["template"]["spec"]
    [one] = pod["containers"]
    assert (made["metadata"]["name"], spec["completions"], spec["parallelism"]) == (name, 2, 2)
    assert (spec["backoffLimit"], spec["activeDeadlineSeconds"], spec["completionMode"]) == (0, 3600, "Indexed")
    assert pod["terminationGracePeriodSeconds"] == 300
    assert pod["nodeSelector"] == {"gpu": "h100"}
    assert one["volumeMounts"] == [{"name": "runs"}]
    assert one["resources"]["limits"] == {"nvidia.com/gpu": "8", "cpu": "64", "memory": "512Gi"}
    assert {"name": "A", "value": "$$(B) costs $$5"} in one["env"]
    assert f"{name}-0.{name}:29400" in one["command"]
    assert one["command"][-5:] == ["--nproc-per-node", "8", "-m", "lens_training.train.main", "SEGMENT.json"]


async def test_a_token_file_that_is_not_there_yet_is_retryable(fake: FakeKubernetes, tmp_path: Path) -> None:
    with pytest.raises(LauncherUnavailable, match="no-token"):
        await KubernetesLauncher(fake.url, token=tmp_path / "no-token").find("a")
