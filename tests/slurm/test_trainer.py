"""A lens trained by jobs of a real Slurm cluster."""

from pathlib import Path

import pytest

from lens_training.launch.slurm import SlurmLauncher
from tests.slurm.cluster import Cluster
from tests.unit.lens.conftest import Specify, place, specify, store, tokenizer  # noqa: F401 - fixtures
from tests.unit.lens.launching_trainer import check_a_lens_is_trained


async def test_a_lens_is_trained(
    slurm: Cluster,
    specify: Specify,  # noqa: F811 - the fixture
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SLURM_CONF", str(slurm.conf))
    await check_a_lens_is_trained(SlurmLauncher(tmp_path / "jobs", interval_s=0.1), specify, tmp_path, 2, cpus=2)
