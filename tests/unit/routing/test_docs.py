"""What `docs/conditions.md` and `docs/routing.md` show is what happens."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from wonder.routing.table import TransitionTable

DOCS = Path(__file__).parents[3] / "docs"


def blocks(language: str, page: str = "conditions.md") -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(("page", "least"), [("conditions.md", 6), ("routing.md", 4)])
def test_the_examples_of_a_page_run_in_order(page: str, least: int) -> None:
    names: dict[str, Any] = {}
    assert len(blocks("python", page)) >= least
    for block in blocks("python", page):
        exec(compile(block, page, "exec"), names)  # the page is ours


def test_the_yaml_of_the_page_is_the_table_of_its_first_example() -> None:
    names: dict[str, Any] = {}
    exec(compile(blocks("python")[0], "docs/conditions.md", "exec"), names)  # the page is ours
    (text,) = blocks("yaml")
    assert TransitionTable.from_dict(yaml.safe_load(text)).digest == names["routes"].digest
