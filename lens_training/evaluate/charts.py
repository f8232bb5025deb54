"""Curves as inline SVG that takes its colours from the page."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from lens_training.evaluate.page import key

WIDTH: Final = 360
HEIGHT: Final = 205
LEFT: Final = 42
RIGHT: Final = 12
TOP: Final = 10
BOTTOM: Final = 34
MOST_POINTS: Final = 400


@dataclass(frozen=True)
class Curve:
    """Points in ascending order of x."""

    name: str
    points: Sequence[tuple[float, float]]
    kind: str = "lens"
    """Class that gives the colour."""
    band: Sequence[tuple[float, float, float]] = ()
    """(x, low, high)."""
    dots: bool = False


@dataclass(frozen=True)
class Axis:
    """What a direction means."""

    title: str = ""
    log: bool = False
    low: float | None = None
    high: float | None = None
    ticks: Sequence[float] = ()


def chart(
    title: str, curves: Sequence[Curve], across: Axis, up: Axis, *, note: str = "", lines: Sequence[float] = ()
) -> str:
    """A figure with its caption; `lines` are drawn upright, such as where a phase begins. Nothing where no point is."""
    drawn = [curve for curve in curves if curve.points]
    if not drawn:
        return ""
    xs = [x for curve in drawn for x, _ in curve.points]
    ys = [y for curve in drawn for _, y in curve.points] + [
        y for c in drawn for _, low, high in c.band for y in (low, high)
    ]
    x_scale, y_scale = _Scale(across, xs, LEFT, WIDTH - RIGHT), _Scale(up, ys, HEIGHT - BOTTOM, TOP)
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">']
    for tick in y_scale.ticks:
        at = y_scale(tick)
        parts.append(f'<line class=grid x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at}" y2="{at}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4}" text-anchor="end">{_short(tick)}</text>')
    for tick in x_scale.ticks:
        at = x_scale(tick)
        anchor = "end" if at > WIDTH - RIGHT - 12 else "middle"
        parts.append(f'<text x="{at}" y="{HEIGHT - BOTTOM + 15}" text-anchor="{anchor}">{_short(tick)}</text>')
    parts += [
        f'<line class=phase x1="{x_scale(at)}" x2="{x_scale(at)}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        for at in lines
        if x_scale.low < at < x_scale.high
    ]
    for curve in drawn:
        parts += _drawn(curve, x_scale, y_scale)
    if across.title:
        middle = (LEFT + WIDTH - RIGHT) / 2
        parts.append(f'<text x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">{escape(across.title)}</text>')
    small = f"<small>{escape(note)}</small>" if note else ""
    names = key((curve.kind, curve.name) for curve in drawn) if len(drawn) > 1 else ""
    return f"<figure><figcaption>{escape(title)}{small}</figcaption>{names}{''.join(parts)}</svg></figure>"


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most `MOST_POINTS`, each the mean of its neighbours."""
    size = math.ceil(len(points) / MOST_POINTS)
    pieces = [points[at : at + size] for at in range(0, len(points), max(1, size))]
    return [(sum(x for x, _ in piece) / len(piece), sum(y for _, y in piece) / len(piece)) for piece in pieces]


class _Scale:
    def __init__(self, axis: Axis, values: Sequence[float], begin: float, end: float) -> None:
        self._log, self._begin, self._end = axis.log, begin, end
        low = min(values) if axis.low is None else axis.low
        high = max(values) if axis.high is None else axis.high
        if axis.log:
            low, high = max(low, 1e-12), max(high, 1e-12)
        if high <= low:
            low, high = (low / 2, low * 2) if axis.log else (low - 0.5, low + 0.5)
        elif axis.low is None and not axis.log:
            step = _step(high - low)
            low = math.floor(low / step) * step
            high = math.ceil(high / step) * step if axis.high is None else high
        self.low, self.high = low, high
        self.ticks = [tick for tick in axis.ticks or self._found() if low <= tick <= high * (1 + 1e-9)]

    def __call__(self, value: float) -> float:
        low, high, value = self.low, self.high, min(self.high, max(self.low, value))
        share = math.log(value / low) / math.log(high / low) if self._log else (value - low) / (high - low)
        return round(self._begin + share * (self._end - self._begin), 1)

    def _found(self) -> list[float]:
        if self._log:
            return [
                10.0**power for power in range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            ]
        step = _step(self.high - self.low)
        first = math.ceil(self.low / step - 1e-9)
        return [round(at * step, 10) for at in range(first, math.floor(self.high / step + 1e-9) + 1)]


def _step(span: float) -> float:
    """A round number of which four or five fill the span."""
    power: float = 10.0 ** math.floor(math.log10(span / 4))
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor * 5 >= span)


def _drawn(curve: Curve, x: _Scale, y: _Scale) -> list[str]:
    path = " ".join(f"{x(a)},{y(b)}" for a, b in curve.points)
    parts = [f"<g class={curve.kind}>"]
    if curve.band:
        there = [f"{x(at)},{y(high)}" for at, _, high in curve.band]
        back = [f"{x(at)},{y(low)}" for at, low, _ in reversed(curve.band)]
        parts.append(f'<polygon class=band fill="currentColor" points="{" ".join(there + back)}"/>')
    if len(curve.points) > 1:
        parts.append(f'<polyline class=curve stroke="currentColor" points="{path}"/>')
    if curve.dots or len(curve.points) == 1:
        parts += [f'<circle cx="{x(a)}" cy="{y(b)}" r="3.2" fill="currentColor"/>' for a, b in curve.points]
    return [*parts, "</g>"]


def _short(value: float) -> str:
    text = f"{value / 1000:g}k" if abs(value) >= 10_000 else f"{value:,.6g}"
    return text.replace("-", "−")
