"""How well a confidence picks what to accept, against scikit-learn and definitions written out by brute force."""

import math
import random
from itertools import pairwise, permutations
from statistics import mean

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, roc_auc_score

from wonder.learning import scoring
from wonder.learning.selective import aurc, e_aurc, prr, review_below, review_least, risk_coverage
from wonder.probes.metrics import auroc

tied = st.lists(st.tuples(st.sampled_from([0.1, 0.4, 0.4001, 0.9]), st.booleans()), min_size=1, max_size=5)
few = settings(max_examples=30, deadline=None)


def drawn(n: int, seed: int = 0, *, levels: int = 0) -> tuple[list[float], list[bool]]:
    """Confidences, and outcomes that are right about as often as the confidence says; `levels` makes ties."""
    rng = random.Random(seed)
    confidence = [rng.random() for _ in range(n)]
    right = [rng.random() < said**1.5 for said in confidence]
    return [round(said * levels) / levels for said in confidence] if levels else confidence, right


def orders(confidence: list[float], right: list[bool]) -> list[list[bool]]:
    """Every order of the outcomes, surest first, that the confidences allow."""
    places = range(len(right))
    return [
        [right[place] for place in order]
        for order in permutations(places)
        if all(confidence[a] >= confidence[b] for a, b in pairwise(order))
    ]


@pytest.mark.parametrize("levels", [0, 7])
def test_auroc_and_brier_are_those_of_scikit_learn(levels: int) -> None:
    for seed in range(5):
        confidence, right = drawn(400, seed, levels=levels)
        area = pytest.approx(roc_auc_score(right, confidence), abs=1e-12)
        assert auroc(torch.tensor(confidence, dtype=torch.float64), torch.tensor(right)) == area
        assert scoring.auroc(confidence, right) == area
        squares = pytest.approx(brier_score_loss(right, confidence), abs=1e-12)
        assert scoring.brier(confidence, right, [1.0] * 400) == squares


@few
@given(tied)
def test_aurc_is_the_mean_over_all_orders_that_ties_allow(pairs: list[tuple[float, bool]]) -> None:
    confidence, right = [said for said, _ in pairs], [done for _, done in pairs]
    areas = [
        mean(mean(not done for done in order[:kept]) for kept in range(1, len(order) + 1))
        for order in orders(confidence, right)
    ]
    assert aurc(confidence, right) == pytest.approx(mean(areas))


@few
@given(tied.filter(lambda pairs: len(pairs) > 3 and len({done for _, done in pairs}) == 2), st.sampled_from([0.5, 1.0]))
def test_prr_is_the_gain_over_random_as_a_share_of_the_largest_gain(
    pairs: list[tuple[float, bool]], rejected: float
) -> None:
    confidence, right = [said for said, _ in pairs], [done for _, done in pairs]
    n, steps = len(right), int(rejected * len(right))

    def area(order: list[bool]) -> float:
        return mean(mean(order[: n - gone]) for gone in range(steps))

    everything = [list(order) for order in permutations(right)]
    best, anyhow = max(map(area, everything)), mean(map(area, everything))
    ours = mean(map(area, orders(confidence, right)))
    assert prr(confidence, right, rejected=rejected) == pytest.approx((ours - anyhow) / (best - anyhow))


def test_prr_is_one_for_a_perfect_order_minus_for_its_reverse_and_zero_for_none() -> None:
    _, right = drawn(1000)
    assert prr([float(done) for done in right], right) == pytest.approx(1)
    assert prr([-float(done) for done in right], right) < -0.5
    assert prr([0.5] * 1000, right) == pytest.approx(0)


def test_ece_is_the_gap_between_said_and_done_over_bins_of_equal_count() -> None:
    confidence, right = drawn(1500)
    order = sorted(range(1500), key=confidence.__getitem__)
    bins = [order[start : start + 100] for start in range(0, 1500, 100)]
    gap = sum(abs(sum(confidence[i] - right[i] for i in inside)) for inside in bins) / 1500
    assert scoring.ece(confidence, right, [1.0] * 1500) == pytest.approx(gap)
    assert scoring.ece(confidence, right, [1.0] * 1500, 1) == pytest.approx(abs(mean(confidence) - mean(right)))


def test_e_aurc_of_a_perfect_order_vanishes_with_many_answers() -> None:
    _, right = drawn(20_000)
    perfect = [float(done) for done in right]
    assert e_aurc(perfect, right) == pytest.approx(0, abs=1e-3)
    assert e_aurc([0.0, 0.0], [False, False]) == 0
    assert e_aurc([0.5] * len(right), right) == pytest.approx(-mean(right) * math.log(mean(right)))


@few
@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=2, max_size=40))
def test_metrics_of_order_do_not_change_with_the_scale(pairs: list[tuple[float, bool]]) -> None:
    confidence, right = [said for said, _ in pairs], [done for _, done in pairs]
    ranks = {said: float(rank) for rank, said in enumerate(sorted(set(confidence)))}
    assert aurc([ranks[said] for said in confidence], right) == pytest.approx(aurc(confidence, right))


def test_what_is_below_the_threshold_is_reviewed_and_what_equals_it_is_not() -> None:
    found = review_below([0.2, 0.7, 0.6, 0.9], [False, False, True, True], 0.7)
    assert (found.reviewed, found.errors_caught, found.risk) == (0.5, 0.5, 0.5)
    assert review_below([0.2], [True], 0.7).errors_caught is None
    assert review_below([0.2], [False], 0.7).risk is None


def test_a_budget_reviews_the_least_sure_and_shares_a_tie_out() -> None:
    found = review_least([0.1, 0.5, 0.5, 0.9], [False, False, True, True], 0.5)
    assert (found.reviewed, found.errors_caught, found.risk) == (0.5, 0.75, 0.25)
    assert review_least([0.1, 0.5], [False, True], 0).errors_caught == 0
    with pytest.raises(ValueError, match=r"wanted 0\.\.1"):
        review_least([0.1], [True], 30)


def test_the_curve_ends_where_everything_is_accepted() -> None:
    confidence, right = drawn(50)
    curve = risk_coverage(confidence, right)
    assert len(curve) == 50
    assert curve[-1].coverage == 1
    assert curve[-1].risk == pytest.approx(1 - mean(right))


@pytest.mark.parametrize(
    ("confidence", "right", "told"),
    [([], [], "0 confidences"), ([0.5], [True, False], "wanted one each"), ([math.nan], [True], "not a number")],
)
def test_what_cannot_be_measured_is_refused(confidence: list[float], right: list[bool], told: str) -> None:
    for metric in (aurc, e_aurc, prr):
        with pytest.raises(ValueError, match=told):
            metric(confidence, right)


def test_prr_needs_right_and_wrong_answers() -> None:
    with pytest.raises(ValueError, match="all 2 answers are right"):
        prr([0.1, 0.9], [True, True])
    with pytest.raises(ValueError, match="wanted two at least"):
        prr([0.1, 0.9], [True, False])
