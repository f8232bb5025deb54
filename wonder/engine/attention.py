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

from wonder.anatomy import Anatomy
from wonder.engine.prompt_rows import RowEntropy, entropy_of_products, entropy_of_weights
from wonder.engine.reductions import (
    AttentionNumbers,
    HeadNumbers,
    attention_from_scores,
    attention_from_weights,
    attention_numbers,
    head_numbers,
)

# Shape suffixes: B rows, D head size, G query heads per key head, H heads, Q query columns, T key columns.

PREFIX: Final = "wonder_"
"""Of the names of watched implementations."""
WAITING_BYTES: Final = 2 << 20
"""Keys of one step whose products wait until it is over, on a CPU: more of them would have left its cache by then, and
reading them again costs more than the operations that are saved. On an accelerator operations are what costs."""
TAP: Final = "_wonder_tap"
"""Key in an attention module's `__dict__`: no global state, so several models and threads live side by side."""


@dataclass(frozen=True)
class Seen:
    """One layer's attention of one step, unreduced."""

    layer: int
    query: Tensor | None
    """The last query, (B, key heads, G, D)."""
    key: Tensor | None
    """(B, key heads, T, D): a reference, where the product with the query can wait until the step is over."""
    product: Tensor | None
    """q · Kᵀ, (B, key heads, G, T), where it cannot: a prompt's keys must not be held on to."""
    weights: Tensor | None
    """Attention of the last query, (B, H, T), where the implementation computes it anyway."""
    scaling: float
    softcap: float | None
    mask: Tensor | None
    """The whole mask as it was passed; a reference, used to group layers and sliced once per group."""
    window: int | None
    """For implementations that take the window as an argument instead of in the mask."""
    has_sinks: bool
    rows: RowEntropy | None = None
    """Entropy of every query, where all rows are asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(B, H, T) of the attention weights; with key heads and G in the place of H while they are products."""
        if self.weights is not None:
            return tuple(self.weights.shape)
        if self.product is not None:
            return tuple(self.product.shape)
        assert self.query is not None
        assert self.key is not None
        return (*self.query.shape[:3], self.key.shape[2])

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""
        found = next(part for part in (self.weights, self.product, self.query) if part is not None)
        return found.device

    def products(self) -> Tensor:
        """The product q · Kᵀ, (B, key heads, G, T)."""
        if self.product is not None:
            return self.product
        assert self.query is not None
        assert self.key is not None
        return _product(self.query, self.key)


@dataclass
class AttentionTap:
    """Where the attention function of one layer leaves what it saw."""

    layer: int
    seen: list[Seen] = field(default_factory=list)
    last_columns_B: Tensor | None = None
    """Query column to read per row; None: the last one."""
    waiting_bytes: float = 0.0
    """Products with at most so many bytes of keys wait until the step is over; 0: none, because a prompt is fed."""
    all_rows: bool = False
    """Whether the entropy of every query is wanted, not only of the last one."""


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
            tap.seen.append(_see(tap, module, output, query, key, attention_mask, scaling, kwargs))
        return output

    return attend


def _see(
    tap: AttentionTap,
    module: nn.Module,
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
    weights_BHQT = output[1] if len(output) > 1 else None
    causal = (mask is None or mask.ndim == 2) and bool(getattr(module, "is_causal", True))
    rows = None
    if weights_BHQT is not None:
        # Eager: the probabilities are there. A clone of one row, so that the square matrix is not kept alive.
        weights = _last(weights_BHQT, tap.last_columns_B)
        weights = weights if weights_BHQT.shape[2] == 1 else weights.clone()
        if tap.all_rows:
            rows = entropy_of_weights(weights_BHQT, mask, causal=causal)
        return Seen(tap.layer, None, None, None, weights, factor, softcap, mask, window, sinks, rows)
    if tap.all_rows:
        rows = entropy_of_products(query, key, mask, factor, softcap, window, causal=causal)
    row_BHD = _last(query, tap.last_columns_B)
    grouped = row_BHD.reshape(row_BHD.shape[0], key.shape[1], -1, row_BHD.shape[-1])
    about = (None, factor, softcap, mask, window, sinks, rows)
    if query.shape[2] == 1 and key.numel() * key.element_size() <= tap.waiting_bytes:
        return Seen(tap.layer, grouped, key, None, *about)
    return Seen(tap.layer, None, None, _product(grouped, key), *about)


def _product(grouped: Tensor, key: Tensor) -> Tensor:
    """Q · Kᵀ, (B, key heads, G, T), without copying the keys.

    Layers share one storage row by row, so the rows of one layer need not lie one after another; a product over all of
    them would copy every key first, which costs ten times the product itself.
    """
    if key.shape[0] == 1 or key.stride(0) == key.shape[1] * key.stride(1):
        return grouped @ key.transpose(-1, -2)
    return torch.stack([torch.bmm(query, keys.transpose(1, 2)) for query, keys in zip(grouped, key, strict=True)])


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
    heads: HeadNumbers | None
    offset: int
    """Column in the batch of their first key: a sliding cache has dropped the ones before."""


def reduce(
    seen: Sequence[Seen],
    first_columns_B: Tensor,
    last_columns_B: Tensor | None,
    total: int,
    kept: int,
    bounds_2BK: Tensor | None = None,
) -> list[GroupNumbers]:
    """Reduce one step's attention, layers of equal shape, scale and mask together.

    Args:
        seen: What the taps saw.
        first_columns_B: Column of each row's first token.
        last_columns_B: Query column of each row in a prefill with padding on the right.
        total: Columns in the batch so far.
        kept: Strongest columns to keep.
        bounds_2BK: Where the columns of `HeadNumbers` begin and end; None: they are not wanted.
    """
    groups: dict[tuple[Any, ...], list[Seen]] = defaultdict(list)
    for item in seen:
        kind = (item.weights is None, item.shape, item.device, item.scaling, item.softcap, item.window, id(item.mask))
        groups[kind].append(item)
    result = []
    for group in groups.values():
        keys = group[0].shape[-1]
        mask = row_mask(group[0], keys, last_columns_B)
        if group[0].weights is None:
            products = torch.stack([item.products() for item in group])
            reduced = attention_from_scores(products, group[0].scaling, group[0].softcap, mask)
        else:
            weights = torch.stack([item.weights for item in group if item.weights is not None])
            reduced = attention_from_weights(weights, mask)
        share, entropy, weight, attended = reduced
        offset = total - keys
        first_B = first_columns_B.to(share.device) - offset
        numbers = attention_numbers(entropy, weight, attended, first_B, kept)
        heads = None
        if bounds_2BK is not None:
            heads = head_numbers(share.transpose(0, 1), bounds_2BK.to(share.device) - offset)
        result.append(GroupNumbers(tuple(item.layer for item in group), numbers, heads, offset))
    return result


def row_mask(item: Seen, keys: int, last_columns_B: Tensor | None) -> Tensor | None:
    """The mask's row of the query that is read, (B, heads or 1, keys)."""
    mask = item.mask
    if mask is None and last_columns_B is not None:  # causal by the kernel's own means
        mask = (torch.arange(keys, device=last_columns_B.device) <= last_columns_B[:, None])[:, None]
        return mask.to(item.device)
    if mask is not None and mask.ndim == 2:  # flash attention: padding only, causality and windows are arguments
        mask = mask[:, None, -keys:].bool()
    elif mask is not None:
        mask = _last(mask[..., :keys], last_columns_B)
    if item.window is not None and item.weights is None and (item.mask is None or item.mask.ndim == 2):
        near = torch.arange(keys, device=item.device) > keys - 1 - item.window
        mask = near[None, None] if mask is None else mask & near
    return mask
