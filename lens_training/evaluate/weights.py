"""Which weights are judged: those of a checkpoint, or their moving average, put into a lens."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lens_training.evaluate.record import Weights
from lens_training.run_spec import RunSpec
from lens_training.system import LensSystem
from lens_training.train.checkpoint import open_checkpoint
from lens_training.train.kept import kept_steps, latest_step, name_of
from wonder.errors import ArtifactMissing, CorruptCheckpoint, DigestMismatch, SpecError


@dataclass(frozen=True)
class LensWeights:
    """The weights of one step."""

    name: str
    step: int
    digest: str
    """SHA-256 of its manifest, which holds that of the tensors."""
    newest: dict[str, Tensor]
    average: dict[str, Tensor]
    """Of the trained weights; empty where none is kept."""

    def put(self, system: LensSystem, weights: Weights) -> None:
        """Give these weights to a lens.

        Raises:
            CorruptCheckpoint: It has weights that the lens has not.
            SpecError: The average is asked for, and none is kept.
        """
        if weights == "average" and not self.average:
            raise SpecError(f"{self.name} keeps no moving average: set run.average, or judge the newest weights")
        found = self.newest | (self.average if weights == "average" else {})
        named = dict(system.named_parameters())
        if unknown := sorted(found.keys() - named.keys()):
            raise CorruptCheckpoint(f"{self.name} has {unknown[0]}, which the lens has not: it is of another lens")
        with torch.no_grad():
            for name, value in found.items():
                named[name].copy_(value)
        system.train(False)


def newest_digest(folder: Path) -> tuple[str, str]:
    """Name and digest of the checkpoint that a run would go on from, without its tensors.

    Raises:
        ArtifactMissing: There is none.
    """
    step = latest_step(folder)
    manifest = folder / name_of(step) / "checkpoint.json"
    if not step or not manifest.exists():
        raise ArtifactMissing(f"{folder} has no checkpoint, so there is no lens to judge: train first")
    return name_of(step), hashlib.sha256(manifest.read_bytes()).hexdigest()


def open_weights(spec: RunSpec, step: int | None = None) -> LensWeights:
    """The weights of a run.

    Args:
        spec: Of the run.
        step: Of an older checkpoint; None: the newest.

    Raises:
        ArtifactMissing: There is none.
        CorruptCheckpoint: It is not what was written.
        DigestMismatch: It is of another specification.
    """
    folder = spec.run_folder
    name, digest = newest_digest(folder) if step is None else (name_of(step), "")
    found = open_checkpoint(folder, step=latest_step(folder) if step is None else step)
    assert found is not None
    if found.state["digest"] != (wanted := spec.training_digest(found.step)):
        raise DigestMismatch(
            f"{name} in {folder} is of the specification {found.state['digest'][:12]}…, this one is {wanted[:12]}…: "
            "judge it with the specification it was trained with"
        )

    def part(prefix: str) -> dict[str, Tensor]:
        # Not the optimizer's, which are twice as many.
        return {key.removeprefix(prefix): found.tensor(key) for key in found.names if key.startswith(prefix)}

    return LensWeights(name, found.step, digest, part("model."), part("average."))


def warm_start(spec: RunSpec) -> LensWeights | None:
    """The weights at the end of the warm start, if it ended, training went on, and the checkpoint is still kept."""
    assert spec.run is not None
    end = 0
    for phase in spec.run.phases:
        if phase.objective != "warm_start":
            break
        end += phase.steps
    there = kept_steps(spec.run_folder)
    return open_weights(spec, end) if end in there and end != there[-1] else None
