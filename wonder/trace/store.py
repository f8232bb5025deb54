"""Where artifacts are kept: content-addressed, written once, verified on every read."""

import hashlib
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Protocol
from urllib.parse import unquote, urlsplit

from wonder.errors import ArtifactCorrupt, ArtifactMissing, SettingNotSupported, StoreNotUsable
from wonder.trace.artifacts import ArtifactRef, TensorSpec
from wonder.trace.s3 import S3Store


class ArtifactStore(Protocol):
    """What the engine and every reader need of a store."""

    def put(
        self,
        data: bytes,
        *,
        format: Literal["safetensors", "json"] = "safetensors",
        tensors: Mapping[str, TensorSpec] | None = None,
        content: str = "",
    ) -> ArtifactRef:
        """Keep the bytes and say where they are; the same bytes are kept once."""
        ...

    def get(self, ref: ArtifactRef) -> bytes:
        """The bytes of a reference.

        Raises:
            ArtifactMissing: Nothing is stored there, or the address is not of this store.
            ArtifactCorrupt: The bytes are not those that were stored.
        """
        ...

    def uri(self, sha256: str) -> str:
        """Where this store keeps, or would keep, the bytes of a digest."""
        ...


class DirectoryStore:
    """A folder, local or shared: `<root>/<first two digits>/<sha256>`."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).expanduser().resolve()

    def __repr__(self) -> str:
        return f"DirectoryStore({str(self.root)!r})"

    def put(
        self,
        data: bytes,
        *,
        format: Literal["safetensors", "json"] = "safetensors",
        tensors: Mapping[str, TensorSpec] | None = None,
        content: str = "",
    ) -> ArtifactRef:
        digest = hashlib.sha256(data).hexdigest()
        path = self._path(digest)
        if not _holds(path, digest, len(data)):
            _write_whole(path, data)
        return ArtifactRef(
            uri=self.uri(digest),
            sha256=digest,
            bytes=len(data),
            format=format,
            tensors=dict(tensors or {}),
            content=content,
        )

    def get(self, ref: ArtifactRef) -> bytes:
        path = self._address(ref)
        try:
            size = path.stat().st_size
            data = path.read_bytes() if size == ref.bytes else b""
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise ArtifactMissing(
                f"nothing is stored at {ref.uri}: it was removed, or this machine does not see the folder {self.root}"
            ) from None
        if size != ref.bytes:
            raise ArtifactCorrupt(f"{ref.uri} has {size} bytes, wanted {ref.bytes}: restore it from a backup")
        found = hashlib.sha256(data).hexdigest()
        if found != ref.sha256:
            raise ArtifactCorrupt(
                f"{ref.uri} has sha256 {found[:12]}…, wanted {ref.sha256[:12]}…: its bytes were changed; "
                "restore it from a backup"
            )
        return data

    def uri(self, sha256: str) -> str:
        return self._path(sha256).as_uri()

    def _path(self, digest: str) -> Path:
        return self.root / digest[:2] / digest

    def _address(self, ref: ArtifactRef) -> Path:
        """The one path a reference may have in this store; anything else is refused, so that none leads outside."""
        parts = urlsplit(ref.uri)
        want = self._path(ref.sha256)
        if parts.scheme != "file" or Path(unquote(parts.path)) != want:
            raise ArtifactMissing(
                f"{ref.uri} is not an address of the store {self.root}, which keeps these bytes at {want.as_uri()}: "
                "open the store that wrote it"
            )
        if want.resolve() != want:
            raise ArtifactMissing(f"{ref.uri} leads out of the store {self.root} through a link: it is not followed")
        return want


def open_store(uri: str | Path) -> ArtifactStore:
    """The store of an address: a folder, `file:///folder`, or `s3://bucket/prefix`.

    Raises:
        SettingNotSupported: There is no store for that kind of address.
        ExtraMissing: A store in S3 needs boto3, which is not installed.
        StoreNotUsable: boto3 cannot make a client from its configuration.
    """
    if isinstance(uri, Path):
        return DirectoryStore(uri)
    parts = urlsplit(uri)
    if parts.scheme == "file":
        return DirectoryStore(unquote(parts.path))
    if parts.scheme == "s3":
        return S3Store(uri)
    if "://" in uri:
        raise SettingNotSupported(f"no artifact store for {uri!r}: name a folder, or a file:// or s3:// address")
    return DirectoryStore(uri)


def try_out(store: ArtifactStore) -> None:
    """Write a known artifact of two bytes, so that a worker with an unusable store stops before it takes work.

    Raises:
        ArtifactError: The store takes nothing; the message says why.
    """
    try:
        store.put(b"{}", format="json", content="a try-out")
    except OSError as error:
        raise StoreNotUsable(f"{store!r} takes no artifacts ({error}): make room or access") from error


def _holds(path: Path, digest: str, size: int) -> bool:
    """Whether the bytes are there and whole: a damaged file is written again instead of being trusted."""
    try:
        return path.stat().st_size == size and hashlib.sha256(path.read_bytes()).hexdigest() == digest
    except OSError:
        return False


def _write_whole(path: Path, data: bytes) -> None:
    """Write so that a reader, or a crash, sees either nothing or all of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
