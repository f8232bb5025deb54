import math
import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wonder.calibration.binomial import at_most, lower_bound, upper_bound
from wonder.calibration.certify import (
    GRID,
    Certification,
    Certified,
    NotCertified,
    certify,
    count,
    fewest_labels,
)


def exact(k: int, n: int, p: Fraction) -> Fraction:
    return sum((math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1)), Fraction(0))


@given(st.integers(0, 80), st.integers(1, 99), st.data())
def test_the_binomial_tail_is_that_of_exact_fractions(n: int, percent: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    p = Fraction(percent, 100)
    assert at_most(k, n, percent / 100) == pytest.approx(float(exact(k, n, p)), rel=1e-9, abs=1e-12)


def test_the_binomial_tail_holds_for_a_million_draws() -> None:
    assert at_most(50_000, 1_000_000, 0.05) == pytest.approx(0.5, abs=0.002)
    assert at_most(10, 1_000_000, 0.5) == 0.0
    assert at_most(999_999, 1_000_000, 0.001) == 1.0


def test_clopper_pearson_meets_published_values() -> None:
    assert upper_bound(0, 45, 0.1) == pytest.approx(1 - 0.1 ** (1 / 45))
    # 10 of 100: the two-sided 95 % interval is .0490 to .1762.
    assert lower_bound(10, 100, 0.025) == pytest.approx(0.0490, abs=5e-5)
    assert upper_bound(10, 100, 0.025) == pytest.approx(0.1762, abs=5e-5)


def brute_force(scored: list[tuple[float, bool]], risk: Fraction, delta: float) -> float | None:
    """The published procedure, from the definition, in exact arithmetic."""
    best = None
    for at in GRID:
        kept = [wrong for score, wrong in scored if score >= at]
        if not kept or float(exact(sum(kept), len(kept), risk)) > delta:
            break
        best = at
    return best


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=40), st.sampled_from([5, 10, 20, 40]))
def test_certify_is_the_fixed_sequence_of_exact_tests(scored: list[tuple[float, bool]], percent: int) -> None:
    found = certify(count(scored), percent / 100, 0.1)
    want = brute_force(scored, Fraction(percent, 100), 0.1)
    assert (found.threshold if isinstance(found, Certified) else None) == want


@pytest.mark.parametrize(("risk", "labels"), [(0.05, 45), (0.1, 22), (0.2, 11)])
def test_it_takes_a_known_number_of_flawless_labels(risk: float, labels: int) -> None:
    assert fewest_labels(risk) == labels
    enough, short = count([(0.99, False)] * labels), count([(0.99, False)] * (labels - 1))
    assert isinstance(certify(enough, risk), Certified)
    found = certify(short, risk)
    assert isinstance(found, NotCertified)
    assert found.needed == 1
    assert "at least 1 more labels" in found.reason


@given(st.integers(0, 60), st.integers(0, 3), st.integers(0, 60))
def test_the_labels_it_asks_for_are_enough_and_one_fewer_is_not(kept: int, wrong: int, below: int) -> None:
    wrong = min(wrong, kept)
    found = certify(count([(0.99, i < wrong) for i in range(kept)] + [(0.1, True)] * below), 0.1)
    if isinstance(found, NotCertified) and found.needed is not None and below == 0:
        assert at_most(wrong, kept + found.needed, 0.1) <= 0.1
        assert at_most(wrong, kept + found.needed - 1, 0.1) > 0.1


def test_labels_that_already_rule_a_risk_out_are_not_asked_for_more() -> None:
    found = certify(count([(0.99, i % 3 == 0) for i in range(90)]), 0.05)
    assert isinstance(found, NotCertified)
    assert found.needed is None
    assert "out of reach" in found.reason


def test_a_certification_that_is_refused_never_gives_a_threshold() -> None:
    counts = count([(0.99, False)] * 500).model_copy(update={"refused": "nothing accepted was ever audited"})
    found = certify(counts, 0.2)
    assert isinstance(found, NotCertified)
    assert found.reason == "nothing accepted was ever audited"


def test_a_promise_is_broken_in_no_more_than_delta_of_draws_and_the_plug_in_breaks_it_in_half() -> None:
    """Scores uniform on 0..1, wrong with chance 1 − score: accepting from t on has the risk (1 − t) / 2."""
    drawn, risk = random.Random(7), 0.1
    broken = plug_in = 0
    for _ in range(150):
        scores = [drawn.random() for _ in range(300)]
        counts = count([(score, drawn.random() > score) for score in scores])
        found = certify(counts, risk)
        broken += isinstance(found, Certified) and (1 - found.threshold) / 2 > risk
        naive = [at for at, k, w in zip(counts.grid, counts.kept, counts.wrong, strict=True) if k and w <= risk * k]
        plug_in += bool(naive) and (1 - min(naive)) / 2 > risk
    assert broken <= 0.1 * 150
    assert plug_in > 0.25 * 150


@pytest.mark.parametrize(
    "fields",
    [
        {"grid": [0.5, 0.9], "kept": [1, 1], "wrong": [0, 0], "labels": 1},
        {"grid": [0.9], "kept": [1, 1], "wrong": [0], "labels": 1},
        {"grid": [0.9], "kept": [1], "wrong": [2], "labels": 1},
        {"grid": [0.9], "kept": [2], "wrong": [0], "labels": 1},
    ],
)
def test_counts_that_cannot_be_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"certification|grid"):
        Certification.model_validate(fields)
