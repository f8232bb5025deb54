"""The slot cache: keys and values of many requests in storage laid out beforehand, one row per request."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

# Shape suffixes: B rows fed, C columns, D head size, H key heads, Q tokens fed, R rows of the storage.

BLOCK = 64
"""Columns are laid out in multiples of this."""


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


class SlotCache(Cache):
    """Rows 0 … n - 1 are requests; a row's column is the position of a token.

    Only public interfaces of transformers are used: `update` stores, and the masks, which say what a row may look at,
    come from the loop. To transformers the cache is always empty, so that it neither shifts positions nor makes masks
    of its own beyond those of an unpadded prompt.
    """

    def __init__(self, n_layers: int) -> None:
        self.rows = 0
        self.columns = 0
        self.feed: Feed | None = None
        self.slot_layers = [SlotLayer(self) for _ in range(n_layers)]
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
        for layer in self.slot_layers:
            layer.resize(wide, long, used)
        self.rows, self.columns = wide, long

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


class SlotLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    """One layer's keys (R, H, C, D) and values, which may differ in heads and size."""

    is_sliding = False  # windows live in the masks, not in the storage
    is_compileable = False
    is_croppable = False

    def __init__(self, slots: SlotCache) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.slots = slots
        self.is_initialized = True

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
        if self.keys is not None:
            self.keys, self.values = (_resized(part, rows, columns, used) for part in self._storage())

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


def _resized(part_RHCD: Tensor, rows: int, columns: int, used: int) -> Tensor:
    new_RHCD = part_RHCD.new_zeros(rows, part_RHCD.shape[1], columns, part_RHCD.shape[3])
    kept = min(columns, part_RHCD.shape[2])
    new_RHCD[:used, :, :kept] = part_RHCD[:used, :, :kept]
    return new_RHCD
