"""The slot cache: keys and values of many requests in storage laid out beforehand, one row per request."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

# Shape suffixes: B rows fed, C columns, D head size, H key heads, N layers of a stack, Q tokens fed, R rows of the
# storage.

BLOCK = 64
"""Columns are laid out in multiples of this."""
STACK = 8
"""Layers whose keys lie together, so that what is read of them takes one kernel. Not all layers: whoever lays a stack
out anew needs room for the old one and the new one at once."""


@dataclass(frozen=True)
class Feed:
    """Where the tokens of one forward pass go."""

    first: int
    """First row."""
    count: int
    columns: tuple[int, ...]
    """Column of the first token of each row."""
    longest: int
    """Columns that the pass may look at: one past the last column written."""
    columns_B: Tensor | None = None
    """The same as a tensor; None where all rows stand at the same column."""
    real_BQ: Tensor | None = None
    """False for padding, whose keys and values are 0; None: there is none."""


class SlotCache(Cache):
    """Rows 0 … n - 1 are requests; a row's column is the position of a token.

    Only public interfaces of transformers are used: `update` stores, and the masks, which say what a row may look at,
    come from the loop. To transformers the cache is always empty, so that it neither shifts positions nor makes masks
    of its own beyond those of an unpadded prompt.
    """

    def __init__(self, n_layers: int, together: Sequence[int] = ()) -> None:
        """An empty cache.

        Args:
            n_layers: Decoder blocks.
            together: Layers that are read together more often than others.
        """
        self.rows = 0
        self.columns = 0
        self.feed: Feed | None = None
        self.slot_layers = [SlotLayer(self) for _ in range(n_layers)]
        self.stacks: list[KeyStack] = []
        self._order = [*together, *(layer for layer in range(n_layers) if layer not in together)]
        super().__init__(layers=list(self.slot_layers))

    def reserve(self, rows: int, columns: int, used: int, limit: int) -> None:
        """Make room for so many rows and columns; the first `used` rows keep what they hold.

        Args:
            rows: Rows that will be in use.
            columns: Columns that the longest of them may need.
            used: Rows that hold something.
            limit: Rows × columns that are laid out at most; exceeded only where `rows` × `columns` does.
        """
        if rows <= self.rows and columns <= self.columns:
            return
        rounded = -(-columns // BLOCK) * BLOCK
        columns = rounded if rows == 1 or rows * rounded <= limit else columns
        # Doubled, so that a growing crowd is not copied at every arrival.
        wide, long = max(rows, 2 * self.rows if rows > self.rows else self.rows), max(columns, self.columns)
        if wide * long > limit:
            wide, long = (rows, long) if rows * long <= limit else (rows, columns)
        # Should the device run out of room half-way, only what every layer has counts.
        self.rows, self.columns = min(wide, self.rows), min(long, self.columns)
        for stack in self.stacks:
            stack.resize(wide, long, used)
        for layer in self.slot_layers:
            layer.resize(wide, long, used)
        self.rows, self.columns = wide, long

    def stack_keys(self) -> None:
        """Lay the keys of like layers together, once their shapes are known; what they hold stays.

        A layer that has no keys, or shares another one's storage, stays as it is.
        """
        if self.stacks:
            return
        alike: dict[tuple[Any, ...], list[int]] = defaultdict(list)
        for layer in self._order:
            keys = self.slot_layers[layer].keys
            if keys is not None:
                alike[(tuple(keys.shape), keys.dtype, keys.device)].append(layer)
        for layers in alike.values():
            for at in range(0, len(layers), STACK):
                self.stacks.append(KeyStack(self, tuple(layers[at : at + STACK])))

    def move(self, source: int, target: int, length: int, old_length: int) -> None:
        """Let a row take the place of another one that has left; the place it came from is emptied.

        Args:
            source: Row that moves.
            target: Row that has left.
            length: Columns that the moving row holds.
            old_length: Columns that the one that has left held.
        """
        for layer in self.slot_layers:
            layer.move(source, target, length)
        if old_length > length:
            self.clear(target, length, old_length)
        self.clear(source, 0, length)

    def clear(self, row: int, start: int, stop: int) -> None:
        """Forget columns of a row.

        A mask gives what stands there a weight of exactly 0, but 0 times a number that is not finite is not 0: without
        this a request whose states overflowed would spoil the next one in its row.
        """
        for layer in self.slot_layers:
            layer.clear(row, start, stop)

    def get_seq_length(self, layer_idx: int = 0) -> int:  # noqa: ARG002 — transformers' signature
        return 0

    def get_query_offset(self, layer_idx: int = 0) -> int:  # noqa: ARG002 — transformers' signature
        return 0


class KeyStack:
    """The keys of some layers in one storage (R, N, H, C, D): any first rows of all of them are one regular batch."""

    def __init__(self, cache: SlotCache, layers: tuple[int, ...]) -> None:
        self.layers = layers
        self._holders = [cache.slot_layers[layer] for layer in layers]
        parts = [holder.keys for holder in self._holders if holder.keys is not None]
        self.keys_RNHCD = torch.stack(parts, 1)
        self._share_out()

    def resize(self, rows: int, columns: int, used: int) -> None:
        """Lay the storage out anew."""
        self.keys_RNHCD = _resized(self.keys_RNHCD, rows, columns, used)
        self._share_out()

    def of(self, feed: Feed) -> Tensor:
        """The keys that a forward pass looked at, (B, N, H, T, D); a view."""
        return self.keys_RNHCD[feed.first : feed.first + feed.count, :, :, : feed.longest]

    def holds(self, layer: int, keys: Tensor | None, feed: Feed) -> bool:
        """Whether these are the keys that a layer gave out of this storage, and neither a copy nor another layer's."""
        if keys is None or keys.shape[0] != feed.count or keys.shape[2] != feed.longest:
            return False
        own = self.keys_RNHCD
        start = own.storage_offset() + feed.first * own.stride(0) + self.layers.index(layer) * own.stride(1)
        return (
            keys.untyped_storage().data_ptr() == own.untyped_storage().data_ptr()
            and keys.storage_offset() == start
            and keys.stride() == (own.stride(0), *own.stride()[2:])
        )

    def _share_out(self) -> None:
        for at, holder in enumerate(self._holders):
            holder.keys, holder.is_stacked = self.keys_RNHCD[:, at], True


class SlotLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """One layer's keys (R, H, C, D) and values, which may differ in heads and size."""

    is_sliding = False  # windows live in the masks, not in the storage
    is_compileable = False
    is_croppable = False

    def __init__(self, slots: SlotCache) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.slots = slots
        self.is_initialized = True
        self.is_stacked = False
        """Whether its keys are a part of a `KeyStack`, which then lays them out."""

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.keys, self.values = (
            part.new_zeros(self.slots.rows, part.shape[1], self.slots.columns, part.shape[3])
            for part in (key_states, value_states)
        )

    def update(self, key_states: Tensor, value_states: Tensor, *_args: Any, **_kwargs: Any) -> tuple[Tensor, Tensor]:
        if self.keys is None:
            self.lazy_initialization(key_states, value_states)
        feed = self.slots.feed
        if feed is None:
            raise RuntimeError("the slot cache was called outside a forward pass of its loop")
        rows = slice(feed.first, feed.first + feed.count)
        keys, values = self._storage()
        if feed.real_BQ is not None:
            padding_BHQD = ~feed.real_BQ[:, None, :, None].to(keys.device)
            key_states = key_states.masked_fill(padding_BHQD, 0)
            value_states = value_states.masked_fill(padding_BHQD, 0)
        if feed.columns_B is None:
            start = feed.columns[0]
            keys[rows, :, start : feed.longest] = key_states
            values[rows, :, start : feed.longest] = value_states
            if start == 0:
                return key_states, value_states
        else:
            columns_B = feed.columns_B.to(keys.device)
            rows_B = torch.arange(rows.start, rows.stop, device=keys.device)
            keys[rows_B, :, columns_B] = key_states[:, :, 0]
            values[rows_B, :, columns_B] = value_states[:, :, 0]
        return keys[rows, :, : feed.longest], values[rows, :, : feed.longest]

    def resize(self, rows: int, columns: int, used: int) -> None:
        """Lay the storage out anew."""
        if self.keys is None:
            return
        keys, values = self._storage()
        if not self.is_stacked:
            self.keys = _resized(keys, rows, columns, used)
        self.values = _resized(values, rows, columns, used)

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the columns of a row into another one."""
        if self.keys is not None:
            for part in self._storage():
                part[target, :, :length] = part[source, :, :length]

    def clear(self, row: int, start: int, stop: int) -> None:
        """Zero columns of a row."""
        if self.keys is not None:
            for part in self._storage():
                part[row, :, start:stop] = 0

    def _storage(self) -> tuple[Tensor, Tensor]:
        assert self.keys is not None
        assert self.values is not None
        return self.keys, self.values

    def get_seq_length(self) -> int:
        return 0

    def get_query_offset(self) -> int:
        return 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return query_length, 0

    def get_max_length(self) -> int:
        return -1


def _resized(part: Tensor, rows: int, columns: int, used: int) -> Tensor:
    """A copy (R, …, C, D) with other numbers of rows and columns."""
    new = part.new_zeros(rows, *part.shape[1:-2], columns, part.shape[-1])
    kept = min(columns, part.shape[-2])
    new[:used, ..., :kept, :] = part[:used, ..., :kept, :]
    return new
