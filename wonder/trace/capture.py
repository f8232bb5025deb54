"""What an action asks to be read while the model generates."""

from typing import Annotated, Literal

from pydantic import Field

from wonder.wire import Settings

ConfidenceMethod = Literal["value_probability", "mean_probability", "min_probability", "normalized_entropy"]
"""How `overall_confidence` is computed from the generated tokens; see `wonder.trace.confidence`."""


class ThoughtCapture(Settings):
    """An action's `thought_capture`: which signals to read, and where to keep them.

    Reading never changes a token. The defaults cost next to nothing and are enough to route on confidence.
    """

    enabled: bool = True
    """Off: no signal is read, and the trace holds tokens and timings only (confidence unknown)."""

    capture_hidden_states: bool | list[Annotated[int, Field(ge=0)]] = False
    """Last-token and mean states of these layers (True: all) as tensors in the artifact store."""

    capture_attention: bool = False
    """`key_attention_pairs`: the strongest (query, key) pairs of each watched layer."""

    capture_expert_routing: bool = False
    """`expert_selections` and `expert_distribution`, where the model has routers."""

    compute_confidence: bool = True
    compute_attention_entropy: bool = False

    run_concept_probes: list[str] = Field(default_factory=list)
    """Names of concepts; each needs a probe bundle trained on this very model."""

    compress_state: bool = False
    compression_method: Literal["pca", "learned", "none"] = "pca"
    compression_dims: int = Field(default=64, ge=1, le=4096)

    store_in: Literal["context", "artifact", "both"] = "context"
    """`context`: the trace travels into the workflow. `artifact`: the whole trace is stored, and only its scalars
    and the reference travel. `both`: stored whole, and travelling."""

    confidence_method: ConfidenceMethod = "value_probability"
    value_fields: list[str] | None = None
    """Dotted paths of the answer's fields that count towards `overall_confidence`; None: all of them."""

    top_alternatives: int = Field(default=3, ge=0, le=20)
    """How many of the likeliest next tokens to keep for every generated token."""

    attention_layers: Literal["quarter", "all"] | list[Annotated[int, Field(ge=0)]] = "quarter"
    """Which layers' attention is read: every fourth from layer 3 (at least the last one), all, or these."""

    key_pairs_per_layer: int = Field(default=4, ge=1, le=32)

    @property
    def reads_attention(self) -> bool:
        """Whether any attention signal is asked for."""
        return self.enabled and (self.capture_attention or self.compute_attention_entropy)
