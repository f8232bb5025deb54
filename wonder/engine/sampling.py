"""Draws the next token of every row of a batch, each by its own settings and its own random numbers."""

import secrets
from collections.abc import Sequence

import torch
from torch import Tensor

from wonder.trace.sampling import Sampling

# Shape suffixes: B rows, V vocabulary.


class RowDraw:
    """The draws of one request: its settings and its own random numbers.

    One number is taken per token, and the token is where that number falls in the row's cumulative distribution: what
    is drawn depends neither on the neighbours nor on the device, and the global random state is never touched.
    """

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        self.generator: torch.Generator | None = None
        if sampling.temperature > 0:
            self._seed = secrets.randbits(63) if sampling.seed is None else sampling.seed % 2**63
            self.generator = torch.Generator().manual_seed(self._seed)

    def rewind(self) -> None:
        """Begin again: the same numbers come once more."""
        if self.generator is not None:
            self.generator.manual_seed(self._seed)


def draw(logits_BV: Tensor, rows: Sequence[RowDraw]) -> tuple[Tensor, Tensor | None]:
    """Draw one token per row.

    Args:
        logits_BV: Raw logits, float32.
        rows: One per row.

    Returns:
        Token ids (B,), and the probability of each under the distribution it was drawn from, NaN for greedy rows (None
        if all rows are greedy).
    """
    tokens_B = logits_BV.argmax(-1)
    if all(row.generator is None for row in rows):
        return tokens_B, None
    drawn_B = torch.full_like(logits_BV[:, 0], float("nan"))
    for at, row in enumerate(rows):
        if row.generator is not None:
            uniform = torch.rand(1, generator=row.generator, dtype=torch.float64).to(logits_BV.device)
            tokens_B[at], drawn_B[at] = _draw_row(logits_BV[at], row.sampling, uniform)
    return tokens_B, drawn_B


class Drawer:
    """The draws of a batch whose rows stay the same."""

    def __init__(self, samplings: Sequence[Sampling], rows: Sequence[RowDraw] | None = None) -> None:
        """`rows` are the draws where they have begun already."""
        self._rows = [RowDraw(sampling) for sampling in samplings] if rows is None else rows

    def draw(self, logits_BV: Tensor) -> tuple[Tensor, Tensor | None]:
        """See `draw`."""
        return draw(logits_BV, self._rows)


def _draw_row(logits_V: Tensor, sampling: Sampling, uniform: Tensor) -> tuple[Tensor, Tensor]:
    broken = torch.isnan(logits_V).any() | torch.isposinf(logits_V).any()
    # No branch: it would wait for the device. What a constraint has forbidden stays so.
    logits_V = torch.where(broken & ~torch.isneginf(logits_V), torch.zeros_like(logits_V), logits_V)
    ranked_V, order_V = (logits_V / sampling.temperature).sort(descending=True, stable=True)
    if 0 < sampling.top_k < ranked_V.shape[0]:
        ranked_V = ranked_V.masked_fill(ranked_V < ranked_V[sampling.top_k - 1], float("-inf"))
    probability_V = ranked_V.double().softmax(-1)
    if sampling.top_p < 1:
        before_V = probability_V.cumsum(-1) - probability_V
        probability_V = probability_V.masked_fill(before_V >= sampling.top_p, 0.0)
        probability_V = probability_V / probability_V.sum()
    if sampling.min_p > 0:
        probability_V = probability_V.masked_fill(probability_V < sampling.min_p * probability_V[0], 0.0)
        probability_V = probability_V / probability_V.sum()
    cumulative_V = probability_V.cumsum(-1)
    last = (probability_V > 0).sum() - 1  # rounding may leave the sum a little under 1
    place = torch.searchsorted(cumulative_V, uniform * cumulative_V[-1], right=True)[0].minimum(last)
    probability = probability_V[place].to(logits_V.dtype)
    return order_V[place], torch.where(broken, float("nan"), probability)
