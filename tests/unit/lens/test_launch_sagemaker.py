"""What only the SageMaker launcher meets: what the service's own rules say of a request, spot, time, throttling."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from moto import mock_aws

from lens_training.launch.base import JobSpec
from lens_training.launch.fake_sagemaker import FakeSageMaker
from lens_training.launch.sagemaker import SageMakerLauncher
from tests.unit.lens.launching import LONG, Place, appears, run_of, starts, until
from wonder.errors import JobRefused, LauncherUnavailable

ROLE = "arn:aws:iam::123456789012:role/trainer"


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials in the environment, so that none are looked for elsewhere."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "nobody")


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeSageMaker]:
    made = FakeSageMaker(tmp_path / "fake", grace_s=5)
    yield made
    made.close()


@pytest.fixture
def launcher(fake: FakeSageMaker) -> SageMakerLauncher:
    return launched(fake.url)


def launched(endpoint: str | None, **settings: Any) -> SageMakerLauncher:
    return SageMakerLauncher(
        ROLE, python=sys.executable, region="us-east-1", endpoint=endpoint, interval_s=0.05, **settings
    )


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(launcher=lambda: launched(None), folder=tmp_path, settings={"image": "trainer:1"}, prefix="s3://runs")


def large(**changes: Any) -> JobSpec:
    whole = {
        "key": "lens/3/0", "argv": ["-m", "lens_training.train.main", "SEGMENT.json"], "nproc": 8, "nodes": 2,
        "wall_s": 3600, "image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/trainer:1", "workdir": "/opt/ml/code",
        "run_folder": "s3://bucket/runs/lens",
    }  # fmt: skip
    return JobSpec.model_validate(whole | changes)


def test_the_request_asks_for_what_the_specification_says() -> None:
    asked = launched(None, spot=True, spot_wait_s=600, request={"EnableNetworkIsolation": True}).request(large())
    how = asked["AlgorithmSpecification"]
    assert how["ContainerArguments"][-4:] == ["8", "-m", "lens_training.train.main", "SEGMENT.json"]
    assert "algo-1:29400" in how["ContainerArguments"]
    assert asked["ResourceConfig"]["InstanceCount"] == 2
    assert asked["StoppingCondition"] == {"MaxRuntimeInSeconds": 3600, "MaxWaitTimeInSeconds": 4200}
    assert asked["CheckpointConfig"] == {"S3Uri": "s3://bucket/runs/lens", "LocalPath": "/opt/ml/checkpoints"}
    assert asked["EnableManagedSpotTraining"]
    assert asked["EnableNetworkIsolation"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_the_emulator_of_aws_takes_the_request_too() -> None:
    with mock_aws():
        launcher = launched(None, spot=True)
        ref = await launcher.submit(large())
        assert (await launcher.poll(ref)).state == "succeeded"  # of the emulator every job is over at once
        assert await launcher.find("lens/3/0") == ref


async def test_a_waiting_job_is_pending_and_stops_without_having_run(
    launcher: SageMakerLauncher, place: Place, fake: FakeSageMaker
) -> None:
    job = place.job("trains")
    with fake.hold():
        ref = await launcher.submit(job)
        state = await launcher.poll(ref)
        assert (state.state, state.reason) == ("pending", "Starting")
        await launcher.cancel(ref, LONG)
    assert (await launcher.poll(ref)).state == "cancelled"
    assert not (run_of(job) / "starts").exists()


async def test_a_job_whose_time_is_over_writes_its_checkpoint_and_fails(
    launcher: SageMakerLauncher, place: Place
) -> None:
    job = place.job("trains", wall_s=2)
    ref = await launcher.submit(job)
    await appears(run_of(job) / "step-0")
    assert (await until(launcher, ref, "failed")).reason == "time over"
    assert (run_of(job) / "checkpoint-0").exists()
    assert len(starts(job)) == 1


async def test_what_the_service_will_never_take_is_refused(
    launcher: SageMakerLauncher, place: Place, fake: FakeSageMaker
) -> None:
    with pytest.raises(JobRefused, match="not in s3://"):
        await launcher.submit(large(run_folder="/runs/lens"))
    with pytest.raises(JobRefused, match="size 300, wanted"):
        await launcher.submit(large(argv=["x" * 300]))
    wrong = SageMakerLauncher("nobody's role, of no account", region="us-east-1", endpoint=fake.url)
    with pytest.raises(JobRefused, match="RoleArn"):
        await wrong.submit(large())
    with pytest.raises(JobRefused, match="InstanceType"):
        await launched(fake.url, instance_type="ml.p99.huge").submit(large())


def test_a_run_folder_on_a_shared_file_system_is_no_copy_of_one_in_s3() -> None:
    asked = launched(None, output="s3://bucket/out").request(large(run_folder="/opt/ml/input/data/runs/lens"))
    assert "CheckpointConfig" not in asked
    assert asked["OutputDataConfig"] == {"S3OutputPath": "s3://bucket/out"}


async def test_a_service_that_throttles_is_unavailable(fake: FakeSageMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake, "answer", lambda *_: (400, {"__type": "ThrottlingException", "message": "Rate exceeded"}))
    with pytest.raises(LauncherUnavailable, match="ThrottlingException"):
        await launched(fake.url).find("a")
