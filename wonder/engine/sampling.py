"""Draws the next token of every row of a batch, each by its own settings and its own random numbers."""

import secrets
from collections.abc import Sequence

import torch
from torch import Tensor

from wonder.trace.sampling import Sampling

# Shape suffixes: B rows, V vocabulary.


class Drawer:
    """The draws of one batch.

    A row has its own generator, one number is taken from it per token, and the token is where that number falls in
    the row's cumulative distribution: what is drawn depends neither on the neighbours nor on the device, and the
    global random state is never touched.
    """

    def __init__(self, samplings: Sequence[Sampling]) -> None:
        self._samplings = samplings
        self._generators = [
            None
            if sampling.temperature == 0
            else torch.Generator().manual_seed(secrets.randbits(63) if sampling.seed is None else sampling.seed % 2**63)
            for sampling in samplings
        ]
        self.samples = any(generator is not None for generator in self._generators)

    def draw(self, logits_BV: Tensor) -> tuple[Tensor, Tensor | None]:
        """Draw one token per row.

        Args:
            logits_BV: Raw logits, float32.

        Returns:
            Token ids (B,), and the probability of each under the distribution it was drawn from, NaN for greedy rows
            (None if all rows are greedy).
        """
        tokens_B = logits_BV.argmax(-1)
        if not self.samples:
            return tokens_B, None
        drawn_B = torch.full_like(logits_BV[:, 0], float("nan"))
        for row, generator in enumerate(self._generators):
            if generator is not None:
                uniform = torch.rand(1, generator=generator, dtype=torch.float64).to(logits_BV.device)
                tokens_B[row], drawn_B[row] = _draw_row(logits_BV[row], self._samplings[row], uniform)
        return tokens_B, drawn_B


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
    cumulative_V = probability_V.cumsum(-1)
    last = (probability_V > 0).sum() - 1  # rounding may leave the sum a little under 1
    place = torch.searchsorted(cumulative_V, uniform * cumulative_V[-1], right=True)[0].minimum(last)
    probability = probability_V[place].to(logits_V.dtype)
    return order_V[place], torch.where(broken, float("nan"), probability)
