"""L2-regularised logistic regression by damped Newton steps, in float64."""

import torch
from torch import Tensor
from torch.nn.functional import softplus

# Shape suffixes: N texts, K features.


def fit_logistic(features_NK: Tensor, labels_N: Tensor, *, c: float, steps: int = 50) -> tuple[Tensor, float]:
    """Minimise the summed log-loss plus |w|² / 2c; the bias is not penalised.

    Args:
        features_NK: Any float dtype; computed in float64.
        labels_N: Zeros and ones.
        c: Inverse strength of the penalty, > 0.
        steps: Most Newton steps taken; the descent ends earlier once a step changes nothing.

    Returns:
        Weights of shape (K,) in float64, and the bias.
    """
    design = torch.cat([features_NK.double(), torch.ones(len(features_NK), 1, dtype=torch.float64)], dim=1)
    labels_N = labels_N.double()
    penalty = torch.full((design.shape[1],), 1 / c, dtype=torch.float64)
    penalty[-1] = 1e-9
    weights = torch.zeros(design.shape[1], dtype=torch.float64)

    def objective(at: Tensor) -> Tensor:
        logits_N = design @ at
        return (softplus(logits_N) - labels_N * logits_N).sum() + 0.5 * (penalty * at * at).sum()

    current = objective(weights)
    for _ in range(steps):
        chances_N = torch.sigmoid(design @ weights)
        gradient = design.T @ (chances_N - labels_N) + penalty * weights
        curvature = (design.T * (chances_N * (1 - chances_N))) @ design + torch.diag(penalty + 1e-9)
        step = torch.linalg.solve(curvature, gradient)
        size = 1.0
        # A full Newton step can overshoot where the sigmoid is flat; halving keeps every step downhill.
        while size > 1e-6 and objective(weights - size * step) > current:
            size /= 2
        weights = weights - size * step
        before, current = current, objective(weights)
        if before - current < 1e-9 * (1 + current.abs()):
            break
    return weights[:-1], weights[-1].item()
