"""Files that are published whole or not at all, and manifests that know the bytes of each; torch-free."""

import errno
import hashlib
import json
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from lens_training.spec import digest_of
from wonder.errors import ArtifactCorrupt, ArtifactMissing, StoreNotUsable

MANIFEST: Final = "manifest.json"
CHUNK: Final = 4 * 2**20
FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

Found = TypeVar("Found", bound="Manifest")


class FileEntry(BaseModel):
    """A published file."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    bytes: int
    sha256: str


class Manifest(BaseModel):
    """What a folder holds; written last, so that where there is one the folder is whole."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    kind: str
    files: list[FileEntry]

    def digest(self) -> str:
        """Of all it says, and so of all bytes it stands for."""
        return digest_of(self.model_dump(mode="json"))


class Part:
    """A file that is being written under a temporary name, with its digest kept along."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self.bytes = 0

    def write(self, data: Any) -> None:
        """Append bytes, or a C-contiguous buffer of them."""
        view = memoryview(data).cast("B")
        self._file.write(view)
        self._sha256.update(view)
        self.bytes += len(view)

    def entry(self, name: str) -> FileEntry:
        """What was written so far."""
        return FileEntry(name=name, bytes=self.bytes, sha256=self._sha256.hexdigest())


@contextmanager
def publishing(path: Path) -> Iterator[Part]:
    """Write a file that appears under its name when the block ends well, and leaves nothing otherwise.

    Raises:
        StoreNotUsable: The disk is full, or the folder takes no files.
    """
    part = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            yield Part(file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        why = "there is no room for it" if error.errno in FULL else error.strerror
        raise StoreNotUsable(
            f"{path.name} cannot be written to {path.parent} ({why}); nothing of it was published: make room or "
            "access, then start again, which goes on from here"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def publish(path: Path, data: bytes) -> FileEntry:
    """Publish bytes that are at hand."""
    with publishing(path) as part:
        part.write(data)
    return part.entry(path.name)


def publish_manifest(folder: Path, manifest: Manifest, name: str = MANIFEST) -> None:
    """Publish what makes a folder whole."""
    value = manifest.model_dump(mode="json")
    publish(folder / name, json.dumps({**value, "digest": digest_of(value)}, indent=1).encode() + b"\n")


def read_manifest(kind: type[Found], folder: Path, name: str = MANIFEST) -> Found:
    """The manifest of a folder.

    Raises:
        ArtifactMissing: There is none, so the stage has not ended.
        ArtifactCorrupt: It was changed.
    """
    path = folder / name
    try:
        value = json.loads(path.read_bytes())
        found = kind.model_validate(value)
    except FileNotFoundError:
        raise ArtifactMissing(f"{folder} has no {name}: the stage that makes it has not ended; run it") from None
    except (ValueError, ValidationError) as error:
        raise ArtifactCorrupt(f"{path} is no manifest ({str(error).splitlines()[0]}): make the folder anew") from None
    digest = value.pop("digest", None) if isinstance(value, dict) else None
    if digest != digest_of(value):
        raise ArtifactCorrupt(f"{path} was changed after it was written: make the folder anew")
    return found


def verify(folder: Path, entry: FileEntry, *, bytes_too: bool = True) -> None:
    """Compare a file with what was published.

    Args:
        folder: Where it is.
        entry: What was published.
        bytes_too: Otherwise only the size is compared.

    Raises:
        ArtifactMissing: It is gone.
        ArtifactCorrupt: It has other bytes.
    """
    path = folder / entry.name
    try:
        size = path.stat().st_size
    except OSError:
        raise ArtifactMissing(f"{path} is gone: make the folder anew, or restore it") from None
    if size != entry.bytes:
        raise ArtifactCorrupt(f"{path} has {size} bytes, wanted {entry.bytes}: it was cut or added to; make it anew")
    if bytes_too and (found := sha256_of(path)) != entry.sha256:
        raise ArtifactCorrupt(f"{path} has sha256 {found[:12]}…, wanted {entry.sha256[:12]}…: it was changed")


def is_whole(folder: Path, entry: FileEntry) -> bool:
    """Whether a file is there as it was published."""
    try:
        verify(folder, entry)
    except (ArtifactMissing, ArtifactCorrupt):
        return False
    return True


def sha256_of(path: Path) -> str:
    """The digest of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def sweep(folder: Path, names: Iterable[str]) -> None:
    """Remove what killed processes of this machine left of these files."""
    for name in names:
        for part in folder.glob(f".{name}.{socket.gethostname()}.*.part"):
            if not _is_alive(int(part.name.split(".")[-2])):
                part.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sync_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
