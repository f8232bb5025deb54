"""Soft-prompt maps: from a compressed state to a few vectors that stand before a prompt; saved, loaded and applied."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from wonder.compression.soft_prompt_manifest import SoftPromptManifest
from wonder.errors import CompressorMismatch, CorruptBundle
from wonder.probes.files import read_tensors, write_bundle
from wonder.probes.manifest import MANIFEST_FILE

# Shape suffixes: N states, C numbers of a code, K soft tokens, D d_model.


@dataclass(frozen=True)
class SoftPromptMap:
    """A map ready to be applied; tensors in float32, on the host."""

    id: str
    """`<name>@<first 12 digits of the manifest's sha256>`."""
    manifest: SoftPromptManifest
    tensors: Mapping[str, Tensor]

    def apply(self, values: Sequence[float]) -> Tensor:
        """The vectors of one code, shape (K, D), float32, each of the length `embedding_norm`.

        Raises:
            ValueError: Fewer numbers than the map reads, or numbers that are not finite.
        """
        codes_1C = torch.tensor([list(values)], dtype=torch.float32)
        if codes_1C.shape[1] < self.manifest.dims:
            raise ValueError(f"the code has {codes_1C.shape[1]} numbers, the map reads {self.manifest.dims}")
        vectors_NKD = soft_vectors(codes_1C, self.tensors, self.manifest.tokens, self.manifest.embedding_norm)
        if not vectors_NKD.isfinite().all():
            raise ValueError("the code holds numbers that are not finite, or too large for float32")
        return vectors_NKD[0]

    def check_fits(self, fingerprint: str, d_model: int) -> None:
        """Refuse a model that the vectors were not made for.

        Raises:
            CompressorMismatch: Another fingerprint or width.
        """
        want = self.manifest
        if fingerprint != want.model_fingerprint or d_model != want.d_model:
            raise CompressorMismatch(
                f"soft-prompt map {self.id} was trained for {want.model!r} (width {want.d_model}, fingerprint "
                f"{want.model_fingerprint[:12]}), this model has width {d_model} and fingerprint {fingerprint[:12]}: "
                "serve those weights or train it again on these"
            )


def soft_vectors(codes_NC: Tensor, tensors: Mapping[str, Tensor], tokens: int, norm: float) -> Tensor:
    """The vectors of many codes, (N, K, D): affine, or with one hidden layer, then brought to the length `norm`.

    A vector of length 0 has no direction to keep and stays as it is. Numbers beyond `mean` of a code are left out.
    """
    mean_C = tensors["mean"]
    inner = (codes_NC[:, : len(mean_C)] - mean_C) / tensors["scale"]
    if "inner_weight" in tensors:
        inner = torch.nn.functional.gelu(inner @ tensors["inner_weight"].T + tensors["inner_bias"])
    made_NKD = (inner @ tensors["weight"].T + tensors["bias"]).reshape(len(codes_NC), tokens, -1)
    length_NK1 = made_NKD.norm(dim=-1, keepdim=True)
    return made_NKD * (norm / torch.where(length_NK1 > 0, length_NK1, 1.0))


def save_soft_prompt(folder: Path, manifest: SoftPromptManifest, tensors: Mapping[str, Tensor]) -> SoftPromptMap:
    """Write a map into an empty or new folder and return it as loaded; the digest is filled in.

    Raises:
        ArtifactError: The folder already holds a bundle; bundles never change.
    """
    write_bundle(folder, manifest, {name: tensor.detach().float() for name, tensor in tensors.items()})
    return load_soft_prompt(folder)


def load_soft_prompt(folder: Path) -> SoftPromptMap:
    """Load a map.

    Raises:
        CorruptBundle: A file is missing, changed, not safetensors, or does not hold what its manifest says.
    """
    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise CorruptBundle(f"{folder} has no {MANIFEST_FILE}: name the folder of a bundle")
    content = path.read_bytes()
    try:
        manifest = SoftPromptManifest.model_validate_json(content)
    except ValidationError as error:
        raise CorruptBundle(f"{path} is not the manifest of a soft-prompt map: {error}") from error
    tensors = read_tensors(folder / manifest.tensors_file, manifest.tensors_sha256)
    for name, shape in manifest.shapes.items():
        if name not in tensors or tuple(tensors[name].shape) != shape or not tensors[name].isfinite().all():
            have = tuple(tensors[name].shape) if name in tensors else "nothing"
            raise CorruptBundle(
                f"{path} has {have} for {name!r}, wanted finite numbers of shape {shape}: train it again"
            )
    if not (tensors["scale"] > 0).all():
        raise CorruptBundle(f"{path} has a scale that is not positive: train it again")
    used = {name: tensors[name].float() for name in manifest.shapes}
    return SoftPromptMap(f"{manifest.name}@{hashlib.sha256(content).hexdigest()[:12]}", manifest, used)
