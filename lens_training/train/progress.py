"""Progress as files: one JSON line per report, and a status that is always whole. Torch-free: supervisors read them."""

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Final, Literal, Protocol

from pydantic import Field, ValidationError

from lens_training.artifacts import publish
from wonder.wire import WireModel

TAIL_BYTES: Final = 16_384
"""More than the longest report."""

State = Literal["running", "segment_done", "completed", "preempted", "failed"]


class ProgressRecord(WireModel):
    """One line of `progress.jsonl`."""

    step: int
    time: float
    """Seconds since the epoch."""
    phase: str = ""
    loss: float | None = None
    metrics: dict[str, float] = Field(default_factory=dict)
    steps_per_s: float | None = None
    eta_s: float | None = None
    learning_rate: float | None = None
    """Of the decoder."""
    gradient_norms: dict[str, float] = Field(default_factory=dict)
    """Of decoder and encoder, before they were clipped."""
    activations_per_s: float | None = None
    """Of all processes, like the rates and times below since the report before."""
    tokens_per_s: float | None = None
    """Tokens of texts."""
    mfu: float | None = None
    """Share of the cards' best floating-point rate; None where that is not known."""
    memory_peak_bytes: int | None = None
    """Of the first process: on its card, or on the host where it has none."""
    seconds: dict[str, float] = Field(default_factory=dict)
    """Of data, forward, backward, optimizer, and other."""


class Status(WireModel):
    """`status.json`: how a run stands; the exit code of a launcher says less."""

    state: State
    step: int = 0
    steps: int = 0
    checkpoint: str = ""
    error: str = ""
    """Class of the failure, by the documented names."""
    message: str = ""
    epoch: int = 0
    """Of the attempt that says so."""


class Mirror(Protocol):
    """Told every record after it was written."""

    def __call__(self, record: ProgressRecord) -> None: ...

    def close(self) -> None:
        """No more will come from this process."""
        ...


class Progress:
    """Writes the progress of one run."""

    def __init__(self, folder: Path, steps: int, epoch: int = 0, mirrors: Sequence[Mirror] = ()) -> None:
        """`folder` is the run's; reports are appended to what is there."""
        self._mirrors = mirrors
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.steps = steps
        self.epoch = epoch
        self._file: IO[str] = (folder / "progress.jsonl").open("a", encoding="utf-8", buffering=1)
        self._began_s = time.monotonic()
        self._first: int | None = None

    def report(
        self,
        step: int,
        *,
        phase: str,
        loss: float,
        metrics: Mapping[str, float],
        learning_rate: float,
        gradient_norms: Mapping[str, float] = MappingProxyType({}),
        seconds: Mapping[str, float] = MappingProxyType({}),
        **more: float | None,
    ) -> None:
        """Append one record; steps per second are those since this process began."""
        self._first = step if self._first is None else self._first
        passed = time.monotonic() - self._began_s
        rate = (step - self._first) / passed if step > self._first and passed > 0 else None
        record = ProgressRecord(
            step=step,
            time=time.time(),
            phase=phase,
            loss=loss,
            metrics=_rounded(metrics),
            gradient_norms=_rounded(gradient_norms),
            seconds=_rounded(seconds),
            steps_per_s=rate,
            eta_s=None if rate is None else (self.steps - step) / rate,
            learning_rate=learning_rate,
            **_rounded({name: value for name, value in more.items() if value is not None}),
        )
        self._file.write(record.model_dump_json(exclude_none=True) + "\n")
        for mirror in self._mirrors:
            mirror(record)

    def status(self, state: State, step: int, *, checkpoint: str = "", error: str = "", message: str = "") -> None:
        """Replace the status in one piece."""
        status = Status(
            state=state,
            step=step,
            steps=self.steps,
            checkpoint=checkpoint,
            error=error,
            message=message,
            epoch=self.epoch,
        )
        write_status(self.folder, status)

    def close(self) -> None:
        """Close the file, and the mirrors."""
        self._file.close()
        for mirror in self._mirrors:
            mirror.close()


def write_status(folder: Path, status: Status) -> None:
    """Replace the status in one piece."""
    publish(folder / "status.json", status.model_dump_json().encode())


def read_status(folder: Path) -> Status | None:
    """How a run stands; None before it has said so."""
    try:
        return Status.model_validate_json((folder / "status.json").read_bytes())
    except FileNotFoundError:
        return None


def last_progress(folder: Path) -> ProgressRecord | None:
    """The newest whole report; reads the end of the file only."""
    try:
        with (folder / "progress.jsonl").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            lines = file.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return None
    for line in reversed(lines):
        try:
            return ProgressRecord.model_validate_json(line)
        except ValidationError:
            continue
    return None


def final_trace(records: Iterable[ProgressRecord]) -> list[ProgressRecord]:
    """Without the reports of steps that were taken again, because what came after a checkpoint was lost."""
    kept: list[ProgressRecord] = []
    for record in records:
        while kept and kept[-1].step >= record.step:
            kept.pop()
        kept.append(record)
    return kept


def read_progress(folder: Path) -> Iterator[ProgressRecord]:
    """The reports of a run; a last line that was cut off is left out."""
    try:
        lines = (folder / "progress.jsonl").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        try:
            found: Any = json.loads(line)
        except json.JSONDecodeError:
            continue
        yield ProgressRecord.model_validate(found)


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.5g}") for name, value in values.items()}
