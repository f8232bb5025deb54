"""A folder of lenses: immutable versions, and which of them an alias points to for each model's weights; torch-free.

```
<root>/<name>/versions/<digest>/               a bundle, written once, checked when it comes in
<root>/<name>/aliases/<alias>/<weights>.json   moved from version to version by a gate
```

The folder may be shared between machines: a version appears whole, files are replaced whole, and a move is refused when
somebody else moved first.
"""

import fcntl
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, ValidationError

from wonder.errors import CorruptBundle, LensConflict, LensNotPromoted, StoreNotUsable, UnknownLens
from wonder.lens.gate import Bars, judge
from wonder.lens.manifest import LENS_FILE, NAME, LensManifest, check_files, read_manifest
from wonder.wire import WireModel, WireRecord

VERSIONS: Final = "versions"
CURRENT: Final = "current"
"""The alias that workers load."""
MOVES_KEPT: Final = 50


class Move(WireRecord):
    """One version that an alias came to point to."""

    version: str
    at: datetime
    because: str = ""


class InForce(WireModel):
    """Which version an alias points to, for one model's weights."""

    name: str
    alias: str
    fingerprint: str
    version: str
    """Digest of the bundle."""
    moves: Annotated[list[Move], Field(max_length=MOVES_KEPT)] = Field(default_factory=list)
    """Oldest first; the last one is in force."""


class LensRegistry:
    """Reads and moves what is in a folder of lenses."""

    def __init__(self, root: Path | str) -> None:
        """`root` is made with the first lens."""
        self.root = Path(root).expanduser().resolve()

    def __repr__(self) -> str:
        return f"LensRegistry({str(self.root)!r})"

    def register(self, folder: Path) -> LensManifest:
        """Keep a bundle as a version of its name; it is not in force yet. A version that is there stays as it is.

        Raises:
            CorruptBundle: It is harmed.
            StoreNotUsable: There is no room for it.
        """
        manifest = read_manifest(folder)
        check_files(folder, manifest)
        target = self._version(manifest.name, manifest.digest or "")
        if (target / LENS_FILE).is_file():
            return read_manifest(target)
        part = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(folder, part, symlinks=False)
            check_files(part, manifest)
            part.replace(target)
        except OSError as error:
            if not (target / LENS_FILE).is_file():  # else somebody else was faster with the same bytes
                raise StoreNotUsable(
                    f"{manifest.id} cannot be kept in {self.root} ({error.strerror or error}); nothing of it was left: "
                    "make room or access"
                ) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return manifest

    def names(self) -> list[str]:
        """Of the lenses there are."""
        return sorted(path.parent.name for path in self.root.glob(f"*/{VERSIONS}"))

    def versions(self, name: str) -> list[LensManifest]:
        """All versions of a lens, oldest first.

        Raises:
            UnknownLens: There is no such lens.
            CorruptBundle: A manifest was changed.
        """
        self._known(name)
        found = [read_manifest(path.parent) for path in self._named(name).glob(f"{VERSIONS}/*/{LENS_FILE}")]
        return sorted(found, key=lambda manifest: (manifest.created, manifest.digest or ""))

    def version(self, name: str, version: str) -> LensManifest:
        """One version, by its digest or the beginning of it.

        Raises:
            UnknownLens: There is none, or more than one.
            CorruptBundle: Its manifest was changed, or it lies under another digest.
        """
        digest = version.removeprefix(f"{name}@")
        self._known(name)
        if not re.fullmatch(r"[0-9a-f]{4,64}", digest):
            raise UnknownLens(f"{version!r} is no version: give 4 to 64 hexadecimal digits of its digest")
        found = sorted(self._named(name).glob(f"{VERSIONS}/{digest}*/{LENS_FILE}"))
        if len(found) != 1:
            have = ", ".join(path.name[:12] for path in sorted(self._named(name).glob(f"{VERSIONS}/[0-9a-f]*")))
            raise UnknownLens(f"{len(found) or 'no'} versions of {name!r} begin with {digest}; there is {have}")
        manifest = read_manifest(found[0].parent)
        if manifest.digest != found[0].parent.name:
            raise CorruptBundle(f"{found[0].parent} holds {manifest.id}: restore it, or register that lens again")
        return manifest

    def path(self, manifest: LensManifest) -> Path:
        """Where the bundle of a version is."""
        return self._version(manifest.name, manifest.digest or "")

    def in_force(self, name: str, fingerprint: str, alias: str = CURRENT) -> InForce | None:
        """What an alias points to for one model's weights; None: nothing yet.

        Raises:
            CorruptBundle: The entry cannot be read.
        """
        return _read(self._entry(name, fingerprint, alias))

    def entries(self, alias: str = CURRENT) -> list[InForce]:
        """Everything that an alias points to.

        Raises:
            CorruptBundle: An entry cannot be read.
        """
        found = (_read(path) for path in sorted(self.root.glob(f"*/aliases/{alias}/*.json")))
        return [entry for entry in found if entry is not None]

    def promote(
        self, name: str, version: str, bars: Bars, *, at: datetime, alias: str = CURRENT, replacing: str | None = ""
    ) -> InForce:
        """Let an alias point to a version, if the gate lets it through.

        Args:
            name: Of the lens.
            version: Its digest, or the beginning of it.
            bars: What it must reach.
            at: When.
            alias: Which one.
            replacing: Digest of what is in force, as the caller knows it (None: nothing); "": whatever is.

        Raises:
            LensNotPromoted: It is not good enough; nothing was moved.
            LensConflict: Something else is in force than the caller knows.
            UnknownLens: There is no such version.
            CorruptBundle: It, or what is in force, is harmed.
        """
        manifest = self.version(name, version)
        check_files(self.path(manifest), manifest)
        fingerprint = manifest.target.fingerprint
        path = self._entry(name, fingerprint, alias)
        with self._lock():
            entry = _read(path)
            standing = entry.version if entry else None
            if replacing != "" and standing != replacing:
                raise LensConflict(
                    f"{alias!r} of {name!r} points to {_short(standing)}, not {_short(replacing)}: somebody moved it "
                    "meanwhile; look at the new one and try again"
                )
            if entry is not None and standing == manifest.digest:
                return entry
            champion = None if standing is None else self.version(name, standing)
            verdict = judge(manifest, champion, bars)
            if not verdict.passed:
                raise LensNotPromoted(f"nothing was moved: {verdict.reason}")
            move = Move(version=manifest.digest or "", at=at, because=verdict.reason)
            moves = [*(entry.moves if entry else []), move][-MOVES_KEPT:]
            moved = InForce(name=name, alias=alias, fingerprint=fingerprint, version=move.version, moves=moves)
            _write_whole(path, moved.model_dump_json(indent=1).encode())
        return moved

    def _named(self, name: str) -> Path:
        if not re.fullmatch(NAME, name):
            raise UnknownLens(f"{name[:80]!r} is no name of a lens: small letters, digits, - and _")
        return self.root / name

    def _known(self, name: str) -> None:
        if not (self._named(name) / VERSIONS).is_dir():
            raise UnknownLens(
                f"no lens {name!r} in {self.root}, which has {', '.join(self.names()) or 'none'}: register it first"
            )

    def _version(self, name: str, digest: str) -> Path:
        return self._named(name) / VERSIONS / digest

    def _entry(self, name: str, fingerprint: str, alias: str) -> Path:
        if not re.fullmatch(NAME, alias):
            raise UnknownLens(f"{alias[:80]!r} is no alias: small letters, digits, - and _")
        return self._named(name) / "aliases" / alias / f"{fingerprint[:32]}.json"

    @contextmanager
    def _lock(self) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / ".lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def find_bundles(path: Path, fingerprint: str) -> list[Path]:
    """The bundles that a path stands for: itself, those in it, or what is in force in a registry for a model.

    Args:
        path: A bundle, a folder of bundles, a registry, or a lens of a registry (`<registry>/<name>`, or
            `<registry>/<name>@<version or alias>`).
        fingerprint: Of the model's weights.

    Raises:
        UnknownLens: There is none; of a whole registry, there may be none.
        CorruptBundle: An entry of the registry cannot be read.
    """
    path = path.expanduser()
    if (path / LENS_FILE).is_file():
        return [path]
    name, _, which = path.name.partition("@")
    if (path.parent / name / VERSIONS).is_dir():
        registry, which = LensRegistry(path.parent), which or CURRENT
        if re.fullmatch(r"[0-9a-f]{12,64}", which):
            return [registry.path(registry.version(name, which))]
        entry = registry.in_force(name, fingerprint, which)
        if entry is None:
            raise UnknownLens(
                f"{which!r} of the lens {name!r} in {path.parent} points to nothing for these weights "
                f"({fingerprint[:12]}): promote a version that was trained on them"
            )
        return [registry.path(registry.version(name, entry.version))]
    if any(path.glob(f"*/{VERSIONS}")):
        registry = LensRegistry(path)
        entries = [entry for entry in registry.entries() if fingerprint == entry.fingerprint]
        return [registry.path(registry.version(entry.name, entry.version)) for entry in entries]
    found = sorted(file.parent for file in path.glob(f"*/{LENS_FILE}"))
    if not found:
        raise UnknownLens(f"{path} holds no lens: name a bundle, a folder of bundles, or a registry")
    return found


def _read(path: Path) -> InForce | None:
    try:
        return InForce.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        said = error.strerror if isinstance(error, OSError) else "it is no entry of a registry"
        raise CorruptBundle(f"{path} cannot be read ({said}): restore it, or remove it and promote again") from None


def _short(version: str | None) -> str:
    return version[:12] if version else "nothing"


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
