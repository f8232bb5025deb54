"""`Batch`: activations with the texts they come from, as every stage of training and evaluation reads them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

# Shape suffixes: B activations, S tokens of a context, T tokens of a text, D d_model.


@dataclass(frozen=True)
class Batch:
    """Rows of a dataset."""

    activation_BD: Tensor
    ids_BS: Tensor
    """The context of each row, from its first token; what follows `pos` does not matter."""
    pos_B: Tensor
    """Where the activation was read."""
    document_B: Tensor
    """Rows of one document share what they are about: intervals are drawn over documents."""
    first: int = 0
    """Number of the first row within the batch of the step that these rows are a part of."""

    def __len__(self) -> int:
        return self.activation_BD.shape[0]

    def tail(self, length: int) -> Tensor:
        """The last tokens of each context up to and with its position, (B, T)."""
        at = self.pos_B[:, None] - torch.arange(length - 1, -1, -1, device=self.pos_B.device)
        return self.ids_BS.gather(1, at)

    def rows(self, index: Tensor) -> "Batch":
        """Some of the rows, in this order."""
        return Batch(self.activation_BD[index], self.ids_BS[index], self.pos_B[index], self.document_B[index])

    def to(self, device: torch.device) -> "Batch":
        """The same on a device."""
        activation_BD, ids_BS, pos_B = (x.to(device) for x in (self.activation_BD, self.ids_BS, self.pos_B))
        return Batch(activation_BD, ids_BS, pos_B, self.document_B, self.first)

    def part(self, first: int, last: int) -> "Batch":
        """The rows from `first` to before `last`, which know where they stood."""
        found = self.rows(torch.arange(first, last, device=self.pos_B.device))
        return replace(found, first=self.first + first)

    def shuffled(self, size: int, seed: int, step: int, part: tuple[int, int] | None = None) -> "Batch":
        """The rows of a step: every row once per epoch, in an order that depends on seed and step alone."""
        count = len(self)
        first, last = part or (0, size)
        chosen = []
        for at in range(step * size + first, step * size + last):
            epoch, place = divmod(at, count)
            chosen.append((epoch, place))
        orders = {
            epoch: torch.randperm(count, generator=torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63))
            for epoch in {epoch for epoch, _ in chosen}
        }
        return replace(self.rows(torch.stack([orders[epoch][place] for epoch, place in chosen])), first=first)

    def split(self, size: int) -> Iterator["Batch"]:
        """Consecutive pieces of at most `size` rows."""
        for first in range(0, len(self), size):
            yield self.part(first, min(first + size, len(self)))


class RowSource(Protocol):
    """Where a trainer's rows come from: a `Batch` in memory, or a dataset on disk."""

    def __len__(self) -> int: ...

    def shuffled(self, size: int, seed: int, step: int, part: tuple[int, int] | None = None) -> Batch:
        """The rows of a step: every row once per epoch, in an order that depends on seed and step alone.

        Args:
            size: Rows of the whole batch.
            seed: Of the order.
            step: From 0.
            part: Which of them, from and to before; None: all.
        """
        ...


@dataclass(frozen=True)
class Statistics:
    """What is known of the activations of a training set."""

    mean_D: Tensor
    variance: float
    """E‖A − mean‖²."""

    @classmethod
    def of(cls, activation_ND: Tensor) -> "Statistics":
        """Measured."""
        mean_D = activation_ND.float().mean(0)
        return cls(mean_D, float((activation_ND.float() - mean_D).square().sum(-1).mean()))
