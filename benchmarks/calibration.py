"""Measures calibration, certified thresholds, the audit loop and the drift monitor, on answers of the shipped model.

The answers are the model's own to generated held-out tickets, whose truth is known; they are drawn from again and
again as from a world. `--outcomes FOLDER` keeps them, or takes them from there.
"""

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean

from benchmarks._desk import ACTION, UNSEEN, judged
from benchmarks._loop import A_ROUND, AUDIT, ROUNDS, rounds
from benchmarks._mapie import mapie_threshold
from benchmarks._results import Row, report
from wonder.calibration.bundle import CalibrationBundle
from wonder.calibration.certify import Certified, certify, count
from wonder.calibration.outcomes import LabeledOutcome
from wonder.learning.calibrate import calibrate, columns
from wonder.learning.drift import inputs, monitor
from wonder.learning.fits import Judged, fit_beta
from wonder.learning.labels import prepare, raw
from wonder.learning.scoring import ece

NOW = datetime(2026, 11, 20, tzinfo=UTC)
DELTA = 0.1
CERTIFIED = 5
"""Times as many draws for the guarantee: with 400, chance alone moves a share of 0.1 by 0.03."""
RISKS = (0.05, 0.1, 0.2)
SIZES = (100, 200, 500, 1000)
SIGNALS = ("value_probability", "mean_margin", "mean_entropy", "normalized_entropy")
"""One that is nearly calibrated as it is, and three whose scale means nothing."""
REVIEW_BELOW = 0.7


@dataclass(frozen=True)
class Scale:
    """How much of everything."""

    usual: int
    shifted: int
    draws: int
    fits: int
    seeds: int


FULL = Scale(usual=6000, shifted=2500, draws=400, fits=100, seeds=200)
QUICK = Scale(usual=300, shifted=150, draws=60, fits=8, seeds=2)


def main() -> None:
    """Measure, then print the rows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="at most a minute on two cores; writes nothing")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--outcomes", type=Path, help="folder to keep the model's answers in, or to take them from")
    options = parser.parse_args()
    scale, folder = (QUICK if options.quick else FULL), options.outcomes
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    usual = judged(None, scale.usual, seed=20_260, kept=folder and folder / "usual.jsonl")
    shifted = judged(None, scale.shifted, seed=20_261, mix=UNSEEN, kept=folder and folder / "shifted.jsonl")
    rows = [
        *errors(usual, scale),
        *guarantees(usual, scale),
        *control(usual, shifted, scale),
        *audits(usual, scale),
        *loop(usual, scale),
    ]
    report("calibration", rows, [flag for flag in ("--quick", "--json") if getattr(options, flag[2:])])


def errors(usual: Sequence[LabeledOutcome], scale: Scale) -> list[Row]:
    """ECE from 200 labels."""
    rows = []
    for signal in SIGNALS:
        pool = [item.model_copy(update={"signal": signal}) for item in usual if signal in item.signals]
        drawn, found = random.Random(1), []
        for _ in range(scale.fits):
            drawn.shuffle(pool)
            fitted = fit_beta(columns(pool[:200]))
            found.append(_ece([fitted.at(raw(item)).value for item in pool[200:]], pool[200:]))
        before = _ece([raw(item) for item in pool], pool)
        rows.append(
            Row(
                f"ECE from 200 labels, {signal}",
                fmean(found),
                "",
                "<= 0.03",
                f"beta calibration on 200 labels, ECE (15 equal-mass bins) on the other {len(pool) - 200} answers, "
                f"mean of {scale.fits} draws; uncalibrated {before:.3f}",
            )
        )
    return rows


def guarantees(usual: Sequence[LabeledOutcome], scale: Scale) -> list[Row]:
    """How often the promised risk is exceeded, and how much is accepted."""
    world, times = World(usual), CERTIFIED * scale.draws
    rows, drawn, worst, naive = [], random.Random(2), 0.0, 0.0
    cells: dict[tuple[float, int], tuple[float, float]] = {}
    for n in SIZES:
        draws = [drawn.choices(world.pairs, k=n) for _ in range(times)]
        counted = [count(draw) for draw in draws]
        for risk in RISKS:
            found = [certify(counts, risk, DELTA) for counts in counted]
            at = [item.threshold if isinstance(item, Certified) else None for item in found]
            broken = fmean(world.risk(t) > risk for t in at)
            cells[risk, n] = broken, fmean(world.coverage(t) for t in at)
            worst = max(worst, broken)
            plug_in = [
                min((t for t, k, w in zip(c.grid, c.kept, c.wrong, strict=True) if k and w <= risk * k), default=None)
                for c in counted
            ]
            naive = max(naive, fmean(world.risk(t) > risk for t in plug_in))
    table = "; ".join(
        f"α={risk:g} n={n}: {broken:.3f} at {accepted:.0%} (oracle {world.oracle(risk):.0%})"
        for (risk, n), (broken, accepted) in cells.items()
    )
    rows.append(
        Row(
            "certified risk exceeded, worst of 12 cells",
            worst,
            "",
            f"<= {DELTA:g}",
            f"share of {times} label draws whose certified threshold has more than the risk α over all "
            f"{len(usual)} answers, δ = {DELTA:g}; share broken and answers accepted: {table}",
        )
    )
    rows.append(
        Row(
            "risk exceeded by the plug-in threshold",
            naive,
            "",
            "",
            "the same with the smallest threshold whose observed risk is at most α, worst of the 12 cells",
        )
    )
    best = world.oracle(0.1)
    rows.append(
        Row(
            "certified coverage beside the oracle, n = 1000, α = 0.1",
            cells[0.1, 1000][1] / best,
            "",
            ">= 0.95",
            f"mean share accepted over {times} draws, divided by {best:.3f}, the most that any threshold may",
        )
    )
    rows += beside_mapie(world, cells, scale)
    return rows


def beside_mapie(world: "World", cells: dict[tuple[float, int], tuple[float, float]], scale: Scale) -> list[Row]:
    """The same grid and labels with MAPIE's risk control, where it is installed."""
    drawn, draws = random.Random(3), max(scale.draws // 20, 5)
    rows = []
    for risk, n in ((0.05, 200), (0.1, 1000)):
        found: list[float] = []
        for _ in range(draws):
            at = mapie_threshold([drawn.choice(world.pairs) for _ in range(n)], risk, DELTA)
            if at == "not installed":
                return []
            found.append(world.coverage(None if isinstance(at, str) else at))
        ours = cells[risk, n][1]
        rows.append(
            Row(
                f"coverage beyond MAPIE's, n = {n}, α = {risk:g}",
                ours - fmean(found),
                "",
                ">= 0",
                f"certified coverage {ours:.3f} minus {fmean(found):.3f} of MAPIE 1.6 (precision, Holm, same grid "
                f"and δ, {draws} draws)",
            )
        )
    return rows


def control(usual: Sequence[LabeledOutcome], shifted: Sequence[LabeledOutcome], scale: Scale) -> list[Row]:
    """Negative control: unseen products go from 8 % to half of the traffic."""
    drawn, times = random.Random(4), scale.draws // 2
    after = World(shifted)
    broken, detected, by_input, alarms = [], [], [], []
    size = min(500, len(usual) // 2)
    for _ in range(times):
        made = _made(_timed([drawn.choice(usual) for _ in range(size)]))
        found = made.certified(0.1, DELTA)
        if made.certification is not None and isinstance(found, Certified):
            at = certify(made.certification, 0.1, DELTA)
            broken.append(after.risk(at.threshold if isinstance(at, Certified) else None) > 0.1)
        drift = _timed([drawn.choice(shifted) for _ in range(200)], later=True)
        calm = _timed([drawn.choice(usual) for _ in range(200)], later=True)
        by_input.append(any(check.drifted for check in inputs(made, drift)))
        detected.append(any(check.drifted for check in monitor(made, drift)))
        alarms.append(any(check.drifted for check in monitor(made, calm)))
    shift = f"unseen products from 8 % to 50 % of the tickets, calibration from {size} labels, {times} draws"
    return [
        Row("promise kept after the traffic has changed", 1 - fmean(broken), "", "", f"α = 0.1; {shift}"),
        Row(
            "drift detected in the negative control",
            fmean(detected),
            "",
            ">= 0.99",
            f"by any check within 200 answers; {shift}",
        ),
        Row("drift detected by the input alone", fmean(by_input), "", "", f"no answer judged, 200 answers; {shift}"),
        Row(
            "false alarms of the drift monitor",
            fmean(alarms),
            "",
            "<= 0.05",
            f"any check within 200 answers of unchanged traffic, {times} draws",
        ),
    ]


def audits(usual: Sequence[LabeledOutcome], scale: Scale) -> list[Row]:
    """Confidence against accuracy among what is accepted, when people see what is doubted and a few audits."""
    rows = []
    accepted = [item for item in usual if raw(item) >= REVIEW_BELOW]
    accuracy = fmean(bool(item.right) for item in accepted)
    for audit in (0.02, 0.05):
        drawn, labels = random.Random(5), []
        gaps: list[float] = []
        plain: list[float] = []
        for _ in range(scale.draws // 4):
            seen = routed([drawn.choice(usual) for _ in range(1500)], audit, drawn)
            table = columns(seen)
            labels.append(len(seen))
            for weights, gap in ((table.weights, gaps), ([1.0] * len(table), plain)):
                fitted = fit_beta(Judged(table.signals, table.right, weights))
                gap.append(abs(fmean(fitted.at(raw(item)).value for item in accepted) - accuracy))
        rows.append(
            Row(
                f"confidence gap among the accepted, {audit:.0%} audited",
                fmean(gaps),
                "",
                "<= 0.03",
                f"|mean calibrated confidence - accuracy| of the {len(accepted)} answers from {REVIEW_BELOW} on, "
                f"calibrated on the {fmean(labels):.0f} of 1500 that people saw, weighted; mean of {scale.draws // 4} "
                f"draws; unweighted {fmean(plain):.3f}",
            )
        )
    return rows


def loop(usual: Sequence[LabeledOutcome], scale: Scale) -> list[Row]:
    """Twelve rounds of labels, challengers and the gate."""
    with get_context("spawn").Pool(2) as pool:
        found = pool.map(partial(rounds, list(usual)), range(scale.seeds), chunksize=max(scale.seeds // 8, 1))
    sabotaged, challengers = sum(item.sabotaged for item in found), sum(item.challengers for item in found)
    how = (
        f"{scale.seeds} loops of {ROUNDS} rounds, {A_ROUND} answers a round, {AUDIT:.0%} audited; {sabotaged} of "
        f"{challengers} challengers were made worse on purpose (labels flipped, only what was doubted, an "
        f"exaggerating map); {sum(item.promoted for item in found)} promotions"
    )
    return [
        Row(
            "worse challengers promoted",
            sum(item.worse_promoted for item in found),
            "",
            "<= 0",
            f"worse than the one in force by more than the gate's margin of log-loss, over all answers; {how}",
        ),
        Row(
            "challengers that would have harmed",
            sum(item.harmful for item in found),
            "",
            "",
            f"worse by more than the margin, promoted or not; {how}",
        ),
        Row(
            "largest loss by a promotion",
            max(item.largest_loss for item in found),
            "nats",
            "",
            f"log-loss over all answers, new minus old; {how}",
        ),
    ]


class World:
    """A finite set of answers as the whole truth."""

    def __init__(self, answers: Sequence[LabeledOutcome]) -> None:
        self.pairs = [(raw(item), not item.right) for item in answers]
        self._ordered = sorted(self.pairs, reverse=True)
        self._known: dict[float, tuple[float, float]] = {}

    def risk(self, threshold: float | None) -> float:
        """Share of wrong answers among those accepted."""
        return 0.0 if threshold is None else self._at(threshold)[0]

    def coverage(self, threshold: float | None) -> float:
        """Share accepted."""
        return 0.0 if threshold is None else self._at(threshold)[1]

    def _at(self, threshold: float) -> tuple[float, float]:
        if threshold not in self._known:
            kept = [wrong for score, wrong in self.pairs if score >= threshold]
            self._known[threshold] = fmean(kept) if kept else 0.0, len(kept) / len(self.pairs)
        return self._known[threshold]

    def oracle(self, risk: float) -> float:
        """The most that any threshold accepts within a risk."""
        wrong, best = 0, 0.0
        for i, (_, bad) in enumerate(self._ordered, 1):
            wrong += bad
            if wrong <= risk * i:
                best = i / len(self._ordered)
        return best


def routed(seen: Sequence[LabeledOutcome], audit: float, drawn: random.Random) -> list[LabeledOutcome]:
    """What people get to judge of the traffic."""
    found = []
    for i, item in enumerate(seen):
        if raw(item) < REVIEW_BELOW:
            found.append(item.model_copy(update={"id": f"{i}", "selection": "routed"}))
        elif drawn.random() < audit:
            found.append(item.model_copy(update={"id": f"{i}", "selection": "audit", "propensity": audit}))
    return found


def _made(labels: Sequence[LabeledOutcome]) -> CalibrationBundle:
    return calibrate(prepare(labels, action=ACTION), created_at=NOW, method="beta").bundle


def _timed(answers: Sequence[LabeledOutcome], *, later: bool = False) -> list[LabeledOutcome]:
    start = NOW + timedelta(days=30 if later else 0)
    return [
        item.model_copy(update={"id": f"{later}-{i}", "time": start + timedelta(minutes=i)})
        for i, item in enumerate(answers)
    ]


def _ece(chances: Sequence[float], answers: Sequence[LabeledOutcome]) -> float:
    return ece(chances, [bool(item.right) for item in answers], [1.0] * len(answers))


if __name__ == "__main__":
    main()
