"""Asks a model questions with every signal read, and compares the signals: which one knows when the answer is wrong."""

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from benchmarks._questions import AnswerFormat, Item, groups, is_right
from wonder.engine import Request, TraceEngine
from wonder.errors import WonderError
from wonder.learning.scoring import brier, ece
from wonder.learning.selective import aurc, e_aurc, prr, review_below, review_least
from wonder.probes.metrics import auroc, estimate
from wonder.trace.capture import ThoughtCapture
from wonder.trace.sampling import Sampling
from wonder.trace.schema import ThoughtTrace
from wonder.trace.signals import SIGNALS, read_signal

CHUNK = 512
UNKNOWN = -1.0
"""Where a signal is unknown it ranks below every number: unknown is never fine."""


@dataclass(frozen=True)
class Asked:
    """One question, answered."""

    item: Item
    right: bool
    signals: Mapping[str, float | None]


@dataclass(frozen=True)
class Standing:
    """How one signal did."""

    signal: str
    scale: str
    """`probability`, or `rank` for one that only orders answers."""
    unknown: int
    """Answers for which it could not be had."""
    auroc: float
    auroc_low: float
    auroc_high: float
    """2.5 and 97.5 % quantiles over bootstrap draws."""
    prr_50: float
    aurc: float
    e_aurc: float
    ece: float | None
    """15 bins of equal count, over the answers for which it is known; None for a rank."""
    brier: float | None
    caught_at_threshold: float
    """Share of wrong answers below the threshold, which says something of a rank only in that it shows its scale."""
    reviewed_at_threshold: float
    risk_at_threshold: float | None
    """Share of wrong answers among those at or above it; None where there are none."""
    caught_at_budget: float
    """Share of wrong answers among the least sure that the budget allows to be reviewed."""


@dataclass(frozen=True)
class Leaderboard:
    """All signals on one set of questions, best first by PRR@50."""

    name: str
    model: str
    questions: int
    wrong: int
    threshold: float
    budget: float
    groups: Mapping[str, Mapping[str, float]]
    """Group → questions, and share of right answers."""
    standings: Sequence[Standing]
    never_read: Mapping[str, str]
    """Signal that no answer had → why."""

    def as_dict(self) -> dict[str, Any]:
        """As it is written to disk."""
        return _rounded(asdict(self))

    def of(self, signal: str) -> Standing:
        """The standing of one signal."""
        return next(found for found in self.standings if found.signal == signal)


def everything() -> ThoughtCapture:
    """Settings that read what any registered signal needs."""
    needs = [signal.needs.split("=", 1) for signal in SIGNALS.values() if signal.needs]
    wanted: dict[str, Any] = {setting: ast.literal_eval(value) for setting, value in needs}
    return ThoughtCapture(**{"attention_layers": "all", **wanted})


def ask(
    engine: TraceEngine,
    items: Sequence[Item],
    *,
    max_new_tokens: int,
    answer_format: AnswerFormat = "text",
    loose: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> tuple[list[Asked], dict[str, str]]:
    """Answer every item greedily, and read every signal.

    Returns:
        The answers in the order of the items, and why a signal could not be had at its last refusal.

    Raises:
        WonderError: A prompt that cannot be answered; the message says which.
    """
    sampling, capture = Sampling(max_new_tokens=max_new_tokens, seed=1), everything()
    asked: list[Asked] = []
    reasons: dict[str, str] = {}
    for start in range(0, len(items), CHUNK):
        part = items[start : start + CHUNK]
        messages = engine.generate(
            [
                Request(item.prompt, "answer", sampling=sampling, capture=capture, answer_format=answer_format)
                for item in part
            ]
        )
        for number, (item, message) in enumerate(zip(part, messages, strict=True), start=start + 1):
            if isinstance(message, WonderError):
                raise type(message)(f"question {number}: {message}")
            assert message.thought_trace is not None
            signals, unknown = _signals(message.thought_trace)
            reasons |= unknown
            asked.append(Asked(item, is_right(message.text, item, answer_format, loose=loose), signals))
        progress(len(asked))
    return asked, reasons


def leaderboard(
    name: str,
    model: str,
    asked: Sequence[Asked],
    reasons: Mapping[str, str],
    *,
    threshold: float = 0.7,
    budget: float = 0.3,
    draws: int = 200,
) -> Leaderboard:
    """Compare the signals.

    Raises:
        ValueError: All answers are right, or all are wrong: no signal can tell them apart.
    """
    right = [one.right for one in asked]
    if len(set(right)) < 2:
        said = "right" if right and right[0] else "wrong"
        raise ValueError(
            f"all {len(right)} answers are {said}, so there is nothing to tell apart: wanted questions of which the "
            "model gets some right and some wrong (do prompts and answers have the form this model knows?)"
        )
    had = [signal for signal in SIGNALS if any(one.signals[signal] is not None for one in asked)]
    standings = [_standing(signal, asked, right, threshold, budget, draws) for signal in had]
    return Leaderboard(
        name=name,
        model=model,
        questions=len(asked),
        wrong=right.count(False),
        threshold=threshold,
        budget=budget,
        groups={group: _share_right(group, asked) for group in groups(one.item for one in asked)},
        standings=sorted(standings, key=lambda found: -found.prr_50),
        never_read={signal: reasons.get(signal, "") for signal in SIGNALS if signal not in had},
    )


def best_elsewhere(
    metric: Callable[[Sequence[float], Sequence[bool]], float], asked: Sequence[Asked]
) -> tuple[float, tuple[str, str]]:
    """A metric of the signal that is best by it, chosen on one half of the answers and measured on the other.

    Returns:
        The mean over both ways round, and the two signals chosen.
    """
    halves = (asked[::2], asked[1::2])
    found, chosen = [], []
    for train, test in (halves, halves[::-1]):
        best = max(SIGNALS, key=lambda signal: metric(_confidence(signal, train), [one.right for one in train]))
        chosen.append(best)
        found.append(metric(_confidence(best, test), [one.right for one in test]))
    return sum(found) / 2, (chosen[0], chosen[1])


def table(board: Leaderboard) -> str:
    """The leaderboard as aligned text."""
    head = (
        *("signal", "AUROC", "(95 %)", "PRR@50", "AURC", "E-AURC", "ECE", "Brier"),
        *(f"caught<{board.threshold:g}", "reviewed", "risk left", f"caught@{board.budget:.0%}"),
    )
    lines = [head]
    for found in board.standings:
        lines.append(
            (
                found.signal,
                _number(found.auroc),
                f"{_number(found.auroc_low)}-{_number(found.auroc_high)}",
                *map(_number, (found.prr_50, found.aurc, found.e_aurc, found.ece, found.brier)),
                *map(
                    _percent,
                    (
                        found.caught_at_threshold,
                        found.reviewed_at_threshold,
                        found.risk_at_threshold,
                        found.caught_at_budget,
                    ),
                ),
            )
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    told = [f"{board.name}: {board.questions} questions, {board.wrong} answered wrong ({board.model})"]
    for group, share in board.groups.items():
        if group:
            told.append(f"  {group}: {share['questions']:.0f} questions, {share['right']:.1%} right")
    told += [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    told += [
        f"  {found.signal} was unknown for {found.unknown} of {board.questions}"
        for found in board.standings
        if found.unknown
    ]
    told += [f"  {signal} was never read: {why}" for signal, why in board.never_read.items()]
    return "\n".join(told)


def _standing(
    signal: str, asked: Sequence[Asked], right: Sequence[bool], threshold: float, budget: float, draws: int
) -> Standing:
    confidence = _confidence(signal, asked)
    area = estimate(auroc, torch.tensor(confidence, dtype=torch.float64), torch.tensor(right), draws=draws)
    scale = SIGNALS[signal].scale
    known = _known(confidence, right)
    is_probability = scale == "probability"
    below, least = review_below(confidence, right, threshold), review_least(confidence, right, budget)
    assert below.errors_caught is not None
    assert least.errors_caught is not None
    return Standing(
        signal=signal,
        scale=scale,
        unknown=confidence.count(UNKNOWN),
        auroc=area.value,
        auroc_low=area.low,
        auroc_high=area.high,
        prr_50=prr(confidence, right),
        aurc=aurc(confidence, right),
        e_aurc=e_aurc(confidence, right),
        ece=ece(*known) if is_probability else None,
        brier=brier(*known) if is_probability else None,
        caught_at_threshold=below.errors_caught,
        reviewed_at_threshold=below.reviewed,
        risk_at_threshold=below.risk,
        caught_at_budget=least.errors_caught,
    )


def _signals(trace: ThoughtTrace) -> tuple[dict[str, float | None], dict[str, str]]:
    read = {signal: read_signal(signal, trace) for signal in SIGNALS}
    values = {signal: found.value for signal, found in read.items()}
    return values, {signal: found.reason for signal, found in read.items() if found.reason}


def _confidence(signal: str, asked: Sequence[Asked]) -> list[float]:
    values = (one.signals[signal] for one in asked)
    return [UNKNOWN if value is None else value for value in values]


def _known(confidence: Sequence[float], right: Sequence[bool]) -> tuple[list[float], list[bool], list[float]]:
    """Confidences and outcomes where the signal is known, and equal weights."""
    places = [place for place, said in enumerate(confidence) if said != UNKNOWN]
    return [confidence[place] for place in places], [right[place] for place in places], [1.0] * len(places)


def _share_right(group: str, asked: Sequence[Asked]) -> dict[str, float]:
    inside = [one.right for one in asked if one.item.group == group]
    return {"questions": len(inside), "right": sum(inside) / len(inside)}


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _rounded(found: Any) -> Any:
    if isinstance(found, float):
        return round(found, 6)
    if isinstance(found, dict):
        return {key: _rounded(value) for key, value in found.items()}
    if isinstance(found, list | tuple):
        return [_rounded(value) for value in found]
    return found


def without(group: str, asked: Sequence[Asked]) -> list[Asked]:
    """The answers outside one group."""
    return [one for one in asked if one.item.group != group]
