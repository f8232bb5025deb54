"""The files of a bundle: a manifest beside one safetensors file, written once and checked by digest when read."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from wonder.errors import ArtifactError, CorruptBundle
from wonder.probes.manifest import MANIFEST_FILE
from wonder.wire import WireModel


def write_bundle(folder: Path, manifest: WireModel, tensors: Mapping[str, Tensor]) -> None:
    """Write a bundle into an empty or new folder; the manifest's `tensors_sha256` is filled in.

    Args:
        folder: Made if need be.
        manifest: Has the fields `tensors_file` and `tensors_sha256`.
        tensors: What the tensors file holds.

    Raises:
        ArtifactError: The folder already holds a bundle; bundles never change.
    """
    if (folder / MANIFEST_FILE).exists():
        raise ArtifactError(f"{folder} already holds a bundle, and bundles never change: save to another folder")
    folder.mkdir(parents=True, exist_ok=True)
    content = save({name: tensor.contiguous().cpu() for name, tensor in tensors.items()})
    full = manifest.model_dump(mode="json") | {"tensors_sha256": hashlib.sha256(content).hexdigest()}
    _write(folder / str(full["tensors_file"]), content)
    # The manifest comes last: a folder without one is no bundle, so a crash in between leaves nothing half valid.
    _write(folder / MANIFEST_FILE, (json.dumps(full, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def read_tensors(path: Path, sha256: str | None) -> dict[str, Tensor]:
    """Read the tensors file of a bundle.

    Raises:
        CorruptBundle: It is missing, changed, or not safetensors.
    """
    if not path.is_file():
        raise CorruptBundle(f"{path.parent} has no {path.name}, which its manifest names: copy it whole")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise CorruptBundle(f"{path} has sha256 {found[:12]}, its manifest says {str(sha256)[:12]}: fetch it again")
    # The first eight bytes of safetensors are a length, which may begin like a pickle or a zip; a brace follows.
    if content[8:9] != b"{" and (content[:1] == b"\x80" or content[:2] == b"PK"):
        raise CorruptBundle(f"{path} is a pickle or zip, wanted safetensors: it is never opened, export it anew")
    try:
        return load(content)
    except SafetensorError as error:
        raise CorruptBundle(f"{path} is not safetensors ({error}): export it anew") from error


def _write(path: Path, content: bytes) -> None:
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    os.replace(part, path)
