"""The parts that every page about lenses is made of: its frame, its style, figures as text and as marks on a line."""

from collections.abc import Iterable
from html import escape
from typing import Final

from lens_training.evaluate.record import Figure

STYLE: Final = """
:root { color-scheme: light dark; --paper:#fdfdfb; --ink:#1c2024; --soft:#5d666f; --line:#dfe2e1; --fill:#f2f3f0;
 --lens:#1f5fa6; --other_texts:#b4471b; --true_words:#17745f; --no_text:#6f6a86; --warn:#8a5a00; --warnfill:#fdf3dc;
 --bad:#a61f2b; --badfill:#fbe6e6; --good:#1d6b3c; --mark:#fff1b8 }
@media (prefers-color-scheme: dark) { :root { --paper:#15181b; --ink:#e7e9ea; --soft:#9aa4ad; --line:#30363b;
 --fill:#1d2226;
 --lens:#74b0f4; --other_texts:#f0986d; --true_words:#5cc9ae; --no_text:#b3acd4; --warn:#e6b95c; --warnfill:#2c2412;
 --bad:#ff8a8f; --badfill:#381a1d; --good:#6fce93; --mark:#4a4016 } }
* { box-sizing: border-box }
html { -webkit-text-size-adjust: 100% }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, "Segoe UI", sans-serif }
main { max-width: 78rem; margin: 0 auto; padding: 1.6rem 1.1rem 4rem }
h1 { font: 600 1.75rem/1.2 Charter, "Bitstream Charter", Georgia, serif; margin: 0 0 .3rem; overflow-wrap: anywhere }
h2 { font: 600 1.28rem/1.25 Charter, "Bitstream Charter", Georgia, serif; margin: 2.9rem 0 .35rem;
 padding-top: .9rem; border-top: 1px solid var(--line) }
h3 { font-size: .95rem; margin: 1.1rem 0 .3rem }
p { margin: .45rem 0; max-width: 46rem } .soft, small { color: var(--soft) } small { font-size: .84rem }
.lead { font: 1.13rem/1.5 Charter, "Bitstream Charter", Georgia, serif; max-width: 46rem; margin: .9rem 0 }
code { font: .88em ui-monospace, "SF Mono", Menlo, monospace; overflow-wrap: anywhere }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(10.5rem, 1fr)); gap: .7rem; margin: 1.2rem 0 }
.tile { background: var(--fill); border-radius: 10px; padding: .75rem .95rem .8rem }
.tile b { display: block; font: 600 1.72rem/1.15 Charter, Georgia, serif; font-variant-numeric: tabular-nums }
.tile span { display: block; font-size: .84rem; color: var(--soft); line-height: 1.4 }
.tile span:first-child { color: var(--ink); font-weight: 600 }
.say { margin: .5rem 0; padding: .55rem .9rem; border-left: 3px solid var(--warn); background: var(--warnfill);
 max-width: none;
 border-radius: 0 8px 8px 0 }
.say.bad { border-color: var(--bad); background: var(--badfill); font-weight: 600 }
.say.good { border-color: var(--good); background: var(--fill) }
.wide { overflow-x: auto; margin: .8rem -1.1rem; padding: 0 1.1rem }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .88rem }
th { text-align: left; font-weight: 600 } td, th { padding: .3rem .42rem; vertical-align: top; border-bottom: 1px
 solid var(--line) }
thead th { color: var(--soft); font-weight: 500; font-size: .8rem; line-height: 1.25; vertical-align: bottom }
.n { text-align: right; white-space: nowrap } .n small { display: block; font-size: .76rem }
.what { min-width: 14rem; line-height: 1.3 } .what small { display: block; font-size: .78rem; line-height: 1.32;
 margin-top: .1rem }
.what.name { min-width: 7rem }
.head td { border-bottom: 0; padding-top: 1.15rem; font-weight: 600; font-size: .82rem }
.strong td { background: var(--fill); font-weight: 600 } .strong small { font-weight: 400 }
.track { position: relative; height: 1.35rem; min-width: 9.5rem;
 background: linear-gradient(var(--line), var(--line)) 0 50% / 100% 1px no-repeat }
.track i { position: absolute; top: 0; bottom: 0; width: 1px; background: var(--line) }
.track i.zero { background: var(--soft) }
.track s { position: absolute; top: .55rem; height: .25rem; border-radius: 2px; background: currentColor; opacity:
 .45 }
.track b { position: absolute; top: .36rem; width: .63rem; height: .63rem; margin-left: -.315rem; border-radius: 50%;
 background: currentColor; border: 1.5px solid var(--paper) }
.track u { position: absolute; top: .1rem; bottom: .1rem; width: 0; border-left: 2px dashed var(--soft) }
.axis { position: relative; height: 1rem; min-width: 9.5rem; font-size: .72rem; color: var(--soft); font-weight: 400 }
.axis span { position: absolute; transform: translateX(-50%) } .axis span:first-child { transform: none }
.axis span:last-child { transform: translateX(-100%) }
.lens { color: var(--lens) } .other_texts { color: var(--other_texts) } .true_words { color: var(--true_words) }
.no_text { color: var(--no_text) }
figure table { font-size: .84rem } figure .track, figure .axis { min-width: 6rem } figure td { white-space: nowrap }
figure td.what { white-space: normal; min-width: 8.5rem } figure .wide { margin: 0; padding: 0 }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(19rem, 100%), 1fr)); gap: 1.1rem 1.6rem;
 margin: 1rem 0 }
figure { margin: 0; min-width: 0 } figcaption { font-weight: 600; font-size: .9rem; margin-bottom: .15rem }
figcaption small { font-weight: 400; display: block }
svg { display: block; width: 100%; height: auto; font: 11px system-ui, sans-serif; fill: var(--soft) }
svg .grid { stroke: var(--line); stroke-width: 1 } svg .curve { fill: none; stroke-width: 1.8; stroke-linejoin: round
 }
svg .band { opacity: .16; stroke: none } svg .phase { stroke: var(--soft); stroke-dasharray: 3 3 }
svg .ink { fill: var(--ink) }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(21.5rem, 100%), 1fr)); gap: .8rem;
 margin: .8rem 0 }
.card { border: 1px solid var(--line); border-radius: 10px; padding: .7rem .9rem .75rem; min-width: 0; display: flex;
 flex-direction: column }
.card .from { color: var(--soft); font-size: .86rem; line-height: 1.42; overflow-wrap: anywhere }
.card .from mark { background: var(--mark); color: var(--ink); border-radius: 3px; padding: 0 .2em }
.card .says { font: 600 1.03rem/1.4 Charter, Georgia, serif; margin: .45rem 0 .15rem; overflow-wrap: anywhere;
 white-space: pre-wrap }
.card .also { font-size: .85rem; color: var(--soft); overflow-wrap: anywhere }
.card dl { display: grid; grid-template-columns: auto 1fr; gap: .05rem .6rem; font-size: .8rem; margin: .5rem 0 0;
 padding-top: .45rem;
 border-top: 1px solid var(--line); font-variant-numeric: tabular-nums }
.card .also { margin-bottom: auto } .card .says:last-of-type { margin-bottom: auto }
.card dt { color: var(--soft) } .card dd { margin: 0; overflow-wrap: anywhere }
.key { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; font-size: .84rem; margin: .3rem 0 }
.key span::before { content: ""; display: inline-block; width: .65rem; height: .65rem; border-radius: 50%;
 background: currentColor;
 margin-right: .4rem }
details { margin: .6rem 0 } summary { cursor: pointer; font-weight: 600 }
.facts { display: grid; grid-template-columns: minmax(7rem, 12rem) 1fr; gap: .15rem 1rem; font-size: .88rem }
.facts dt { color: var(--soft); overflow-wrap: anywhere } .facts dd { margin: 0; overflow-wrap: anywhere }
@media (max-width: 40rem) { .what { min-width: 10.5rem } h1 { font-size: 1.45rem } .tiles { grid-template-columns:
 1fr 1fr }
 .tile b { font-size: 1.45rem } .facts { grid-template-columns: 8rem 1fr } .track, .axis { min-width: 8.5rem } }
@media print { .card, figure, tr { break-inside: avoid } }
"""
POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
"""Nothing is loaded and nothing runs, whatever a text may hold."""


def page(title: str, body: Iterable[str]) -> str:
    """A whole page, with nothing to load."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>{''.join(body)}</main></body></html>\n"
    )


def number(value: float, digits: int = 3) -> str:
    """With a real minus sign, and no sign before a rounded zero."""
    text = f"{value:.{digits}f}"
    return f"−{text[1:]}" if text.startswith("-") and text.strip("-0.") else text.removeprefix("-")


def cell(found: Figure | None, digits: int = 3, *, signed: bool = False) -> str:
    """A table cell: the value, and under it its interval."""
    if found is None:
        return '<td class="n soft">–</td>'
    plus = "+" if signed and found.value > 0 else ""
    return f"<td class=n>{plus}{number(found.value, digits)}<small>{interval(found, digits)}</small></td>"


def interval(found: Figure, digits: int = 3) -> str:
    """The interval alone; a dash between numbers would be taken for a sign where one is below 0."""
    between = "–" if found.low >= 0 else " … "
    return f"{number(found.low, digits)}{between}{number(found.high, digits)}"


def track(
    found: Figure, low: float, high: float, group: str, marks: Iterable[float] = (), dashed: float | None = None
) -> str:
    """A figure as a dot on a line, with its interval; what lies outside is drawn at the edge."""

    def at(value: float) -> float:
        return round(100 * min(1.0, max(0.0, (value - low) / (high - low))), 2)

    lines = "".join(f'<i class="{"zero" if mark == 0 else ""}" style="left:{at(mark)}%"></i>' for mark in marks)
    other = "" if dashed is None else f'<u style="left:{at(dashed)}%"></u>'
    width = max(0.4, at(found.high) - at(found.low))
    return (
        f'<div class="track {group}" role="img" aria-label="{number(found.value)}">{lines}{other}'
        f'<s style="left:{at(found.low)}%;width:{width:.2f}%"></s><b style="left:{at(found.value)}%"></b></div>'
    )


def axis(low: float, high: float, marks: Iterable[float]) -> str:
    """The numbers over tracks."""
    numbers = ((100 * (mark - low) / (high - low), f"{mark:g}".replace("-", "−")) for mark in marks)
    return f'<div class=axis>{"".join(f"""<span style="left:{at:.2f}%">{text}</span>""" for at, text in numbers)}</div>'


def key(entries: Iterable[tuple[str, str]]) -> str:
    """Which colour is what: (class, name)."""
    return f"<div class=key>{''.join(f'<span class={kind}>{escape(name)}</span>' for kind, name in entries)}</div>"


def facts(entries: Iterable[tuple[str, str]]) -> str:
    """Names and values."""
    return (
        f"<dl class=facts>{''.join(f'<dt>{escape(name)}</dt><dd>{escape(value)}</dd>' for name, value in entries)}</dl>"
    )
