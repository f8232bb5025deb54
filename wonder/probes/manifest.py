"""What a probe bundle says about itself: concept, model, hook point, training data, metrics and calibration."""

from datetime import date
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from wonder.wire import Probability, WireModel, WireRecord

MANIFEST_FILE: Final = "manifest.json"
TENSORS_FILE: Final = "probe.safetensors"

Aggregation = Literal["last_prompt", "mean_prompt", "mean_generated", "last_generated"]
"""How the token axis is reduced.

Prompt positions are all tokens of the prompt, BOS included where the tokenizer adds one. Generated positions are
those whose state *produced* a generated token: row t is the state from which token t was drawn, so the first is the
last prompt position.
"""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class HookPoint(WireRecord):
    """Where an activation is read: the output of decoder block `layer`, before any final norm; and its reduction."""

    layer: int = Field(ge=0)
    site: Literal["resid_post"] = "resid_post"
    aggregation: Aggregation


class Estimate(WireRecord):
    """A metric and its bootstrap 95 % interval."""

    value: float
    low: float
    high: float


class ProbeMetrics(WireRecord):
    """How well the probe does on held-out texts, none of which it was fitted or calibrated on."""

    auroc: Estimate
    average_precision: Estimate
    tpr_at_1pct_fpr: Estimate
    """Share of positives found when one negative in a hundred fires."""


class Calibration(WireRecord):
    """The map from a probe logit z to a probability.

    `platt` is sigmoid(a z + c). `beta` is sigmoid(a ln s - b ln(1 - s) + c) with s = sigmoid(z). Slopes are never
    negative, so the map keeps the order of the logits.
    """

    kind: Literal["platt", "beta"]
    a: float = Field(ge=0)
    b: float = Field(0.0, ge=0)
    c: float


class ProbeManifest(WireModel):
    """Everything about a probe but its tensors; unknown fields are ignored, so later versions can add some."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    concept: str
    definition: str
    """When a text has the concept, in words a labeller can follow."""
    polarity: str
    """What a high probability means."""
    model: str
    revision: str
    model_fingerprint: Sha256
    dtype: str
    """The dtype in which the activations were taken."""
    hook_point: HookPoint
    d_model: int = Field(gt=0)
    method: Literal["lda", "logistic"]
    data_sha256: Sha256
    """Hash of the training texts and labels."""
    train_count: int = Field(gt=0)
    train_positives: int = Field(ge=0)
    held_out_count: int = Field(gt=0)
    held_out_positives: int = Field(ge=0)
    prevalence: Probability
    """Share of positives in training: what the calibrated probability takes for granted."""
    metrics: ProbeMetrics
    shuffled_label_auroc: float
    """Control: the same fit on shuffled labels, measured on the same held-out texts; about .5 if nothing leaks."""
    calibration: Calibration
    tensors_file: str = TENSORS_FILE
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
