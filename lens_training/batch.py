"""`Batch`: activations with the texts they come from, as every stage of training and evaluation reads them."""

from collections.abc import Iterator
from dataclasses import dataclass
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

    def __len__(self) -> int:
        return self.activation_BD.shape[0]

    def tail(self, length: int) -> Tensor:
        """The last tokens of each context up to and with its position, (B, T)."""
        at = self.pos_B[:, None] - torch.arange(length - 1, -1, -1, device=self.pos_B.device)
        return self.ids_BS.gather(1, at)

    def rows(self, index: Tensor) -> "Batch":
        """Some of the rows, in this order."""
        return Batch(self.activation_BD[index], self.ids_BS[index], self.pos_B[index], self.document_B[index])

    def shuffled(self, size: int, seed: int, step: int) -> "Batch":
        """The rows of a step: every row once per epoch, in an order that depends on seed and step alone."""
        count = len(self)
        chosen = []
        for at in range(step * size, (step + 1) * size):
            epoch, place = divmod(at, count)
            chosen.append((epoch, place))
        orders = {
            epoch: torch.randperm(count, generator=torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63))
            for epoch in {epoch for epoch, _ in chosen}
        }
        return self.rows(torch.stack([orders[epoch][place] for epoch, place in chosen]))

    def split(self, size: int) -> Iterator["Batch"]:
        """Consecutive pieces of at most `size` rows."""
        for first in range(0, len(self), size):
            yield self.rows(torch.arange(first, min(first + size, len(self))))


class RowSource(Protocol):
    """Where a trainer's rows come from: a `Batch` in memory, or a dataset on disk."""

    def __len__(self) -> int: ...

    def shuffled(self, size: int, seed: int, step: int) -> Batch:
        """The rows of a step: every row once per epoch, in an order that depends on seed and step alone."""
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
