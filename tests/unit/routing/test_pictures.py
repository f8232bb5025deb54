"""Pictures of tables: everything is on them, nothing lies on anything else, and equal tables look alike."""

import itertools
import xml.etree.ElementTree as ET
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from wonder.routing.drawing import LABEL_WIDTH, arrows
from wonder.routing.join import Join
from wonder.routing.layout import layout
from wonder.routing.retry import Retry
from wonder.routing.table import TransitionTable
from wonder.routing.transition import Transition

C = "thought_trace.overall_confidence"
NAMESPACE = {"s": "http://www.w3.org/2000/svg"}


def table(name: str = "loops & <fan-outs>") -> TransitionTable:
    def row(after: str, to: Any, condition: str = "otherwise", **more: Any) -> Transition:
        return Transition(from_=after, to=to, condition=condition, **more)

    return TransitionTable(
        [
            row(
                "classify",
                "legal",
                f"thought_trace.active_concepts.legal_risk > 0.8 and {C} < 0.9 or output == '<a&b>'",
            ),
            row("classify", "classify", f"{C} < 0.4", retry_with=Retry(model="large"), holds_until=f"{C} >= 0.5"),
            row("classify", "draft", audit_rate=0.05),
            row("draft", "classify", f"{C} < 0.3"),
            row("draft", ["facts", "tone"], join=Join(at="send", need=1)),
            row("facts", "send", f"{C} > 0.9"),
            row("facts", "human_review"),
            row("tone", "send"),
            row("send", "done"),
            row("send", "draft", "", on_error="PromptTooLong"),
        ],
        name=name,
    )


def test_every_node_condition_and_unknown_way_is_on_the_picture() -> None:
    root = ET.fromstring(table().to_svg())
    said = " ".join(text for element in root.iter() if (text := element.text))
    for name in (
        *table().nodes,
        "legal_risk > 0.8",
        "2  overall_confidence < 0.4",
        "held until",
        "with the model large",
    ):
        assert name in said
    assert "1 of 2 must reach send" in said
    assert "audited: 0.05" in said
    assert root.find("s:title", NAMESPACE) is not None
    assert len(root.findall(".//s:g[@class='unknown']", NAMESPACE)) == 3
    assert len(root.findall(".//s:g[@class='error']", NAMESPACE)) == 1


def test_a_picture_stands_alone_and_is_the_same_for_equal_tables() -> None:
    assert table().to_svg() == table().to_svg()
    for reference in ("<script", "http://", "https://", "url(http", "@import"):
        assert reference not in table().to_svg().replace("http://www.w3.org/2000/svg", "")


def test_boxes_and_labels_of_the_picture_do_not_touch() -> None:
    root = ET.fromstring(table().to_svg())
    found = [
        tuple(float(rect.attrib[key]) for key in ("x", "y", "width", "height"))
        for rect in root.iter("{http://www.w3.org/2000/svg}rect")
        if rect.attrib.get("class") != "paper"
    ]
    assert len(found) == len(table().nodes) + len(arrows(table().spec))
    for (x, y, w, h), (x2, y2, w2, h2) in itertools.combinations(found, 2):
        assert x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y


def test_long_conditions_are_broken_into_lines() -> None:
    lines = [line for arrow in arrows(table().spec) for line in arrow.label]
    assert max(len(line) for line in lines) <= LABEL_WIDTH
    joined = " ".join(" ".join(lines).split())
    assert "legal_risk > 0.8 and overall_confidence < 0.9 or output == '<a&b>'" in joined


links = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), min_size=1, max_size=18)


@settings(max_examples=60, deadline=None)
@given(links, st.lists(st.floats(10, 200), min_size=18, max_size=18))
def test_whatever_the_graph_boxes_keep_apart_and_wires_join_neighbouring_columns(
    ways: list[tuple[int, int]], sizes: list[float]
) -> None:
    labels = [(sizes[at], sizes[-at - 1]) for at in range(len(ways))]
    boxes, wires = layout([(80.0, 30.0)] * 8, ways, labels)
    for one, other in itertools.combinations(boxes[: 8 + len(ways)], 2):
        apart = abs(one.y - other.y) >= (one.height + other.height) / 2 + 1
        assert one.layer != other.layer or apart
        assert one.layer >= other.layer or one.x + one.width < other.x
    for wire, (source, target) in zip(wires, ways, strict=True):
        assert (wire.boxes[0], wire.boxes[-1]) == (source, target)
        assert all(abs(boxes[a].layer - boxes[b].layer) == 1 for a, b in itertools.pairwise(wire.boxes))
