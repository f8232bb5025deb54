"""Fitting probes: a planted direction is found at the right layer, and nothing is found where nothing is."""

import pytest
import torch
from torch import Tensor

from wonder.probes.calibration import calibrated_logit, fit_calibration
from wonder.probes.fit import fit_linear, fit_probe, shuffled_label_auroc
from wonder.probes.manifest import HookPoint
from wonder.probes.metrics import auroc, average_precision, estimate, tpr_at_fpr

D = 24
EMPTY = HookPoint(layer=0, aggregation="mean_prompt")
PLANTED = HookPoint(layer=1, aggregation="mean_prompt")


def planted(n: int, seed: int, *, prevalence: float = 0.3) -> tuple[dict[HookPoint, Tensor], Tensor, Tensor]:
    """States with a massive dimension and a direction along which the classes differ, labels, and that direction."""
    generator = torch.Generator().manual_seed(seed)
    labels_N = torch.rand(n, generator=generator) < prevalence
    direction_D = torch.zeros(D)
    direction_D[3], direction_D[7] = 1.0, -1.0
    noise_ND = torch.randn(n, D, generator=generator)
    states_ND = noise_ND + labels_N[:, None] * direction_D * 1.5
    states_ND[:, 0] *= 1000
    return {EMPTY: torch.randn(n, D, generator=generator), PLANTED: states_ND}, labels_N, direction_D


@pytest.mark.parametrize(("n", "method"), [(200, "lda"), (1000, "logistic")])
def test_a_planted_direction_is_found_at_its_layer(n: int, method: str) -> None:
    states, labels_N, direction_D = planted(n, seed=1)
    fitted = fit_probe(states, labels_N)
    assert fitted.method == method
    assert fitted.hook_point == PLANTED
    assert fitted.cv_log_loss["1/mean_prompt"] < fitted.cv_log_loss["0/mean_prompt"]
    raw_D = fitted.probe.weight_D / fitted.probe.scale_D
    cosine = torch.cosine_similarity(raw_D.float(), direction_D, dim=0).item()
    assert cosine > 0.9
    held, held_labels_N, _ = planted(2000, seed=2)
    assert auroc(fitted.probe.logits(held[PLANTED]), held_labels_N) > 0.9


def test_calibrated_probabilities_are_true_on_fresh_states() -> None:
    states, labels_N, _ = planted(1000, seed=3)
    fitted = fit_probe(states, labels_N)
    held, held_labels_N, _ = planted(8000, seed=4)
    logits_N = calibrated_logit(fitted.probe.logits(held[PLANTED]), fitted.calibration)
    probability_N = torch.sigmoid(logits_N)
    for low, high in ((0.0, 0.2), (0.2, 0.5), (0.5, 0.8), (0.8, 1.0)):
        inside = (probability_N >= low) & (probability_N < high)
        assert probability_N[inside].mean().item() == pytest.approx(
            held_labels_N[inside].float().mean().item(), abs=0.08
        )


def test_shuffled_labels_find_nothing() -> None:
    states, labels_N, _ = planted(1000, seed=5)
    held, held_labels_N, _ = planted(1000, seed=6)
    value = shuffled_label_auroc(states[PLANTED], labels_N, held[PLANTED], held_labels_N, draws=20)
    assert value == pytest.approx(0.5, abs=0.1)


def test_wide_states_are_fitted_in_their_leading_directions() -> None:
    generator = torch.Generator().manual_seed(7)
    labels_N = torch.arange(400) % 2 == 0
    states_ND = torch.randn(400, 600, generator=generator)
    states_ND[:, 5] += 4.0 * labels_N
    probe = fit_linear(states_ND, labels_N, method="logistic", c=0.1)
    assert probe.weight_D.shape == (600,)
    assert int(probe.weight_D.abs().argmax()) == 5


def test_too_few_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="label more"):
        fit_probe({PLANTED: torch.randn(50, D)}, torch.arange(50) < 2)


def test_calibration_undoes_overconfidence() -> None:
    generator = torch.Generator().manual_seed(8)
    true_logit_N = torch.randn(4000, generator=generator) * 2
    labels_N = torch.rand(4000, generator=generator) < torch.sigmoid(true_logit_N)
    calibration = fit_calibration(true_logit_N * 5, labels_N)
    torch.testing.assert_close(
        torch.sigmoid(calibrated_logit(true_logit_N * 5, calibration)), torch.sigmoid(true_logit_N), atol=0.05, rtol=0
    )


def test_metrics_of_a_ranking_known_by_hand() -> None:
    scores = torch.tensor([0.9, 0.8, 0.7, 0.7, 0.1])
    labels = torch.tensor([True, False, True, False, False])
    assert auroc(scores, labels) == pytest.approx((3 + 1.5) / 6)
    assert average_precision(scores, labels) == pytest.approx((1 + 2 / 3) / 2)
    assert tpr_at_fpr(scores, labels) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="0 positives"):
        auroc(scores, torch.zeros(5))


def test_a_bootstrap_interval_holds_its_value() -> None:
    states, labels_N, _ = planted(600, seed=9)
    probe = fit_linear(states[PLANTED], labels_N, method="lda")
    found = estimate(auroc, probe.logits(states[PLANTED]), labels_N)
    assert found.low < found.value < found.high
    assert found.high - found.low < 0.1
