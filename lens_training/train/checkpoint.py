"""Checkpoints: everything that the next step depends on, in safetensors and JSON, published by one rename.

A folder `step_00001234` is complete or not there: it is written under another name, synced and renamed, and `LATEST` is
renamed last. Nothing is unpickled.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from lens_training.artifacts import publish
from lens_training.train.kept import LATEST, name_of
from wonder.errors import CorruptCheckpoint


def save_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any], *, keep: int = 3
) -> Path:
    """Publish a checkpoint and let the oldest go.

    Args:
        folder: Of the run.
        step: Steps that are done.
        tensors: Weights, moments of the optimizer, random states.
        state: All else; plain JSON.
        keep: How many of the newest stay.
    """
    name = name_of(step)
    final, temporary = folder / name, folder / f".{name}.{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        content = save({key: value.detach().contiguous().cpu() for key, value in tensors.items()})
        manifest = {"schema_version": 1, "step": step, "sha256": hashlib.sha256(content).hexdigest(), "state": state}
        publish(temporary / "tensors.safetensors", content)
        publish(temporary / "checkpoint.json", json.dumps(manifest).encode())
        if final.exists():
            shutil.rmtree(final)
        temporary.rename(final)
        publish(folder / LATEST, name.encode())
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    for old in sorted(folder.glob("step_*"))[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def load_checkpoint(folder: Path) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
    """The newest whole checkpoint: step, tensors, state; None where there is none.

    Raises:
        CorruptCheckpoint: The one that `LATEST` names is not what was written.
    """
    try:
        name = (folder / LATEST).read_text().strip()
    except FileNotFoundError:
        return None
    place = folder / name
    try:
        manifest = json.loads((place / "checkpoint.json").read_bytes())
        content = (place / "tensors.safetensors").read_bytes()
        found = hashlib.sha256(content).hexdigest()
        if found != manifest["sha256"]:
            raise CorruptCheckpoint(
                f"{place} has the digest {found[:12]}, and {manifest['sha256'][:12]} was written: remove it and point "
                f"{LATEST} to an older one"
            )
        return int(manifest["step"]), load(content), manifest["state"]
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise CorruptCheckpoint(
            f"{place} is not a whole checkpoint ({type(error).__name__}: {error}): remove it and point {LATEST} to an "
            "older one"
        ) from error


def optimizer_tensors(optimizer: torch.optim.Optimizer, prefix: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state of an optimizer as named tensors, and what of it is plain."""
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    for index, values in optimizer.state_dict()["state"].items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{prefix}.{index}.{key}"] = value
            else:
                plain[f"{index}.{key}"] = value
    return tensors, plain


def restore_optimizer(
    optimizer: torch.optim.Optimizer, prefix: str, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]
) -> None:
    """Put back what `optimizer_tensors` gave."""
    state: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        if name.startswith(f"{prefix}."):
            index, key = name[len(prefix) + 1 :].split(".", 1)
            state.setdefault(int(index), {})[key] = value
    for name, found in plain.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = found
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
