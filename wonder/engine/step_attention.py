"""One decode step's attention of many layers, as few tensors: like layers are one product and one reduction."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wonder.engine.attention import Seen, row_mask
from wonder.engine.reductions import low_of, score_negentropy, weight_entropy
from wonder.engine.slots import Feed, KeyStack

# Shape suffixes: A layers of a group, B rows, D head size, G query heads per key head, H heads, K key heads, T keys.


@dataclass(frozen=True)
class GroupAttention:
    """The attention of layers that were reduced together."""

    layers: tuple[int, ...]
    negentropy_BA: Tensor
    """Entropy, mean over heads, in nats; negated only once a request is complete."""
    share_BAHT: Tensor
    """Attention weights."""


def step_attention(
    seen: Sequence[Seen], stacks: Sequence[KeyStack], feed: Feed, last_columns_B: Tensor | None = None
) -> list[GroupAttention]:
    """Reduce one step's attention.

    Layers are grouped by shape and scale; their masks may differ, as those of windowed and full layers do.

    Args:
        seen: What the taps saw.
        stacks: Where the keys of several layers lie together.
        feed: The forward pass.
        last_columns_B: Query column of each row in a prefill with padding on the right.
    """
    groups: dict[tuple[Any, ...], list[Seen]] = defaultdict(list)
    for item in seen:
        kind = (item.weights is None, item.shape, item.device, item.scaling, item.softcap, item.window)
        groups[kind].append(item)
    return [
        _weighed(group) if group[0].weights is not None else _scored(group, stacks, feed, last_columns_B)
        for group in groups.values()
    ]


def _weighed(group: Sequence[Seen]) -> GroupAttention:
    share_BAHT = torch.stack([item.weights for item in group if item.weights is not None], 1).float()
    return GroupAttention(tuple(item.layer for item in group), -weight_entropy(share_BAHT).mean(-1), share_BAHT)


def _scored(
    group: Sequence[Seen], stacks: Sequence[KeyStack], feed: Feed, last_columns_B: Tensor | None
) -> GroupAttention:
    left = {item.layer: item for item in group}
    parts, order = [], []
    for stack in stacks:
        members = [left[layer] for layer in stack.layers if layer in left]
        whole = len(members) == len(stack.layers)
        if whole and all(stack.holds(item.layer, item.key, feed) for item in members):
            parts.append(_stack_products(members, stack.of(feed)))
            order += [left.pop(layer) for layer in stack.layers]
    if left:
        parts.append(torch.stack([item.products().flatten(1, 2) for item in left.values()], 1))
        order += left.values()
    scores_BAHT = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
    low = _low(order, scores_BAHT.shape[-1], last_columns_B)
    negated_BAH, share_BAHT = score_negentropy(scores_BAHT, order[0].scaling, order[0].softcap, low)
    return GroupAttention(tuple(item.layer for item in order), negated_BAH.mean(-1), share_BAHT)


def _stack_products(members: Sequence[Seen], keys_BAKTD: Tensor) -> Tensor:
    """The products q · Kᵀ of all layers of a stack (B, A, H, T), in one product."""
    query_BAKGD = torch.stack([item.query for item in members if item.query is not None], 1)
    # No copy: the storage is laid out so that rows, layers and heads are one axis.
    products = torch.bmm(query_BAKGD.flatten(0, 2), keys_BAKTD.flatten(0, 2).transpose(1, 2))
    return products.view(*query_BAKGD.shape[:2], -1, keys_BAKTD.shape[3])


def _low(order: Sequence[Seen], keys: int, last_columns_B: Tensor | None) -> Tensor | None:
    """What is added to the scores, (B or 1, A or 1, H or 1, T); None where every layer sees every key."""
    masks = {id(item.mask): row_mask(item, keys, last_columns_B) for item in order}
    lows = {key: None if mask is None else low_of(mask) for key, mask in masks.items()}
    some = next((low for low in lows.values() if low is not None), None)
    if some is None:
        return None
    if len(lows) == 1:
        return some[:, None]
    everything = torch.zeros_like(some)
    return torch.stack([everything if (low := lows[id(item.mask)]) is None else low for item in order], 1)
