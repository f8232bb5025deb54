"""What every test may rely on."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ["HF_HUB_OFFLINE"] = "1"  # no test reaches a model hub
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models: threads wait for each other longer than they compute

# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile("wonder", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("wonder")

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT
