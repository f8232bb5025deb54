"""Bundles and traces to test with."""

from datetime import UTC, datetime
from typing import Any

from wonder.calibration.bundle import CalibrationBundle
from wonder.calibration.certify import count
from wonder.calibration.maps import BetaMap
from wonder.trace.schema import ThoughtTrace

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def bundle(**fields: Any) -> CalibrationBundle:
    """A calibration of `classify` that halves the log-odds, from 400 labels of which those at .9 are always right."""
    scored = [(0.99, False)] * 150 + [(0.9, False)] * 50 + [(0.5, False)] * 100 + [(0.5, True)] * 100
    usual: dict[str, Any] = {
        "action": "classify",
        "model": "m",
        "model_fingerprint": "f" * 64,
        "signal": "value_probability",
        "map": BetaMap(a=0.5, b=0.5, c=0.0),
        "labels": 400,
        "wrong": 100,
        "certification": count(scored),
        "created_at": NOW,
    }
    return CalibrationBundle.named(**usual | fields)


def trace(confidence: float | None = 0.9, **fields: Any) -> ThoughtTrace:
    """What a worker sends."""
    usual: dict[str, Any] = {
        "action": "classify",
        "model": "m",
        "model_fingerprint": "f" * 64,
        "overall_confidence": confidence,
        "confidence_status": "unknown" if confidence is None else "uncalibrated",
    }
    return ThoughtTrace(**usual | fields)
