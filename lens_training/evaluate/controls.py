"""What would be had without the lens, in the same table: other texts, ridge on words, bottlenecks without words."""

from typing import Final

import torch
from torch import Tensor

from lens_training.batch import Batch, Statistics

# Shape suffixes: N rows, T tokens, D d_model, V vocabulary, K dimensions or centres.

WIDEST: Final = 8192
"""Columns up to which ridge solves for the words; above, it solves for the rows, which comes to the same."""
FINEST_BITS: Final = 8
"""Of one principal direction."""
PRINCIPAL: Final = 256
"""Directions among which bits are shared out."""
LLOYD_STEPS: Final = 12
STAGE_BITS: Final = 8
"""Of one round of k-means on what the round before left over."""


def shuffled(ids_NT: Tensor, seed: int = 0) -> Tensor:
    """The texts of other rows: none keeps its own."""
    order = torch.randperm(len(ids_NT), generator=torch.Generator().manual_seed(seed))
    found = torch.empty_like(ids_NT)
    found[order] = ids_NT[order.roll(1)]
    return found


def permuted(ids_NT: Tensor, seed: int) -> Tensor:
    """The words of each text in another order."""
    generator = torch.Generator().manual_seed(seed)
    order_NT = torch.rand(ids_NT.shape, generator=generator).argsort(1)
    return ids_NT.gather(1, order_NT)


def random_words(like_NT: Tensor, vocabulary: int, forbidden: Tensor, seed: int = 0) -> Tensor:
    """Uniform texts of allowed tokens."""
    allowed = torch.ones(vocabulary).index_fill_(0, forbidden, 0.0).nonzero()[:, 0]
    drawn = torch.randint(len(allowed), like_NT.shape, generator=torch.Generator().manual_seed(seed))
    return allowed[drawn]


def ridge(
    train: Batch, test: Batch, statistics: Statistics, *, words: int, vocabulary: int, alpha: float = 3.0
) -> Tensor:
    """The activation from the one-hot last words, by ridge regression in closed form, (N, D)."""
    if words * vocabulary <= WIDEST:
        return _ridge_by_words(train, test, statistics, words, vocabulary, alpha)
    return _ridge_by_rows(train, test, statistics, words, alpha)


def _ridge_by_words(
    train: Batch, test: Batch, statistics: Statistics, words: int, vocabulary: int, alpha: float
) -> Tensor:
    """The normal equations, gathered word by word, so that nothing of rows × vocabulary is ever made."""
    width = words * vocabulary
    gram = torch.zeros(width, width, dtype=torch.float64)
    cross = torch.zeros(width, train.activation_BD.shape[1], dtype=torch.float64)
    offsets = torch.arange(words) * vocabulary
    mean_D = statistics.mean_D.cpu()
    centred = (train.activation_BD.float() - mean_D).double()
    index_NT = train.tail(words) + offsets
    for one in range(words):
        cross.index_add_(0, index_NT[:, one], centred)
        for other in range(words):
            flat = index_NT[:, one] * width + index_NT[:, other]
            gram.view(-1).index_add_(0, flat, torch.ones(len(flat), dtype=torch.float64))
    weights = torch.linalg.solve(gram + alpha * torch.eye(width, dtype=torch.float64), cross).float()
    predicted: Tensor = weights[test.tail(words) + offsets].sum(1) + mean_D
    return predicted


def _ridge_by_rows(train: Batch, test: Batch, statistics: Statistics, words: int, alpha: float) -> Tensor:
    """The same in its dual form: how many words two rows have in common at the same place is all that is needed."""
    mean_D, known_NT = statistics.mean_D.cpu(), train.tail(words)[:WIDEST]
    centred = (train.activation_BD[:WIDEST].float() - mean_D).double()

    def common(rows_NT: Tensor) -> Tensor:
        found = torch.zeros(len(rows_NT), len(known_NT), dtype=torch.float64)
        for at in range(words):
            found += rows_NT[:, at, None] == known_NT[None, :, at]
        return found

    kernel = common(known_NT)
    kernel.diagonal().add_(alpha)
    weights = torch.linalg.solve(kernel, centred)
    return torch.cat([(common(rows_NT) @ weights).float() + mean_D for rows_NT in torch.split(test.tail(words), 1024)])


def principal(train: Batch, test: Batch, statistics: Statistics, dimensions: int) -> Tensor:
    """The activation through its first principal directions, (N, D): a bottleneck that needs no words."""
    mean_D = statistics.mean_D.cpu()
    basis_DK = _directions(train.activation_BD.float() - mean_D, dimensions)
    predicted: Tensor = (test.activation_BD.float() - mean_D) @ basis_DK @ basis_DK.T + mean_D
    return predicted


def quantised(train: Batch, test: Batch, statistics: Statistics, bits: int) -> Tensor:
    """The activation through principal directions that share so many bits, (N, D).

    Each bit goes where it takes away most of the error on the training rows (reverse water-filling with whole bits);
    the levels of a direction are those of Lloyd and Max.
    """
    mean_D = statistics.mean_D.cpu()
    known_ND = train.activation_BD.float() - mean_D
    basis_DK = _directions(known_ND, min(PRINCIPAL, known_ND.shape[1], len(known_ND)))
    known_NK, asked_NK = known_ND @ basis_DK, (test.activation_BD.float() - mean_D) @ basis_DK
    given = [0] * known_NK.shape[1]
    centres = [known_NK[:, at].mean()[None] for at in range(len(given))]
    left = [_distortion(known_NK[:, at], centres[at]) for at in range(len(given))]
    finer: dict[int, tuple[Tensor, float]] = {}
    for _ in range(bits):
        best, most = -1, 0.0
        for at in range(len(given)):
            # A direction cannot take away more than it has, and they come largest first.
            if left[at] <= most or given[at] == FINEST_BITS:
                continue
            if at not in finer:
                levels = _levels(known_NK[:, at], 2 ** (given[at] + 1))
                finer[at] = levels, _distortion(known_NK[:, at], levels)
            if (gain := left[at] - finer[at][1]) > most:
                best, most = at, gain
        if best < 0:
            break
        centres[best], left[best] = finer.pop(best)
        given[best] += 1
    kept = [_nearest(asked_NK[:, at], centres[at]) for at in range(len(given))]
    predicted: Tensor = torch.stack(kept, 1) @ basis_DK.T + mean_D
    return predicted


def clustered(train: Batch, test: Batch, bits: int, seed: int = 0) -> Tensor:
    """The activation as the nearest of 2^bits centres, (N, D).

    Above `STAGE_BITS` bits in rounds, each with its own centres for what the rounds before left over (residual vector
    quantisation): the number of centres would otherwise soon exceed that of rows.
    """
    known_ND, asked_ND = train.activation_BD.float(), test.activation_BD.float()
    found_ND = torch.zeros_like(asked_ND)
    generator = torch.Generator().manual_seed(seed)
    while bits > 0:
        centre_KD = _centres(known_ND, 2 ** min(bits, STAGE_BITS), generator)
        near_ND = centre_KD[_closest(asked_ND, centre_KD)]
        found_ND, asked_ND = found_ND + near_ND, asked_ND - near_ND
        known_ND = known_ND - centre_KD[_closest(known_ND, centre_KD)]
        bits -= STAGE_BITS
    return found_ND


def _directions(centred_ND: Tensor, dimensions: int) -> Tensor:
    _, vectors_DD = torch.linalg.eigh((centred_ND.T @ centred_ND).double())
    found_DK: Tensor = vectors_DD[:, -dimensions:].flip(1).float()
    return found_DK


def _levels(value_N: Tensor, count: int) -> Tensor:
    """The levels of a scalar quantiser, ascending, that hardly leave an error: Lloyd's steps from equal shares."""
    sorted_N = value_N.double().sort().values
    total = torch.cat([torch.zeros(1, dtype=torch.float64), sorted_N.cumsum(0)])
    edge = torch.linspace(0, len(sorted_N), count + 1).round().long()
    for _ in range(LLOYD_STEPS):
        filled = (edge[1:] - edge[:-1]).clamp_min(1)
        level = (total[edge[1:]] - total[edge[:-1]]) / filled
        # An empty cell keeps the value at its place, so that the levels stay in order.
        level = torch.where(edge[1:] > edge[:-1], level, sorted_N[edge[:-1].clamp_max(len(sorted_N) - 1)])
        between = torch.searchsorted(sorted_N, (level[1:] + level[:-1]) / 2)
        edge = torch.cat([edge[:1], between, edge[-1:]])
    return level.float()


def _nearest(value_N: Tensor, level_K: Tensor) -> Tensor:
    return level_K[torch.bucketize(value_N.contiguous(), (level_K[1:] + level_K[:-1]) / 2)]


def _distortion(value_N: Tensor, level_K: Tensor) -> float:
    return float((value_N - _nearest(value_N, level_K)).double().square().mean())


def _centres(value_ND: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Lloyd's steps from rows drawn far from each other (k-means++, Arthur and Vassilvitskii 2007).

    A centre that nothing is near to stays where it is.
    """
    count = min(count, len(value_ND))
    first = int(torch.randint(len(value_ND), (1,), generator=generator))
    chosen, far_N = [first], (value_ND - value_ND[first]).square().sum(-1)
    for _ in range(count - 1):
        # Where every row is a centre already, any row will do.
        odds_N = far_N if far_N.max() > 0 else torch.ones_like(far_N)
        chosen.append(int(torch.multinomial(odds_N, 1, generator=generator)))
        far_N = torch.minimum(far_N, (value_ND - value_ND[chosen[-1]]).square().sum(-1))
    centre_KD = value_ND[chosen].clone()
    for _ in range(LLOYD_STEPS):
        near_N = _closest(value_ND, centre_KD)
        filled_K = torch.bincount(near_N, minlength=count)
        total_KD = torch.zeros_like(centre_KD).index_add_(0, near_N, value_ND)
        centre_KD = torch.where(filled_K[:, None] > 0, total_KD / filled_K.clamp_min(1)[:, None], centre_KD)
    return centre_KD


def _closest(value_ND: Tensor, centre_KD: Tensor) -> Tensor:
    half_K = centre_KD.square().sum(-1) / 2
    return torch.cat([(piece @ centre_KD.T - half_K).argmax(-1) for piece in torch.split(value_ND, 4096)])
