"""What `docs/conditions.md` shows is what happens."""

import re
from pathlib import Path
from typing import Any

import yaml

from wonder.routing.table import TransitionTable

PAGE = (Path(__file__).parents[3] / "docs" / "conditions.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def test_the_examples_of_the_page_run_in_order() -> None:
    names: dict[str, Any] = {}
    assert len(blocks("python")) > 5
    for block in blocks("python"):
        exec(compile(block, "docs/conditions.md", "exec"), names)  # the page is ours


def test_the_yaml_of_the_page_is_the_table_of_its_first_example() -> None:
    names: dict[str, Any] = {}
    exec(compile(blocks("python")[0], "docs/conditions.md", "exec"), names)  # the page is ours
    (text,) = blocks("yaml")
    assert TransitionTable.from_dict(yaml.safe_load(text)).digest == names["routes"].digest
