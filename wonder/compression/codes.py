"""From states to codes and back, by a basis or an autoencoder; codes are rounded as they travel in a trace."""

from typing import Final, Protocol

import torch
from torch import Tensor

# Shape suffixes: N states, D d_model, K coordinates.

PROBE_DIGITS: Final = 7
"""Significant digits of a probe's coordinate: all that float32 has."""
PCA_STEPS: Final = 1000
"""A principal coordinate is rounded to a decimal place no coarser than this part of its range; int8 has 127 steps."""


class Coder(Protocol):
    """What makes coordinates of states, those of the probes first: a `Basis` or an `Autoencoder`."""

    @property
    def mean_D(self) -> Tensor:  # noqa: N802 - a tensor carries its shape
        """Mean of the states."""

    @property
    def range_K(self) -> Tensor:  # noqa: N802 - a tensor carries its shape
        """Half the width of what each coordinate was seen to take."""

    @property
    def probe_dims(self) -> int:
        """How many coordinates, from the first, span the probes."""

    def coordinates(self, states_ND: Tensor, dims: int) -> Tensor:
        """The first `dims` coordinates of float64 states, shape (N, dims), not rounded."""

    def states(self, codes_NK: Tensor) -> Tensor:
        """The states that float64 codes of any size stand for, shape (N, D)."""

    def tensors(self) -> dict[str, Tensor]:
        """All of it, by the names of a bundle."""


def encode(states_ND: Tensor, coder: Coder, dims: int) -> Tensor:
    """The first `dims` coordinates of states, each a short decimal number; shape (N, dims), float64, on the host."""
    exact_NK = coder.coordinates(states_ND.detach().to("cpu", torch.float64), dims)
    decimals_NK = PROBE_DIGITS - 1 - exact_NK.abs().log10().floor()
    # A coordinate that never moved says nothing of its range, and keeps the digits of float32 too.
    step_K = coder.range_K[coder.probe_dims : dims]
    known_NK = (PCA_STEPS / step_K).log10().ceil().expand(len(exact_NK), -1)
    own_NK = decimals_NK[:, coder.probe_dims :]
    decimals_NK[:, coder.probe_dims :] = torch.where(known_NK.isfinite(), known_NK, own_NK)
    # Powers of ten up to 1e22 are exact in float64, and a quotient of two exact numbers prints as the decimal it is.
    decimals_NK = decimals_NK.nan_to_num(posinf=0).clamp(-22, 22)
    up_NK, down_NK = 10.0 ** decimals_NK.clamp_min(0), 10.0 ** (-decimals_NK).clamp_min(0)
    return (exact_NK * up_NK / down_NK).round() * down_NK / up_NK


def decode(codes_NK: Tensor, coder: Coder) -> Tensor:
    """The states that codes of any size stand for, shape (N, D), float64; what a code lacks is at its mean."""
    return coder.states(codes_NK.to("cpu", torch.float64))
