"""A layered layout, left to right: every node, and every label, has a place of its own.

Sugiyama's method: cycles are broken, nodes get layers, arrows that span layers are cut into pieces, the order within a
layer is swept towards few crossings, and the heights are those nearest to each one's neighbours that keep the distance
(pool-adjacent-violators). A label is a node between the two ends of its arrow, so no two labels can lie on each other.
Nothing is random: equal graphs give equal pictures.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

SWEEPS = 24
GAP_X, GAP_Y = 46.0, 16.0


@dataclass
class Box:
    """Something that takes up room: a node, a label, or the bend of a long arrow."""

    width: float
    height: float
    layer: int = 0
    x: float = 0.0
    """Of the left edge."""
    y: float = 0.0
    """Of the middle."""
    left: float = 0.0
    """Of the whole column; wires cross from column to column only between them."""
    right: float = 0.0
    before: list[int] = field(default_factory=list)
    """Neighbours one layer to the left."""
    after: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Wire:
    """An arrow's way through the boxes, from its source to its target."""

    boxes: tuple[int, ...]


def layout(
    sizes: Sequence[tuple[float, float]], arrows: Sequence[tuple[int, int]], labels: Sequence[tuple[float, float]]
) -> tuple[list[Box], list[Wire]]:
    """Place nodes and labels.

    Args:
        sizes: Width and height of each node; the first one is where a run begins.
        arrows: Source and target of each arrow, as indices of nodes.
        labels: Width and height of each arrow's label.

    Returns:
        The boxes (the nodes first, then the labels in the order of the arrows, then bends), and each arrow's wire.
    """
    layers = _layers(len(sizes), arrows)
    boxes = [Box(width, height, 2 * layer) for (width, height), layer in zip(sizes, layers, strict=True)]
    boxes += [Box(width, height) for width, height in labels]
    wires = [_wire(at, source, target, boxes, len(sizes)) for at, (source, target) in enumerate(arrows)]
    columns = _columns(boxes)
    _order(boxes, columns)
    _place(boxes, columns)
    return boxes, wires


def _layers(count: int, arrows: Sequence[tuple[int, int]]) -> list[int]:
    """The longest way to each node, arrows that lead back left out."""
    ways: dict[int, list[int]] = {}
    for source, target in arrows:
        ways.setdefault(source, []).append(target)
    back: set[tuple[int, int]] = set()
    done: set[int] = set()
    for root in range(count):
        _find_back(root, ways, back, done)
    found = [0] * count
    for _ in range(count):
        for source, target in arrows:
            if (source, target) not in back and source != target:
                found[target] = max(found[target], found[source] + 1)
    return found


def _find_back(root: int, ways: Mapping[int, Sequence[int]], back: set[tuple[int, int]], done: set[int]) -> None:
    """Arrows that lead to a node from which the walk has come (depth first, in the given order)."""
    if root in done:
        return
    path, todo = [root], [iter(ways.get(root, ()))]
    on_path = {root}
    while path:
        step = next(todo[-1], None)
        if step is None:
            done.add(path[-1])
            on_path.discard(path.pop())
            todo.pop()
        elif step in on_path:
            back.add((path[-1], step))
        elif step not in done:
            path.append(step)
            on_path.add(step)
            todo.append(iter(ways.get(step, ())))


def _wire(at: int, source: int, target: int, boxes: list[Box], nodes: int) -> Wire:
    """Cut an arrow into pieces of one layer each; its label stands beside its source."""
    label = nodes + at
    start, stop = boxes[source].layer, boxes[target].layer
    if start == stop:  # back to itself: the label stands to the right, and is reached and left on the same side
        boxes[label].layer = start + 1
        _link(boxes, source, label)
        return Wire((source, label, target))
    step = 1 if stop > start else -1
    boxes[label].layer = start + step
    chain = [source, label]
    for layer in range(start + 2 * step, stop, step):
        boxes.append(Box(0.0, 4.0, layer))
        chain.append(len(boxes) - 1)
    chain.append(target)
    for left, right in itertools.pairwise(chain):
        _link(boxes, *((left, right) if step > 0 else (right, left)))
    return Wire(tuple(chain))


def _link(boxes: list[Box], left: int, right: int) -> None:
    boxes[left].after.append(right)
    boxes[right].before.append(left)


def _columns(boxes: Sequence[Box]) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in range(max(box.layer for box in boxes) + 1)]
    for at, box in enumerate(boxes):
        found[box.layer].append(at)
    return found


def _order(boxes: Sequence[Box], columns: list[list[int]]) -> None:
    """Order each column by the mean place of its neighbours, to and fro; keep the order with the fewest crossings."""
    best, fewest = [list(column) for column in columns], _crossings(boxes, columns)
    for sweep in range(SWEEPS):
        forward = sweep % 2 == 0
        place = {at: rank for column in columns for rank, at in enumerate(column)}
        for number in range(len(columns)) if forward else reversed(range(len(columns))):
            means = {}
            for rank, at in enumerate(columns[number]):
                near = boxes[at].before if forward else boxes[at].after
                means[at] = sum(place[other] for other in near) / len(near) if near else float(rank)
            columns[number].sort(key=lambda at: means[at])
            place.update({at: rank for rank, at in enumerate(columns[number])})
        if (crossings := _crossings(boxes, columns)) < fewest:
            best, fewest = [list(column) for column in columns], crossings
    columns[:] = best


def _crossings(boxes: Sequence[Box], columns: Sequence[Sequence[int]]) -> int:
    place = {at: rank for column in columns for rank, at in enumerate(column)}
    count = 0
    for column in columns:
        links = [(place[at], place[other]) for at in column for other in boxes[at].after]
        count += sum(a[0] < b[0] and a[1] > b[1] for a in links for b in links)
    return count


def _place(boxes: Sequence[Box], columns: Sequence[Sequence[int]]) -> None:
    x = 0.0
    for column in columns:
        width = max((boxes[at].width for at in column), default=0.0)
        for at in column:
            boxes[at].x = x + (width - boxes[at].width) / 2
            boxes[at].left, boxes[at].right = x, x + width
        x += width + GAP_X
        y = 0.0
        for at in column:
            boxes[at].y = y + boxes[at].height / 2
            y += boxes[at].height + GAP_Y
        for at in column:
            boxes[at].y -= y / 2
    for sweep in range(SWEEPS):
        forward = sweep % 2 == 0
        for column in columns if forward else list(reversed(columns)):
            wanted = []
            for at in column:
                near = boxes[at].before if forward else boxes[at].after
                near = near or [*boxes[at].before, *boxes[at].after]
                wanted.append(sum(boxes[other].y for other in near) / len(near) if near else boxes[at].y)
            for at, y in zip(column, _apart(wanted, [boxes[at].height for at in column]), strict=True):
                boxes[at].y = y
    top = min(box.y - box.height / 2 for box in boxes)
    for box in boxes:
        box.y -= top


def _apart(wanted: Sequence[float], heights: Sequence[float]) -> list[float]:
    """The places nearest to those wanted (least squares) that keep order and distance."""
    offsets = [0.0]
    for above, below in itertools.pairwise(heights):
        offsets.append(offsets[-1] + (above + below) / 2 + GAP_Y)
    pools: list[tuple[float, int]] = []
    for want, offset in zip(wanted, offsets, strict=True):
        mean, count = want - offset, 1
        while pools and pools[-1][0] > mean:
            other, many = pools.pop()
            mean, count = (mean * count + other * many) / (count + many), count + many
        pools.append((mean, count))
    levels = [mean for mean, count in pools for _ in range(count)]
    return [level + offset for level, offset in zip(levels, offsets, strict=True)]
