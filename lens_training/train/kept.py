"""Which checkpoints a run has, and going back to an older one; torch-free, because supervisors do it."""

import re
import shutil
from pathlib import Path
from typing import Final

from lens_training.artifacts import publish
from wonder.errors import ArtifactMissing

LATEST: Final = "LATEST"
"""File that names the checkpoint to go on from; renamed into place after the checkpoint."""
_NAME: Final = re.compile(r"step_(\d{8,})")


def name_of(step: int) -> str:
    """The folder of a checkpoint."""
    return f"step_{step:08d}"


def kept_steps(folder: Path) -> list[int]:
    """Steps of the checkpoints that are there up to the one to go on from, oldest first."""
    latest = latest_step(folder)
    found = (_NAME.fullmatch(path.name) for path in folder.glob("step_*"))
    return sorted(step for match in found if match and (step := int(match[1])) <= latest)


def latest_step(folder: Path) -> int:
    """The step from which a run would go on; 0 where it would begin."""
    try:
        match = _NAME.fullmatch((folder / LATEST).read_text().strip())
    except FileNotFoundError:
        return 0
    return int(match[1]) if match else 0


def go_back(folder: Path, step: int) -> None:
    """Let a run go on from an older checkpoint, or begin anew at step 0; what is newer is removed.

    Only while nothing trains there. May be repeated.

    Raises:
        ArtifactMissing: There is no such checkpoint.
    """
    if step and not (folder / name_of(step)).is_dir():
        raise ArtifactMissing(f"{folder} has no checkpoint of step {step}; it has {kept_steps(folder)}")
    if step:
        publish(folder / LATEST, name_of(step).encode())
    else:
        (folder / LATEST).unlink(missing_ok=True)
    for path in folder.glob("step_*"):
        match = _NAME.fullmatch(path.name)
        if match and int(match[1]) > step:
            shutil.rmtree(path, ignore_errors=True)
