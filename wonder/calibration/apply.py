"""Applying a calibration to a trace, inside the workflow: what was read becomes a probability of being right."""

import math

from wonder.calibration.bundle import PROVISIONAL_BELOW, CalibrationBundle
from wonder.calibration.maps import mapped
from wonder.trace.schema import ThoughtTrace

BUNDLE_KIND = "calibration"
"""The key of a calibration in a trace's `bundles`."""


def raw_confidence(trace: ThoughtTrace) -> float | None:
    """What the trace's confidence method gave, before any calibration; None where it is unknown."""
    if trace.confidence_status == "unknown":
        return None
    value = trace.overall_confidence if trace.confidence_status == "uncalibrated" else trace.raw_confidence
    return value if value is not None and math.isfinite(value) else None


def signals(trace: ThoughtTrace) -> dict[str, float | None]:
    """Signal → its raw value: every one of the trace, and the confidence method's own."""
    return {**trace.signals, trace.confidence_method: raw_confidence(trace)}


def calibrated(trace: ThoughtTrace, bundle: CalibrationBundle | None, reason: str = "") -> ThoughtTrace:
    """The trace with its confidence calibrated where `bundle` fits it.

    The raw value stays in `raw_confidence`. A bundle that does not fit leaves the confidence uncalibrated, with the
    reason; a signal that was not read leaves it unknown.

    Args:
        trace: As the worker sent it.
        bundle: The calibration in force, if there is one.
        reason: Why there is none, where that is worth saying.
    """
    raw = raw_confidence(trace)
    kept = {"raw_confidence": raw}
    if trace.confidence_status == "unknown":
        return trace
    if bundle is None:
        return trace.model_copy(update=kept | ({"confidence_reason": reason} if reason else {}))
    if misfit := bundle.misfit(trace):
        said = f"calibration {bundle.id[:12]} was not applied: {misfit}; calibrate this one with `wonder calibrate`"
        return trace.model_copy(update=kept | {"confidence_reason": said})
    found = mapped(bundle.map, bundle.signal, signals(trace))
    if isinstance(found, str):
        unknown = {"overall_confidence": None, "confidence_status": "unknown", "confidence_reason": found}
        return trace.model_copy(update=kept | unknown)
    provisional = bundle.labels < PROVISIONAL_BELOW
    return trace.model_copy(
        update=kept
        | {
            "overall_confidence": found.value,
            "confidence_low": found.low,
            "confidence_high": found.high,
            "confidence_status": "calibrated",
            "confidence_reason": f"provisional: from {bundle.labels} labels" if provisional else None,
            "bundles": trace.bundles | {BUNDLE_KIND: bundle.id},
        }
    )


def is_applied(trace: ThoughtTrace, bundle: CalibrationBundle) -> bool:
    """Whether this very calibration made the trace's confidence."""
    return trace.confidence_status == "calibrated" and trace.bundles.get(BUNDLE_KIND) == bundle.id
