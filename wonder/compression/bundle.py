"""Saves, loads and applies compressor bundles: a folder with a manifest and one safetensors file."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from pydantic import ValidationError
from torch import Tensor

from wonder.compression.autoencoder import Autoencoder, weight_shapes
from wonder.compression.codes import Coder, decode, encode
from wonder.compression.fit import Basis
from wonder.compression.manifest import CompressorManifest
from wonder.errors import CompressorMismatch, CorruptBundle
from wonder.probes.bundle import ProbeBundle
from wonder.probes.files import read_tensors, write_bundle
from wonder.probes.manifest import MANIFEST_FILE

# Shape suffixes: D d_model, K coordinates.

ORTHONORMAL_TOLERANCE: Final = 1e-5


@dataclass(frozen=True)
class Compressor:
    """A compressor ready to be applied; tensors in float64, on the host."""

    id: str
    """`<name>@<first 12 digits of the manifest's sha256>`."""
    manifest: CompressorManifest
    basis: Coder
    """A `Basis`, or an `Autoencoder` where the manifest says `learned`."""

    def apply(self, state_D: Tensor, dims: int | None = None) -> list[float]:
        """The first `dims` coordinates of a state (None: all), rounded as they travel.

        Raises:
            ValueError: More coordinates than the basis has, or a state of another width or with infinite numbers.
        """
        if tuple(state_D.shape) != (self.manifest.d_model,):
            raise ValueError(f"the state has shape {tuple(state_D.shape)}, wanted ({self.manifest.d_model},)")
        wanted = self.manifest.dims if dims is None else dims
        if not 0 < wanted <= self.manifest.dims:
            raise ValueError(f"dims is {wanted}, the basis has {self.manifest.dims}")
        if not state_D.isfinite().all():
            raise ValueError("the state holds numbers that are not finite")
        return [float(value) for value in encode(state_D[None], self.basis, wanted)[0]]

    def expand(self, values: Sequence[float]) -> Tensor:
        """The state that a code of any size stands for, shape (D,), float32."""
        return decode(torch.tensor([list(values)], dtype=torch.float64), self.basis)[0].float()

    def probe_logit(self, probe: ProbeBundle, values: Sequence[float]) -> float:
        """The logit of a probe, read from a code.

        It is exact, but for rounding, for a probe of `manifest.probes` and a code of at least `probe_dims`
        coordinates; for another probe it is that of the reconstructed state.
        """
        state_D = decode(torch.tensor([list(values)], dtype=torch.float64), self.basis)[0]
        return float(state_D @ probe.weight_D.double() + probe.bias.double())

    def check_fits(self, fingerprint: str, d_model: int, n_layers: int) -> None:
        """Refuse a model whose states the basis does not describe.

        Raises:
            CompressorMismatch: Another fingerprint, width or number of layers.
        """
        want, layer = self.manifest, self.manifest.hook_point.layer
        if d_model != want.d_model or layer >= n_layers:
            raise CompressorMismatch(
                f"compressor {self.id} reads layer {layer} of width {want.d_model}, this model has layers "
                f"0..{n_layers - 1} of width {d_model}: serve {want.model!r} or fit it again on this model"
            )
        if fingerprint != want.model_fingerprint:
            raise CompressorMismatch(
                f"compressor {self.id} was fitted on {want.model!r} (revision {want.revision}, fingerprint "
                f"{want.model_fingerprint[:12]}), this model has fingerprint {fingerprint[:12]}: "
                "serve those weights or fit it again on these"
            )


def save_compressor(folder: Path, manifest: CompressorManifest, basis: Coder) -> Compressor:
    """Write a compressor into an empty or new folder and return it as loaded; the digest is filled in.

    Raises:
        ArtifactError: The folder already holds a bundle; bundles never change.
    """
    write_bundle(folder, manifest, {name: tensor.float() for name, tensor in basis.tensors().items()})
    return load_compressor(folder)


def load_compressor(folder: Path) -> Compressor:
    """Load a compressor.

    Raises:
        CorruptBundle: A file is missing, changed, not safetensors, or does not hold what its manifest says.
    """
    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise CorruptBundle(f"{folder} has no {MANIFEST_FILE}: name the folder of a bundle")
    content = path.read_bytes()
    try:
        manifest = CompressorManifest.model_validate_json(content)
    except ValidationError as error:
        raise CorruptBundle(f"{path} is not a compressor manifest: {error}") from error
    tensors = read_tensors(folder / manifest.tensors_file, manifest.tensors_sha256)
    for name, shape in manifest.shapes.items():
        if name not in tensors or tuple(tensors[name].shape) != shape or not tensors[name].isfinite().all():
            have = tuple(tensors[name].shape) if name in tensors else "nothing"
            raise CorruptBundle(f"{path} has {have} for {name!r}, wanted finite numbers of shape {shape}: fit it again")
    coder = _coder(path, manifest, {name: tensors[name].double() for name in manifest.shapes})
    return Compressor(f"{manifest.name}@{hashlib.sha256(content).hexdigest()[:12]}", manifest, coder)


def _coder(path: Path, manifest: CompressorManifest, tensors: Mapping[str, Tensor]) -> Coder:
    directions_KD = tensors["basis" if manifest.method == "pca" else "block"]
    gap_KK = directions_KD @ directions_KD.T - torch.eye(len(directions_KD))
    if gap_KK.numel() and gap_KK.abs().max() > ORTHONORMAL_TOLERANCE:
        raise CorruptBundle(f"{path} has a basis that is not orthonormal: fit it again")
    if manifest.method == "pca":
        return Basis(tensors["mean"], directions_KD, tensors["range"], manifest.probe_dims)
    if not tensors["scale"] > 0:
        raise CorruptBundle(f"{path} has a scale that is not positive: fit it again")
    names = weight_shapes(manifest.d_model, manifest.dims - manifest.probe_dims, manifest.hidden)
    weights = {name: tensors[name] for name in names}
    return Autoencoder(tensors["mean"], directions_KD, tensors["scale"], tensors["range"], weights)
