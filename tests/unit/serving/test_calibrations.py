"""What a GPU worker sends along: the calibration in force, looked up seldom, and never at the price of an answer."""

import logging
from pathlib import Path

import pytest

from tests.unit.calibration.bundles import NOW, bundle, trace
from wonder.calibration.registry import CalibrationRegistry, Drift
from wonder.serving.calibrations import Calibrations


class Clock:
    """Seconds that pass when told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_what_is_in_force_is_believed_for_a_while_and_then_looked_up_again(tmp_path: Path) -> None:
    registry, clock, first, second = CalibrationRegistry(tmp_path), Clock(), bundle(), bundle(wrong=101)
    known = Calibrations(registry, refresh_s=5, clock=clock)
    assert await known.for_trace(trace()) == (None, "")
    registry.promote(first, at=NOW)
    assert await known.for_trace(trace()) == (None, "")
    clock.now = 6
    assert await known.for_trace(trace()) == (first, "")
    registry.promote(second, at=NOW, replacing=first.id)
    clock.now = 10
    assert await known.for_trace(trace()) == (first, "")
    clock.now = 12
    assert await known.for_trace(trace()) == (second, "")
    assert await known.for_trace(trace(action="draft")) == (None, "")


async def test_a_drift_and_a_registry_that_cannot_be_read_are_told_once_and_never_fail_an_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry, clock, made = CalibrationRegistry(tmp_path), Clock(), bundle()
    known = Calibrations(registry, refresh_s=5, clock=clock)
    registry.promote(made, at=NOW)
    registry.mark_drift(made, Drift(found_at=NOW, because="the tickets have changed"))
    with caplog.at_level(logging.INFO):
        for clock.now in (0.0, 1.0, 6.0, 12.0):
            found, reason = await known.for_trace(trace())
            assert found is None
            assert reason.startswith("drifted: ")
    assert caplog.text.count("are not calibrated: drifted") == 1
    next(tmp_path.glob("in_force/*/*.json")).write_text("no JSON")
    clock.now = 20.0
    with caplog.at_level(logging.INFO):
        found, reason = await known.for_trace(trace())
    assert found is None
    assert "cannot be read" in reason
    assert "cannot be read" in caplog.text
