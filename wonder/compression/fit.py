"""Fits the basis of a compressor: the probes' directions first, then the principal directions of what is left."""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

# Shape suffixes: N states, D d_model, P directions, K coordinates.

RANK_TOLERANCE: Final = 1e-6
"""A direction adds a coordinate if so much of its length lies outside those before it."""
RANGE_SIGMAS: Final = 4.0
"""A coordinate's range, by which it is rounded, in standard deviations of the fitted states."""


class Covariance:
    """Mean and scatter of states that pass by in pieces, in float64; pieces may be gathered apart and merged."""

    def __init__(self, d_model: int) -> None:
        self.count = 0
        self.mean_D = torch.zeros(d_model, dtype=torch.float64)
        self.scatter_DD = torch.zeros(d_model, d_model, dtype=torch.float64)
        """Sum over states of (state − mean)(state − mean)ᵀ."""

    def update(self, states_ND: Tensor) -> None:
        """Add states of any floating dtype, on any device.

        Raises:
            ValueError: A number is not finite, which would spoil everything gathered so far.
        """
        if not states_ND.isfinite().all():
            raise ValueError("states hold numbers that are not finite: leave those texts out")
        if len(states_ND) == 0:
            return
        part = Covariance(len(self.mean_D))
        states_ND = states_ND.detach().to("cpu", torch.float64)
        part.count = len(states_ND)
        part.mean_D = states_ND.mean(0)
        centred_ND = states_ND - part.mean_D
        part.scatter_DD = centred_ND.T @ centred_ND
        self.merge(part)

    def merge(self, other: "Covariance") -> None:
        """Add what another has gathered; the result is that of all states together (Chan, Golub and LeVeque 1979)."""
        total = self.count + other.count
        if other.count == 0:
            return
        gap_D = other.mean_D - self.mean_D
        self.scatter_DD += other.scatter_DD + torch.outer(gap_D, gap_D) * (self.count * other.count / total)
        self.mean_D = self.mean_D + gap_D * (other.count / total)
        self.count = total


@dataclass(frozen=True)
class Basis:
    """An orthonormal basis, in float64; coordinates of a state are basis_KD · (state − mean_D)."""

    mean_D: Tensor
    basis_KD: Tensor
    range_K: Tensor
    """Half the width of what each coordinate was seen to take; rounding is relative to it."""
    probe_dims: int

    def coordinates(self, states_ND: Tensor, dims: int) -> Tensor:
        """The first `dims` coordinates of float64 states, shape (N, dims), not rounded."""
        return (states_ND - self.mean_D) @ self.basis_KD[:dims].T

    def states(self, codes_NK: Tensor) -> Tensor:
        """The states that float64 codes of any size stand for, shape (N, D)."""
        return self.mean_D + codes_NK @ self.basis_KD[: codes_NK.shape[1]]

    def tensors(self) -> dict[str, Tensor]:
        """All of it, by the names of a bundle."""
        return {"mean": self.mean_D, "basis": self.basis_KD, "range": self.range_K}


def fit(covariance: Covariance, directions_PD: Tensor, dims: int) -> Basis:
    """Fit a basis whose first coordinates span `directions_PD` and whose others are principal, largest first.

    A code is nested: the first k coordinates of a basis are what a basis of k coordinates would have been.

    Args:
        covariance: Of the states to be compressed.
        directions_PD: Directions of the registered probes in the units of the states; P may be 0.
        dims: Coordinates wanted, at most D.

    Raises:
        ValueError: Fewer than two states, or `dims` outside 1..D or too small for the directions.
    """
    d_model = len(covariance.mean_D)
    if covariance.count < 2:
        raise ValueError(f"found {covariance.count} states, wanted at least 2: there is no variance to describe")
    block_QD = _orthonormal(directions_PD.detach().to("cpu", torch.float64).reshape(-1, d_model))
    if not max(1, len(block_QD)) <= dims <= d_model:
        raise ValueError(
            f"dims is {dims}, wanted {max(1, len(block_QD))}..{d_model}: room for {len(block_QD)} probe directions, "
            "and no more than the width of the states"
        )
    covariance_DD = covariance.scatter_DD / (covariance.count - 1)
    # Inside the orthogonal complement of the block, so that no rounding leaks a probe's direction into the rest.
    complement_RD = _complement(block_QD)
    _, vectors_RR = torch.linalg.eigh(complement_RD @ covariance_DD @ complement_RD.T)
    principal_RD = vectors_RR.flip(-1).T @ complement_RD
    basis_KD = torch.cat([block_QD, _signed(principal_RD[: dims - len(block_QD)])])
    variance_K = torch.einsum("kd,de,ke->k", basis_KD, covariance_DD, basis_KD).clamp_min(0)
    return Basis(covariance.mean_D.clone(), basis_KD, RANGE_SIGMAS * variance_K.sqrt(), len(block_QD))


def _orthonormal(directions_PD: Tensor) -> Tensor:
    """Gram and Schmidt, in the order given, twice for accuracy; directions that add nothing are left out."""
    kept: list[Tensor] = []
    for direction_D in directions_PD:
        length = direction_D.norm()
        if length == 0:
            continue
        rest_D = direction_D / length
        for _ in range(2):
            for other_D in kept:
                rest_D = rest_D - (rest_D @ other_D) * other_D
        if rest_D.norm() > RANK_TOLERANCE:
            kept.append(rest_D / rest_D.norm())
    return torch.stack(kept) if kept else directions_PD.new_zeros(0, directions_PD.shape[1])


def _complement(block_QD: Tensor) -> Tensor:
    """An orthonormal basis, shape (D − Q, D), of everything orthogonal to the block."""
    d_model = block_QD.shape[1]
    if len(block_QD) == 0:
        return torch.eye(d_model, dtype=torch.float64)
    full_DD, _ = torch.linalg.qr(block_QD.T, mode="complete")
    outside_RD: Tensor = full_DD[:, len(block_QD) :].T
    return outside_RD


def _signed(basis_KD: Tensor) -> Tensor:
    """Each direction with its largest component positive: an eigenvector's sign is otherwise the library's whim."""
    at_K1 = basis_KD.abs().argmax(1, keepdim=True)
    signs_K1: Tensor = basis_KD.gather(1, at_K1).sign()
    return basis_KD * signs_K1
