"""Checkpoints: everything that the next step depends on, in safetensors and JSON, published by one rename.

A folder `step_00001234` is complete or not there: it is written under another name, synced and renamed, and `LATEST` is
renamed last. Each process writes one file with what it alone holds; a tensor that is spread over processes is found in
several, each with some of its rows, and can be read in any other division. Nothing is unpickled.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any, Final, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, distributed
from torch.distributed.tensor import DTensor

from lens_training.artifacts import FileEntry, Manifest, publish, publish_manifest, read_manifest, sweep, verify
from lens_training.train.kept import LATEST, name_of
from lens_training.train.ranks import Ranks
from wonder.errors import ArtifactError, CorruptCheckpoint, LeaseLost, StoreNotUsable, WonderError

MANIFEST: Final = "checkpoint.json"
ROWS: Final = "rows"
"""Of the metadata of a file: which rows of a tensor it holds, [first, of how many]."""
_FINE, _LOST, _UNUSABLE = range(3)


class CheckpointManifest(Manifest):
    """What a checkpoint is."""

    step: int
    state: dict[str, Any]
    """All that is no tensor."""


@dataclass(frozen=True)
class Part:
    """What this process holds of a tensor."""

    value: Tensor
    first: int
    """Row of the whole with which it begins."""
    of: int
    """Rows of the whole."""


def file_name(rank: int) -> str:
    """Of what one process holds."""
    return f"tensors-{rank:05d}.safetensors"


def part_of(value: Tensor) -> Tensor | Part:
    """A tensor, or this process's rows of one that is spread."""
    if not isinstance(value, DTensor):
        return value
    own, mesh = value.to_local(), value.device_mesh
    chunk = -(-value.shape[0] // mesh.size())
    return Part(own, min(mesh.get_local_rank() * chunk, value.shape[0]), value.shape[0])


class Checkpoint:
    """One that is whole."""

    def __init__(self, place: Path, manifest: CheckpointManifest) -> None:
        """`place` is its folder."""
        self.place, self.step, self.state = place, manifest.step, manifest.state
        self._found: dict[str, list[tuple[Path, int, int]]] = {}
        for entry in manifest.files:
            with safe_open(place / entry.name, "pt") as file:
                rows = json.loads((file.metadata() or {}).get(ROWS, "{}"))
                for name in file.keys():  # noqa: SIM118 - it is no mapping
                    first, of = rows.get(name, (0, -1))
                    self._found.setdefault(name, []).append((place / entry.name, first, of))

    @property
    def names(self) -> frozenset[str]:
        """Of its tensors."""
        return frozenset(self._found)

    def tensor(self, name: str, first: int = 0, last: int | None = None) -> Tensor:
        """A tensor, or its rows from `first` to before `last`."""
        pieces = sorted(self._found[name], key=lambda piece: piece[1])
        found: list[Tensor] = []
        for path, begin, _ in pieces:
            with safe_open(path, "pt") as file:
                if len(pieces) == 1 and last is None:
                    return cast(Tensor, file.get_tensor(name))
                piece = file.get_slice(name)
                size = piece.get_shape()[0]
                low = min(max(first - begin, 0), size)
                high = size if last is None else min(max(last - begin, low), size)
                if low < high or not found:
                    found.append(piece[low:high])
        return torch.cat(found)

    def like(self, name: str, value: Tensor) -> Tensor:
        """What belongs where `value` is: the whole, or this process's rows of it."""
        part = part_of(value)
        return (
            self.tensor(name, part.first, part.first + len(part.value)) if isinstance(part, Part) else self.tensor(name)
        )

    def all(self) -> dict[str, Tensor]:
        """Every tensor, whole."""
        return {name: self.tensor(name) for name in sorted(self._found)}


@dataclass
class Writer:
    """Publishes checkpoints of a run while training goes on; one at a time."""

    folder: Path
    keep: int = 3
    """How many of the newest stay."""
    ranks: Ranks = field(default_factory=Ranks)
    may_publish: Callable[[], None] = lambda: None
    """Asked by the first process before a checkpoint is published; raises where it may not."""
    attempt: int = 0
    """Tells what is half written by this attempt from what an older one may still be writing."""
    _thread: Thread | None = None
    _error: WonderError | None = None

    def save(self, step: int, tensors: Mapping[str, Tensor | Part], state: Mapping[str, Any]) -> None:
        """Copy everything, and publish it in the background; every process calls this at the same step.

        Args:
            step: Steps that are done.
            tensors: Weights, moments of the optimizer: what only one process need say is taken from the first.
            state: All else; plain JSON.

        Raises:
            LeaseLost: The checkpoint before could not be published, as another attempt owns the run.
            StoreNotUsable: It could not be written.
        """
        self.wait()
        own, rows = {}, {}
        for name, value in tensors.items():
            if isinstance(value, Part):
                rows[name] = (value.first, value.of)
            elif self.ranks.rank:
                continue
            held = value.value if isinstance(value, Part) else value
            own[name] = held.detach().to("cpu", copy=True).contiguous()
        self._thread = Thread(target=self._run, args=(step, own, rows, dict(state)), name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Until what was saved is published.

        Raises:
            LeaseLost: It could not be published, as another attempt owns the run.
            StoreNotUsable: It could not be written.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def finish(self) -> None:
        """Until nothing is being written; how it went is not asked any more."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def sweep(self) -> None:
        """Remove what attempts before this one left half written; only for who owns the run."""
        for left in self.folder.glob(".step_*"):
            shutil.rmtree(left, ignore_errors=True)
        sweep(self.folder, (LATEST, "status.json", "lease.json"))

    def _run(self, step: int, own: dict[str, Tensor], rows: Mapping[str, Any], state: dict[str, Any]) -> None:
        try:
            self._publish(step, own, rows, state)
        except WonderError as error:
            self._error = error
        except Exception as error:
            self._error = StoreNotUsable(f"the checkpoint of step {step} cannot be written to {self.folder} ({error})")

    def _publish(self, step: int, own: dict[str, Tensor], rows: Mapping[str, Any], state: dict[str, Any]) -> None:
        name = name_of(step)
        final, temporary = self.folder / name, self.folder / f".{name}.{self.attempt}"
        entry: FileEntry | None = None
        error: WonderError | None = None
        try:
            temporary.mkdir(parents=True, exist_ok=True)
            metadata = {ROWS: json.dumps(rows)} if rows else None
            entry = publish(temporary / file_name(self.ranks.rank), save(own, metadata))
        except OSError as why:
            error = StoreNotUsable(
                f"{temporary} cannot be made ({why.strerror}): make room or access, then start again"
            )
        except StoreNotUsable as why:
            error = why
        entries = self._gathered(entry)
        outcome = _FINE
        if self.ranks.rank == 0:
            try:
                if None in entries:
                    raise error or StoreNotUsable(f"a process could not write its part of {final}: make room")
                files = [entry for entry in entries if entry is not None]
                manifest = CheckpointManifest(kind="lens-checkpoint", files=files, step=step, state=state)
                publish_manifest(temporary, manifest, MANIFEST)
                self.may_publish()
                if final.exists():
                    shutil.rmtree(final)
                temporary.rename(final)
                publish(self.folder / LATEST, name.encode())
                self._forget(step)
            except LeaseLost as why:
                outcome, error = _LOST, why
            except StoreNotUsable as why:
                outcome, error = _UNUSABLE, why
            except OSError as why:
                outcome, error = _UNUSABLE, StoreNotUsable(f"{final} cannot be published ({why.strerror}): make room")
            if outcome != _FINE:
                shutil.rmtree(temporary, ignore_errors=True)
        outcome = self._told(outcome)
        if outcome == _LOST:
            raise error or LeaseLost(f"this attempt no longer owns {self.folder}; nothing has to be done")
        if outcome == _UNUSABLE:
            raise error or StoreNotUsable(f"{final} could not be published by another process: see its message")

    def _forget(self, step: int) -> None:
        """Let the oldest go, and those that are ahead: they are of a way that was left."""
        found = {path: int(path.name.removeprefix("step_")) for path in self.folder.glob("step_*")}
        behind = sorted(path for path, at in found.items() if at <= step)
        for path in {*behind[: -self.keep], *(path for path, at in found.items() if at > step)}:
            shutil.rmtree(path, ignore_errors=True)

    def _gathered(self, entry: FileEntry | None) -> list[FileEntry | None]:
        if self.ranks.count == 1:
            return [entry]
        own = torch.zeros(40, dtype=torch.uint8)
        if entry is not None:
            said = entry.bytes.to_bytes(8, "little") + bytes.fromhex(entry.sha256)
            own = torch.frombuffer(bytearray(said), dtype=torch.uint8)
        every = [torch.empty_like(own) for _ in range(self.ranks.count)]
        distributed.all_gather(every, own, group=self.ranks.files)
        found: list[FileEntry | None] = []
        for rank, value in enumerate(every):
            said = bytes(value.tolist())
            size = int.from_bytes(said[:8], "little")
            found.append(FileEntry(name=file_name(rank), bytes=size, sha256=said[8:].hex()) if size else None)
        return found

    def _told(self, outcome: int) -> int:
        if self.ranks.count == 1:
            return outcome
        said = torch.tensor(outcome)
        distributed.broadcast(said, 0, group=self.ranks.files)
        return int(said)


def save_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any], *, keep: int = 3
) -> Path:
    """Publish one now, from this process alone, and let the oldest go.

    Raises:
        StoreNotUsable: It cannot be written; what was there stays.
    """
    writer = Writer(folder, keep)
    writer.save(step, tensors, state)
    writer.wait()
    return folder / name_of(step)


def open_checkpoint(folder: Path, ranks: Ranks | None = None, step: int | None = None) -> Checkpoint | None:
    """The newest one, or that of a step; None where `LATEST` names none.

    Args:
        folder: Of the run.
        ranks: Of several processes each compares some of the files' digests.
        step: Of an older one.

    Raises:
        CorruptCheckpoint: It is not what was written.
    """
    ranks = ranks or Ranks()
    try:
        place = folder / (name_of(step) if step is not None else (folder / LATEST).read_text().strip())
    except FileNotFoundError:
        return None
    error: Exception | None = None
    found: Checkpoint | None = None
    try:
        manifest = read_manifest(CheckpointManifest, place, MANIFEST)
        for entry in manifest.files[ranks.rank :: ranks.count]:
            verify(place, entry)
        found = Checkpoint(place, manifest)
    except (ArtifactError, SafetensorError, OSError, ValueError, KeyError) as why:
        error = why
    if ranks.any(error is not None):
        raise CorruptCheckpoint(
            f"{place} is not a whole checkpoint ({error or 'another process found it so'}): remove it and point "
            f"{LATEST} to an older one"
        )
    return found


def load_checkpoint(folder: Path, step: int | None = None) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
    """Step, tensors and state of the newest checkpoint, or of that of a step; None where there is none.

    Raises:
        CorruptCheckpoint: It is not what was written.
    """
    found = open_checkpoint(folder, step=step)
    return None if found is None else (found.step, found.all(), found.state)
