"""What an action asks to be read while the model generates."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from wonder.trace.explanation import Explain
from wonder.trace.injection import Injection
from wonder.wire import Settings

ConfidenceMethod = Literal[
    "value_probability",
    "mean_value_probability",
    "min_value_probability",
    "first_value_probability",
    "mean_probability",
    "min_probability",
    "mean_margin",
    "min_margin",
    "min_relative_margin",
    "mean_entropy",
    "max_entropy",
    "normalized_entropy",
    "mean_top5_negentropy",
    "min_top5_negentropy",
    "self_certainty",
    "boosted_probability",
    "attention_narrowness",
    "rauq",
    "attention_score",
    "lookback_ratio",
    "logit_lens_agreement",
    "logit_lens_probability",
    "hidden_norm",
    "state_stability",
    "self_consistency",
    "semantic_entropy",
]
"""The signal that `overall_confidence` is; formulas in `wonder.trace.signals`."""


class ThoughtCapture(Settings):
    """An action's `thought_capture`: which signals to read, and where to keep them.

    Reading never changes a token; `inject`, which is off by default, is there to change them. The defaults cost next to
    nothing and are enough to route on confidence.
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
    compute_attention_statistics: bool = False
    """`rauq`, `attention_score`, `lookback_ratio`, `previous_token_attention`: what single heads look at, in the
    watched layers. Of a quarter of the layers, one in the middle is always among them then."""

    run_concept_probes: list[str] = Field(default_factory=list)
    """Names of concepts; each needs a probe bundle trained on this very model."""

    compress_state: bool = False
    compression_method: Literal["pca", "learned", "none"] = "pca"
    compression_dims: int = Field(default=64, ge=1, le=4096)

    store_in: Literal["context", "artifact", "both"] = "context"
    """`context`: the trace travels into the workflow. `artifact`: the whole trace is stored, and only its scalars
    and the reference travel. `both`: stored whole, and travelling."""

    detail: Literal["full", "binned"] = "full"
    """`binned`: lists over tokens and tables of experts leave summaries over stretches of the answer (`time_bins`) and
    the least certain tokens, so that a long answer's trace takes a few KB; everything that is made of them, such as
    the confidence, is the same number. The whole goes to the artifact with `store_in="both"`."""
    time_bins: int = Field(default=16, ge=1, le=64)
    """How many stretches."""

    confidence_method: ConfidenceMethod = "value_probability"
    value_fields: list[str] | None = None
    """Dotted paths of the answer's fields that count towards `overall_confidence`; None: all of them."""

    samples: int = Field(default=0, ge=0, le=64)
    """Further answers to the same prompt, drawn in the same forward passes, to see whether they agree."""
    sample_temperature: float = Field(default=1.0, gt=0.0, le=10.0)
    """At which they are drawn."""
    equivalence: str = "values"
    """When two answers count as the same: `values` (equal but for letter case, spacing and the order of properties;
    only `value_fields`, if given), or one that the worker has been given by name."""

    top_alternatives: int = Field(default=3, ge=0, le=20)
    """How many of the likeliest next tokens to keep for every generated token."""

    boosted_probability: bool = False
    """`boosted_probs`, which need the 200 likeliest tokens of each step."""

    logit_lens: bool | list[Annotated[int, Field(ge=0)]] = False
    """Put the states of these layers (True: all) through the model's final norm and head: `logit_lens`. Costs one pass
    of the head per layer and token when the answer is complete."""

    attention_layers: Literal["quarter", "all"] | list[Annotated[int, Field(ge=0)]] = "quarter"
    """Which layers' attention is read: every fourth from layer 3 (at least the last one), all, or these."""

    attention_rows: Literal["generated", "all"] = "generated"
    """Whose attention entropy is computed: of the generating positions; or of every position of the prompt as well
    (`prompt_attention_entropy`), which about doubles what attention costs while the prompt is fed. Needs
    `compute_attention_entropy`."""

    rauq_alpha: float = Field(default=0.5, ge=0, le=1)
    """Weight of a token's own probability in `rauq`, beside what it takes over from the token before."""

    key_pairs_per_layer: int = Field(default=4, ge=1, le=32)

    inject: Injection | None = None
    """Put the run's latest compressed state (`Context.prior_thought_state`) into the model; None: nothing is put in.
    Without such a state the action runs plain, and the trace's `missing` says so."""

    explain: Explain | None = None
    """Put states into words with a lens of this model (`explanations`); None: none. `"last"`, `"values"` and a list of
    positions are short forms. Costs one short text per state when the answer is complete."""

    @property
    def reads_attention(self) -> bool:
        """Whether any attention signal is asked for."""
        return self.enabled and (
            self.capture_attention or self.compute_attention_entropy or self.compute_attention_statistics
        )

    @model_validator(mode="after")
    def _rows_have_an_entropy(self) -> Self:
        if self.attention_rows == "all" and not self.compute_attention_entropy:
            raise ValueError(
                "attention_rows='all' asks for the attention entropy of every row, and compute_attention_entropy is "
                "off: set compute_attention_entropy=True"
            )
        return self
