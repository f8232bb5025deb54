"""How well scores separate positives from negatives, with bootstrap intervals."""

from collections.abc import Callable

import torch
from torch import Tensor

from wonder.probes.manifest import Estimate, ProbeMetrics

# Shape suffixes: N texts.


def auroc(scores_N: Tensor, labels_N: Tensor) -> float:
    """Return the chance that a positive outscores a negative; ties count half.

    Raises:
        ValueError: There is no positive or no negative.
    """
    positives, negatives = _split(scores_N, labels_N)
    negatives = negatives.sort().values
    below = torch.searchsorted(negatives, positives, right=False)
    up_to = torch.searchsorted(negatives, positives, right=True)
    return ((below + up_to).double().mean() / (2 * len(negatives))).item()


def average_precision(scores_N: Tensor, labels_N: Tensor) -> float:
    """Return the mean precision over the positives, taken from the highest score down."""
    _split(scores_N, labels_N)
    hits = labels_N[scores_N.argsort(descending=True, stable=True)].bool()
    precision = hits.double().cumsum(0) / torch.arange(1, len(hits) + 1)
    return precision[hits].mean().item()


def tpr_at_fpr(scores_N: Tensor, labels_N: Tensor, fpr: float = 0.01) -> float:
    """Return the share of positives above the score that at most the share `fpr` of negatives exceeds."""
    positives, negatives = _split(scores_N, labels_N)
    allowed = int(fpr * len(negatives))
    bar = negatives.sort(descending=True).values[allowed]
    return (positives > bar).double().mean().item()


def estimate(
    metric: Callable[[Tensor, Tensor], float], scores_N: Tensor, labels_N: Tensor, *, draws: int = 500, seed: int = 0
) -> Estimate:
    """Return a metric with the 2.5 and 97.5 % quantiles over bootstrap draws, positives and negatives drawn apart."""
    generator = torch.Generator().manual_seed(seed)
    positives, negatives = _split(scores_N, labels_N)
    labels = torch.cat([torch.ones(len(positives)), torch.zeros(len(negatives))]).bool()
    values = []
    for _ in range(draws):
        parts = [part[torch.randint(len(part), (len(part),), generator=generator)] for part in (positives, negatives)]
        values.append(metric(torch.cat(parts), labels))
    low, high = torch.tensor(values, dtype=torch.float64).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64))
    return Estimate(value=metric(scores_N, labels_N), low=low.item(), high=high.item())


def probe_metrics(scores_N: Tensor, labels_N: Tensor) -> ProbeMetrics:
    """Return the metrics that a manifest holds."""
    return ProbeMetrics(
        auroc=estimate(auroc, scores_N, labels_N),
        average_precision=estimate(average_precision, scores_N, labels_N),
        tpr_at_1pct_fpr=estimate(tpr_at_fpr, scores_N, labels_N),
    )


def _split(scores_N: Tensor, labels_N: Tensor) -> tuple[Tensor, Tensor]:
    labels_N = labels_N.bool()
    positives, negatives = scores_N[labels_N].double(), scores_N[~labels_N].double()
    if not len(positives) or not len(negatives):
        raise ValueError(f"found {len(positives)} positives and {len(negatives)} negatives, wanted at least one each")
    return positives, negatives
