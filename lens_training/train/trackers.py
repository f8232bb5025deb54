"""Trackers: who is shown a run's progress besides `progress.jsonl`. One that fails is left alone; training goes on."""

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from lens_training.run_spec import RunSpec, Tracker
from lens_training.train.progress import Mirror, ProgressRecord
from wonder.errors import ExtraMissing

log = logging.getLogger(__name__)
MISSING: Final = "track.kinds names {kind}, and its package is not installed: pip install 'wonder-temporal[track]'"


def mirrors(spec: RunSpec) -> list[Mirror]:
    """Those that a specification asks for; nothing is started before the first report.

    Raises:
        ExtraMissing: The package of one is not installed.
    """
    makers: dict[Tracker, Callable[[RunSpec], Mirror]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases}
    return [Lenient(kind, makers[kind](spec)) for kind in spec.track.kinds]


def flat(record: ProgressRecord) -> dict[str, float]:
    """The numbers of a report by names such as `metrics/error`."""
    found: dict[str, float] = {}
    for name, value in record.model_dump(exclude={"step", "time"}).items():
        if isinstance(value, dict):
            found |= {f"{name}/{inner}": float(number) for inner, number in value.items()}
        elif isinstance(value, int | float):
            found[name] = float(value)
    return found


class Lenient:
    """A tracker whose failures are told once, and stop nothing."""

    def __init__(self, name: str, mirror: Mirror) -> None:
        """`name` is for the message."""
        self._name, self._mirror, self._works = name, mirror, True

    def __call__(self, record: ProgressRecord) -> None:
        self._try(lambda: self._mirror(record))

    def close(self) -> None:
        """Let it end what it has begun."""
        self._try(self._mirror.close)

    def _try(self, call: Callable[[], None]) -> None:
        if not self._works:
            return
        try:
            call()
        except Exception as error:
            self._works = False
            log.warning("%s is told no more of this run (%s: %s)", self._name, type(error).__name__, error)


class TensorBoard:
    """Event files in the run's folder."""

    def __init__(self, spec: RunSpec) -> None:
        """Only looks whether the package is there."""
        try:
            from torch.utils import tensorboard  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise ExtraMissing(MISSING.format(kind="tensorboard")) from error
        self._package: Any = tensorboard
        self._folder = spec.run_folder / "tensorboard"
        self._writer: Any = None

    def __call__(self, record: ProgressRecord) -> None:
        if self._writer is None:  # what an attempt before this one said of these steps is hidden
            self._writer = self._package.SummaryWriter(str(self._folder), purge_step=record.step)
        for name, value in flat(record).items():
            self._writer.add_scalar(name, value, record.step, walltime=record.time)

    def close(self) -> None:
        """Write what is held back."""
        if self._writer is not None:
            self._writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases; offline, in the run's folder, unless the specification says otherwise."""

    def __init__(self, spec: RunSpec) -> None:
        """Only looks whether the package is there."""
        try:
            import wandb  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise ExtraMissing(MISSING.format(kind="wandb")) from error
        self._package: Any = wandb
        folder = Path(spec.run_folder)
        self._options = {
            "project": spec.track.project,
            "name": spec.name,
            "id": hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:16],
            "dir": str(folder),
            "mode": "online" if spec.track.online else "offline",
            "resume": "allow" if spec.track.online else None,
            "config": spec.model_dump(mode="json"),
        }
        self._run: Any = None

    def __call__(self, record: ProgressRecord) -> None:
        if self._run is None:
            self._run = self._package.init(**self._options)
        self._run.log(flat(record), step=record.step)

    def close(self) -> None:
        """Let it send or write the rest."""
        if self._run is not None:
            self._run.finish()
