"""A folder of calibrations: immutable bundles, and which one is in force for each (model revision, action).

```
<root>/bundles/<id>.json                    written once, named by its content, checked whenever it is read
<root>/in_force/<model>/<action>.json       moved from bundle to bundle; also says when one has drifted
```

The folder may be shared between machines: files are replaced whole, and a move is refused when somebody else moved
first.
"""

import fcntl
import hashlib
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from wonder.calibration.bundle import CalibrationBundle, canonical, read_bundle
from wonder.errors import CalibrationConflict, CorruptBundle
from wonder.names import model_slug
from wonder.trace.schema import ThoughtTrace
from wonder.wire import WireModel, WireRecord

MOVES_KEPT = 50


class Drift(WireRecord):
    """That a calibration no longer fits what comes in, or what people decide."""

    found_at: datetime
    because: str
    """One sentence."""


class Move(WireRecord):
    """One bundle that came into force."""

    bundle: str
    at: datetime
    because: str = ""


class InForce(WireModel):
    """Which calibration an action uses on one model revision."""

    action: str
    model: str
    bundle: str
    """Id of the bundle in force."""
    drift: Drift | None = None
    """Set: the bundle is no longer applied, until another one comes into force."""
    moves: Annotated[list[Move], Field(max_length=MOVES_KEPT)] = Field(default_factory=list)
    """Oldest first; the last one is the bundle in force."""


class CalibrationRegistry:
    """Reads and moves what is in a folder of calibrations."""

    def __init__(self, root: Path | str) -> None:
        """`root` is made with the first bundle."""
        self.root = Path(root).expanduser().resolve()

    def __repr__(self) -> str:
        return f"CalibrationRegistry({str(self.root)!r})"

    def put(self, bundle: CalibrationBundle) -> Path:
        """Keep a bundle; it is not in force yet.

        Raises:
            CorruptBundle: Its id is not that of its content, or it is too large.
        """
        content = canonical(bundle.document())
        read_bundle(content, f"the bundle {bundle.id[:12]!r}")
        path = self._bundle_path(bundle.id)
        if not path.exists():
            _write_whole(path, content)
        return path

    def get(self, id: str) -> CalibrationBundle:
        """A bundle, checked against its id.

        Raises:
            CorruptBundle: It is missing or was changed.
        """
        path = self._bundle_path(id)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise CorruptBundle(f"{path} cannot be read ({error.strerror}): restore it or calibrate again") from None
        bundle = read_bundle(content, str(path))
        if bundle.id != id:
            raise CorruptBundle(f"{path} holds the calibration {bundle.id[:12]}: restore it or calibrate again")
        return bundle

    def in_force(self, action: str, model: str, revision: str = "", fingerprint: str = "") -> InForce | None:
        """Which bundle an action uses on a model revision; None if there is none.

        Raises:
            CorruptBundle: The entry cannot be read.
        """
        return _read_entry(self._entry_path(action, model, revision, fingerprint))

    def entries(self) -> list[InForce]:
        """Everything that is in force.

        Raises:
            CorruptBundle: An entry cannot be read.
        """
        found = (_read_entry(path) for path in sorted(self.root.glob("in_force/*/*.json")))
        return [entry for entry in found if entry is not None]

    def for_trace(self, trace: ThoughtTrace) -> tuple[CalibrationBundle | None, str]:
        """The calibration in force for a trace, or None and, where there is something to say, why not.

        Raises:
            CorruptBundle: What is in force cannot be read.
        """
        model, revision = trace.model, trace.model_revision
        entry = self.in_force(trace.action, model, revision, trace.model_fingerprint)
        if entry is None:
            # Labels from elsewhere may know the model by name only.
            entry = self.in_force(trace.action, model, revision)
        if entry is None:
            return None, ""
        if entry.drift is not None:
            return None, (
                f"drifted: calibration {entry.bundle[:12]} is out of force since {entry.drift.found_at:%Y-%m-%d %H:%M} "
                f"({entry.drift.because}); calibrate again from newer labels"
            )
        return self.get(entry.bundle), ""

    def promote(
        self, bundle: CalibrationBundle, *, at: datetime, because: str = "", replacing: str | None = None
    ) -> InForce:
        """Keep a bundle and put it in force.

        Args:
            bundle: The new one.
            at: When.
            because: Why, for the record.
            replacing: Id of the bundle that is in force now, as the caller knows it; None: there is none.

        Raises:
            CalibrationConflict: Another one is in force than the caller knows.
            CorruptBundle: The bundle's id is not that of its content, or what is in force cannot be read.
        """
        self.put(bundle)
        path = self._path_of(bundle)
        with self._lock():
            entry = _read_entry(path)
            found = entry.bundle if entry else None
            if found != replacing:
                raise CalibrationConflict(
                    f"the calibration of {bundle.action!r} in force is {_short(found)}, not {_short(replacing)}: "
                    "somebody moved it meanwhile; look at the new one and try again"
                )
            moves = [*(entry.moves if entry else []), Move(bundle=bundle.id, at=at, because=because)][-MOVES_KEPT:]
            moved = InForce(action=bundle.action, model=bundle.model, bundle=bundle.id, moves=moves)
            _write_whole(path, moved.model_dump_json(indent=1).encode())
        return moved

    def mark_drift(self, bundle: CalibrationBundle, drift: Drift | None) -> InForce:
        """Take a bundle out of force because it has drifted, or put it back (None).

        Raises:
            CalibrationConflict: Another one is in force.
        """
        path = self._path_of(bundle)
        with self._lock():
            entry = _read_entry(path)
            if entry is None or entry.bundle != bundle.id:
                raise CalibrationConflict(
                    f"{_short(bundle.id)} is not in force for {bundle.action!r} "
                    f"({_short(entry.bundle if entry else None)} is): nothing was marked"
                )
            marked = entry.model_copy(update={"drift": drift})
            _write_whole(path, marked.model_dump_json(indent=1).encode())
        return marked

    def _bundle_path(self, id: str) -> Path:
        if not re.fullmatch(r"[0-9a-f]{64}", id):
            raise CorruptBundle(f"{id[:80]!r} is not the id of a calibration, which has 64 hexadecimal digits")
        return self.root / "bundles" / f"{id}.json"

    def _path_of(self, bundle: CalibrationBundle) -> Path:
        return self._entry_path(bundle.action, bundle.model, bundle.model_revision, bundle.model_fingerprint)

    def _entry_path(self, action: str, model: str, revision: str, fingerprint: str) -> Path:
        weights = fingerprint or hashlib.sha256(f"{model}@{revision}".encode()).hexdigest()
        # Weights are told apart by their digest alone: the same ones may be served under several names and folders.
        return self.root / "in_force" / weights[:32] / f"{_file_name(action)}.json"

    @contextmanager
    def _lock(self) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / ".lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _read_entry(path: Path) -> InForce | None:
    try:
        return InForce.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        said = error.strerror if isinstance(error, OSError) else "it is not an entry of a registry"
        raise CorruptBundle(f"{path} cannot be read ({said}): restore it, or remove it and calibrate again") from None


def _file_name(action: str) -> str:
    """Any action's name as a file name; different names never meet."""
    slug = model_slug(action)
    return (
        slug
        if slug == action and len(slug) < 100
        else f"{slug[:80]}-{hashlib.sha256(action.encode()).hexdigest()[:12]}"
    )


def _short(id: str | None) -> str:
    return id[:12] if id else "none"


def _write_whole(path: Path, content: bytes) -> None:
    """Write so that a reader, or a crash, sees either the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
