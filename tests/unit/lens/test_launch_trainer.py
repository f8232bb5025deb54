"""A lens trained by jobs of this machine and of stand-ins for others."""

import sys
from contextlib import closing
from pathlib import Path

import pytest

from lens_training.launch.fake_kubernetes import FakeKubernetes
from lens_training.launch.kubernetes import KubernetesLauncher
from lens_training.launch.local import LocalLauncher
from tests.unit.lens.conftest import Specify
from tests.unit.lens.launching_trainer import check_a_lens_is_trained

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.parametrize("nproc", [1, 2])
async def test_on_this_machine(nproc: int, specify: Specify, tmp_path: Path) -> None:
    await check_a_lens_is_trained(LocalLauncher(tmp_path / "jobs"), specify, tmp_path, nproc)


async def test_in_pods(specify: Specify, tmp_path: Path) -> None:
    with closing(FakeKubernetes(tmp_path / "fake")) as fake:
        launcher = KubernetesLauncher(fake.url, python=sys.executable, interval_s=0.1)
        await check_a_lens_is_trained(launcher, specify, tmp_path, 2, image="trainer:1")
