"""The arithmetic of a trace: from one step's tensors to a few numbers per row, in float32, on the device."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor

# Shape suffixes: B rows, D d_model, G query heads per key head, H heads (1 in a mask that all heads share), K kept,
# L layers, S prompt columns, T key columns.

MASKED = -1e30
"""Stands for -inf in scores: its exponential is exactly 0, and it makes no NaN."""
FLOOR = -1e4
"""Bounds the exponent in products with an exponential that is 0: 0 · -1e4 is 0, 0 · -inf is not a number."""


def state_numbers(states_LBD: Tensor) -> tuple[Tensor, Tensor]:
    """Squared norm of every layer's state (L, B), and dot product with the next layer's (L - 1, B)."""
    # All products of layers, though only two diagonals are wanted: one kernel instead of four.
    states_BLD = states_LBD.float().transpose(0, 1)
    gram_BLL = torch.bmm(states_BLD, states_BLD.transpose(1, 2))
    return gram_BLL.diagonal(dim1=1, dim2=2).t(), gram_BLL.diagonal(offset=1, dim1=1, dim2=2).t()


def norms_and_shifts(square_LB: Tensor, dot_LB: Tensor) -> tuple[Tensor, Tensor]:
    """L2 norms (L, B) and 1 - cosine between neighbouring layers (L - 1, B)."""
    norm_LB = square_LB.sqrt()
    return norm_LB, (1 - dot_LB / (norm_LB[1:] * norm_LB[:-1])).clamp(0, 2)


def router_entropy(gates: Sequence[Tensor]) -> Tensor:
    """Entropy in nats (R, B) of the softmax of R routers' raw logits, (B, E) each."""
    share_RBE = torch.stack(list(gates)).softmax(-1, dtype=torch.float32)
    entropy_RB: Tensor = torch.special.entr(share_RBE).sum(-1)
    return entropy_RB


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
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """From raw products of one query and keys.

    Returns:
        Weights (L, B, H, T), entropy (L, B), head-mean weights (L, B, T), attended keys (1, B).
    """
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
    share = exp / total.unsqueeze(-1)
    return share, entropy.mean(-1), share.mean(2), attended_B


def attention_from_weights(weights_LBHT: Tensor, mask_BHT: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same from probabilities that the model itself computed.

    Where a sink column takes part of the attention, the rest sums to less than 1: the entropy is that of the rest
    renormalised, the weights are the model's own.
    """
    weights = weights_LBHT.float()
    entropy = weight_entropy(weights)
    return weights, entropy.mean(-1), weights.mean(2), _attended(mask_BHT, weights)


def weight_entropy(weights_XT: Tensor) -> Tensor:
    """Entropy (X,) of weights that may sum to less than 1, renormalised; nats."""
    share_XT = weights_XT / weights_XT.sum(-1, keepdim=True)
    entropy_X: Tensor = torch.special.entr(share_XT).sum(-1)
    return entropy_X


@dataclass(frozen=True)
class HeadNumbers:
    """What is kept of one step's attention, head by head, where the statistics of heads are asked for."""

    previous_BAH: Tensor
    """Attention on the token before the one that is fed."""
    own_BA: Tensor
    """ln of the attention on the token that is fed, mean over heads."""
    lookback_BA: Tensor
    """Attention on the prompt over that on prompt and answer, the first token left out, mean over heads."""


HEAD_COLUMNS: Final = 4
"""Ranges of columns that `head_numbers` adds up: the previous token, the token itself, prompt, answer."""


def head_numbers(share_BAHT: Tensor, bounds_2BK: Tensor) -> HeadNumbers:
    """Statistics of heads, from the weights of one query: one product for all of them.

    Args:
        share_BAHT: Attention weights.
        bounds_2BK: First column, and one past the last, of the `HEAD_COLUMNS` ranges; whole numbers. An empty range
            holds nothing, a range may begin before the first column.
    """
    columns_T1 = _columns(-(-share_BAHT.shape[-1] // 256) * 256, share_BAHT.device)[: share_BAHT.shape[-1], None]
    low_BTK, high_BTK = (columns_T1 >= bounds_2BK[:, :, None]).unbind(0)
    inside_BTK = (low_BTK > high_BTK).to(share_BAHT.dtype)
    mass_BAHK = torch.bmm(share_BAHT.flatten(1, 2), inside_BTK).view(*share_BAHT.shape[:3], -1)
    previous, own, prompt, answer = mass_BAHK.unbind(-1)
    # In place, so that one mean serves both: the ranges of token and prompt become the logarithm and the share.
    answer.add_(prompt)
    prompt.div_(answer)
    own.log_()
    mean_BAK = mass_BAHK.mean(2)
    return HeadNumbers(previous, mean_BAK[..., 1], mean_BAK[..., 2])


@lru_cache(maxsize=64)
def _columns(count: int, device: torch.device) -> Tensor:
    return torch.arange(count, device=device)


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


def score_negentropy(
    scores_XT: Tensor, scaling: float, softcap: float | None, low: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Negated entropy (X,) in nats, and weights (X, T), of attention given by raw products of queries and keys.

    Args:
        scores_XT: The products; changed in place where they are float32.
        scaling: Of the products.
        softcap: Of the scaled products.
        low: 0 where a key is seen and a very low number where it is not, to add; as `low_of` makes it.
    """
    scores = scores_XT.float()
    if softcap is not None:
        scores = scores.mul_(scaling / softcap).tanh_()
        scaling = softcap
    scores = scores.mul_(scaling) if low is None else torch.add(low, scores, alpha=scaling)
    scores = scores.sub_(scores.amax(-1, keepdim=True))
    share = scores.softmax(-1)
    # A masked score is finite, so that its product with a weight of 0 is 0.
    return share.amax(-1).log_().add_(torch.linalg.vecdot(share, scores)), share


def low_of(mask: Tensor) -> Tensor:
    """A mask as numbers to add to scores: a key that is not seen gets `MASKED`, so that no score is infinite."""
    return torch.where(mask, *_levels(mask.device)) if mask.dtype == torch.bool else mask.float().clamp_min(MASKED)


@lru_cache(maxsize=64)
def _levels(device: torch.device) -> tuple[Tensor, Tensor]:
    """Kept, because a number given to `where` becomes a tensor first."""
    return torch.tensor(0.0, device=device), torch.tensor(MASKED, device=device)
