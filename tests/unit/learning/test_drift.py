import logging
import random
from pathlib import Path

import pytest

from tests.unit.learning.world import START, answers
from wonder.calibration.bundle import CalibrationBundle
from wonder.calibration.registry import CalibrationRegistry
from wonder.learning.calibrate import calibrate
from wonder.learning.drift import WIN, capital, ks, monitor, psi, watch
from wonder.learning.labels import prepare

LATER = 100_000


@pytest.fixture(scope="module")
def bundle() -> CalibrationBundle:
    return calibrate(prepare(answers(1000, seed=1), action="classify"), created_at=START).bundle


def drifted(bundle: CalibrationBundle, **world: float) -> set[str]:
    found = monitor(bundle, answers(500, first_minute=LATER, **world))  # type: ignore[arg-type]
    return {check.kind for check in found if check.drifted}


def test_the_same_world_raises_no_alarm(bundle: CalibrationBundle) -> None:
    alarms = [drifted(bundle, seed=seed) for seed in range(100, 130)]
    assert alarms.count(set()) >= 29


def test_harder_questions_are_noticed_by_their_signals(bundle: CalibrationBundle) -> None:
    assert all("input" in drifted(bundle, seed=seed, ease=0.6) for seed in range(5))


def test_a_model_that_grew_overconfident_is_noticed_by_peoples_verdicts(bundle: CalibrationBundle) -> None:
    """Its signals look alike, and its answers are wrong more often."""
    rows, drawn = answers(800, seed=5, first_minute=LATER), random.Random(5)
    worse = [item.model_copy(update={"right": item.right and drawn.random() > 0.25}) for item in rows]
    found = {check.kind: check for check in monitor(bundle, worse)}
    assert found["override"].drifted
    assert found["confidence"].drifted
    assert "above the share of right answers" in found["confidence"].told
    assert not found["input"].drifted


def test_the_bet_seldom_wins_while_the_confidence_holds_however_often_one_looks() -> None:
    drawn, won = random.Random(9), 0
    for _ in range(300):
        pairs = [(sure, drawn.random() < sure) for sure in (drawn.uniform(0.5, 1.0) for _ in range(400))]
        won += capital(pairs, slack=0.0) >= WIN
    assert won <= 300 / WIN


def test_unjudged_answers_count_for_the_input_and_weights_make_up_for_their_lack(bundle: CalibrationBundle) -> None:
    routed = {"seed": 7, "review_below": 0.7, "audit": 0.1, "first_minute": LATER}
    for rows in (answers(3000, **routed), answers(3000, **routed, unjudged=True)):  # type: ignore[arg-type]
        assert not any(check.drifted for check in monitor(bundle, rows))


def test_answers_from_before_the_calibration_do_not_count(bundle: CalibrationBundle) -> None:
    assert {check.answers for check in monitor(bundle, answers(500, seed=3))} == {0}


def test_equal_distributions_are_at_no_distance_and_ties_are_no_drift() -> None:
    drawn = random.Random(2)
    values = [round(drawn.random(), 3) for _ in range(4000)]
    reference = [sorted(values)[min(i * 200, 3999)] for i in range(21)]
    rows = [(value, 1.0) for value in values]
    assert psi(reference, rows)[0] < 0.01
    assert ks(reference, rows) < 0.06
    saturated = [0.5] * 5 + [1.0] * 16
    assert ks(saturated, [(1.0, 3.0), (0.5, 1.0)]) < 0.06
    assert ks(saturated, [(0.9, 1.0)]) > 0.7
    assert ks(reference, [(value + 0.3, 1.0) for value in values]) == pytest.approx(0.3, abs=0.06)


def test_a_drift_takes_the_calibration_out_of_force_and_tells(
    bundle: CalibrationBundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry, told = CalibrationRegistry(tmp_path), []
    registry.promote(bundle, at=START)
    calm = answers(500, seed=130, first_minute=LATER)
    watch(registry, bundle, calm, at=START, on_drift=lambda made, found: told.append((made.id, found)))
    assert told == []
    harder = answers(500, seed=3, ease=0.6, first_minute=LATER)
    with caplog.at_level(logging.WARNING):
        watch(registry, bundle, harder, at=START, on_drift=lambda made, found: told.append((made.id, found)))
    ((id, checks),) = told
    assert id == bundle.id
    assert all(check.drifted for check in checks)
    entry = registry.in_force("classify", "m")
    assert entry is not None
    assert entry.drift is not None
    assert "value_probability has moved" in entry.drift.because
    assert "calibration of classify drifted" in caplog.text
