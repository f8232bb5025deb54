"""What would be had without the lens, in the same table: shuffled texts, random words, ridge, a few dimensions."""

import torch
from torch import Tensor

from lens_training.batch import Batch, Statistics

# Shape suffixes: N rows, T tokens, D d_model, V vocabulary, K dimensions.


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
    """The activation from the one-hot last words, by ridge regression in closed form, (N, D).

    The normal equations are gathered word by word, so that nothing of rows × vocabulary is ever made.
    """
    width = words * vocabulary
    gram = torch.zeros(width, width, dtype=torch.float64)
    cross = torch.zeros(width, train.activation_BD.shape[1], dtype=torch.float64)
    offsets = torch.arange(words) * vocabulary
    centred = (train.activation_BD.float() - statistics.mean_D).double()
    index_NT = train.tail(words) + offsets
    for one in range(words):
        cross.index_add_(0, index_NT[:, one], centred)
        for other in range(words):
            flat = index_NT[:, one] * width + index_NT[:, other]
            gram.view(-1).index_add_(0, flat, torch.ones(len(flat), dtype=torch.float64))
    weights = torch.linalg.solve(gram + alpha * torch.eye(width, dtype=torch.float64), cross).float()
    predicted: Tensor = weights[test.tail(words) + offsets].sum(1) + statistics.mean_D
    return predicted


def principal(train: Batch, test: Batch, statistics: Statistics, dimensions: int) -> Tensor:
    """The activation through its first principal directions, (N, D): a bottleneck that needs no words."""
    centred = train.activation_BD.float() - statistics.mean_D
    _, vectors = torch.linalg.eigh(centred.T @ centred)
    basis_DK = vectors[:, -dimensions:]
    predicted: Tensor = (test.activation_BD.float() - statistics.mean_D) @ basis_DK @ basis_DK.T + statistics.mean_D
    return predicted
