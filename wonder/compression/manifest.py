"""What a compressor bundle says about itself: model, hook point, basis, training data and how good its codes are."""

from datetime import date
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from wonder.compression.autoencoder import weight_shapes
from wonder.probes.manifest import HookPoint, Sha256
from wonder.wire import NonNegative, Probability, WireModel, WireRecord

COMPRESSOR_TENSORS_FILE: Final = "compressor.safetensors"


class ProbeInBasis(WireRecord):
    """A probe whose direction lies in the first coordinates of the basis."""

    bundle: str
    """Id of the probe bundle."""
    hook_point: HookPoint
    """Where the probe itself reads. Where this is the compressor's hook point, the recomputed logit is the probe's
    own; elsewhere it is what the probe's direction says of the compressor's state."""


class CodeMetrics(WireRecord):
    """How much the first `dims` coordinates keep, on held-out states, after rounding as in a trace."""

    dims: int = Field(gt=0)
    explained_variance: Annotated[float, Field(le=1.0)]
    """1 − squared error of the reconstruction / squared distance from the mean."""
    neighbours_at_10: Probability
    """Mean share of a state's 10 nearest neighbours (Euclidean) that are its nearest by the code as well."""
    probe_logit_error: NonNegative | None
    """Largest absolute difference between a probe's logit on the state and from the code; None without probes."""
    kl_nats: NonNegative | None
    """Mean KL(state ‖ reconstruction) of the next-token distributions after the final norm and the head, in nats;
    None where the hook point is not the last layer."""
    top1_agreement: Probability | None
    """Share of states whose likeliest next token the reconstruction keeps; None as above."""


class CompressorManifest(WireModel):
    """Everything about a compressor but its tensors; unknown fields are ignored, so later versions can add some."""

    kind: Literal["compressor"] = "compressor"
    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    method: Literal["pca", "learned"]
    """`pca`: an orthonormal basis of the probes' directions, then principal directions of what is left; `learned`: the
    same directions first, then the code of an autoencoder."""
    model: str
    revision: str
    model_fingerprint: Sha256
    dtype: str
    """The dtype in which the activations were taken."""
    hook_point: HookPoint
    d_model: int = Field(gt=0)
    dims: int = Field(gt=0)
    """Coordinates of the basis; the first k of them are the code of size k."""
    probe_dims: int = Field(ge=0)
    """How many of them, from the first, span the probes."""
    hidden: int = Field(default=0, ge=0)
    """Width of the autoencoder's hidden layers; 0: it is a basis."""
    probes: list[ProbeInBasis]
    data_sha256: Sha256
    """Hash of the texts whose states were used."""
    train_count: int = Field(gt=1)
    held_out_count: int = Field(gt=0)
    metrics: list[CodeMetrics]
    """Smallest code first."""
    pca_metrics: list[CodeMetrics] = Field(default_factory=list)
    """Of a learned code: what principal directions of the same training states keep of the same held-out ones."""
    tensors_file: str = COMPRESSOR_TENSORS_FILE
    tensors_sha256: Sha256 | None = None
    """Filled in when the bundle is saved."""
    created: date
    parent: str | None = None
    """Id of the bundle that this one replaces."""

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if "/" in self.tensors_file or "\\" in self.tensors_file or not self.tensors_file.endswith(".safetensors"):
            raise ValueError(f"tensors_file is {self.tensors_file!r}, wanted the bare name of a .safetensors file")
        if not self.probe_dims <= self.dims <= self.d_model:
            raise ValueError(
                f"probe_dims {self.probe_dims}, dims {self.dims} and d_model {self.d_model} must not decrease"
            )
        others = self.dims - self.probe_dims
        if (self.method == "learned") != (self.hidden > 0) or (self.hidden and not others):
            raise ValueError(
                f"method {self.method!r} has hidden {self.hidden}, and {others} coordinates beside those of probes: "
                "a learned code has both, a basis no hidden layer"
            )
        return self

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name → shape of the tensors."""
        common: dict[str, tuple[int, ...]] = {"mean": (self.d_model,), "range": (self.dims,)}
        if self.method == "pca":
            return common | {"basis": (self.dims, self.d_model)}
        weights = weight_shapes(self.d_model, self.dims - self.probe_dims, self.hidden)
        return common | {"block": (self.probe_dims, self.d_model), "scale": ()} | weights
