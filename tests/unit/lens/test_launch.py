"""Launchers on this machine: the suite that all of them pass, and what only the local one can do."""

from pathlib import Path

import pytest

from lens_training.launch.local import LocalLauncher
from tests.unit.lens.launching import *  # noqa: F403 - the suite
from tests.unit.lens.launching import Place


@pytest.fixture(params=["local"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(launcher=lambda: LocalLauncher(tmp_path / "jobs"), folder=tmp_path)
