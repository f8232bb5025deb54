"""A learned code: the probes' directions first, as in a basis, then what a small autoencoder makes of the rest."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import gelu, pad

# Shape suffixes: N states, D d_model, Q probe coordinates, M learned coordinates, K = Q + M, H hidden.


@dataclass(frozen=True)
class Autoencoder:
    """Both halves are a linear map plus one hidden layer (GELU); in float64, on the host.

    Neither half sees the probes' directions: they are taken out before encoding and out of what is decoded, so that a
    probe's logit depends on the first coordinates alone.
    """

    mean_D: Tensor
    block_QD: Tensor
    """Orthonormal; spans the probes' directions."""
    scale: Tensor
    """Root mean square of a component of the rest, over the fitted states; a scalar."""
    range_K: Tensor
    """As of a basis: half the width of what each coordinate was seen to take."""
    weights: Mapping[str, Tensor]
    """As `weight_shapes` names them."""

    @property
    def probe_dims(self) -> int:
        """How many coordinates, from the first, span the probes."""
        return len(self.block_QD)

    def coordinates(self, states_ND: Tensor, dims: int) -> Tensor:
        """The first `dims` coordinates of float64 states, shape (N, dims), not rounded."""
        block_NQ, rest_ND = self.split(states_ND)
        return torch.cat([block_NQ, encoded(rest_ND, self.weights)], dim=1)[:, :dims]

    def states(self, codes_NK: Tensor) -> Tensor:
        """The states that float64 codes of any size stand for, shape (N, D); numbers that a code lacks are 0."""
        probe = min(self.probe_dims, codes_NK.shape[1])
        learned = len(self.range_K) - self.probe_dims
        learned_NM = codes_NK[:, probe:]
        rest_ND = decoded(pad(learned_NM, (0, learned - learned_NM.shape[1])), self.weights) * self.scale
        rest_ND = rest_ND - rest_ND @ self.block_QD.T @ self.block_QD
        return self.mean_D + codes_NK[:, :probe] @ self.block_QD[:probe] + rest_ND

    def tensors(self) -> dict[str, Tensor]:
        """All of it, by the names of a bundle."""
        fixed = {"mean": self.mean_D, "block": self.block_QD, "scale": self.scale, "range": self.range_K}
        return fixed | dict(self.weights)

    def split(self, states_ND: Tensor) -> tuple[Tensor, Tensor]:
        """The probes' coordinates, shape (N, Q), and the rest in units of `scale`, shape (N, D)."""
        centred_ND = states_ND - self.mean_D
        block_NQ = centred_ND @ self.block_QD.T
        return block_NQ, (centred_ND - block_NQ @ self.block_QD) / self.scale


def weight_shapes(d_model: int, learned: int, hidden: int) -> dict[str, tuple[int, ...]]:
    """Name → shape of the weights."""
    return {
        "encoder.linear": (learned, d_model),
        "encoder.inner": (hidden, d_model),
        "encoder.inner_bias": (hidden,),
        "encoder.outer": (learned, hidden),
        "decoder.linear": (d_model, learned),
        "decoder.inner": (hidden, learned),
        "decoder.inner_bias": (hidden,),
        "decoder.outer": (d_model, hidden),
        "decoder.bias": (d_model,),
    }


def encoded(rest_ND: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    """The learned coordinates, shape (N, M)."""
    inner_NH = gelu(rest_ND @ weights["encoder.inner"].T + weights["encoder.inner_bias"])
    return rest_ND @ weights["encoder.linear"].T + inner_NH @ weights["encoder.outer"].T


def decoded(learned_NM: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    """What learned coordinates stand for, shape (N, D), in units of `scale`."""
    inner_NH = gelu(learned_NM @ weights["decoder.inner"].T + weights["decoder.inner_bias"])
    return learned_NM @ weights["decoder.linear"].T + inner_NH @ weights["decoder.outer"].T + weights["decoder.bias"]
