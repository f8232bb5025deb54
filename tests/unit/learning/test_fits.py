import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.learning.world import answers, truth
from wonder.calibration.maps import StackedMap
from wonder.learning.calibrate import columns
from wonder.learning.fits import FITS, Judged, fit_beta, fit_isotonic, fit_venn_abers, read
from wonder.learning.isotonic import points, pool, value_at
from wonder.learning.logistic import fit_logistic
from wonder.learning.scoring import auroc, brier, ece, losses, mean
from wonder.probes import metrics, newton

SIGNALS = st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.floats(0.1, 10)), min_size=3, max_size=25)


def test_the_logistic_fit_is_that_of_an_independent_implementation() -> None:
    drawn = random.Random(3)
    rows = [[drawn.gauss(0, 1) for _ in range(4)] for _ in range(200)]
    right = [drawn.random() < 1 / (1 + math.exp(-row[0] + row[2])) for row in rows]
    found, bias = fit_logistic(rows, right, [1.0] * 200, c=0.3)
    want, want_bias = newton.fit_logistic(torch.tensor(rows), torch.tensor(right).double(), c=0.3)
    assert found == pytest.approx(want.tolist(), abs=1e-5)
    assert bias == pytest.approx(want_bias, abs=1e-5)


def test_a_weight_of_three_is_three_answers() -> None:
    drawn = random.Random(4)
    rows = [[drawn.gauss(0, 1)] for _ in range(60)]
    right = [drawn.random() < 0.5 for _ in rows]
    weights = [3.0 if i % 2 else 1.0 for i in range(60)]
    thrice = [i for i in range(60) for _ in range(int(weights[i]))]
    by_weight = fit_logistic(rows, right, weights, c=1e9)
    by_copy = fit_logistic([rows[i] for i in thrice], [right[i] for i in thrice], [1.0] * len(thrice), c=1e9)
    assert by_weight[0] == pytest.approx(by_copy[0], abs=1e-5)
    assert by_weight[1] == pytest.approx(by_copy[1], abs=1e-5)


@given(SIGNALS)
def test_pooling_is_the_isotonic_regression_of_the_min_max_formula(rows: list[tuple[float, bool, float]]) -> None:
    ordered = points(*zip(*rows, strict=True))
    blocks = pool(ordered)
    for k, (signal, _, _) in enumerate(ordered):
        ways = [
            [
                sum(p[2] for p in ordered[i : j + 1]) / sum(p[1] for p in ordered[i : j + 1])
                for j in range(k, len(ordered))
            ]
            for i in range(k + 1)
        ]
        assert value_at(blocks, signal) == pytest.approx(max(min(way) for way in ways), abs=1e-9)


@settings(max_examples=30)
@given(SIGNALS)
def test_venn_abers_at_a_knot_is_two_isotonic_fits_with_the_new_answer(rows: list[tuple[float, bool, float]]) -> None:
    rows = [(round(signal, 3), right, 1.0) for signal, right, _ in rows]
    signals, right, weights = (list(column) for column in zip(*rows, strict=True))
    by = fit_venn_abers(Judged(signals, right, weights))
    for x, p0, p1 in zip(by.x, by.p0, by.p1, strict=True):
        for verdict, found in ((False, p0), (True, p1)):
            blocks = pool(points([*signals, x], [*right, verdict], [*weights, 1.0]))
            assert found == pytest.approx(value_at(blocks, x), abs=2e-7)


@pytest.mark.parametrize("kind", FITS)
def test_every_kind_of_map_comes_close_to_the_truth(kind: str) -> None:
    table = columns(answers(3000, seed=1))
    by, fresh = FITS[kind](table), answers(3000, seed=2)
    found = read(by, columns(fresh))
    off = [abs(chance - truth(outcome)) for chance, outcome in zip(found, fresh, strict=True)]
    raw = [abs(outcome.signals["value_probability"] - truth(outcome)) for outcome in fresh]
    assert sum(off) / len(off) < 0.025
    assert sum(off) < 0.4 * sum(raw)


def test_a_signal_that_ranks_the_wrong_way_gives_a_flat_map_and_never_a_falling_one() -> None:
    drawn = random.Random(5)
    signals = [drawn.random() for _ in range(300)]
    right = [drawn.random() > signal for signal in signals]
    by = fit_beta(Judged(signals, right, [1.0] * 300))
    assert (by.a, by.b) == (0.0, 0.0)
    assert by.at(0.3).value == pytest.approx(sum(right) / 300, abs=0.01)


def test_few_answers_never_make_certainty() -> None:
    by = fit_isotonic(Judged([0.1, 0.2, 0.8, 0.9], [False, False, True, True], [1.0] * 4))
    assert by.at(0.0).value == pytest.approx(1 / 8, abs=1e-5)
    assert by.at(1.0).value == pytest.approx(7 / 8, abs=1e-5)


def test_a_stack_reads_at_most_ten_signals_and_finds_the_one_that_tells() -> None:
    drawn, rows = random.Random(6), answers(800, seed=3)
    noisy = [
        outcome.model_copy(update={"signals": {**outcome.signals, **{f"noise_{i}": drawn.random() for i in range(15)}}})
        for outcome in rows
    ]
    by = FITS["stacked"](columns(noisy))
    assert isinstance(by, StackedMap)
    assert len(by.signals) == 10
    strength = dict(zip(by.signals, by.weight, strict=True))
    assert strength["value_probability"] > 5 * max(abs(w) for name, w in strength.items() if name.startswith("noise"))


def test_scores_are_those_of_their_definitions() -> None:
    drawn = random.Random(8)
    chances = [round(drawn.random(), 2) for _ in range(400)]
    right = [drawn.random() < chance for chance in chances]
    ones = [1.0] * 400
    assert brier(chances, right, ones) == pytest.approx(
        sum((c - r) ** 2 for c, r in zip(chances, right, strict=True)) / 400
    )
    assert auroc(chances, right) == pytest.approx(metrics.auroc(torch.tensor(chances), torch.tensor(right)))
    assert mean(losses([0.25, 0.25], [True, False]), [1, 1]) == pytest.approx(-(math.log(0.25) + math.log(0.75)) / 2)
    assert ece([0.8] * 10, [True] * 5 + [False] * 5, [1.0] * 10) == pytest.approx(0.3)
    assert ece([0.0, 1.0], [False, True], [1.0, 1.0]) == 0.0
    # Half of the weight is 0.5 too sure, half exact.
    assert ece([0.5] * 2 + [1.0] * 2, [True, False, True, False], [1.0] * 4) == pytest.approx(0.25)
    assert ece([0.5] * 2 + [1.0] * 2, [True, False, True, False], [3.0, 3.0, 1.0, 1.0]) == pytest.approx(0.125)
