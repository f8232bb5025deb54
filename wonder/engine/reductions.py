"""The arithmetic of a trace: from one step's tensors to a few numbers per row, in float32, on the device."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Shape suffixes: B rows, D d_model, G query heads per key head, H heads (1 in a mask that all heads share), K kept,
# L layers, S prompt columns, T key columns, V vocabulary.

MASKED = -1e30
"""Stands for -inf in scores: its exponential is exactly 0, and it makes no NaN."""
FLOOR = -1e4
"""Bounds the exponent in products with an exponential that is 0: 0 · -1e4 is 0, 0 · -inf is not a number."""


@dataclass(frozen=True)
class LogitNumbers:
    """What is kept of one step's next-token distribution."""

    entropy_B: Tensor
    """Nats."""
    margin_B: Tensor
    chosen_B: Tensor
    """Probability of the emitted token."""
    top_probability_BK: Tensor
    top_token_BK: Tensor


def logit_numbers(logits_BV: Tensor, tokens_B: Tensor, kept: int) -> LogitNumbers:
    """Entropy, margin, probability of the emitted tokens, and the `kept` likeliest tokens, from raw logits."""
    top_BK, index_BK = logits_BV.topk(min(max(2, kept), logits_BV.shape[-1]), -1)
    best_B1 = top_BK[:, :1]
    shifted_BV = logits_BV - best_B1
    exp_BV = shifted_BV.exp()
    sum_B = exp_BV.sum(-1)
    # The maximum stays inside the sum: lse - Σ p·z over a large vocabulary loses four digits in float32.
    entropy_B = sum_B.log() - torch.linalg.vecdot(exp_BV, shifted_BV.clamp_min(FLOOR)) / sum_B
    probability_BK = (top_BK - best_B1).exp() / sum_B[:, None]
    chosen_B = shifted_BV.gather(-1, tokens_B[:, None])[:, 0].exp() / sum_B
    margin_B = probability_BK[:, 0] - probability_BK[:, 1] if probability_BK.shape[1] > 1 else probability_BK[:, 0]
    return LogitNumbers(entropy_B, margin_B, chosen_B, probability_BK[:, :kept], index_BK[:, :kept])


def state_numbers(states_LBD: Tensor) -> tuple[Tensor, Tensor]:
    """Squared norm of every layer's state (L, B), and dot product with the next layer's (L - 1, B)."""
    states_LBD = states_LBD.float()
    return torch.linalg.vecdot(states_LBD, states_LBD), torch.linalg.vecdot(states_LBD[1:], states_LBD[:-1])


def norms_and_shifts(square_LB: Tensor, dot_LB: Tensor) -> tuple[Tensor, Tensor]:
    """L2 norms (L, B) and 1 - cosine between neighbouring layers (L - 1, B)."""
    norm_LB = square_LB.sqrt()
    return norm_LB, (1 - dot_LB / (norm_LB[1:] * norm_LB[:-1])).clamp(0, 2)


def masked_mean(states_BSD: Tensor, real_BS: Tensor, columns: int = 1024) -> Tensor:
    """Mean over the real columns (B, D), float32; padding never enters, whatever stands there."""
    total_BD = torch.zeros(states_BSD.shape[0], states_BSD.shape[2], device=states_BSD.device)
    for start in range(0, states_BSD.shape[1], columns):
        part = states_BSD[:, start : start + columns].float()
        total_BD += part.masked_fill(~real_BS[:, start : start + columns, None], 0.0).sum(1)
    return total_BD / real_BS.sum(1, keepdim=True)


@dataclass(frozen=True)
class AttentionNumbers:
    """What is kept of one step's attention in a group of layers that have the same shape and mask."""

    entropy_LB: Tensor
    """Mean over heads, in nats."""
    normalized_LB: Tensor
    """Divided by ln(attended keys); NaN where only one key is attended."""
    sink_LB: Tensor
    """Mean attention on the row's first token."""
    weight_LBK: Tensor
    """Strongest attention, mean over heads, the first token left out."""
    column_LBK: Tensor


def attention_from_scores(
    scores_LBHGT: Tensor, scaling: float, softcap: float | None, mask_BHT: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """From raw products of one query and keys: entropy (L, B), head-mean weights (L, B, T), attended keys (1, B)."""
    scores = scores_LBHGT.float().flatten(2, 3) * scaling
    if softcap is not None:
        scores = (scores / softcap).tanh() * softcap
    attended_B = _attended(mask_BHT, scores)
    if mask_BHT is not None:
        mask = mask_BHT[None]
        scores = scores.masked_fill(~mask, MASKED) if mask.dtype == torch.bool else scores + mask.float()
    scores = scores - scores.amax(-1, keepdim=True)
    exp = scores.exp()
    total = exp.sum(-1)
    entropy = total.log() - torch.linalg.vecdot(exp, scores.clamp_min(FLOOR)) / total
    heads = scores.shape[2]
    mean_weight = ((1 / total).unsqueeze(-2) @ exp).squeeze(-2) / heads
    return entropy.mean(-1), mean_weight, attended_B


def attention_from_weights(weights_LBHT: Tensor, mask_BHT: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """The same from probabilities that the model itself computed.

    Where a sink column takes part of the attention, the rest sums to less than 1: the entropy is that of the rest
    renormalised, the weights are the model's own.
    """
    weights = weights_LBHT.float()
    total = weights.sum(-1)
    share = weights / total.unsqueeze(-1)
    entropy = torch.special.entr(share).sum(-1)
    return entropy.mean(-1), weights.mean(2), _attended(mask_BHT, weights)


def attention_numbers(
    entropy_LB: Tensor, weight_LBT: Tensor, attended_B: Tensor, first_B: Tensor, kept: int
) -> AttentionNumbers:
    """Normalise the entropy, take the sink out, and keep the strongest columns.

    Args:
        entropy_LB: Nats, mean over heads.
        weight_LBT: Mean over heads.
        attended_B: Number of keys each row attends to.
        first_B: Column of each row's first token; negative when it has left the window.
        kept: How many columns to keep.
    """
    # One attended key has no entropy to normalise: 0 / 0 is NaN, which means "undefined" downstream.
    normalized_LB = torch.where(attended_B > 1, entropy_LB / attended_B.float().log(), float("nan"))
    inside_B = first_B >= 0
    index_LB1 = first_B.clamp_min(0)[None, :, None].expand(weight_LBT.shape[0], -1, 1)
    sink_LB = torch.where(inside_B, weight_LBT.gather(-1, index_LB1)[..., 0], 0.0)
    rest_LBT = torch.where(
        inside_B[:, None] & (torch.arange(weight_LBT.shape[-1], device=first_B.device) == first_B[:, None]),
        0.0,
        weight_LBT,
    )
    weight_LBK, column_LBK = rest_LBT.topk(min(kept, weight_LBT.shape[-1]), -1)
    return AttentionNumbers(entropy_LB, normalized_LB, sink_LB, weight_LBK, column_LBK)


def _attended(mask_BHT: Tensor | None, scores: Tensor) -> Tensor:
    if mask_BHT is None:
        return torch.full((scores.shape[1],), scores.shape[-1], device=scores.device)
    attended = mask_BHT if mask_BHT.dtype == torch.bool else mask_BHT > FLOOR
    return attended.flatten(1, -2).any(1).sum(-1).expand(scores.shape[1])


@dataclass(frozen=True)
class LogitSums:
    """One step's next-token distribution, from which entropy and margin follow once per request."""

    top_BK: Tensor
    """Largest probabilities."""
    index_BK: Tensor
    exponent_B1: Tensor
    """Mean of z - max z under the distribution; the entropy is this plus ln(largest probability), negated."""
    chosen_B1: Tensor
    """Probability of the emitted token."""


def logit_sums(logits_BV: Tensor, tokens_B: Tensor, kept: int) -> LogitSums:
    """What is needed of raw logits for entropy, margin and the probabilities of `kept` tokens (at least two)."""
    top_BK, index_BK = logits_BV.topk(min(max(2, kept), logits_BV.shape[-1]), -1)
    # The maximum stays inside the sum: lse - Σ p·z over a large vocabulary loses four digits in float32.
    shifted_BV = (logits_BV - top_BK[:, :1]).clamp_min_(FLOOR)
    share_BV = shifted_BV.softmax(-1)
    return LogitSums(
        share_BV.gather(-1, index_BK),
        index_BK,
        torch.linalg.vecdot(share_BV, shifted_BV)[:, None],
        share_BV.gather(-1, tokens_B[:, None]),
    )


def attention_sums(
    products: Sequence[Tensor], scaling: float, softcap: float | None, mask_BHT: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Entropy, mean over heads (L, B), and weights summed over heads (L, B, T), of layers with one mask.

    Args:
        products: Raw products of one query and the keys, (B, key heads, G, T) each.
        scaling: Of the products.
        softcap: Of the scaled products.
        mask_BHT: Boolean, or 0 and very low numbers to add.
    """
    scores = torch.stack(list(products)).float().flatten(2, 3)
    if softcap is not None:
        scores = (scores * (scaling / softcap)).tanh_() * softcap
        scaling = 1.0
    if mask_BHT is None:
        scores = scores.mul_(scaling)
    else:
        low = torch.where(mask_BHT, 0.0, MASKED) if mask_BHT.dtype == torch.bool else mask_BHT.float()
        scores = torch.add(low, scores, alpha=scaling)
    scores = scores.sub_(scores.amax(-1, keepdim=True))
    share = scores.softmax(-1)
    # A masked score is finite, so that its product with a weight of 0 is 0.
    entropy = share.amax(-1).log_().add_(torch.linalg.vecdot(share, scores)).mean(-1).neg_()
    return entropy, share.sum(2)
