"""Load against error as SVG: what each threshold on the confidence would mean, and where two tables lie."""

from collections.abc import Callable
from html import escape
from typing import Final

from wonder.history.backtest import Backtest, CurvePoint, Policy

WIDTH: Final = 560
HEIGHT: Final = 340
LEFT: Final = 64
TOP: Final = 58
BOTTOM: Final = 52
ROUND: Final = (0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0)
"""Upper ends of the axis of errors."""
INK, FAINT, LINE, TODAY, PROPOSED = "#222222", "#d5d8dc", "#5d6d7e", "#b9770e", "#1f618d"


def load_error_svg(found: Backtest) -> str:
    """The picture of a backtest: across, the share sent to people; upwards, the error among the accepted."""
    points = [point for point in found.curve if point.error is not None]
    highest = _highest(found, points)

    def x(load: float) -> float:
        return round(LEFT + load * WIDTH, 1)

    def y(error: float) -> float:
        return round(TOP + HEIGHT * (1 - min(error, highest) / highest), 1)

    title = f"{found.today.decisions:,} decisions: review load against error"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 40}" height="{TOP + HEIGHT + BOTTOM}" '
        f'viewBox="0 0 {LEFT + WIDTH + 40} {TOP + HEIGHT + BOTTOM}" font-family="system-ui, sans-serif" font-size="12" '
        f'fill="{INK}" role="img" aria-label="{escape(title)}">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-size="14" font-weight="600">{escape(title)}</text>',
        f'<text x="{LEFT}" y="40" fill="{LINE}">line: accepting from one confidence on · bars: 95 % interval</text>',
    ]
    for tick in range(6):
        share, error = tick / 5, highest * tick / 5
        parts += [
            f'<line x1="{x(share)}" y1="{TOP}" x2="{x(share)}" y2="{TOP + HEIGHT}" stroke="{FAINT}"/>',
            f'<line x1="{LEFT}" y1="{y(error)}" x2="{LEFT + WIDTH}" y2="{y(error)}" stroke="{FAINT}"/>',
            f'<text x="{x(share)}" y="{TOP + HEIGHT + 18}" text-anchor="middle">{share:.0%}</text>',
            f'<text x="{LEFT - 8}" y="{y(error) + 4}" text-anchor="end">{error:.1%}</text>',
        ]
    if len(points) > 1:
        path = " ".join(f"{x(point.load)},{y(point.error or 0.0)}" for point in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{LINE}" stroke-width="1.5"/>')
    # The curve falls to the right, so there is room above a point; below it where two labels would meet.
    apart = abs(found.today.load - found.proposed.load) > 0.25
    right = found.today.load >= found.proposed.load
    parts += _mark(found.today, "today", TODAY, x, y, above=apart or right)
    parts += _mark(found.proposed, "proposed", PROPOSED, x, y, above=apart or not right)
    parts += [
        f'<text x="{LEFT + WIDTH / 2}" y="{TOP + HEIGHT + 40}" text-anchor="middle">sent to a person</text>',
        f'<text transform="translate(16 {TOP + HEIGHT / 2}) rotate(-90)" text-anchor="middle">'
        "wrong among the accepted</text>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _highest(found: Backtest, points: list[CurvePoint]) -> float:
    shown = [point.error or 0.0 for point in points]
    shown += [policy.error.high for policy in (found.today, found.proposed) if policy.error.value is not None]
    top = max(0.005, *shown) if shown else 0.05
    # The next round number: five even steps of it are readable too.
    return next(step for step in ROUND if step >= top)


def _mark(
    policy: Policy,
    name: str,
    color: str,
    x: Callable[[float], float],
    y: Callable[[float], float],
    *,
    above: bool,
) -> list[str]:
    side = 1 if policy.load < 0.3 or (above and policy.load < 0.6) else -1
    if policy.error.value is None:
        at = x(policy.load)
        return [
            f'<line x1="{at}" y1="{TOP}" x2="{at}" y2="{TOP + HEIGHT}" stroke="{color}" stroke-dasharray="4 4"/>',
            _label(at + 6 * side, TOP + (14 if above else 30), side, color, f"{name}: error not known"),
        ]
    at, middle = x(policy.load), y(policy.error.value)
    low, high = y(policy.error.low), y(policy.error.high)
    told = f"{name}: {policy.load:.1%} · {policy.error.value:.1%}"
    return [
        f'<line x1="{at}" y1="{low}" x2="{at}" y2="{high}" stroke="{color}" stroke-width="2"/>',
        f'<circle cx="{at}" cy="{middle}" r="5" fill="{color}"/>',
        _label(at + 10 * side, middle + (-10 if above else 20), side, color, told),
    ]


def _label(x: float, y: float, side: int, color: str, told: str) -> str:
    anchor = "start" if side > 0 else "end"
    return f'<text x="{x}" y="{y}" fill="{color}" font-weight="600" text-anchor="{anchor}">{told}</text>'
