"""What is shipped: three packages under their own names, with the model and without anything that runs on loading."""

import subprocess
import sys
import zipfile
from importlib.metadata import distributions
from pathlib import Path

import pytest

PACKAGES = ("wonder", "workers", "lens_training")


@pytest.fixture(scope="session")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from this checkout."""
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)],
        cwd=root,
        check=True,
        capture_output=True,
    )
    return zipfile.ZipFile(next(out.glob("*.whl")))


def test_the_wheel_holds_the_three_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)


def test_the_wheel_brings_the_embedded_model_and_its_probe(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    folder = "wonder/embedded/support_desk"
    for part in (
        "model.safetensors",
        "tokenizer.json",
        "config.json",
        "MODEL_CARD.md",
        "probes/legal_risk/manifest.json",
    ):
        assert f"{folder}/{part}" in names
    assert sum(found.file_size for found in wheel.infolist() if found.filename.startswith(folder)) <= 8 * 2**20


def test_nothing_shipped_can_run_code_when_it_is_loaded(wheel: zipfile.ZipFile) -> None:
    assert not [
        name for name in wheel.namelist() if name.endswith((".pkl", ".pickle", ".pt", ".pth", ".bin", ".joblib"))
    ]


def test_every_package_is_a_regular_one(root: Path) -> None:
    for package in (*PACKAGES, "workers/gpu", "workers/cpu"):
        assert (root / package / "__init__.py").exists()


def test_no_other_distribution_claims_our_package_names() -> None:
    rivals = {
        distribution.metadata["Name"]
        for distribution in distributions()
        for file in distribution.files or []
        if file.parts and file.parts[0] in PACKAGES
    }
    assert rivals <= {"wonder-temporal"}
