"""Maps from probe logits to probabilities, fitted on logits of texts that the probe has not seen."""

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid, softplus

from wonder.probes.manifest import Calibration
from wonder.probes.newton import fit_logistic

# Shape suffixes: N texts, K features.

LOGIT_LIMIT = 20.7
"""Scores are clipped to 1e-9 .. 1 - 1e-9 before their logarithm is taken; this is that bound as a logit."""


def calibrated_logit(logit: Tensor, calibration: Calibration) -> Tensor:
    """Return the log-odds after calibration, in the shape of `logit`."""
    if calibration.kind == "platt":
        return calibration.a * logit + calibration.c
    bounded = logit.clamp(-LOGIT_LIMIT, LOGIT_LIMIT)
    return calibration.a * logsigmoid(bounded) + calibration.b * softplus(bounded) + calibration.c


def fit_calibration(logits_N: Tensor, labels_N: Tensor, *, folds: int = 5, seed: int = 0) -> Calibration:
    """Fit Platt and beta calibration and return the one with the lower cross-validated log-loss."""
    logits_N, labels_N = logits_N.double(), labels_N.double()
    fold_N = torch.randperm(len(logits_N), generator=torch.Generator().manual_seed(seed)) % folds
    best: tuple[float, str] | None = None
    for kind in ("platt", "beta"):
        losses = []
        for fold in range(folds):
            held = fold_N == fold
            fitted = _fit(kind, logits_N[~held], labels_N[~held])
            losses.append(binary_cross_entropy_with_logits(calibrated_logit(logits_N[held], fitted), labels_N[held]))
        loss = torch.stack(losses).mean().item()
        if best is None or loss < best[0]:
            best = (loss, kind)
    assert best is not None
    return _fit(best[1], logits_N, labels_N)


def _fit(kind: str, logits_N: Tensor, labels_N: Tensor) -> Calibration:
    if kind == "platt":
        weight_K, bias = fit_logistic(logits_N[:, None], labels_N, c=1.0)
        return Calibration(kind="platt", a=max(0.0, weight_K[0].item()), c=bias)
    bounded = logits_N.clamp(-LOGIT_LIMIT, LOGIT_LIMIT)
    features_NK = torch.stack([logsigmoid(bounded), softplus(bounded)], dim=1)
    weight_K, bias = fit_logistic(features_NK, labels_N, c=1.0)
    a, b = weight_K.tolist()
    if a < 0 or b < 0:  # a negative slope would bend the map back: refit on the other feature alone
        keep = int(a < 0)
        kept_K, bias = fit_logistic(features_NK[:, [keep]], labels_N, c=1.0)
        slope = max(0.0, kept_K[0].item())
        a, b = (0.0, slope) if keep else (slope, 0.0)
    return Calibration(kind="beta", a=a, b=b, c=bias)
