"""Saves and loads probe bundles: a folder with a manifest and one safetensors file, checked by digest."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from wonder.errors import CorruptBundle, ProbeMismatch, UnknownProbe
from wonder.probes.calibration import calibrated_logit
from wonder.probes.files import read_tensors, write_bundle
from wonder.probes.manifest import MANIFEST_FILE, ProbeManifest

# Shape suffixes: D d_model.


@dataclass(frozen=True)
class ProbeBundle:
    """A probe ready to be read: logit = state · weight_D + bias, on unscaled activations, in float32."""

    id: str
    """`<name>@<first 12 digits of the manifest's sha256>`."""
    manifest: ProbeManifest
    weight_D: Tensor
    bias: Tensor
    """Shape ()."""
    direction_D: Tensor | None
    """Difference of the class means, for steering."""

    def probability(self, logit: Tensor) -> Tensor:
        """Return the calibrated probability, in 0..1, of probe logits of any shape."""
        return torch.sigmoid(calibrated_logit(logit.float(), self.manifest.calibration))

    def check_fits(self, fingerprint: str, d_model: int) -> None:
        """Refuse a model that the probe was not trained on.

        Raises:
            ProbeMismatch: Another fingerprint or width.
        """
        want = self.manifest
        if d_model != want.d_model:
            raise ProbeMismatch(
                f"probe {self.id} reads states of width {want.d_model}, this model has {d_model}: "
                f"serve {want.model!r} or fit the probe again on this model"
            )
        if fingerprint != want.model_fingerprint:
            raise ProbeMismatch(
                f"probe {self.id} was fitted on {want.model!r} (revision {want.revision}, fingerprint "
                f"{want.model_fingerprint[:12]}), this model has fingerprint {fingerprint[:12]}: "
                "serve those weights or fit the probe again on these"
            )


def save_bundle(folder: Path, manifest: ProbeManifest, tensors: Mapping[str, Tensor]) -> ProbeBundle:
    """Write a bundle into an empty or new folder and return it as loaded; the digest is filled in.

    Raises:
        ArtifactError: The folder already holds a bundle; bundles never change.
    """
    write_bundle(folder, manifest, tensors)
    return load_bundle(folder)


def load_bundle(folder: Path) -> ProbeBundle:
    """Load a bundle.

    Raises:
        CorruptBundle: A file is missing, changed, not safetensors, or lacks a tensor.
    """
    manifest, digest = _read_manifest(folder)
    path = folder / manifest.tensors_file
    tensors = read_tensors(path, manifest.tensors_sha256)
    weight_D, bias = _fold(path, manifest, tensors)
    return ProbeBundle(f"{manifest.name}@{digest[:12]}", manifest, weight_D, bias, tensors.get("direction"))


def find_bundle(folder: Path, name: str) -> Path:
    """Return the sub-folder that holds the probe `name`.

    Raises:
        UnknownProbe: There is none; the message lists those there are.
    """
    known = sorted(path.parent.name for path in folder.glob(f"*/{MANIFEST_FILE}"))
    if name not in known:
        raise UnknownProbe(
            f"no probe {name!r} in {folder}, which has {', '.join(known) or 'none'}: fit it or ask for those"
        )
    return folder / name


def _read_manifest(folder: Path) -> tuple[ProbeManifest, str]:
    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise CorruptBundle(f"{folder} has no {MANIFEST_FILE}: name the folder of a bundle")
    content = path.read_bytes()
    try:
        return ProbeManifest.model_validate_json(content), hashlib.sha256(content).hexdigest()
    except ValidationError as error:
        raise CorruptBundle(f"{path} is not a probe manifest: {error}") from error


def _fold(path: Path, manifest: ProbeManifest, tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    shapes = {"weight": (manifest.d_model,), "bias": (1,), "mean": (manifest.d_model,), "scale": (manifest.d_model,)}
    for name, shape in shapes.items():
        if name not in tensors or tuple(tensors[name].shape) != shape:
            have = tuple(tensors[name].shape) if name in tensors else "nothing"
            raise CorruptBundle(f"{path} has {have} for {name!r}, wanted shape {shape}: fit the probe again")
        if not tensors[name].isfinite().all():
            raise CorruptBundle(f"{path} has numbers that are not finite in {name!r}: fit the probe again")
    # In float64: the mean of a massive activation times its small weight would lose digits in float32.
    weight_D = tensors["weight"].double() / tensors["scale"].double()
    bias = tensors["bias"].double()[0] - tensors["mean"].double() @ weight_D
    return weight_D.float(), bias.float()
