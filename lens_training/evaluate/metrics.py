"""What a reconstruction is worth: variance explained, next-token distribution recovered, likeness of the texts."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lens_training.batch import Batch, Statistics
from lens_training.models.target import TargetModel
from lens_training.objectives.losses import kl, relative_error

# Shape suffixes: N rows, B rows of a piece, D d_model, V vocabulary, T tokens.


@dataclass(frozen=True)
class Interval:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Reconstruction:
    """How close reconstructions come; never one of these numbers alone."""

    fve: Interval
    """Fraction of variance explained: 1 − E‖A − Â‖² / E‖A − mean‖², the mean that of the training set."""
    norm_ratio: float
    """Mean ‖Â‖ / ‖A‖."""
    cosine: float
    """Mean cosine of the *centred* vectors: uncentred, even shuffled texts come near 1."""


def reconstruction(
    predicted_ND: Tensor, batch: Batch, statistics: Statistics, *, draws: int = 1000, seed: int = 0
) -> Reconstruction:
    """Measure reconstructions; the interval is a bootstrap over documents."""
    error_N = relative_error(predicted_ND, batch.activation_BD, 1.0)
    spread_N = relative_error(statistics.mean_D.expand_as(batch.activation_BD), batch.activation_BD, 1.0)
    mine_ND, true_ND = predicted_ND - statistics.mean_D, batch.activation_BD - statistics.mean_D
    return Reconstruction(
        ratio_interval(error_N, spread_N, batch.document_B, draws=draws, seed=seed),
        float((predicted_ND.norm(dim=-1) / batch.activation_BD.norm(dim=-1)).mean()),
        float(torch.nn.functional.cosine_similarity(mine_ND, true_ND, dim=-1).mean()),
    )


def ratio_interval(
    above_N: Tensor, below_N: Tensor, document_N: Tensor, *, draws: int = 1000, seed: int = 0
) -> Interval:
    """1 − sum(above) / sum(below), with quantiles 2.5 and 97.5 % over draws of whole documents."""
    _, place_N = torch.unique(document_N, return_inverse=True)
    count = int(place_N.max()) + 1
    sums = [torch.zeros(count, dtype=torch.float64).index_add_(0, place_N, x_N.double()) for x_N in (above_N, below_N)]
    chosen = torch.randint(count, (draws, count), generator=torch.Generator().manual_seed(seed))
    drawn = 1 - sums[0][chosen].sum(1) / sums[1][chosen].sum(1)
    low, high = drawn.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Interval(float(1 - sums[0].sum() / sums[1].sum()), low, high)


@torch.no_grad()
def kl_recovered(
    target: TargetModel, predicted_ND: Tensor, batch: Batch, statistics: Statistics, *, size: int = 64
) -> tuple[Interval, float]:
    """How much of the next-token distribution a reconstruction gives back when it replaces the activation.

    Returns:
        1 − KL(own ‖ with Â) / KL(own ‖ with the mean), with its interval over documents; and the denominator in nats.
    """
    mode = "suffix" if target.can_use_suffix else "full"
    with_it: list[Tensor] = []
    with_mean: list[Tensor] = []
    first = 0
    for piece in batch.split(size):
        prefix = target.prefix(piece.ids_BS) if mode == "suffix" else None
        own_BV = target.logits(target.capture(piece.ids_BS, piece.pos_B).final_BD)
        mean_BD = statistics.mean_D.expand_as(piece.activation_BD)
        for found, vector_BD in ((with_it, predicted_ND[first : first + len(piece)]), (with_mean, mean_BD)):
            logits_BV = target.logits_with_replacement(piece.ids_BS, piece.pos_B, vector_BD, mode, prefix)  # type: ignore[arg-type]
            found.append(kl(own_BV, logits_BV))
        first += len(piece)
    above_N, below_N = torch.cat(with_it), torch.cat(with_mean)
    return ratio_interval(above_N, below_N, batch.document_B), float(below_N.mean())


@torch.no_grad()
def negative_log_likelihood(target: TargetModel, ids_NT: Tensor, neutral: int) -> float:
    """Nats per token of texts under the target, after a prompt of one token."""
    first = torch.full_like(ids_NT[:, :1], neutral)
    logits = target.model(input_ids=torch.cat([first, ids_NT[:, :-1]], 1)).logits.float()
    return float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids_NT.flatten()))


def distinct_share(ids_NT: Tensor) -> float:
    """Share of the texts that are different from each other."""
    return len({tuple(row) for row in ids_NT.tolist()}) / len(ids_NT)
