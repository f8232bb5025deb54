"""`ThoughtTrace`: what was read from the model during one action, small enough to live in a history."""

from typing import Annotated, Literal

from pydantic import Field

from wonder.trace.artifacts import ArtifactRef
from wonder.trace.capture import ConfidenceMethod
from wonder.wire import NonNegative, Probability, WireModel, WireRecord

ConfidenceStatus = Literal["calibrated", "uncalibrated", "unknown"]

TRACE_LIMIT_BYTES = 48 * 1024
"""The encoded size that no trace in a history exceeds."""


class TokenAlternative(WireRecord):
    """A token the model might have written instead."""

    token: str
    probability: Probability


class KeyAttentionPair(WireRecord):
    """One strong attention link, averaged over the heads of a layer."""

    layer: int
    query: int
    """Position whose state attends, counted from 0 at the first token of the prompt."""
    key: int
    """Position attended to; the first position is left out, because it soaks up idle attention."""
    weight: Probability
    query_token: str
    key_token: str


class FieldConfidence(WireRecord):
    """How sure the model was of one value of its answer."""

    start: int
    """First generated token of the value."""
    stop: int
    """One past its last token."""
    confidence: Probability | None
    """Product of the probabilities of the value's tokens; None where one of them is unknown."""


class Quantiles(WireRecord):
    """What is left of a per-token array that moved to an artifact."""

    count: int
    min: float
    p10: float
    median: float
    p90: float
    max: float


class CompressedState(WireRecord):
    """A hidden state reduced to a few numbers; a hint for a later action, not a memory."""

    method: str
    layer: int
    basis: str
    """Id of the bundle that made it: states of different bases must not be compared."""
    values: list[float]


class Timings(WireRecord):
    """Where the time went, in seconds of wall clock on the worker."""

    queue_s: NonNegative = 0.0
    """Waiting for a place in a batch."""
    prefill_s: NonNegative = 0.0
    decode_s: NonNegative = 0.0
    total_s: NonNegative = 0.0


class ThoughtTrace(WireModel):
    """Everything read during one action.

    A list over tokens has one entry per generated token: entry `t` describes the state and the logits that
    *produced* token `t`. A list over layers has one entry per decoder block, in order. An entry that could not be
    had is `None`, and `missing` says why; nothing undefined is ever filled with a number.
    """

    action: str
    model: str
    model_revision: str = ""
    model_fingerprint: str = ""
    """Digest of the weights; a probe fits only the fingerprint it was trained on."""
    dtype: str = ""
    batch_size: int = 1
    """Largest number of requests that shared a forward pass with this one."""
    batching: Literal["slots", "padded", "alone"] = "padded"
    """How it shared: a row of the slot cache, joined and left at any step; a row of a batch that began and ended
    together; or none, because the model allows no neighbours of another length."""
    prompt_tokens: int = 0
    finish_reason: Literal["stop", "length"] = "stop"

    tokens: list[str] = Field(default_factory=list)
    """The generated tokens as text; joined, they are the raw answer (special tokens included)."""

    token_confidences: list[Probability | None] = Field(default_factory=list)
    """Probability of each emitted token under the raw logits, before temperature and filters."""

    generation_probs: list[Probability | None] | None = None
    """Probability of each emitted token under the distribution it was drawn from (after temperature and
    filters); None for greedy decoding, where it would be 1."""

    logits_entropy: list[NonNegative | None] = Field(default_factory=list)
    """Entropy of the raw next-token distribution, in nats."""

    token_margins: list[Probability | None] = Field(default_factory=list)
    """Probability of the likeliest minus that of the second likeliest token."""

    top_alternatives: list[list[TokenAlternative]] = Field(default_factory=list)
    """The likeliest tokens at each step, likeliest first, the emitted one included if it is among them."""

    field_confidences: dict[str, FieldConfidence] = Field(default_factory=dict)
    """Dotted path of a value in the answer → its tokens and its confidence. A plain-text answer has the path `""`."""

    overall_confidence: Probability | None = None
    """How likely the answer is right, by `confidence_method`; None means unknown, never "fine"."""
    confidence_method: ConfidenceMethod = "value_probability"
    confidence_status: ConfidenceStatus = "unknown"
    confidence_reason: str | None = None
    """Why the confidence is unknown."""

    attention_entropy: list[NonNegative | None] = Field(default_factory=list)
    """Per layer: entropy of the attention of the generating positions, mean over heads and tokens, in nats."""
    attention_entropy_normalized: list[Probability | None] = Field(default_factory=list)
    """The same divided by ln(number of attended keys) of each row, so that lengths can be compared."""
    attention_sink_mass: list[Probability | None] = Field(default_factory=list)
    """Per layer: mean attention on the first position."""
    key_attention_pairs: list[KeyAttentionPair] = Field(default_factory=list)
    """Strongest links of the watched layers, strongest first within a layer."""

    layer_norms: list[NonNegative | None] = Field(default_factory=list)
    """Per layer: L2 norm of `resid_post`, mean over generated tokens."""
    representation_shifts: list[Annotated[float, Field(ge=0.0, le=2.0)] | None] = Field(default_factory=list)
    """Between each layer and the next: 1 − cosine of `resid_post`, mean over generated tokens; one entry fewer."""

    active_concepts: dict[str, Probability] = Field(default_factory=dict)
    """Concept → calibrated probability that it is present. A concept that was not probed is absent (unknown)."""

    expert_selections: dict[str, list[int]] = Field(default_factory=dict)
    """Router layer → experts used, most used first."""
    expert_distribution: dict[str, list[Probability]] = Field(default_factory=dict)
    """Router layer → share of the routed (token, choice) pairs of each expert; sums to 1."""

    compressed_state: CompressedState | None = None

    bundles: dict[str, str] = Field(default_factory=dict)
    """Kind or concept → id of the immutable bundle that was used."""
    artifacts: list[ArtifactRef] = Field(default_factory=list)
    missing: dict[str, str] = Field(default_factory=dict)
    """Field → why it is empty or partly empty: not supported by this model, not a number, or moved away."""
    quantiles: dict[str, Quantiles] = Field(default_factory=dict)
    """Field → summary of a per-token array that moved to an artifact to keep the trace small."""
    timings: Timings = Field(default_factory=Timings)


class AgentMessage(WireModel):
    """What one agent says to another: the words, and what was read while they were thought."""

    text: str
    thought_trace: ThoughtTrace | None = None
