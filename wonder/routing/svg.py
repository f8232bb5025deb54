"""A table as an SVG picture that stands alone: no script, no outside font, light and dark."""

from html import escape

from wonder.routing.drawing import Arrow, Node, arrows, nodes
from wonder.routing.layout import Box, Wire, layout
from wonder.routing.transition import TableSpec

MARGIN = 18.0
NODE_CHAR, NODE_HEIGHT = 8.6, 34.0
PORT = 9.0
"""Distance of arrows that meet one side of a node."""
LABEL_CHAR, LABEL_LINE = 6.65, 14.5
"""Width of a character of the monospaced label font at 11 px, with a little to spare; height of a line."""

STYLE = """
svg{--ink:#1f2933;--line:#64748b;--paper:#fff;--label:#f8fafc;--edge:#cbd5e1;--action:#e0ecff;--review:#fff0d1;
--end:#e3f4e7;--soft:#94a3b8;--bad:#c2410c}
@media(prefers-color-scheme:dark){svg{--ink:#e5e9f0;--line:#9aa7b8;--paper:#14181f;--label:#1c222c;--edge:#3b4656;
--action:#1d3557;--review:#5a4414;--end:#1f4a2c;--soft:#7b8798;--bad:#fb923c}}
.paper{fill:var(--paper)}
.node{stroke:var(--line);stroke-width:1.2}.first{stroke-width:2.6}
.action{fill:var(--action)}.review{fill:var(--review)}.end{fill:var(--end)}
text{fill:var(--ink);font:600 13px ui-sans-serif,system-ui,"Segoe UI",Helvetica,Arial,sans-serif}
.label text{font:11px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;white-space:pre}
.label rect{fill:var(--label);stroke:var(--edge)}
path{fill:none;stroke:var(--line);stroke-width:1.4}marker path{fill:var(--line);stroke:none}
.unknown path,.budget path{stroke:var(--soft);stroke-dasharray:5 4}.unknown rect,.budget rect{stroke-dasharray:4 3}
.error path,.error rect{stroke:var(--bad);stroke-dasharray:5 4}
"""


def svg(spec: TableSpec) -> str:
    """The picture: actions as boxes, reviews and ends as rounded ones, conditions on the arrows.

    Numbers before conditions say in which order the rows are looked at. Dashed arrows are taken when something is
    unknown, fails, or the budget is spent.
    """
    drawn, ways = nodes(spec), arrows(spec)
    at = {node.name: number for number, node in enumerate(drawn)}
    sizes = [(max(70.0, len(node.name) * NODE_CHAR + 26), _height(node, ways)) for node in drawn]
    labels = [(max(len(line) for line in way.label) * LABEL_CHAR + 12, len(way.label) * LABEL_LINE + 6) for way in ways]
    boxes, wires = layout(sizes, [(at[way.source], at[way.target]) for way in ways], labels)
    width = max(box.x + box.width for box in boxes) + 2 * MARGIN
    height = max(box.y + box.height / 2 for box in boxes) + 2 * MARGIN
    ports = _ports(boxes, wires)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}">',
        f"<title>{escape(spec.name or 'transition table')}</title>",
        f"<style>{STYLE}</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto-start-reverse"><path d="M0 .6 8 4 0 7.4z"/></marker></defs>',
        '<rect class="paper" width="100%" height="100%"/>',
        f'<g transform="translate({MARGIN:.0f} {MARGIN:.0f})">',
        *(_arrow(number, way, wire, boxes, ports) for number, (way, wire) in enumerate(zip(ways, wires, strict=True))),
        *(_label(way, boxes[len(drawn) + number]) for number, way in enumerate(ways)),
        *(_node(node, box, first=number == 0) for number, (node, box) in enumerate(zip(drawn, boxes, strict=False))),
        "</g></svg>\n",
    ]
    return "\n".join(parts)


def _height(node: Node, ways: list[Arrow]) -> float:
    """Enough for the arrows of the fuller side to be told apart."""
    out = sum((way.source == node.name) + (way.source == way.target == node.name) for way in ways)
    into = sum(way.target == node.name for way in ways)
    return max(NODE_HEIGHT, max(out, into) * PORT + 12)


Ports = dict[tuple[int, int, bool], float]
"""(wire, piece of it, whether at its start) → the height at which it meets the box there."""


def _ports(boxes: list[Box], wires: list[Wire]) -> Ports:
    """Spread the wires that meet a node over its side, in the order of where they come from."""
    sides: dict[tuple[int, bool], list[tuple[float, int, int, bool]]] = {}
    for number, wire in enumerate(wires):
        for piece, (one, other) in enumerate(zip(wire.boxes, wire.boxes[1:], strict=False)):
            for here, there, at_start in ((one, other, True), (other, one, False)):
                right = boxes[there].layer > boxes[here].layer
                sides.setdefault((here, right), []).append((boxes[there].y, number, piece, at_start))
    found: Ports = {}
    for (here, _), met in sides.items():
        room = max(boxes[here].height - 8, 0.0)
        for rank, (_, number, piece, at_start) in enumerate(sorted(met)):
            found[(number, piece, at_start)] = boxes[here].y + ((rank + 1) / (len(met) + 1) - 0.5) * room
    return found


def _arrow(number: int, way: Arrow, wire: Wire, boxes: list[Box], ports: Ports) -> str:
    pieces = []
    for piece, (one, other) in enumerate(zip(wire.boxes, wire.boxes[1:], strict=False)):
        a, b = boxes[one], boxes[other]
        forward = b.layer > a.layer
        x0, x1 = (a.x + a.width, b.x) if forward else (a.x, b.x + b.width)
        y0, y1 = ports[(number, piece, True)], ports[(number, piece, False)]
        tip = ' marker-end="url(#tip)"' if piece == len(wire.boxes) - 2 else ""
        # Along its own row to the edge of the column, across the gap, and along the row again.
        c0, c1 = (a.right, b.left) if forward else (a.left, b.right)
        middle = (c0 + c1) / 2
        run_up, run_out = f"H{c0:.1f}" if x0 != c0 else "", f"H{x1:.1f}" if x1 != c1 else ""
        bend = f"C{middle:.1f} {y0:.1f} {middle:.1f} {y1:.1f} {c1:.1f} {y1:.1f}"
        curve = f"M{x0:.1f} {y0:.1f}{run_up}{bend}{run_out}"
        pieces.append(f'<path d="{curve}"{tip}/>')
    return f'<g class="{way.kind}">{"".join(pieces)}</g>'


def _label(way: Arrow, label: Box) -> str:
    top = label.y - label.height / 2
    lines = "".join(
        f'<text x="{label.x + 6:.1f}" y="{top + 3 + (rank + 0.76) * LABEL_LINE:.1f}" xml:space="preserve">'
        f"{escape(line)}</text>"
        for rank, line in enumerate(way.label)
    )
    box = f'<rect x="{label.x:.1f}" y="{top:.1f}" width="{label.width:.1f}" height="{label.height:.1f}" rx="4"/>{lines}'
    return f'<g class="{way.kind} label">{box}</g>'


def _node(node: Node, box: Box, *, first: bool) -> str:
    rounding = 6 if node.kind == "action" else min(box.height / 2, 22.0)
    shape = (
        f'<rect class="node {node.kind}{" first" if first else ""}" x="{box.x:.1f}" y="{box.y - box.height / 2:.1f}" '
        f'width="{box.width:.1f}" height="{box.height:.1f}" rx="{rounding:.0f}"/>'
    )
    name = (
        f'<text x="{box.x + box.width / 2:.1f}" y="{box.y + 4.5:.1f}" text-anchor="middle">{escape(node.name)}</text>'
    )
    return f"<g>{shape}{name}</g>"
