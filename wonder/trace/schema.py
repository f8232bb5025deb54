"""`ThoughtTrace`: what was read from the model during one action, small enough to live in a history."""

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from wonder.trace.artifacts import ArtifactRef
from wonder.trace.bins import TimeBins
from wonder.trace.capture import ConfidenceMethod
from wonder.trace.explanation import Explanation
from wonder.trace.injection import InjectionRecord
from wonder.wire import NonNegative, Probability, WireModel, WireRecord

LogProbability = Annotated[float, Field(le=0.0, allow_inf_nan=False)]
"""A finite number ≤ 0, in nats."""

ConfidenceStatus = Literal["calibrated", "uncalibrated", "unknown"]

TRACE_LIMIT_BYTES = 48 * 1024
"""The encoded size that no trace in a history exceeds."""


class TokenAlternative(WireRecord):
    """A token the model might have written instead."""

    token: str
    probability: Probability


class TokenDoubt(WireRecord):
    """One of the tokens of which the model was least certain."""

    index: int
    """Among the generated tokens, from 0."""
    token: str
    confidence: Probability | None
    alternatives: list[TokenAlternative] = Field(default_factory=list)
    """The likeliest tokens there, likeliest first."""


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


class AnswerCluster(WireRecord):
    """Samples that mean the same."""

    answer: str
    """The first of them: its values as canonical text, cut to 200 characters."""
    count: int


class SampleSummary(WireRecord):
    """What further answers to the same prompt said."""

    count: int
    """Answers that were drawn."""
    failed: int = 0
    """Answers that could not be had."""
    equivalence: str
    """By which two answers count as the same."""
    agreement: Probability
    """Share of the samples that mean the same as the answer that was given."""
    semantic_entropy_nats: NonNegative
    """Entropy over the clusters; 0 when all agree, ln(count) when no two do."""
    distinct: int
    """Number of clusters."""
    clusters: list[AnswerCluster] = Field(default_factory=list)
    """The eight largest, largest first."""
    generated_tokens: int = 0
    """What the samples cost."""


Verdict = Literal["supported", "refuted", "undetermined"]


class ClaimResult(WireRecord):
    """What a trace shows of one claim (see `wonder.claims`)."""

    text: str
    """The claim as a sentence."""
    verdict: Verdict | None
    """What may be relied on; None where the claim has not been validated on this model: unknown to conditions."""
    shown: Verdict
    """What the evidence says, validated or not; for people."""
    reason: str
    """One sentence: why this verdict, or why there is none."""
    evidence: dict[str, float | int | bool | str | None] = Field(default_factory=dict)
    """Path → what was read; None where it was unknown."""
    notes: list[str] = Field(default_factory=list)
    """Where in the answer the evidence is."""
    claim: str
    """Digest of the claim's evidence."""
    validation: str = ""
    """Id of the validation that the verdict rests on."""


class Quantiles(WireRecord):
    """What is left of a per-token array that moved to an artifact."""

    count: int
    min: float
    p10: float
    median: float
    p90: float
    max: float


class LensLayer(WireRecord):
    """What one layer would have written, through the model's final norm and head."""

    layer: int
    log_probability: LogProbability | None
    """ln p of the emitted token by this layer, mean over the tokens of the answer's values, in nats."""
    first_share: Probability | None
    """Share of those tokens that this layer already ranks first."""
    top_token: str
    """The layer's likeliest token where the first of them was written."""


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
    explain_s: NonNegative = 0.0
    """Putting states into words after the answer was complete; not part of the total."""


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
    vocabulary_size: int = 0
    """Number of tokens the model chooses from; 0: not known."""
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

    token_log_probs: list[LogProbability | None] = Field(default_factory=list)
    """ln of `token_confidences`, in nats: keeps its digits where the probability is close to 0 or to 1."""

    top5_negentropy: list[Probability | None] = Field(default_factory=list)
    """1 − H₅ / ln 5, where H₅ is the entropy of the five likeliest tokens, renormalised: 1 where one stands out, 0
    where all five are equally likely."""

    self_certainty: list[NonNegative | None] = Field(default_factory=list)
    """KL(uniform ‖ distribution) in nats, −mean over the vocabulary of ln q − ln V; None where it is infinite."""

    boosted_probs: list[Probability | None] | None = None
    """Where the emitted token is one of the dominant ones (those before the largest drop in the 200 likeliest), their
    joint probability, which does not punish several good ways to go on; its own probability elsewhere. None unless
    asked for (`boosted_probability`)."""

    top_alternatives: list[list[TokenAlternative]] = Field(default_factory=list)
    """The likeliest tokens at each step, likeliest first, the emitted one included if it is among them."""

    time_bins: TimeBins | None = None
    """What the lists over tokens left behind where they do not travel (`detail="binned"`)."""
    least_certain: list[TokenDoubt] = Field(default_factory=list)
    """In such a trace, the tokens with the lowest probability, lowest first."""

    field_confidences: dict[str, FieldConfidence] = Field(default_factory=dict)
    """Dotted path of a value in the answer → its tokens and its confidence. A plain-text answer has the path `""`."""

    overall_confidence: Probability | None = None
    """How likely the answer is right; None means unknown, never "fine". `calibrated`: a probability, checked against
    people's decisions; `uncalibrated`: the number of `confidence_method` as it is."""
    raw_confidence: Probability | None = None
    """What `confidence_method` gave, before calibration; set by `act`."""
    confidence_low: Probability | None = None
    """Bounds of the calibrated confidence, where its calibration has them (Venn-Abers)."""
    confidence_high: Probability | None = None
    confidence_method: ConfidenceMethod = "value_probability"
    confidence_status: ConfidenceStatus = "unknown"
    confidence_reason: str | None = None
    """Why the confidence is unknown, or why it is not calibrated, or what to bear in mind about its calibration."""
    signals: dict[str, Probability] = Field(default_factory=dict)
    """Name → every signal that could be had of the whole trace (see `wonder.trace.signals`)."""
    samples: SampleSummary | None = None
    """What further answers to the same prompt said, where some were drawn."""

    attention_entropy: list[NonNegative | None] = Field(default_factory=list)
    """Per layer: entropy of the attention of the generating positions, mean over heads and tokens, in nats."""
    attention_entropy_normalized: list[Probability | None] = Field(default_factory=list)
    """The same divided by ln(number of attended keys) of each row, so that lengths can be compared."""
    attention_sink_mass: list[Probability | None] = Field(default_factory=list)
    """Per layer: mean attention on the first position."""
    prompt_attention_entropy: list[NonNegative | None] = Field(default_factory=list)
    """Per layer: entropy of the attention of every position of the prompt, mean over heads and positions, in nats."""
    prompt_attention_entropy_normalized: list[Probability | None] = Field(default_factory=list)
    """The same, each position divided by ln(keys it sees); positions that see one key are left out."""

    rauq: NonNegative | None = None
    """Uncertainty that is handed on from token to token by the attention on the one before: the largest of
    `rauq_layers` in the middle third of the layers, in nats. Over the answer's values, as all that follow; over all
    tokens where it has none."""
    rauq_layers: list[NonNegative | None] = Field(default_factory=list)
    """Per layer: mean of -ln c_t with c_1 = p_1, c_t = α·p_t + (1 - α)·a_t·c_(t-1), a_t the attention on the previous
    token of the head that pays most to it on average."""
    previous_token_attention: list[Probability | None] = Field(default_factory=list)
    """Per layer: that head's mean attention on the previous token."""
    attention_score: Annotated[float, Field(le=0.0)] | None = None
    """Sum over tokens of ln(attention of a token to itself), mean over heads, in the watched layer nearest to the
    middle."""
    lookback_ratio: list[Probability | None] = Field(default_factory=list)
    """Per layer: attention on the prompt over that on prompt and answer, the first token left out, of the positions
    that produced the tokens, mean over heads and tokens."""

    key_attention_pairs: list[KeyAttentionPair] = Field(default_factory=list)
    """Strongest links of the watched layers, strongest first within a layer."""

    layer_norms: list[NonNegative | None] = Field(default_factory=list)
    """Per layer: L2 norm of `resid_post`, mean over generated tokens."""
    representation_shifts: list[Annotated[float, Field(ge=0.0, le=2.0)] | None] = Field(default_factory=list)
    """Between each layer and the next: 1 − cosine of `resid_post`, mean over generated tokens; one entry fewer."""

    logit_lens: list[LensLayer] = Field(default_factory=list)
    """The asked layers, lowest first; all tokens count where the answer has no values."""

    explanations: list[Explanation] = Field(default_factory=list)
    """What a lens says of single states: guesses, each with what it is worth."""

    active_concepts: dict[str, Probability] = Field(default_factory=dict)
    """Concept → calibrated probability that it is present. A concept that was not probed is absent (unknown)."""

    concept_sites: dict[str, str] = Field(default_factory=dict)
    """Concept → the tokens its probe reads: `last_prompt`, `mean_prompt` (before the answer), `mean_generated`,
    `last_generated`."""
    claims: dict[str, ClaimResult] = Field(default_factory=dict)
    """Name → what the trace shows of a claim of the action; evaluated in the workflow."""

    expert_selections: dict[str, list[int]] = Field(default_factory=dict)
    """Router layer → experts used, most used first."""
    expert_distribution: dict[str, list[Probability]] = Field(default_factory=dict)
    """Router layer → share of the routed (token, choice) pairs of each expert; sums to 1."""

    router_entropy: dict[str, NonNegative] = Field(default_factory=dict)
    """Router layer → entropy of the softmax of the router's raw logits, mean over generated tokens, in nats."""
    shared_experts: dict[str, int] = Field(default_factory=dict)
    """Router layer → experts that run for every token beside the chosen ones; they are not in the distribution."""

    compressed_state: CompressedState | None = None

    injection: InjectionRecord | None = None
    """What was put into the model beside the prompt; None: nothing."""

    bundles: dict[str, str] = Field(default_factory=dict)
    """Kind or concept → id of the immutable bundle that was used."""
    artifacts: list[ArtifactRef] = Field(default_factory=list)
    missing: dict[str, str] = Field(default_factory=dict)
    """Field → why it is empty or partly empty: not supported by this model, not a number, or moved away."""
    quantiles: dict[str, Quantiles] = Field(default_factory=dict)
    """Field → summary of a per-token array that moved to an artifact to keep the trace small."""
    timings: Timings = Field(default_factory=Timings)

    @model_serializer(mode="wrap")
    def _without_what_is_empty(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A binned trace is meant to be small: it leaves out what is empty, which reading fills in again."""
        data: dict[str, Any] = handler(self)
        if self.time_bins is None:
            return data
        required = {name for name, field in type(self).model_fields.items() if field.is_required()}
        return {name: value for name, value in data.items() if name in required or value not in ([], {}, None, "")}


class AgentMessage(WireModel):
    """What one agent says to another: the words, and what was read while they were thought."""

    text: str
    thought_trace: ThoughtTrace | None = None
