"""Fits a linear probe: standardise, choose hook point and penalty by cross-validation, calibrate out of fold."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from wonder.probes.calibration import fit_calibration
from wonder.probes.manifest import Calibration, HookPoint
from wonder.probes.metrics import auroc
from wonder.probes.newton import fit_logistic

# Shape suffixes: N texts, D d_model, K kept directions.

Method = Literal["lda", "logistic"]

FEW_LABELS: Final = 300
FEW_OF_A_CLASS: Final = 50
"""Below either number the shrinkage LDA is used, which needs no penalty chosen."""
INVERSE_PENALTIES: Final = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
LARGEST_NEWTON: Final = 512
"""Above this width the logistic probe is fitted in the space of the leading principal directions."""
KEPT_DIRECTIONS: Final = 256


@dataclass(frozen=True)
class LinearProbe:
    """A probe before it is bundled: logit = ((state - mean) / scale) · weight + bias; float64."""

    weight_D: Tensor
    bias: float
    mean_D: Tensor
    scale_D: Tensor
    direction_D: Tensor
    """Difference of the class means in the model's own units, for steering."""

    def logits(self, states_ND: Tensor) -> Tensor:
        """Return uncalibrated log-odds, shape (N,), float64."""
        return ((states_ND.double() - self.mean_D) / self.scale_D) @ self.weight_D + self.bias

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of a bundle, in float32."""
        return {
            "weight": self.weight_D.float(),
            "bias": torch.tensor([self.bias], dtype=torch.float32),
            "mean": self.mean_D.float(),
            "scale": self.scale_D.float(),
            "direction": self.direction_D.float(),
        }


@dataclass(frozen=True)
class FittedProbe:
    """The chosen probe, its calibration, and what cross-validation said about every candidate."""

    hook_point: HookPoint
    method: Method
    probe: LinearProbe
    calibration: Calibration
    cv_log_loss: dict[str, float]
    """Best log-loss (nats) by candidate, as `layer/aggregation`."""


def fit_probe(states: Mapping[HookPoint, Tensor], labels_N: Tensor, *, folds: int = 5, seed: int = 0) -> FittedProbe:
    """Fit a probe on the candidate hook point with the lowest cross-validated log-loss.

    Args:
        states: One (N, D) tensor per candidate hook point, rows in the order of `labels_N`.
        labels_N: True where the text has the concept.
        folds: Folds of the cross-validation, stratified by label.
        seed: Decides the folds.

    Raises:
        ValueError: Fewer than `folds` texts of either label, so that no fold could be scored.
    """
    labels_N = labels_N.bool()
    fewest = int(min(labels_N.sum().item(), (~labels_N).sum().item()))
    if fewest < folds:
        raise ValueError(f"found {fewest} texts of the rarer label, wanted at least {folds}: label more")
    method: Method = "lda" if len(labels_N) < FEW_LABELS or fewest < FEW_OF_A_CLASS else "logistic"
    fold_N = _folds(labels_N, folds, seed)
    best: tuple[float, HookPoint, float, Tensor] | None = None
    cv_log_loss: dict[str, float] = {}
    for hook_point, states_ND in states.items():
        key = f"{hook_point.layer}/{hook_point.aggregation}"
        for c in INVERSE_PENALTIES if method == "logistic" else (1.0,):
            logits_N = _out_of_fold(states_ND, labels_N, fold_N, method, c)
            loss = binary_cross_entropy_with_logits(logits_N, labels_N.double()).item()
            cv_log_loss[key] = min(loss, cv_log_loss.get(key, loss))
            if best is None or loss < best[0]:
                best = (loss, hook_point, c, logits_N)
    if best is None:
        raise ValueError("found no candidate hook point, wanted at least one")
    _, hook_point, c, logits_N = best
    probe = fit_linear(states[hook_point], labels_N, method=method, c=c)
    return FittedProbe(hook_point, method, probe, fit_calibration(logits_N, labels_N, seed=seed), cv_log_loss)


def fit_linear(states_ND: Tensor, labels_N: Tensor, *, method: Method, c: float = 1.0) -> LinearProbe:
    """Fit one probe on all rows, standardised by their own mean and spread."""
    states_ND, labels_N = states_ND.double(), labels_N.bool()
    mean_D = states_ND.mean(0)
    scale_D = states_ND.std(0).clamp_min(1e-6)
    scaled_ND = (states_ND - mean_D) / scale_D
    weight_D, bias = _lda(scaled_ND, labels_N) if method == "lda" else _logistic(scaled_ND, labels_N, c)
    direction_D = states_ND[labels_N].mean(0) - states_ND[~labels_N].mean(0)
    return LinearProbe(weight_D, bias, mean_D, scale_D, direction_D)


def shuffled_label_auroc(
    train_ND: Tensor,
    labels_N: Tensor,
    held_out_ND: Tensor,
    held_out_labels_N: Tensor,
    *,
    draws: int = 20,
    seed: int = 0,
) -> float:
    """Return the mean held-out AUROC of probes fitted to shuffled labels: about .5 unless something leaks."""
    generator = torch.Generator().manual_seed(seed)
    values = []
    for _ in range(draws):
        shuffled_N = labels_N[torch.randperm(len(labels_N), generator=generator)]
        probe = fit_linear(train_ND, shuffled_N, method="lda")
        values.append(auroc(probe.logits(held_out_ND), held_out_labels_N))
    return sum(values) / len(values)


def _folds(labels_N: Tensor, folds: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    fold_N = torch.empty(len(labels_N), dtype=torch.long)
    for label in (True, False):
        places = (labels_N == label).nonzero()[:, 0]
        fold_N[places] = torch.randperm(len(places), generator=generator) % folds
    return fold_N


def _out_of_fold(states_ND: Tensor, labels_N: Tensor, fold_N: Tensor, method: Method, c: float) -> Tensor:
    logits_N = torch.empty(len(labels_N), dtype=torch.float64)
    for fold in range(int(fold_N.max()) + 1):
        held = fold_N == fold
        logits_N[held] = fit_linear(states_ND[~held], labels_N[~held], method=method, c=c).logits(states_ND[held])
    return logits_N


def _logistic(scaled_ND: Tensor, labels_N: Tensor, c: float) -> tuple[Tensor, float]:
    if scaled_ND.shape[1] <= LARGEST_NEWTON:
        return fit_logistic(scaled_ND, labels_N, c=c)
    _, _, rows = torch.linalg.svd(scaled_ND, full_matrices=False)
    basis_DK = rows[:KEPT_DIRECTIONS].T
    weight_K, bias = fit_logistic(scaled_ND @ basis_DK, labels_N, c=c)
    return basis_DK @ weight_K, bias


def _lda(scaled_ND: Tensor, labels_N: Tensor) -> tuple[Tensor, float]:
    mean_1, mean_0 = scaled_ND[labels_N].mean(0), scaled_ND[~labels_N].mean(0)
    within_ND = scaled_ND - torch.where(labels_N[:, None], mean_1, mean_0)
    weight_D = torch.linalg.solve(_ledoit_wolf(within_ND), mean_1 - mean_0)
    prior = (labels_N.sum().double() / (~labels_N).sum().double()).log()
    return weight_D, (prior - 0.5 * (mean_1 + mean_0) @ weight_D).item()


def _ledoit_wolf(centred_ND: Tensor) -> Tensor:
    n, d = centred_ND.shape
    covariance = centred_ND.T @ centred_ND / n
    level = covariance.trace() / d
    spread = (covariance**2).sum() / d - level**2
    noise = ((centred_ND**2).sum(1).pow(2).mean() - (covariance**2).sum()) / (n * d)
    share = (noise / spread.clamp_min(1e-12)).clamp(0, 1)
    return (1 - share) * covariance + share * level * torch.eye(d, dtype=covariance.dtype)
