"""The README claims nothing that does not run: its snippets, its commands, and the figures it quotes."""

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.integration.shell import run, wonder

README = (Path(__file__).parents[2] / "README.md").read_text()
ROOT = Path(__file__).parents[2]


def blocks(kind: str) -> list[str]:
    """Fenced blocks of a language."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_the_engine_snippet_runs_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    (snippet,) = [block for block in blocks("python") if "TraceEngine" in block]
    exec(compile(snippet, "README.md", "exec"), {})
    assert '"team"' in capsys.readouterr().out


@pytest.mark.usefixtures("workers")
async def test_the_temporal_commands_run_as_they_stand(temporal_cli: Path, address: str, unique: str) -> None:
    start, decide = (line for line in README.splitlines() if line.startswith("temporal workflow "))
    begun = await run(
        temporal_cli, *shlex.split(start)[1:], "--workflow-id", unique, "--address", address, "--output", "json"
    )
    assert begun.code == 0, begun.err
    waiting = await wonder("run", "Qorvex brumbles the zint.", "--id", f"{unique}-2", "--json", "--address", address)
    (review,) = json.loads(waiting.out)["reviews"]
    words = [word.replace("review/…/classify/1", review) for word in shlex.split(decide)[1:]]
    decided = await run(temporal_cli, *words, "--address", address)
    assert decided.code == 0, decided.err


async def test_every_wonder_command_that_is_named_exists() -> None:
    named = set(re.findall(r"`wonder ([a-z]+)", README))
    assert {"dev", "run", "review", "show", "schema", "doctor"} <= named
    for command in named:
        assert (await wonder(command, "--help")).code == 0, command


def test_the_readmes_workflow_is_the_examples() -> None:
    example = (ROOT / "examples/ticket_triage/workflow.py").read_text()
    for condition in re.findall(r'condition="([^"]+)"', README):
        assert condition in example


def test_every_quoted_figure_is_a_committed_row() -> None:
    rows = {
        (row["figure"], f"{row['value']:,.4g} {row['unit']}".strip())
        for path in (ROOT / "benchmarks/results").glob("*.json")
        for row in json.loads(path.read_text())["rows"]
        if row["value"] is not None
    }
    quoted = re.findall(r"^\| (.+?) \| (.+?) \| .*\|$", README.split("## What the numbers mean")[1], re.MULTILINE)
    figures = [(name, value) for name, value in quoted if name not in ("figure", "---")]
    assert len(figures) >= 8
    assert not [figure for figure in figures if figure not in rows]


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
