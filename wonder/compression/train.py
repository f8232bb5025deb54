"""Trains the autoencoder of a learned code, from the basis of principal directions on."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from wonder.compression.autoencoder import Autoencoder, decoded, encoded, weight_shapes
from wonder.compression.fit import RANGE_SIGMAS, Covariance, fit

# Shape suffixes: N states, D d_model, P directions, Q probe coordinates, M learned coordinates, K = Q + M.

BATCH: Final = 256
LEARNING_RATE: Final = 1e-3
HELD_BACK: Final = 10
"""One state in so many chooses among the weights seen on the way, and trains none."""
LOOKS: Final = 20
"""How often it does."""


def train(
    states_ND: Tensor, directions_PD: Tensor, dims: int, *, hidden: int = 192, steps: int = 3000, seed: int = 0
) -> Autoencoder:
    """Train a code of `dims` coordinates: those of the probes, exactly, then learned ones.

    It begins as the principal directions of the rest, and what is kept is the best that was seen on states held back:
    there, averaged over the sizes of codes, it is never worse than they are. Each training state is cut to a random
    number of coordinates (Rippel, Gelbart and Adams 2014), so that the first k numbers of a code are a code of size k.

    Args:
        states_ND: States to be compressed, of any floating dtype.
        directions_PD: Directions of the registered probes in the units of the states; P may be 0.
        dims: Coordinates wanted, at most D, and more than the probes take.
        hidden: Width of the hidden layer of either half.
        steps: Of Adam, with batches of 256.
        seed: Of everything random.

    Raises:
        ValueError: As for `fit`; fewer than 20 states; or no room for a learned coordinate.
    """
    if len(states_ND) < 2 * HELD_BACK:
        raise ValueError(f"found {len(states_ND)} states, wanted at least {2 * HELD_BACK}: some are held back")
    covariance = Covariance(states_ND.shape[1])
    covariance.update(states_ND)
    basis = fit(covariance, directions_PD, dims)
    learned = dims - basis.probe_dims
    if learned < 1 or hidden < 1:
        raise ValueError(f"dims is {dims}, of which probes take {basis.probe_dims}, and hidden {hidden}: give more")
    made = torch.Generator().manual_seed(seed)
    start = _principal(basis.basis_KD[basis.probe_dims :], hidden, made)
    block_QD, one = basis.basis_KD[: basis.probe_dims], torch.ones((), dtype=torch.float64)
    states_ND = states_ND.detach().to("cpu", torch.float64)
    _, rest_ND = Autoencoder(basis.mean_D, block_QD, one, basis.range_K, {}).split(states_ND)
    # States that never leave the probes' directions have no rest, and any scale is right.
    scale = rest_ND.square().mean().sqrt().clamp_min(1e-12)
    order = torch.randperm(len(states_ND), generator=made)
    shuffled_ND = (rest_ND / scale)[order].float()
    count = len(states_ND) // HELD_BACK
    weights = _trained(start, shuffled_ND[count:], shuffled_ND[:count], steps, made)
    # As they are stored, so that what is measured is what is loaded.
    stored = {name: value.detach().float().double() for name, value in weights.items()}
    found = Autoencoder(basis.mean_D, block_QD, scale, basis.range_K, stored)
    range_K = RANGE_SIGMAS * found.coordinates(states_ND, dims).std(0)
    return replace(found, range_K=range_K)


def _principal(principal_MD: Tensor, hidden: int, made: torch.Generator) -> dict[str, Tensor]:
    """Weights of an autoencoder that does what principal directions do: its hidden layers add nothing yet."""
    learned, d_model = principal_MD.shape
    weights = {name: torch.zeros(shape) for name, shape in weight_shapes(d_model, learned, hidden).items()}
    weights["encoder.linear"] = principal_MD.float().clone()
    weights["decoder.linear"] = principal_MD.T.float().clone()
    for name in ("encoder.inner", "decoder.inner"):
        # A state is about √D long, in these units, and so is a code: what enters the hidden layer has about unit size.
        weights[name] = torch.randn(weights[name].shape, generator=made) / d_model**0.5
    return weights


def _trained(
    start: Mapping[str, Tensor], train_ND: Tensor, held_ND: Tensor, steps: int, made: torch.Generator
) -> dict[str, Tensor]:
    learned = len(start["encoder.linear"])
    weights = {name: value.clone().requires_grad_() for name, value in start.items()}
    optimizer = torch.optim.Adam(weights.values(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    least_S = _errors(held_ND, start).clamp_min(1e-12)
    best, best_error = dict(start), 1.0
    for step in range(1, steps + 1):
        batch_ND = train_ND[torch.randint(len(train_ND), (min(BATCH, len(train_ND)),), generator=made)]
        with torch.enable_grad():
            code_NM = encoded(batch_ND, weights)
            kept_N = torch.rand(len(batch_ND), generator=made).mul(float(learned + 1)).floor().clamp(1, learned)
            cut_NM = code_NM * (torch.arange(learned) < kept_N[:, None])
            loss = (decoded(cut_NM, weights) - batch_ND).square().mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if step % max(1, steps // LOOKS) == 0 or step == steps:
            error = float((_errors(held_ND, weights) / least_S).mean())
            if error < best_error:
                best, best_error = {name: value.detach().clone() for name, value in weights.items()}, error
    return best


@torch.no_grad()
def _errors(held_ND: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    """Mean squared error of codes of 1, 2, 4 … and all coordinates."""
    code_NM = encoded(held_ND, weights)
    learned = code_NM.shape[1]
    sizes = sorted({*(2**power for power in range(learned.bit_length()) if 2**power < learned), learned})
    columns_M = torch.arange(learned)
    return torch.stack(
        [(decoded(code_NM * (columns_M < size), weights) - held_ND).square().mean() for size in sizes]
    ).double()
