"""Every signal of how sure the model was, as a named, documented function of a trace.

p_t is the probability of emitted token t under the raw logits, q_t that whole distribution, H_t its entropy in nats,
V the size of the vocabulary; *values* are the tokens of the answer's values (all tokens of a plain-text answer).
Each signal is a number in 0..1 that grows with confidence, so that any of them may be a `confidence_method`; where
the field's usual form has another range, a monotone map brings it there, which leaves every ranking as it is. The
scale says what the number means before calibration: a `probability` is one in name at least; a `rank` only orders
answers, and a threshold on it means something only once it has been calibrated.

Sources: Malinin & Gales 2021 and Fomicheva et al. 2020 (sequence probability, entropy), Kang et al. 2025
(self-certainty), Dinh & Niehues 2025 (BoostedProb), Vazhentsev et al. 2025, arXiv 2505.20045 (RAUQ), Sriramanan et
al. 2024 (attention score), Chuang et al. 2024 (lookback ratio), nostalgebraist 2020 (logit lens), Wang et al. 2023
(self-consistency), Farquhar et al. 2024 (semantic entropy).
"""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from wonder.trace.capture import ConfidenceMethod, ThoughtCapture
from wonder.trace.confidence import Confidence, clamp, mean_log
from wonder.trace.readings import (
    NOT_FINITE,
    Answer,
    UnknownError,
    answer_tokens,
    lens,
    mean,
    normalized_entropy,
    number,
    relative_margin,
    samples,
    unit,
    value_probability,
    watched,
)
from wonder.trace.schema import ThoughtTrace

Scale = Literal["probability", "rank"]


@dataclass(frozen=True)
class Signal:
    """One way to say how sure the model was."""

    name: ConfidenceMethod
    formula: str
    scale: Scale
    reads: str
    """The field of the trace it is made of."""
    needs: str
    """The setting of `ThoughtCapture` without which it is not read; empty: always read."""
    read: Callable[[Answer], float]

    def is_read_by(self, capture: ThoughtCapture) -> bool:
        """Whether these settings have everything read that the signal is made of."""
        return not self.needs or bool(getattr(capture, self.needs.partition("=")[0]))


def read_signal(name: str, trace: ThoughtTrace, value_fields: Collection[str] | None = None) -> Confidence:
    """One signal of a trace, or why there is none.

    A signal that the worker has read (`trace.signals`) is taken as it is: the lists it was made of may have moved
    to an artifact since.

    Args:
        name: See `SIGNALS`.
        trace: Of one action.
        value_fields: Dotted paths of the answer's fields that count, where the signal is about values; a path stands
            for everything below it too. None: all values.
    """
    if name in trace.signals and value_fields is None:
        return Confidence(trace.signals[name])
    if not trace.tokens and not trace.token_confidences:
        return Confidence(None, "no token was generated")
    try:
        value = SIGNALS[name].read(Answer(trace, answer_tokens(trace, value_fields)))
    except UnknownError as unknown:
        return Confidence(None, str(unknown))
    return Confidence(clamp(value)) if math.isfinite(value) else Confidence(None, NOT_FINITE)


def read_signals(trace: ThoughtTrace, value_fields: Collection[str] | None = None) -> dict[str, float]:
    """Every signal that can be had of a trace, by name."""
    found = {name: read_signal(name, trace, value_fields).value for name in SIGNALS}
    return {name: value for name, value in found.items() if value is not None}


_ATTENTION: Final = "compute_attention_entropy=True"
_HEADS: Final = "compute_attention_statistics=True"

SIGNALS: Final[Mapping[str, Signal]] = {
    signal.name: signal
    for signal in (
        Signal("value_probability", "Π p_t over values", "probability", "token_confidences", "", value_probability),
        Signal(
            "mean_value_probability",
            "exp(mean ln p_t) over values",
            "probability",
            "token_confidences",
            "",
            lambda a: math.exp(mean_log(a.values("token_confidences"))),
        ),
        Signal(
            "min_value_probability",
            "min p_t over values",
            "probability",
            "token_confidences",
            "",
            lambda a: min(a.values("token_confidences")),
        ),
        Signal(
            "first_value_probability",
            "p_t of the first value token",
            "probability",
            "token_confidences",
            "",
            lambda a: a.values("token_confidences")[0],
        ),
        Signal(
            "mean_probability",
            "exp(mean ln p_t) over all tokens",
            "probability",
            "token_confidences",
            "",
            lambda a: math.exp(mean_log(a.every("token_confidences"))),
        ),
        Signal(
            "min_probability",
            "min p_t over all tokens",
            "probability",
            "token_confidences",
            "",
            lambda a: min(a.every("token_confidences")),
        ),
        Signal(
            "mean_margin",
            "mean over values of (largest - second largest of q_t)",
            "probability",
            "token_margins",
            "",
            lambda a: mean(a.values("token_margins")),
        ),
        Signal(
            "min_margin",
            "the smallest of them",
            "probability",
            "token_margins",
            "",
            lambda a: min(a.values("token_margins")),
        ),
        Signal(
            "min_relative_margin",
            "1 - max over values of (second largest / largest of q_t)",
            "probability",
            "token_margins",
            "",
            relative_margin,
        ),
        Signal(
            "mean_entropy",
            "exp(-mean H_t) over values: one over the effective number of tokens to choose from",
            "probability",
            "logits_entropy",
            "",
            lambda a: math.exp(-mean(a.values("logits_entropy"))),
        ),
        Signal(
            "max_entropy",
            "exp(-max H_t) over values",
            "probability",
            "logits_entropy",
            "",
            lambda a: math.exp(-max(a.values("logits_entropy"))),
        ),
        Signal(
            "normalized_entropy",
            "1 - mean H_t / ln V over all tokens",
            "rank",
            "logits_entropy",
            "",
            normalized_entropy,
        ),
        Signal(
            "mean_top5_negentropy",
            "mean over values of 1 - H5 / ln 5, H5 the entropy of the five likeliest tokens, renormalised",
            "rank",
            "top5_negentropy",
            "",
            lambda a: mean(a.values("top5_negentropy")),
        ),
        Signal(
            "min_top5_negentropy",
            "the smallest of them",
            "rank",
            "top5_negentropy",
            "",
            lambda a: min(a.values("top5_negentropy")),
        ),
        Signal(
            "self_certainty",
            "c / (1 + c), c the mean over values of KL(uniform || q_t) in nats",
            "rank",
            "self_certainty",
            "",
            lambda a: unit(mean(a.values("self_certainty"))),
        ),
        Signal(
            "boosted_probability",
            "mean over values of the dominant tokens' joint probability if the emitted one is among them, else p_t",
            "probability",
            "boosted_probs",
            "boosted_probability=True",
            lambda a: mean(a.values("boosted_probs")),
        ),
        Signal(
            "attention_narrowness",
            "1 - mean over watched layers of the attention's entropy / ln(attended keys)",
            "rank",
            "attention_entropy_normalized",
            _ATTENTION,
            lambda a: 1 - mean(watched(a, "attention_entropy_normalized")),
        ),
        Signal(
            "rauq",
            "exp(-u), u the largest layer score of the middle third: RAUQ, arXiv 2505.20045",
            "rank",
            "rauq",
            _HEADS,
            lambda a: math.exp(-number(a, "rauq")),
        ),
        Signal(
            "attention_score",
            "1 / (1 - s), s the sum of ln(attention of a token to itself), mean over heads, in a middle layer",
            "rank",
            "attention_score",
            _HEADS,
            lambda a: 1 / (1 - number(a, "attention_score")),
        ),
        Signal(
            "lookback_ratio",
            "attention on the prompt over that on prompt and answer, mean over watched layers",
            "rank",
            "lookback_ratio",
            _HEADS,
            lambda a: mean(watched(a, "lookback_ratio")),
        ),
        Signal(
            "logit_lens_agreement",
            "share of the value tokens that a layer already ranks first, mean over the asked layers",
            "rank",
            "logit_lens",
            "logit_lens=True",
            lambda a: lens(a, lambda layer: layer.first_share),
        ),
        Signal(
            "logit_lens_probability",
            "exp(mean ln p of the value tokens by a layer), mean over the asked layers",
            "rank",
            "logit_lens",
            "logit_lens=True",
            lambda a: lens(a, lambda layer: None if layer.log_probability is None else math.exp(layer.log_probability)),
        ),
        Signal(
            "hidden_norm",
            "n / (1 + n), n the mean L2 norm of the last layer's state",
            "rank",
            "layer_norms",
            "",
            lambda a: unit(a.every("layer_norms")[-1]),
        ),
        Signal(
            "state_stability",
            "1 / (1 + sum over layers of (1 - cosine between neighbours))",
            "rank",
            "representation_shifts",
            "",
            lambda a: 1 - unit(math.fsum(a.every("representation_shifts"))),
        ),
        Signal(
            "self_consistency",
            "share of the samples that mean the same as the answer",
            "probability",
            "samples",
            "samples=5",
            lambda a: samples(a).agreement,
        ),
        Signal(
            "semantic_entropy",
            "exp(-entropy over clusters of equivalent samples)",
            "probability",
            "samples",
            "samples=5",
            lambda a: math.exp(-samples(a).semantic_entropy_nats),
        ),
    )
}
"""Name → signal, in the order of the table in `docs/confidence.md`."""
