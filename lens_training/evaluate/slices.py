"""Where a lens fails: its error by the length of the activation, by position, and by how common the token is."""

from collections.abc import Iterator

import torch
from torch import Tensor

from lens_training.batch import Batch
from lens_training.evaluate.metrics import Draws
from lens_training.evaluate.record import Slice

# Shape suffixes: N rows, V vocabulary.

PARTS = 10
FEWEST_DOCUMENTS = 5
"""Fewer give no interval worth the name."""


def slices(
    batch: Batch, fit: Batch, error_N: Tensor, spread_N: Tensor, draws: int, seed: int
) -> dict[str, list[Slice]]:
    """Cut the rows in three ways; each slice is compared with the mean on its own rows.

    Args:
        batch: The measured rows.
        fit: Training rows, from which token frequencies are counted.
        error_N: ‖A − Â‖².
        spread_N: ‖A − mean‖².
        draws: Of the bootstrap.
        seed: Of the bootstrap.
    """
    token_N = batch.tail(1)[:, 0]
    known = torch.bincount(fit.tail(1)[:, 0], minlength=int(token_N.max()) + 1)
    share_N = known[token_N].double() / len(fit)
    cuts = {
        "norm of the activation": list(_even(batch.activation_BD.float().norm(dim=-1), "{:.3g}")),
        "position": list(_even(batch.pos_B.double(), "{:.0f}")),
        "how common the current token is": list(_even(share_N, "{:.1%}")),
    }
    total = float(error_N.double().sum())

    def measured(name: str, index_N: Tensor) -> Slice:
        enough = len(torch.unique(batch.document_B[index_N])) >= FEWEST_DOCUMENTS
        own = Draws(batch.document_B[index_N], draws, seed) if enough else None
        return Slice(
            name=name,
            rows=len(index_N),
            fve=None if own is None else own.explained(error_N[index_N], spread_N[index_N]),
            error_share=min(1.0, float(error_N[index_N].double().sum()) / total) if total else 0.0,
        )

    return {title: [measured(*part) for part in parts] for title, parts in cuts.items()}


def _even(value_N: Tensor, form: str) -> Iterator[tuple[str, Tensor]]:
    """Parts of about equal size in ascending order; equal values are never parted."""
    edges = torch.unique(value_N.double().quantile(torch.linspace(0, 1, PARTS + 1).double()))
    if len(edges) == 1:
        yield form.format(float(edges[0])), torch.arange(len(value_N))
        return
    part_N = torch.bucketize(value_N.double(), edges[1:-1], right=True)
    for at in range(len(edges) - 1):
        index = (part_N == at).nonzero()[:, 0]
        if len(index):
            low, high = float(value_N[index].min()), float(value_N[index].max())
            yield (form.format(low) if low == high else f"{form.format(low)}–{form.format(high)}"), index
