from itertools import pairwise

import pytest

from tests.unit.learning.world import START, answers, truth
from wonder.calibration.bundle import BUNDLE_LIMIT_BYTES, canonical
from wonder.calibration.certify import Certified, NotCertified
from wonder.calibration.maps import BetaMap
from wonder.errors import TooFewLabels
from wonder.learning.calibrate import blocks, calibrate, quantiles
from wonder.learning.gate import challenge, chance, compare
from wonder.learning.labels import prepare
from wonder.learning.picture import reliability_svg

NOW = START


def made(n: int, **world):  # type: ignore[no-untyped-def]
    return calibrate(prepare(answers(n, **world), action="classify"), created_at=NOW)


def test_two_hundred_labels_make_an_overconfident_signal_honest() -> None:
    found = made(200, seed=11)
    bundle, held = found.bundle, found.bundle.held_out
    assert isinstance(bundle.map, BetaMap)
    assert held is not None
    assert held.before is not None
    assert held.after.log_loss < held.before.log_loss
    fresh = answers(4000, seed=12)
    off = [abs(chance(bundle, outcome) - truth(outcome)) for outcome in fresh]
    raw = [abs(outcome.signals["value_probability"] - truth(outcome)) for outcome in fresh]
    assert sum(off) < 0.5 * sum(raw)
    assert bundle.labels == 200
    assert (bundle.since, bundle.until) == (START, answers(200)[-1].time)
    assert bundle.id == made(200, seed=11).bundle.id, "the same labels make the same bundle"


def test_weights_undo_what_routing_did_to_the_labels() -> None:
    """Trained on what is reviewed alone, the accepted answers would look far worse than they are."""
    labels = prepare(answers(3000, seed=13, review_below=0.7, audit=0.05), action="classify")
    bundle = calibrate(labels, created_at=NOW).bundle
    accepted = [item for item in answers(6000, seed=14) if item.signals["value_probability"] >= 0.7]
    confidence = sum(chance(bundle, item) for item in accepted) / len(accepted)
    accuracy = sum(bool(item.right) for item in accepted) / len(accepted)
    assert abs(confidence - accuracy) < 0.04
    assert bundle.effective_labels is not None
    assert bundle.effective_labels < 0.5 * bundle.labels


def test_a_certificate_needs_audits_of_what_was_accepted() -> None:
    refused = made(3000, seed=15, review_below=0.7).bundle.certified(0.2)
    assert isinstance(refused, NotCertified)
    assert "none was audited" in refused.reason
    found = made(6000, seed=15, review_below=0.7, audit=0.05).bundle
    assert isinstance(found.certified(0.2), Certified)
    assert found.certification is not None
    assert found.certification.labels < 0.1 * 6000


def test_the_parts_of_a_group_are_never_on_both_sides_and_blocks_follow_time() -> None:
    rows = [item.model_copy(update={"group": f"g{i % 37}"}) for i, item in enumerate(answers(200))]
    folds = blocks(rows)
    assert len(folds) == 5
    assert sorted(i for fold in folds for i in fold) == list(range(200))
    sides = [{rows[i].group for i in fold} for fold in folds]
    assert all(not a & b for i, a in enumerate(sides) for b in sides[i + 1 :])
    plain = blocks(answers(200))
    assert [max(fold) < min(after) for fold, after in pairwise(plain)] == [True] * 4
    together = [item.model_copy(update={"group": "one"}) for item in answers(100)]
    assert len(blocks(together)) == 1


@pytest.mark.parametrize("method", ["beta", "isotonic", "venn_abers", "stacked"])
def test_every_method_makes_a_small_bundle_and_a_certificate(method) -> None:  # type: ignore[no-untyped-def]
    labels = prepare(answers(1500, seed=16), action="classify")
    bundle = calibrate(labels, created_at=NOW, method=method).bundle
    assert bundle.map.kind == method
    assert len(canonical(bundle.document())) <= BUNDLE_LIMIT_BYTES
    assert isinstance(bundle.certified(0.2), Certified)
    held = bundle.held_out
    assert held is not None
    assert held.before is not None
    assert held.after.ece < 0.5 * held.before.ece


def test_a_method_that_takes_more_labels_says_so() -> None:
    with pytest.raises(TooFewLabels, match="isotonic takes at least 1000 labels, and there are 200"):
        calibrate(prepare(answers(200), action="classify"), created_at=NOW, method="isotonic")


def test_a_share_of_the_traffic_can_be_asked_for() -> None:
    bundle, fresh = made(2000, seed=17).bundle, answers(4000, seed=18)
    at = bundle.for_share(0.3)
    assert at is not None
    assert sum(chance(bundle, item) < at for item in fresh) / len(fresh) == pytest.approx(0.3, abs=0.03)


def test_weighted_quantiles_are_those_of_copies() -> None:
    values, of = [3.0, 1.0, 2.0], [1.0, 2.0, 7.0]
    copies = [value for value, w in zip(values, of, strict=True) for _ in range(int(w))]
    assert quantiles(values, of, 11) == quantiles(copies, [1.0] * 10, 11)


def test_the_gate_lets_the_better_one_in_and_keeps_the_worse_one_out() -> None:
    labels = prepare(answers(1500, seed=19), action="classify")
    good = calibrate(labels, created_at=NOW).bundle
    bad = good.model_copy(update={"map": BetaMap(a=1.0, b=1.0, c=0.0), "id": "b" * 64})
    held = answers(600, seed=20)
    assert compare(bad, good, held).passed
    refused = compare(good, bad, held)
    assert not refused.passed
    assert refused.gain_nats < 0
    assert "0.02 would be allowed" in refused.reason
    assert not compare(good, good, [item for item in held if item.right][:50]).passed


def test_the_first_calibration_has_to_beat_the_raw_signal() -> None:
    assert challenge(prepare(answers(300, seed=21), action="classify"), None, created_at=NOW).passed
    honest = prepare(answers(50, seed=3, sharpen=1.0), action="classify", fewest=50)
    refused = challenge(honest, None, created_at=NOW)
    assert not refused.passed
    assert "judge more answers" in refused.reason


def test_the_picture_shows_both_curves() -> None:
    found = made(400, seed=22)
    svg = reliability_svg(found.before, found.after, found.bundle)
    assert svg.count("<polyline") == 2
    assert "ECE" in svg
    assert "classify" in svg


def test_a_few_audits_without_an_error_let_no_exaggerating_map_in() -> None:
    """Its gain on them is real and alike; what it would lose on the first wrong one was not seen."""
    labels = prepare(answers(3000, seed=23, review_below=0.7, audit=0.05), action="classify")
    good = calibrate(labels, created_at=NOW, method="beta").bundle
    assert isinstance(good.map, BetaMap)
    steep = good.map.model_copy(update={"a": 3 * good.map.a, "b": 3 * good.map.b, "c": 3 * good.map.c + 2})
    held = [
        item.model_copy(update={"right": item.right or item.selection == "audit"})
        for item in answers(500, seed=24, review_below=0.7, audit=0.05)
    ]
    verdict = compare(good, good.model_copy(update={"map": steep}), held)
    assert verdict.gain_nats > 0
    assert not verdict.passed
    again = calibrate(prepare(answers(3000, seed=25, review_below=0.7, audit=0.05), action="classify"), created_at=NOW)
    assert compare(good, again.bundle, held).passed
