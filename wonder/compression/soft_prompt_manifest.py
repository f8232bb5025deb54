"""What a soft-prompt map says about itself: the codes it reads, the vectors it makes, and what they were worth."""

from datetime import date
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from wonder.probes.manifest import Sha256
from wonder.wire import NonNegative, Probability, WireModel, WireRecord

SOFT_PROMPT_TENSORS_FILE: Final = "soft_prompt.safetensors"

Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


class RecallMetrics(WireRecord):
    """How the model answers a prompt that lacks the text, against how it answers the text itself; held out."""

    given: str
    """What the second prompt was given."""
    kl_nats: NonNegative
    """Mean KL(with the text ‖ without it), summed over the tokens of the answer, in nats."""
    agreement: Probability
    """Share of texts whose likeliest answer is the same."""


class SoftPromptManifest(WireModel):
    """Everything about a map but its tensors; unknown fields are ignored, so later versions can add some."""

    kind: Literal["soft_prompt"] = "soft_prompt"
    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    model: str
    revision: str
    model_fingerprint: Sha256
    dtype: str
    """The dtype of the model that it was trained on."""
    compressor: str
    """Id of the compressor bundle whose codes it reads; no other code means anything to it."""
    dims: int = Field(gt=0)
    """How many numbers of a code it reads, from the first."""
    tokens: int = Field(gt=0)
    """Vectors that it makes."""
    hidden: int = Field(ge=0)
    """Width of the layer between (GELU); 0: the map is affine."""
    d_model: int = Field(gt=0)
    layer0_norm: Positive
    """Median L2 norm of the input of layer 0 over real tokens: the reference for every vector's length."""
    embedding_norm: Positive
    """The length that each vector is given so that it has `layer0_norm` there; another number only in models that
    scale embeddings after looking them up."""
    data_sha256: Sha256
    """Hash of the texts whose states were used."""
    train_count: int = Field(gt=1)
    held_out_count: int = Field(gt=0)
    metrics: list[RecallMetrics]
    tensors_file: str = SOFT_PROMPT_TENSORS_FILE
    tensors_sha256: Sha256 | None = None
    """Filled in when the bundle is saved."""
    created: date
    parent: str | None = None
    """Id of the bundle that this one replaces."""

    @model_validator(mode="after")
    def _tensors_are_plain(self) -> Self:
        if "/" in self.tensors_file or "\\" in self.tensors_file or not self.tensors_file.endswith(".safetensors"):
            raise ValueError(f"tensors_file is {self.tensors_file!r}, wanted the bare name of a .safetensors file")
        return self

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name → shape of the tensors."""
        made = self.tokens * self.d_model
        codes: dict[str, tuple[int, ...]] = {"mean": (self.dims,), "scale": (self.dims,)}
        if not self.hidden:
            return codes | {"weight": (made, self.dims), "bias": (made,)}
        inner = {"inner_weight": (self.hidden, self.dims), "inner_bias": (self.hidden,)}
        return codes | inner | {"weight": (made, self.hidden), "bias": (made,)}
