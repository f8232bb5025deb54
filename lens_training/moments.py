"""Mean, variance and norms of activations, measured in pieces that merge."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor

# Shape suffixes: N rows, D d_model.

CHUNK: Final = 4096
STEPS: Final = 64
"""Norms are counted in bins of 2^(1/64), about 1 %."""
PERCENTILES: Final = (0, 1, 5, 25, 50, 75, 95, 99, 100)


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations per dimension, float64."""

    count: int
    mean_D: Tensor
    m2_D: Tensor

    @classmethod
    def none(cls, width: int) -> "Moments":
        """Of no rows."""
        return cls(0, torch.zeros(width, dtype=torch.float64), torch.zeros(width, dtype=torch.float64))

    @classmethod
    def of(cls, activation_ND: Tensor) -> "Moments":
        """Measured, a few rows at a time."""
        found = cls.none(activation_ND.shape[1])
        for piece_ND in torch.split(activation_ND, CHUNK):
            wide_ND = piece_ND.double()
            if len(wide_ND):
                mean_D = wide_ND.mean(0)
                found = found.merged(cls(len(wide_ND), mean_D, (wide_ND - mean_D).square().sum(0)))
        return found

    def merged(self, other: "Moments") -> "Moments":
        """Of both sets of rows (Chan, Golub and LeVeque 1983)."""
        count = self.count + other.count
        if not other.count:
            return self
        delta_D = other.mean_D - self.mean_D
        mean_D = self.mean_D + delta_D * (other.count / count)
        m2_D = self.m2_D + other.m2_D + delta_D.square() * (self.count * other.count / count)
        return Moments(count, mean_D, m2_D)

    @property
    def variance_D(self) -> Tensor:  # noqa: N802 - its shape
        """E(A − mean)² per dimension."""
        return self.m2_D / max(1, self.count)


@dataclass
class NormCounts:
    """How many rows have a norm in each bin."""

    counts: dict[int, int] = field(default_factory=dict)

    def add(self, activation_ND: Tensor) -> None:
        """Count rows."""
        found: Counter[int] = Counter(self.counts)
        for piece_ND in torch.split(activation_ND, CHUNK):
            norm_N = piece_ND.double().norm(dim=1).clamp_min(1e-30)
            found.update((norm_N.log2() * STEPS).floor().long().tolist())
        self.counts = dict(sorted(found.items()))

    def merge(self, other: Mapping[int, int]) -> None:
        """Count the rows that another has counted."""
        self.counts = dict(sorted((Counter(self.counts) + Counter(other)).items()))


def percentiles(counts: Mapping[int, int]) -> dict[str, float]:
    """Norms at `PERCENTILES`, each the middle of its bin."""
    total = sum(counts.values())
    found = {}
    for percent in PERCENTILES:
        rank = min(total - 1, math.floor(percent / 100 * total))
        seen = 0
        for bin_, count in sorted(counts.items()):
            seen += count
            if seen > rank:
                found[f"p{percent}"] = 2 ** ((bin_ + 0.5) / STEPS)
                break
    return found
