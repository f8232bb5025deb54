"""MAPIE's risk control as an independent measure, where it is installed; nothing here needs it."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from wonder.calibration.certify import GRID


def mapie_threshold(scored: Sequence[tuple[float, bool]], risk: float, delta: float) -> float | str:
    """The smallest threshold of our grid that MAPIE certifies; "none", or "not installed".

    Args:
        scored: Score and whether the answer is wrong.
        risk: Share of wrong answers allowed: 1 − the precision that MAPIE controls.
        delta: Chance that it is exceeded.
    """
    try:
        numpy, control = import_module("numpy"), import_module("mapie.risk_control")
    except ImportError:
        return "not installed"

    def predict(scores: Any) -> Any:
        return numpy.stack([1 - scores[:, 0], scores[:, 0]], axis=1)

    controller = control.BinaryClassificationController(
        predict,
        control.precision,
        target_level=1 - risk,
        confidence_level=1 - delta,
        list_predict_params=numpy.array(sorted(GRID)),
    )
    scores = numpy.array([[score] for score, _ in scored])
    controller.calibrate(scores, numpy.array([int(not wrong) for _, wrong in scored]))
    valid = controller.valid_predict_params
    return float(min(valid)) if len(valid) else "none"
