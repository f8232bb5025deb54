"""The numbers of next-token distributions: a few sums per step on the device, all else once per request."""

import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from wonder.engine.reductions import FLOOR

# Shape suffixes: B rows, K ranks, V vocabulary. `...` stands for steps and rows in any number.

FEW: Final = 5
"""Ranks that are always kept: those of the top-5 negentropy."""
MANY: Final = 200
"""Ranks among which the boosted probability looks for the largest drop."""


@dataclass(frozen=True)
class LogitSums:
    """What is kept of raw logits; columns of one step, or of many stacked."""

    best: Tensor
    """(..., 1): probability of the likeliest token."""
    chosen: Tensor
    """(..., 1): raw logit of the emitted token."""
    top: Tensor
    """(..., K): largest raw logits, largest first."""
    exponent: Tensor
    """(..., 1): mean of z − max z under the distribution."""
    mean: Tensor
    """(..., 1): mean of z − max z over the vocabulary; −inf where the model itself rules a token out."""


@dataclass(frozen=True)
class LogitNumbers:
    """What a trace tells of each step's distribution, float64; shape (...) unless said otherwise."""

    entropy: Tensor
    """Nats."""
    margin: Tensor
    log_chosen: Tensor
    """ln p of the emitted token, in nats."""
    chosen: Tensor
    probability: Tensor
    """(..., K): of the likeliest tokens."""
    negentropy: Tensor
    """1 − H₅ / ln 5 of the five likeliest tokens, renormalised."""
    certainty: Tensor
    """KL(uniform ‖ distribution) in nats; infinite where a token is ruled out."""
    boosted: Tensor | None
    """Mass of the dominant tokens where the emitted token is one of them, its own probability elsewhere."""


def logit_sums(logits_BV: Tensor, tokens_B: Tensor, ranks: int) -> tuple[LogitSums, Tensor]:
    """What is needed of one step's raw logits, with `ranks` tokens at least (never fewer than `FEW`).

    Returns:
        The sums, and the likeliest tokens (B, K).
    """
    top_BK, index_BK = logits_BV.topk(min(max(FEW, ranks), logits_BV.shape[-1]), -1)
    chosen_B1 = logits_BV.gather(-1, tokens_B[:, None])
    # The maximum stays inside the sums: lse - Σ p·z over a large vocabulary loses four digits in float32.
    shifted_BV = logits_BV - top_BK[:, :1]
    mean_B1 = shifted_BV.mean(-1, keepdim=True)
    shifted_BV = shifted_BV.clamp_min_(FLOOR)
    share_BV = shifted_BV.softmax(-1)
    exponent_B1 = torch.linalg.vecdot(share_BV, shifted_BV)[:, None]
    return LogitSums(share_BV.gather(-1, index_BK[:, :1]), chosen_B1, top_BK, exponent_B1, mean_B1), index_BK


def logit_numbers(sums: LogitSums, vocabulary: int, *, boosted: bool = False) -> LogitNumbers:
    """The numbers of a trace, from the sums of any number of steps.

    Args:
        sums: On the host.
        vocabulary: Number of logits.
        boosted: Whether to look for the dominant tokens; the sums should then have `MANY` ranks.
    """
    top, best = sums.top.double(), sums.best.double().log()
    below = top - top[..., :1]
    log_chosen = sums.chosen.double() - top[..., :1] + best
    probability = (below + best).exp()
    second = probability[..., 1] if probability.shape[-1] > 1 else torch.zeros_like(probability[..., 0])
    few = below[..., :FEW].softmax(-1)
    widest = math.log(few.shape[-1]) if few.shape[-1] > 1 else 1.0
    spread = torch.special.entr(few).sum(-1) / widest
    return LogitNumbers(
        entropy=-(best + sums.exponent.double())[..., 0],
        margin=probability[..., 0] - second,
        log_chosen=log_chosen[..., 0],
        chosen=log_chosen.exp()[..., 0],
        probability=probability,
        negentropy=1 - spread,
        certainty=-(best + sums.mean.double())[..., 0] - math.log(vocabulary),
        boosted=_boosted(sums, probability, log_chosen.exp()) if boosted else None,
    )


def confidences(best_chosen_top: Tensor) -> list[float | None]:
    """Probabilities of the emitted tokens of one step, from `best`, `chosen` and the first of `top` (B, 3)."""
    found = [math.exp(min(0.0, chosen - top)) * best for best, chosen, top in best_chosen_top.tolist()]
    return [min(1.0, value) if math.isfinite(value) else None for value in found]


def _boosted(sums: LogitSums, probability: Tensor, chosen: Tensor) -> Tensor:
    """The dominant tokens are those before the largest drop of the sorted probabilities (Dinh et al. 2025)."""
    if probability.shape[-1] < 2:
        return chosen[..., 0]
    last = (probability[..., :-1] - probability[..., 1:]).argmax(-1, keepdim=True)
    mass = probability.cumsum(-1).gather(-1, last)
    # Compared as raw logits, which are the model's own: equal ones stay equal.
    inside = sums.chosen >= sums.top.gather(-1, last)
    return torch.where(inside, mass, chosen)[..., 0]
