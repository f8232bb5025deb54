"""What one start of the trainer is to do, and the lease that keeps two of them from writing one run; torch-free."""

import json
from pathlib import Path
from typing import Final

from pydantic import Field

from lens_training.artifacts import publish
from lens_training.spec import Spec
from wonder.errors import LeaseLost, StoreNotUsable

LEASE: Final = "lease.json"


class Segment(Spec):
    """A stretch of a run, as the launcher's job reads it."""

    spec: str
    """Path of the run's specification."""
    epoch: int = Field(0, ge=0)
    """Of the lease: the attempt with the highest number owns the run."""
    until_step: int | None = Field(None, ge=1)
    max_seconds: float | None = Field(None, gt=0)
    device: str | None = None
    rate_scale: float = Field(1.0, gt=0, le=1)
    """Below 1 after the run diverged."""
    pieces: int = Field(1, ge=1)
    """Times as many pieces per batch as the specification says: above 1 after memory was too small."""


def take_lease(folder: Path, epoch: int) -> None:
    """Own the run from now on.

    Raises:
        LeaseLost: A later attempt owns it already.
    """
    held = held_epoch(folder)
    if held > epoch:
        raise LeaseLost(_message(folder, epoch, held))
    if held < epoch:
        publish(folder / LEASE, json.dumps({"epoch": epoch}).encode())


def next_epoch(folder: Path) -> int:
    """The epoch with which a new attempt takes the run over."""
    return held_epoch(folder) + 1


def check_lease(folder: Path, epoch: int) -> None:
    """Refuse to publish into a run that another attempt has taken over.

    Raises:
        LeaseLost: It has.
    """
    if (held := held_epoch(folder)) > epoch:
        raise LeaseLost(_message(folder, epoch, held))


def held_epoch(folder: Path) -> int:
    """Of the attempt that owns the run; −1: none has yet.

    Raises:
        StoreNotUsable: The lease cannot be read.
    """
    try:
        return int(json.loads((folder / LEASE).read_bytes())["epoch"])
    except FileNotFoundError:
        return -1
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreNotUsable(f"{folder / LEASE} cannot be read ({error}): remove it if no trainer is running") from None


def _message(folder: Path, epoch: int, held: int) -> str:
    return (
        f"attempt {epoch} no longer owns {folder}: attempt {held} has taken it over, and this one ends without "
        "publishing; nothing has to be done"
    )
