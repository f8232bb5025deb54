"""Attention entropy of every row of a prompt, a few rows at a time: nothing of heads × prompt × prompt ever exists."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from wonder.engine.reductions import FLOOR, low_of, score_negentropy, weight_entropy

# Shape suffixes: B rows of the batch, D head size, G query heads per key head, H heads, K key heads, N queries of a
# piece, Q queries, T keys.


@dataclass(frozen=True)
class RowEntropy:
    """Attention of every query of one layer."""

    entropy_BQ: Tensor
    """Mean over heads, in nats, float32."""
    keys_BQ: Tensor
    """How many keys each query sees; (1, Q) where all rows of the batch are alike."""


ELEMENTS: Final = 1 << 20
"""Most attention scores that exist at once (4 MB); a single query may exceed it."""


def entropy_of_products(
    query_BHQD: Tensor,
    key_BKTD: Tensor,
    mask: Tensor | None,
    scaling: float,
    softcap: float | None,
    window: int | None,
    *,
    causal: bool,
) -> RowEntropy:
    """Entropy of each query's attention.

    By H = lse - E[score]: a piece's scores are made again, and both terms are taken from them while they are there.
    That is as fast on a CPU as a flash kernel called once more with the keys for values (which gives lse and E[key]),
    exact in every dtype, and holds for capped scores too.

    Args:
        query_BHQD: All queries.
        key_BKTD: All keys; several heads of queries may share a head of keys.
        mask: As it was passed to the attention function: boolean or to add, (B or 1, H or 1, Q, T); or (B, T), real
            keys only.
        scaling: Of the products.
        softcap: Of the scaled products.
        window: Keys that a query sees, where that is an argument instead of being in the mask.
        causal: Whether a query does not see the keys after it, where the mask does not say so.
    """
    rows, heads, queries, _ = query_BHQD.shape
    key_heads, keys = key_BKTD.shape[1:3]
    key_BKDT = key_BKTD.float().transpose(-1, -2)
    parts = []
    for start, stop in _pieces(queries, rows * heads * keys):
        seen = keys - queries + stop if causal else keys
        query_BKXD = query_BHQD[:, :, start:stop].float().reshape(rows, key_heads, -1, query_BHQD.shape[3])
        scores_BHNT = (query_BKXD @ key_BKDT[..., :seen]).view(rows, heads, stop - start, seen)
        low = _low(mask, slice(start, stop), queries, keys, seen, window, causal=causal, device=query_BHQD.device)
        negated_BHN, _ = score_negentropy(scores_BHNT, scaling, softcap, low)
        parts.append((-negated_BHN.mean(1), _visible(low, stop - start, seen, query_BHQD.device)))
    return RowEntropy(*(torch.cat(part, 1) for part in zip(*parts, strict=True)))


def entropy_of_weights(weights_BHQT: Tensor, mask: Tensor | None, *, causal: bool) -> RowEntropy:
    """The same from weights that the model itself computed, renormalised where a sink took part of them."""
    rows, heads, queries, keys = weights_BHQT.shape
    parts = []
    for start, stop in _pieces(queries, rows * heads * keys):
        entropy_BHN = weight_entropy(weights_BHQT[:, :, start:stop].float())
        low = _low(mask, slice(start, stop), queries, keys, keys, None, causal=causal, device=weights_BHQT.device)
        parts.append((entropy_BHN.mean(1), _visible(low, stop - start, keys, weights_BHQT.device)))
    return RowEntropy(*(torch.cat(part, 1) for part in zip(*parts, strict=True)))


def row_sums(rows: RowEntropy, real_BQ: Tensor | None) -> Tensor:
    """Sums over the rows of a prompt (3, B): entropy, entropy over ln(keys seen), and how many rows see several keys.

    Args:
        rows: Of one layer.
        real_BQ: False for padding; None: there is none.
    """
    several_BQ = (rows.keys_BQ > 1).expand_as(rows.entropy_BQ)
    if real_BQ is not None:
        several_BQ = several_BQ & real_BQ
    entropy_BQ = rows.entropy_BQ if real_BQ is None else rows.entropy_BQ.masked_fill(~real_BQ, 0.0)
    # Chosen, not multiplied: ln 1 is 0, and what stands at padding means nothing.
    normalized_BQ = torch.where(several_BQ, entropy_BQ / rows.keys_BQ.float().log(), 0.0)
    return torch.stack([entropy_BQ.sum(1), normalized_BQ.sum(1), several_BQ.sum(1)])


def _low(
    mask: Tensor | None,
    rows: slice,
    queries: int,
    keys: int,
    seen: int,
    window: int | None,
    *,
    causal: bool,
    device: torch.device,
) -> Tensor | None:
    """What is added to the scores of a piece, (B or 1, H or 1, N or 1, `seen`); None where every key is seen."""
    if mask is not None and mask.ndim == 4:
        return low_of(mask[:, :, rows, :seen])
    visible = None if mask is None else mask[:, None, None, -keys:][..., :seen].bool()
    if causal:
        at_N1 = torch.arange(rows.start, rows.stop, device=device)[:, None] + (keys - queries)
        columns_T = torch.arange(seen, device=device)
        near = columns_T <= at_N1
        near = near if window is None else near & (columns_T > at_N1 - window)
        visible = near[None, None] if visible is None else visible & near
    return None if visible is None else low_of(visible)


def _visible(low: Tensor | None, count: int, seen: int, device: torch.device) -> Tensor:
    """Keys that each query of a piece sees, (B or 1, N)."""
    if low is None:
        return torch.full((1, count), seen, device=device)
    return (low > FLOOR).any(1).sum(-1).expand(-1, count)


def _pieces(queries: int, elements_per_query: int) -> Iterator[tuple[int, int]]:
    size = max(1, min(64, ELEMENTS // max(1, elements_per_query)))
    for start in range(0, queries, size):
        yield start, min(queries, start + size)
