"""Reads attention beside the implementation that the model uses already, without ever switching it to eager."""

import re
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from wonder.engine.anatomy import Anatomy
from wonder.engine.reductions import (
    AttentionNumbers,
    attention_from_scores,
    attention_from_weights,
    attention_numbers,
)

# Shape suffixes: B rows, H heads, Q query columns, T key columns.

PREFIX: Final = "wonder_"
"""Of the names of watched implementations."""
TAP: Final = "_wonder_tap"
"""Key in an attention module's `__dict__`: no global state, so several models and threads live side by side."""


@dataclass(frozen=True)
class Seen:
    """One layer's attention of one step, unreduced."""

    layer: int
    product: Tensor | None
    """q · Kᵀ of the last query, (B, key heads, G, T)."""
    weights: Tensor | None
    """Attention of the last query, (B, H, T), where the implementation computes it anyway."""
    scaling: float
    softcap: float | None
    mask: Tensor | None
    """The whole mask as it was passed; a reference, used to group layers and sliced once per group."""
    window: int | None
    """For implementations that take the window as an argument instead of in the mask."""
    has_sinks: bool


@dataclass
class AttentionTap:
    """Where the attention function of one layer leaves what it saw."""

    layer: int
    seen: list[Seen] = field(default_factory=list)
    last_columns_B: Tensor | None = None
    """Query column to read per row; None: the last one."""


def install(model: PreTrainedModel, anatomy: Anatomy) -> str | None:
    """Wrap the attention implementation of a model; the text stays the same to the bit.

    Returns:
        Why it could not be done, or None.
    """
    attention = [part for block in anatomy.blocks for part in block.modules() if hasattr(part, "layer_idx")]
    if not attention or not model._can_set_attn_implementation():
        return f"{type(model).__name__} does not call its attention through an interface that can be watched"
    modeling = sys.modules[type(attention[0]).__module__]
    implementation = str(model.config._attn_implementation)
    if implementation.startswith(PREFIX):
        return None  # an earlier engine of this model has done it; wrapped twice, it would be seen twice
    inner = _inner(modeling, implementation)
    if inner is None:
        return f"the attention implementation {implementation!r} of {type(model).__name__} cannot be watched"
    # One name per implementation and modelling file: each file has an eager function of its own. The name keeps
    # the implementation's, because some models look for "flash" in it.
    name = f"{PREFIX}{re.sub(r'[^a-z0-9]+', '_', f'{implementation}_{modeling.__name__}'.lower())}"
    AttentionInterface.register(name, _watched(inner))
    # Without a mask function of the same name, the mask would be None and padding would be attended, silently.
    AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[implementation])
    try:
        model.set_attn_implementation(name)
    except (ValueError, ImportError, RuntimeError, AttributeError, KeyError) as error:
        model.set_attn_implementation(implementation)
        return f"{type(model).__name__} refused the watched attention implementation ({error})"
    if model.config._attn_implementation != name:
        return f"{type(model).__name__} refused the watched attention implementation"
    return None


def is_additive(model: PreTrainedModel) -> bool:
    """Whether masks must be numbers to add, because the wrapped implementation is an eager one."""
    name = str(model.config._attn_implementation)
    return name == "eager" or name.startswith(f"{PREFIX}eager_")


def _inner(modeling: Any, implementation: str) -> Callable[..., Any] | None:
    if implementation == "eager":
        return getattr(modeling, "eager_attention_forward", None)
    # A model's own table, where it has one: some modelling files declare a private interface.
    table = getattr(modeling, "ALL_ATTENTION_FUNCTIONS", None)
    return None if table is None or implementation not in table else table[implementation]


def _watched(inner: Callable[..., Any]) -> Callable[..., Any]:
    def attend(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        *args: Any,
        scaling: float | None = None,
        **kwargs: Any,
    ) -> Any:
        output = inner(module, query, key, value, attention_mask, *args, scaling=scaling, **kwargs)
        tap: AttentionTap | None = module.__dict__.get(TAP)
        if tap is not None:
            tap.seen.append(_see(tap, output, query, key, attention_mask, scaling, kwargs))
        return output

    return attend


def _see(
    tap: AttentionTap,
    output: Any,
    query: Tensor,
    key: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    kwargs: dict[str, Any],
) -> Seen:
    factor = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
    softcap, window = kwargs.get("softcap"), kwargs.get("sliding_window")
    sinks = kwargs.get("s_aux") is not None
    if len(output) > 1 and output[1] is not None:
        # Eager: the probabilities are there. A clone of one row, so that the square matrix is not kept alive.
        weights = _last(output[1], tap.last_columns_B).clone()
        return Seen(tap.layer, None, weights, factor, softcap, mask, window, sinks)
    row_BHX = _last(query, tap.last_columns_B)
    grouped = row_BHX.reshape(row_BHX.shape[0], key.shape[1], -1, row_BHX.shape[-1])
    return Seen(tap.layer, grouped @ key.transpose(-1, -2), None, factor, softcap, mask, window, sinks)


def _last(states_BHQX: Tensor, columns_B: Tensor | None) -> Tensor:
    if columns_B is None or states_BHQX.shape[2] == 1:
        return states_BHQX[:, :, -1]
    rows_B = torch.arange(states_BHQX.shape[0], device=states_BHQX.device)
    return states_BHQX[rows_B, :, columns_B.to(states_BHQX.device)]


@dataclass(frozen=True)
class GroupNumbers:
    """One step's numbers of the layers that could be reduced together."""

    layers: tuple[int, ...]
    numbers: AttentionNumbers
    offset: int
    """Column in the batch of their first key: a sliding cache has dropped the ones before."""


def reduce(
    seen: Sequence[Seen], first_columns_B: Tensor, last_columns_B: Tensor | None, total: int, kept: int
) -> list[GroupNumbers]:
    """Reduce one step's attention, layers of equal shape, scale and mask together.

    Args:
        seen: What the taps saw.
        first_columns_B: Column of each row's first token.
        last_columns_B: Query column of each row in a prefill with padding on the right.
        total: Columns in the batch so far.
        kept: Strongest columns to keep.
    """
    groups: dict[tuple[Any, ...], list[Seen]] = defaultdict(list)
    for item in seen:
        tensor = item.product if item.product is not None else item.weights
        assert tensor is not None
        shape = (item.product is None, tuple(tensor.shape), str(tensor.device))
        groups[(*shape, item.scaling, item.softcap, item.window, id(item.mask))].append(item)
    result = []
    for group in groups.values():
        keys, parts = _stack(group)
        mask = row_mask(group[0], keys, last_columns_B)
        if group[0].product is None:
            entropy, weight, attended = attention_from_weights(parts, mask)
        else:
            entropy, weight, attended = attention_from_scores(parts, group[0].scaling, group[0].softcap, mask)
        offset = total - keys
        first_B = first_columns_B.to(weight.device) - offset
        numbers = attention_numbers(entropy, weight, attended, first_B, kept)
        result.append(GroupNumbers(tuple(item.layer for item in group), numbers, offset))
    return result


def _stack(group: Sequence[Seen]) -> tuple[int, Tensor]:
    if group[0].product is not None:
        parts = torch.stack([item.product for item in group if item.product is not None])
        return int(parts.shape[-1]), parts
    parts = torch.stack([item.weights for item in group if item.weights is not None])
    return int(parts.shape[-1]), parts


def row_mask(item: Seen, keys: int, last_columns_B: Tensor | None) -> Tensor | None:
    """The mask's row of the query that is read, (B, heads or 1, keys)."""
    mask = item.mask
    if mask is not None and mask.ndim == 2:  # flash attention: padding only, causality and windows are arguments
        mask = mask[:, None, -keys:].bool()
    elif mask is not None:
        mask = _last(mask[..., :keys], last_columns_B)
    if item.window is not None and item.product is not None and (item.mask is None or item.mask.ndim == 2):
        near = torch.arange(keys, device=item.product.device) > keys - 1 - item.window
        mask = near[None, None] if mask is None else mask & near
    return mask
