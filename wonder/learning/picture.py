"""A reliability picture as SVG: how often answers are right against how sure the model was of them."""

from collections.abc import Sequence
from html import escape

from wonder.calibration.bundle import CalibrationBundle
from wonder.learning.scoring import Bin

SIDE = 360
LEFT, TOP = 64, 56
RAW, CALIBRATED, INK, FAINT = "#b9770e", "#1f618d", "#222222", "#c8c8c8"


def reliability_svg(before: Sequence[Bin], after: Sequence[Bin], bundle: CalibrationBundle) -> str:
    """Both curves with the diagonal on which a confidence means what it says; points as large as their share."""
    held = bundle.held_out
    scores = ""
    if held is not None:
        raw = f"raw signal: ECE {held.before.ece:.3f}" if held.before else "raw signal"
        scores = _legend(raw, f"calibrated, held out: ECE {held.after.ece:.3f}")
    title = f"{bundle.action} · {bundle.model} · {bundle.signal} · {bundle.labels} labels"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{SIDE + LEFT + 24}" height="{SIDE + TOP + 56}" '
        f'font-family="sans-serif" font-size="12" fill="{INK}" role="img" aria-label="{escape(title)}">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-size="13">{escape(title)}</text>',
        scores,
        *(_grid(i / 5) for i in range(6)),
        f'<line x1="{_x(0)}" y1="{_y(0)}" x2="{_x(1)}" y2="{_y(1)}" stroke="{INK}" stroke-dasharray="4 4"/>',
        _curve(before, RAW),
        _curve(after, CALIBRATED),
        f'<text x="{_x(0.5)}" y="{_y(0) + 40}" text-anchor="middle">confidence</text>',
        f'<text transform="translate(18 {_y(0.5)}) rotate(-90)" text-anchor="middle">share of right answers</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _legend(raw: str, calibrated: str) -> str:
    return (
        f'<circle cx="{LEFT + 5}" cy="38" r="5" fill="{RAW}"/><text x="{LEFT + 16}" y="42">{raw}</text>'
        f'<circle cx="{LEFT + 160}" cy="38" r="5" fill="{CALIBRATED}"/>'
        f'<text x="{LEFT + 171}" y="42">{calibrated}</text>'
    )


def _grid(at: float) -> str:
    return (
        f'<line x1="{_x(0)}" y1="{_y(at)}" x2="{_x(1)}" y2="{_y(at)}" stroke="{FAINT}"/>'
        f'<line x1="{_x(at)}" y1="{_y(0)}" x2="{_x(at)}" y2="{_y(1)}" stroke="{FAINT}"/>'
        f'<text x="{_x(0) - 8}" y="{_y(at) + 4}" text-anchor="end">{at:.1f}</text>'
        f'<text x="{_x(at)}" y="{_y(0) + 18}" text-anchor="middle">{at:.1f}</text>'
    )


def _curve(bins: Sequence[Bin], colour: str) -> str:
    points = " ".join(f"{_x(item.confidence):.1f},{_y(item.accuracy):.1f}" for item in bins)
    dots = "".join(
        f'<circle cx="{_x(item.confidence):.1f}" cy="{_y(item.accuracy):.1f}" r="{3 + 12 * item.share**0.5:.1f}" '
        f'fill="{colour}" fill-opacity="0.75"/>'
        for item in bins
    )
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>{dots}'


def _x(value: float) -> float:
    return LEFT + SIDE * value


def _y(value: float) -> float:
    return TOP + SIDE * (1 - value)
