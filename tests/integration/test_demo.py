"""The demo on a file of one's own."""

import json
import sys
from pathlib import Path

import pytest

from tests.integration.shell import Done, run
from tests.integration.test_stack import free_port, processes_of

TICKETS = [
    {"text": "I was charged twice for my invoice.", "team": "billing", "urgency": "normal"},
    {"text": "My lawyer will sue you over the burns from your heater.", "team": "returns", "urgency": "high"},
    *(
        {"text": f"Something is wrong with {name} again.", "team": "sales", "urgency": "low"}
        for name in ("Qorvex", "Zilm")
    ),
    *({"text": f"{name} brumbles the zint.", "team": "billing", "urgency": "normal"} for name in ("Qorvex", "Faxenid")),
]


async def demo(tickets: Path, folder: Path) -> Done:
    return await run(
        *(sys.executable, "-m", "examples.ticket_triage", "--tickets", tickets, "--folder", folder),
        *("--port", str(free_port()), "--no-stay"),
        timeout_s=150,
    )


@pytest.mark.timeout(180)
async def test_the_demo_judges_a_file_of_ones_own_decides_two_and_ends_by_itself(tmp_path: Path) -> None:
    mine = tmp_path / "mine.jsonl"
    mine.write_text("\n".join(json.dumps(ticket) for ticket in TICKETS) + "\n\n")
    done = await demo(mine, tmp_path / "stack")
    assert done.code == 0, done.err
    assert "6 tickets" in done.out
    assert "sent to legal     1" in done.out
    assert "resolved alone" in done.out
    assert done.out.count("$ wonder review") >= 1
    assert done.out.count(" went on, to ") == done.out.count("$ wonder review")
    assert "still wait for a person" in done.out
    assert processes_of(tmp_path / "stack") == []


@pytest.mark.timeout(180)
async def test_tickets_without_a_truth_are_sorted_but_not_judged(tmp_path: Path) -> None:
    mine = tmp_path / "mine.jsonl"
    mine.write_text('{"text": "I was charged twice for my invoice."}\n{"text": "Qorvex brumbles the zint."}\n')
    done = await demo(mine, tmp_path / "stack")
    assert done.code == 0, done.err
    assert "nothing is judged" in done.out
    assert "rightly" not in done.out


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "there is no file"), ("", "holds no tickets"), ("{", "line 1 is not a ticket"), ('{"id": "1"}', "line 1")],
)
async def test_a_file_that_holds_no_tickets_is_refused_before_anything_starts(
    tmp_path: Path, content: str | None, reason: str
) -> None:
    mine = tmp_path / "mine.jsonl"
    if content is not None:
        mine.write_text(content)
    done = await demo(mine, tmp_path / "stack")
    assert done.code == 1
    assert reason in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "stack").exists()
