"""The one table of an evaluation: every way to a reconstruction, measured on the same rows with the same draws."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor

from lens_training.batch import Batch, Statistics
from lens_training.evaluate.metrics import Draws, NextTokens, Rows, distinct_share, next_tokens, spread, text_nll
from lens_training.evaluate.record import GREEDY, Figure, Group, Line, SelfTest
from lens_training.models.target import TargetModel

# Shape suffixes: N rows, D d_model, T tokens.

EXACT: Final = 1e-4
COARSE: Final = 0.05
"""Nats by which a replacement with itself may move the next token: in float32, and in narrower numbers, where another
shape of the same product rounds differently."""


@dataclass(frozen=True)
class Candidate:
    """A way to a reconstruction."""

    name: str
    title: str
    group: Group
    predicted: Sequence[Tensor]
    """Each (N, D) on the CPU; of several, the figures are averaged row by row."""
    note: str = ""
    texts: Tensor | None = field(default=None, compare=False)
    """The texts it rests on, (N, T)."""
    bits: float | None = None
    says_texts: bool = True
    """Whether its texts are its own, so that their likelihood is a figure of it."""


@dataclass(frozen=True)
class Table:
    """What was measured."""

    lines: list[Line]
    self_test: SelfTest
    kl_mean_nats: float
    error_N: Tensor
    """‖A − Â‖² of the greedy text."""
    spread_N: Tensor
    kl_N: Tensor
    """Of the greedy text."""


def measure(
    target: TargetModel,
    batch: Batch,
    statistics: Statistics,
    candidates: Sequence[Candidate],
    draws: Draws,
    neutral: int,
) -> Table:
    """Measure candidates; one of them is the greedy text.

    Args:
        target: The frozen model.
        batch: The rows, on the CPU.
        statistics: Of the training rows.
        candidates: In the order of the table.
        draws: Of documents, shared by all figures.
        neutral: The token after which texts are judged.
    """
    mean_ND = statistics.mean_D.cpu().expand_as(batch.activation_BD)
    replacements = [mean_ND, batch.activation_BD.float(), *(one for each in candidates for one in each.predicted)]
    measured, itself = next_tokens(target, replacements, batch)
    with_mean, with_stored, *rest = measured
    spread_N = spread(batch, statistics)
    own_mean_ND = batch.activation_BD.float().mean(0).expand_as(batch.activation_BD)
    own_spread_N = (batch.activation_BD.float() - own_mean_ND).square().sum(-1)
    spread_D = (batch.activation_BD.float() - mean_ND).double().square().mean(0).clamp_min(1e-30)
    found: dict[str, tuple[Rows, NextTokens]] = {}
    for each in candidates:
        rows = Rows.averaged([Rows.of(one, batch, statistics) for one in each.predicted])
        mine, rest = rest[: len(each.predicted)], rest[len(each.predicted) :]
        kl_N = torch.stack([one.kl_N for one in mine]).mean(0)
        found[each.name] = rows, NextTokens(kl_N, torch.stack([one.agrees_N for one in mine]).mean(0))
    best_N = found[GREEDY][0].error_N
    lines = []
    for each in candidates:
        rows, said = found[each.name]
        lines.append(
            Line(
                name=each.name,
                title=each.title,
                group=each.group,
                note=each.note,
                fve=draws.explained(rows.error_N, spread_N),
                r2=draws.explained(rows.error_N, own_spread_N),
                r2_median=float((1 - rows.error_D / spread_D).median()),
                norm_ratio=draws.mean(rows.norm_ratio_N),
                cosine=draws.mean(rows.cosine_N),
                kl_recovered=draws.explained(said.kl_N, with_mean.kl_N),
                agreement=draws.mean(said.agrees_N),
                ahead=None if each.name == GREEDY else draws.ratio(rows.error_N - best_N, spread_N),
                nll_nats=_likelihood(target, each, draws, neutral),
                distinct_share=None if each.texts is None else distinct_share(each.texts),
                bits=each.bits,
                repeats=len(each.predicted),
            )
        )
    exact = target.model.dtype in {torch.float32, torch.float64}
    self_test = SelfTest(
        kl_mean_nats=float(itself.kl_N.mean()),
        kl_max_nats=float(itself.kl_N.abs().max()),
        tolerance_nats=EXACT if exact else COARSE,
        kl_stored_nats=float(with_stored.kl_N.mean()),
    )
    kl_mean = float(with_mean.kl_N.mean())
    return Table(lines, self_test, kl_mean, best_N, spread_N, found[GREEDY][1].kl_N)


def _likelihood(target: TargetModel, each: Candidate, draws: Draws, neutral: int) -> Figure | None:
    if each.texts is None or not each.says_texts:
        return None
    return draws.mean(text_nll(target, each.texts, neutral))
