"""The suite that every launcher passes, on this machine and on the stand-ins for places that nobody has at hand."""

import functools
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import boto3
import pytest

from lens_training.launch.fake import FakeServer
from lens_training.launch.fake_kubernetes import FakeKubernetes
from lens_training.launch.fake_sagemaker import FakeSageMaker
from lens_training.launch.kubernetes import KubernetesLauncher
from lens_training.launch.local import LocalLauncher
from lens_training.launch.sagemaker import SageMakerLauncher
from tests.unit.lens.launching import *  # noqa: F403 - the suite
from tests.unit.lens.launching import (
    Place,
    check_an_outage_is_retryable_and_loses_nothing,
    check_several_processes_are_one_job,
)

GRACE_S = 5.0
"""For a job that is asked to stop; the stubborn one has to be waited for."""


def local(folder: Path) -> Iterator[Place]:
    yield Place(launcher=lambda: LocalLauncher(folder / "jobs"), folder=folder)


def kubernetes(folder: Path) -> Iterator[Place]:
    fake = FakeKubernetes(folder / "fake", token="secret")
    token = folder / "token"
    token.write_text("secret\n")
    yield Place(
        launcher=lambda: KubernetesLauncher(fake.url, token=token, python=sys.executable, interval_s=0.05),
        folder=folder,
        outage=outage_of(fake),
        settings={"image": "trainer:1"},
    )
    fake.close()


@functools.cache
def boto3_session() -> boto3.session.Session:
    """One for all: it reads the descriptions of the services once."""
    return boto3.session.Session("nobody", "nothing")


def outage_of(fake: FakeServer):
    @asynccontextmanager
    async def outage() -> AsyncIterator[None]:
        with fake.outage():
            yield

    return outage


def sagemaker(folder: Path) -> Iterator[Place]:
    fake = FakeSageMaker(folder / "fake", grace_s=GRACE_S)
    session = boto3_session()
    yield Place(
        launcher=lambda: SageMakerLauncher(
            "arn:aws:iam::123456789012:role/trainer",
            python=sys.executable,
            region="us-east-1",
            endpoint=fake.url,
            interval_s=0.05,
            session=session,
        ),
        folder=folder,
        outage=outage_of(fake),
        settings={"image": "trainer:1"},
        prefix="s3://runs",
        hold=fake.hold,
    )
    fake.close()


PLACES = {"local": local, "kubernetes": kubernetes, "sagemaker": sagemaker}


@pytest.fixture(params=list(PLACES))
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    yield from PLACES[request.param](tmp_path)


@pytest.mark.parametrize("name", [name for name in PLACES if name != "local"])
async def test_an_outage_is_retryable_and_loses_nothing(name: str, tmp_path: Path) -> None:
    for place in PLACES[name](tmp_path):
        await check_an_outage_is_retryable_and_loses_nothing(place)


@pytest.mark.parametrize(
    "name", [name if name == "local" else pytest.param(name, marks=pytest.mark.slow) for name in PLACES]
)
async def test_several_processes_are_one_job(name: str, tmp_path: Path) -> None:
    for place in PLACES[name](tmp_path):
        await check_several_processes_are_one_job(place)
