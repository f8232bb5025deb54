"""What a reconstruction is worth: variance explained, next-token distribution recovered, likeness of the texts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy

from lens_training.batch import Batch, Statistics
from lens_training.evaluate.record import DISTINCT_ROWS, Figure
from lens_training.models.target import TargetModel
from lens_training.objectives.losses import kl, relative_error
from wonder.errors import SpecError

# Shape suffixes: N rows, B rows of a piece, D d_model, V vocabulary, T tokens, C documents, R draws.

QUANTILES: Final = (0.025, 0.975)


class Draws:
    """Bootstrap draws of whole documents; figures that share them can be compared draw by draw.

    Rows of one document share what they are about, so drawing rows would give intervals that are too narrow.
    """

    def __init__(self, document_N: Tensor, draws: int = 1000, seed: int = 0) -> None:
        """`document_N` is the document of each row."""
        _, self._place_N = torch.unique(document_N.cpu(), return_inverse=True)
        self.documents = int(self._place_N.max()) + 1
        chosen = torch.randint(self.documents, (draws, self.documents), generator=torch.Generator().manual_seed(seed))
        weight_RC = torch.zeros(draws, self.documents, dtype=torch.float64)
        self._weight_RC = weight_RC.scatter_add_(1, chosen, torch.ones_like(chosen, dtype=torch.float64))

    def ratio(self, above_N: Tensor, below_N: Tensor) -> Figure:
        """sum(above) / sum(below), with quantiles 2.5 and 97.5 % over the draws.

        Raises:
            SpecError: `below` sums to nothing, in all rows or in a draw.
        """
        above_C, below_C = self._sums(above_N), self._sums(below_N)
        drawn_R = (self._weight_RC @ above_C) / (self._weight_RC @ below_C)
        value = above_C.sum() / below_C.sum()
        if not (drawn_R.isfinite().all() and value.isfinite()):
            raise SpecError(
                f"{len(above_N)} rows of {self.documents} documents give no finite figure: the measured states are all "
                "alike, or something among them is not a number; measure on more documents"
            )
        low, high = drawn_R.quantile(torch.tensor(QUANTILES, dtype=torch.float64)).tolist()
        return Figure(value=float(value), low=low, high=high)

    def explained(self, error_N: Tensor, spread_N: Tensor) -> Figure:
        """1 − sum(error) / sum(spread)."""
        found = self.ratio(error_N, spread_N)
        return Figure(value=1 - found.value, low=1 - found.high, high=1 - found.low)

    def mean(self, value_N: Tensor) -> Figure:
        """The mean over rows."""
        return self.ratio(value_N, torch.ones(len(value_N)))

    def row_weights(self, draws: int) -> Tensor:
        """How often each row is drawn, (R, N), of the first draws."""
        return self._weight_RC[:draws][:, self._place_N]

    def _sums(self, value_N: Tensor) -> Tensor:
        return torch.zeros(self.documents, dtype=torch.float64).index_add_(0, self._place_N, value_N.cpu().double())


def ratio_interval(above_N: Tensor, below_N: Tensor, document_N: Tensor, *, draws: int = 1000, seed: int = 0) -> Figure:
    """1 − sum(above) / sum(below), with quantiles 2.5 and 97.5 % over draws of whole documents."""
    return Draws(document_N, draws, seed).explained(above_N, below_N)


@dataclass(frozen=True)
class Reconstruction:
    """How close reconstructions come; never one of these numbers alone."""

    fve: Figure
    """Fraction of variance explained: 1 − E‖A − Â‖² / E‖A − mean‖², the mean that of the training set."""
    norm_ratio: float
    """Mean ‖Â‖ / ‖A‖."""
    cosine: float
    """Mean cosine of the *centred* vectors: uncentred, even shuffled texts come near 1."""


def reconstruction(
    predicted_ND: Tensor, batch: Batch, statistics: Statistics, *, draws: int = 1000, seed: int = 0
) -> Reconstruction:
    """Measure reconstructions; the interval is a bootstrap over documents."""
    rows = Rows.of(predicted_ND, batch, statistics)
    return Reconstruction(
        ratio_interval(rows.error_N, spread(batch, statistics), batch.document_B, draws=draws, seed=seed),
        float(rows.norm_ratio_N.mean()),
        float(rows.cosine_N.mean()),
    )


def spread(batch: Batch, statistics: Statistics) -> Tensor:
    """‖A − mean‖² of each row, (N,): what errors are compared with."""
    return relative_error(statistics.mean_D.cpu().expand_as(batch.activation_BD), batch.activation_BD, 1.0)


@dataclass(frozen=True)
class Rows:
    """What is measured of each row before anything is averaged."""

    error_N: Tensor
    """‖A − Â‖²."""
    norm_ratio_N: Tensor
    cosine_N: Tensor
    error_D: Tensor
    """Mean squared error of each dimension."""

    @classmethod
    def of(cls, predicted_ND: Tensor, batch: Batch, statistics: Statistics) -> "Rows":
        """Measured, on the CPU."""
        true_ND, mean_D, found_ND = batch.activation_BD.float(), statistics.mean_D.cpu().float(), predicted_ND.float()
        return cls(
            relative_error(found_ND, true_ND, 1.0),
            found_ND.norm(dim=-1) / true_ND.norm(dim=-1).clamp_min(1e-12),
            cosine_similarity(found_ND - mean_D, true_ND - mean_D, dim=-1),
            (found_ND - true_ND).double().square().mean(0),
        )

    @classmethod
    def averaged(cls, found: Sequence["Rows"]) -> "Rows":
        """The mean over draws, row by row."""
        names = ("error_N", "norm_ratio_N", "cosine_N", "error_D")
        return cls(*(torch.stack([getattr(rows, name) for rows in found]).mean(0) for name in names))


@dataclass(frozen=True)
class NextTokens:
    """What the target says next with something else put in the activation's place."""

    kl_N: Tensor
    """KL(own ‖ with the replacement) in nats."""
    agrees_N: Tensor
    """Whether the likeliest token stays, 0 or 1."""


@torch.no_grad()
def next_tokens(
    target: TargetModel, replacements: Sequence[Tensor], batch: Batch, *, size: int = 64
) -> tuple[list[NextTokens], NextTokens]:
    """Put each replacement in, over one pass of the contexts.

    Args:
        target: The frozen model.
        replacements: Each (N, D).
        batch: The rows.
        size: Rows of a piece.

    Returns:
        One per replacement; and the self-test, for which the activation of the very same pass is put in its own place.
    """
    place = next(target.model.parameters()).device
    found: list[list[tuple[Tensor, Tensor]]] = [[] for _ in range(len(replacements) + 1)]
    first = 0
    for piece in batch.split(size):
        here = piece.to(place)
        prefix = target.prefix(here.ids_BS) if target.can_use_suffix else None
        seen = target.capture(here.ids_BS, here.pos_B)
        own_BV = target.logits(seen.final_BD)
        vectors = [vector_ND[first : first + len(piece)].to(place) for vector_ND in replacements]
        for kept, vector_BD in zip(found, [*vectors, seen.activation_BD], strict=True):
            mode = "full" if prefix is None else "suffix"
            logits_BV = target.logits_with_replacement(here.ids_BS, here.pos_B, vector_BD, mode, prefix)  # type: ignore[arg-type]
            same_B = own_BV.argmax(-1) == logits_BV.argmax(-1)
            kept.append((kl(own_BV, logits_BV).cpu(), same_B.float().cpu()))
        first += len(piece)
    measured = [NextTokens(torch.cat([kl for kl, _ in kept]), torch.cat([same for _, same in kept])) for kept in found]
    return measured[:-1], measured[-1]


def kl_recovered(
    target: TargetModel, predicted_ND: Tensor, batch: Batch, statistics: Statistics, *, size: int = 64
) -> tuple[Figure, float]:
    """How much of the next-token distribution a reconstruction gives back when it replaces the activation.

    Returns:
        1 − KL(own ‖ with Â) / KL(own ‖ with the mean), with its interval over documents; and the denominator in nats.
    """
    mean_ND = statistics.mean_D.expand_as(batch.activation_BD)
    (with_it, with_mean), _ = next_tokens(target, [predicted_ND, mean_ND], batch, size=size)
    return ratio_interval(with_it.kl_N, with_mean.kl_N, batch.document_B), float(with_mean.kl_N.mean())


@torch.no_grad()
def text_nll(target: TargetModel, ids_NT: Tensor, neutral: int, *, size: int = 256) -> Tensor:
    """Nats per token of each text under the target, after a prompt of one token, (N,) on the CPU."""
    place = next(target.model.parameters()).device
    found = []
    for ids_BT in torch.split(ids_NT, size):
        here_BT = ids_BT.to(place)
        first_B1 = torch.full_like(here_BT[:, :1], neutral)
        logits_BTV = target.model(input_ids=torch.cat([first_B1, here_BT[:, :-1]], 1)).logits.float()
        found.append(cross_entropy(logits_BTV.transpose(1, 2), here_BT, reduction="none").mean(-1).cpu())
    return torch.cat(found)


def negative_log_likelihood(target: TargetModel, ids_NT: Tensor, neutral: int) -> float:
    """Nats per token of texts under the target, after a prompt of one token."""
    return float(text_nll(target, ids_NT, neutral).mean())


def distinct_share(ids_NT: Tensor) -> float:
    """Share of the texts that are different from each other, among the first 512: of more, fewer would be."""
    first_NT = ids_NT[:DISTINCT_ROWS]
    return len({tuple(row) for row in first_NT.tolist()}) / len(first_NT)


def entropy_bits(ids_N: Tensor) -> float:
    """Entropy of values as they fell, in bits: at most log2 of how many there are. Rows of a matrix count as values."""
    _, count = torch.unique(ids_N, dim=0, return_counts=True)
    share = count.double() / count.sum()
    return float(-(share * share.log2()).sum())


def best_of(error_NK: Tensor, spread_N: Tensor, draws: Draws, k: int) -> Figure:
    """Variance explained by the best of k draws, averaged over every choice of k among the K that were made."""
    count = error_NK.shape[1]
    sorted_NK = error_NK.double().sort(-1).values
    # The chance that the i-th smallest is the smallest of k without replacement: C(K − 1 − i, k − 1) / C(K, k).
    weight = torch.tensor(
        [_choose(count - 1 - i, k - 1) / _choose(count, k) for i in range(count)], dtype=torch.float64
    )
    return draws.explained(sorted_NK @ weight, spread_N)


def _choose(n: int, k: int) -> float:
    found = 1.0
    for i in range(k):
        found = found * (n - i) / (i + 1)
    return max(found, 0.0) if n >= k else 0.0
