import pytest

from tests.unit.calibration.bundles import bundle, trace
from wonder.calibration.apply import calibrated, is_applied, raw_confidence
from wonder.calibration.certify import GRID, Certified, count
from wonder.calibration.maps import BetaMap, IsotonicMap, StackedMap, VennAbersMap


def test_a_calibrated_trace_says_what_was_read_and_what_it_means() -> None:
    made = bundle()
    found = calibrated(trace(0.9), made)
    assert found.overall_confidence == pytest.approx(0.75, abs=1e-6)
    assert found.raw_confidence == 0.9
    assert found.confidence_status == "calibrated"
    assert found.confidence_reason is None
    assert found.bundles == {"calibration": made.id}
    assert is_applied(found, made)
    assert raw_confidence(found) == 0.9


def test_calibrating_twice_is_calibrating_once() -> None:
    once = calibrated(trace(0.9), bundle())
    assert calibrated(once, bundle()) == once


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (bundle(model_fingerprint="a" * 64), "other weights (aaaaaaaaaaaa; this model has ffffffffffff)"),
        (bundle(action="draft"), "made for the action 'draft'"),
        (bundle(signal="min_probability"), "it reads 'min_probability', and this trace has 'value_probability'"),
        (bundle(model_fingerprint="", model_revision="r1"), "made on m@r1, not on this model"),
    ],
)
def test_a_calibration_of_something_else_is_not_applied(made, said) -> None:  # type: ignore[no-untyped-def]
    found = calibrated(trace(0.9), made)
    assert (found.overall_confidence, found.confidence_status) == (0.9, "uncalibrated")
    assert said in (found.confidence_reason or "")
    assert not is_applied(found, made)
    assert "calibration" not in found.bundles


def test_an_unknown_confidence_stays_unknown() -> None:
    unknown = trace(None, confidence_reason="the answer has no values")
    found = calibrated(unknown, bundle())
    assert (found.overall_confidence, found.confidence_status) == (None, "unknown")
    assert found.confidence_reason == "the answer has no values"


def test_a_missing_signal_of_a_stack_makes_the_confidence_unknown() -> None:
    stack = StackedMap(signals=["value_probability", "mean_margin"], mean=[0, 0], scale=[1, 1], weight=[1, 1], bias=0)
    made = bundle(map=stack, signal="stacked")
    assert calibrated(trace(0.9, signals={"mean_margin": 0.5}), made).confidence_status == "calibrated"
    found = calibrated(trace(0.9), made)
    assert (found.overall_confidence, found.confidence_status) == (None, "unknown")
    assert "mean_margin" in (found.confidence_reason or "")


def test_without_a_calibration_the_raw_value_stands_and_a_reason_is_passed_on() -> None:
    found = calibrated(trace(0.9), None, "drifted: …")
    assert (found.overall_confidence, found.raw_confidence) == (0.9, 0.9)
    assert (found.confidence_status, found.confidence_reason) == ("uncalibrated", "drifted: …")


def test_a_calibration_from_few_labels_says_so() -> None:
    found = calibrated(trace(0.9), bundle(labels=60, wrong=10))
    assert (found.confidence_status, found.confidence_reason) == ("calibrated", "provisional: from 60 labels")


def test_venn_abers_leaves_its_interval_in_the_trace() -> None:
    made = bundle(map=VennAbersMap(x=[0.2, 0.9], p0=[0.1, 0.6], p1=[0.3, 0.8]))
    found = calibrated(trace(0.9), made)
    assert (found.confidence_low, found.confidence_high) == (0.6, 0.8)


@pytest.mark.parametrize(
    "map",
    [
        BetaMap(a=0.5, b=0.5, c=0),
        BetaMap(a=0, b=0, c=2),
        BetaMap(a=20, b=20, c=10),
        IsotonicMap(x=[0.3, 0.5, 0.92], y=[0.4, 0.4, 0.4]),
        VennAbersMap(x=[0.5], p0=[0.5], p1=[0.9]),
    ],
    ids=["beta", "beta without slopes", "steep beta", "one plateau", "one knot"],
)
def test_a_certified_number_accepts_exactly_what_was_certified_whatever_the_map(map) -> None:  # type: ignore[no-untyped-def]
    """The certificate is about the signal; a plateau of the map must not let in what lies below."""
    for floor in GRID:
        scored = [(floor, False)] * 60 + [(max(0.0, floor - 0.001), True)] * 60
        made = bundle(map=map, certification=count(scored))
        found = made.certified(0.2)
        if not isinstance(found, Certified):
            continue
        raw = next(at for at in GRID if map.at(at).value == found.threshold)
        for signal in (raw, raw + 1e-6, raw - 1e-6, 0.0, 1.0, 0.5):
            if 0 <= signal <= 1:
                assert (map.at(signal).value >= found.threshold) == (signal >= raw)
