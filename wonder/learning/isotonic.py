"""Isotonic regression by pooling adjacent violators, weighted."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(slots=True)
class Block:
    """Answers pooled because their order was violated."""

    first: float
    """Lowest signal of the block."""
    last: float
    weight: float
    good: float
    """Weight of the right ones."""
    moment: float
    """Σ weight · signal."""

    @property
    def value(self) -> float:
        """The fitted probability."""
        return self.good / self.weight

    @property
    def centre(self) -> float:
        """Mean signal."""
        return min(max(self.moment / self.weight, self.first), self.last)

    def take(self, other: "Block") -> None:
        """Pool with the next block."""
        self.last, self.weight = other.last, self.weight + other.weight
        self.good, self.moment = self.good + other.good, self.moment + other.moment


Point = tuple[float, float, float]
"""Signal, weight, weight of the right ones."""


def points(signals: Sequence[float], right: Sequence[bool], weights: Sequence[float]) -> list[Point]:
    """Answers by rising signal, those with equal signals as one."""
    sums: dict[float, list[float]] = {}
    for signal, good, weight in zip(signals, right, weights, strict=True):
        entry = sums.setdefault(signal, [0.0, 0.0])
        entry[0] += weight
        entry[1] += weight * good
    return [(signal, weight, good) for signal, (weight, good) in sorted(sums.items())]


def pool(ordered: Iterable[Point]) -> list[Block]:
    """The blocks of the isotonic fit, by rising signal and strictly rising value."""
    blocks: list[Block] = []
    for signal, weight, good in ordered:
        blocks.append(Block(signal, signal, weight, good, weight * signal))
        while len(blocks) > 1 and blocks[-2].good * blocks[-1].weight >= blocks[-1].good * blocks[-2].weight:
            blocks[-2].take(blocks.pop())
    return blocks


def value_at(blocks: Sequence[Block], signal: float) -> float:
    """The fitted probability of a signal that was part of the fit."""
    return next(block.value for block in blocks if block.last >= signal)
