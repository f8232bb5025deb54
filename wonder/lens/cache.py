"""Keys and values with room set aside, so that a token that is added copies nothing that was there before."""

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

# Shape suffixes: B rows, H heads, S tokens, K head size.


class RoomyLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """A growing layer that writes into memory it already has; for passes without a graph."""

    def __init__(self, capacity: int) -> None:
        """`capacity` is in tokens; beyond it the layer grows as its base class does."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.capacity = capacity
        self._room: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append; gives everything there is, (B, H, S, K) each."""
        begin = self.get_seq_length()
        end = begin + key_states.shape[-2]
        if end > self.capacity:
            return super().update(key_states, value_states, *args, **kwargs)
        if self._room is None:
            if not self.is_initialized:
                self.lazy_initialization(key_states, value_states)
            self._room = self._made(key_states), self._made(value_states)
        for room, states in zip(self._room, (key_states, value_states), strict=True):
            room[:, :, begin:end] = states
        self.keys, self.values = (room[:, :, :end] for room in self._room)
        return self.keys, self.values

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Every row `repeats` times, with as much room."""
        super().batch_repeat_interleave(repeats)
        if self._room is not None:
            keys, values = self.keys, self.values
            assert keys is not None and values is not None  # noqa: PT018 - for the type checker
            self._room = None
            self.keys = self.values = keys[:, :, :0]
            self.update(keys, values)

    def _made(self, states: Tensor) -> Tensor:
        rows, heads, _, size = states.shape
        return torch.empty(rows, heads, self.capacity, size, dtype=states.dtype, device=states.device)


def with_room(cache: DynamicCache, capacity: int) -> None:
    """Let the layers of an unused cache that keep everything hold `capacity` tokens without growing."""
    cache.layers = [RoomyLayer(capacity) if type(layer) is DynamicLayer else layer for layer in cache.layers]
