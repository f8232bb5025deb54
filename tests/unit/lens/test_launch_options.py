"""From the options of a specification to a launcher."""

import sys
from pathlib import Path

import pytest

from lens_training.launch.kubernetes import KubernetesLauncher
from lens_training.launch.local import LocalLauncher
from lens_training.launch.options import Kind, open_launcher
from lens_training.launch.sagemaker import SageMakerLauncher
from lens_training.launch.slurm import SlurmLauncher
from wonder.errors import SpecError

ROLE = "arn:aws:iam::123456789012:role/trainer"


@pytest.mark.parametrize(
    ("kind", "options", "made"),
    [
        ("local", {"python": sys.executable}, LocalLauncher),
        ("slurm", {"sbatch": ["--partition=h100"], "cpus": 8}, SlurmLauncher),
        ("kubernetes", {"server": "http://127.0.0.1:1", "namespace": "lenses", "image": "t:1"}, KubernetesLauncher),
        ("sagemaker", {"role_arn": ROLE, "region": "us-east-1", "spot": True}, SageMakerLauncher),
    ],
)
def test_each_kind_is_made_from_its_options(kind: Kind, options: dict[str, object], made: type, tmp_path: Path) -> None:
    assert isinstance(open_launcher(kind, options, tmp_path), made)


def test_an_option_that_a_launcher_does_not_know_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="did you mean sbatch"):
        open_launcher("slurm", {"sbach": []}, tmp_path)
    with pytest.raises(SpecError, match="role_arn"):
        open_launcher("sagemaker", {}, tmp_path)
