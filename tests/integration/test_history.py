"""Past runs on a real server: explained, exported, and decided again."""

import asyncio
import json
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from temporalio.client import Client

from examples.ticket_triage.workflow import Ticket, TicketTriage
from tests.integration.review.polling import eventually
from tests.integration.shell import wonder
from wonder.embedded.world import tickets
from wonder.errors import ReviewNotFound
from wonder.history.record import DecisionRecord, read_records
from wonder.names import WORKFLOW_QUEUE
from wonder.review.client import ReviewClient

pytestmark = pytest.mark.usefixtures("workers")

STRICTER = """
from examples.ticket_triage.workflow import classify
from wonder import Transition, TransitionTable

stricter = TransitionTable(
    [
        Transition(from_=classify, to="human_review", condition="thought_trace.overall_confidence < 0.999999"),
        Transition(from_=classify, to="resolve", condition="otherwise"),
    ],
    on_unknown="human_review",
    name="stricter",
)
"""


@pytest.fixture
async def past(client: Client, unique: str) -> list[str]:
    """Some tickets: three accepted, and two reviewed by a person who says that the model was wrong."""
    found = tickets(200, seed=5, split="held_out")
    chosen = [t for t in found if t.kind == "clear"][:3] + [t for t in found if t.kind == "unseen"][:2]
    handles = [
        await client.start_workflow(
            TicketTriage.run,
            Ticket(id=str(at), text=ticket.text),
            id=f"past-{unique}-{at}",
            task_queue=WORKFLOW_QUEUE,
        )
        for at, ticket in enumerate(chosen)
    ]
    people = ReviewClient(client)

    async def is_there(review: str) -> bool:
        with suppress(ReviewNotFound):
            return bool(await people.show(review))
        return False

    for at in (3, 4):
        review = f"review/past-{unique}-{at}/classify/1"
        await eventually(partial(is_there, review), bool)
        await people.decide(review, "reject", "ana")
    for handle in handles:
        await handle.result()
    return [handle.id for handle in handles]


async def exported(address: str, file: Path, past: list[str], *more: str) -> list[DecisionRecord]:
    """What `wonder export` writes of these runs, once the list shows them and what people decided."""
    mine = f"WorkflowId STARTS_WITH '{past[0].rpartition('-')[0]}'"
    for _ in range(20):
        done = await wonder(
            *("export", str(file), "--address", address, "--type", "TicketTriage", "--since", "1h", "--where", mine),
            *more,
        )
        assert done.code == 0, done.err
        found = list(read_records(file))
        if len(found) == len(past) and sum(record.right is False for record in found) == 2:
            break
        await asyncio.sleep(0.5)
    return found


async def test_a_run_is_explained_as_text_json_and_a_page(address: str, past: list[str], tmp_path: Path) -> None:
    done = await wonder("explain", past[0], "--address", address)
    assert done.code == 0, done.err
    for part in (
        "── classify",
        "overall_confidence < 0.7 → human_review   false",
        "did not hold, by 0.",
        "weights 8fcb",
    ):
        assert part in done.out
    told = json.loads((await wonder("explain", past[3], "--address", address, "--json")).out)
    (step,) = told["steps"]
    assert step["rules"][1]["fired"]
    assert step["rules"][1]["distances"][0]["gap"] > 0
    page = tmp_path / "why.html"
    assert (await wonder("explain", past[3], "--address", address, "--html", str(page))).code == 0
    assert "legal_risk" in page.read_text()
    missing = await wonder("explain", "no-such-run", "--address", address)
    assert missing.code != 0
    assert "there is no run 'no-such-run'" in missing.err


@pytest.mark.timeout(180)
async def test_past_decisions_are_exported_with_what_people_said_and_taken_again(
    address: str, past: list[str], tmp_path: Path
) -> None:
    file, stricter = tmp_path / "past.jsonl", tmp_path / "stricter.py"
    stricter.write_text(STRICTER)
    mine = await exported(address, file, past)
    assert [record.run for record in sorted(mine, key=lambda record: record.run)] == past
    by_run = {record.run: record for record in mine}
    assert [by_run[run].right for run in past[3:]] == [False, False]
    assert by_run[past[3]].propensity == 1.0
    assert by_run[past[0]].propensity == 0.05
    done = await wonder(
        *("backtest", "--table", str(stricter), "--from", str(file), "--review-cost", "2", "--error-cost", "50"),
        *("--html", str(tmp_path / "b.html"), "--svg", str(tmp_path / "b.svg")),
    )
    assert done.code == 0, done.err
    assert "backtest of stricter" in done.out
    assert "resolve → human_review" in done.out
    assert "<svg" in (tmp_path / "b.html").read_text()
    today = await wonder("backtest", "--table", "examples.ticket_triage.workflow:routes", "--from", str(file), "--json")
    assert json.loads(today.out)["changes"] == []


@pytest.mark.timeout(180)
async def test_histories_are_read_without_any_worker_by_the_table_of_today(
    client: Client, address: str, past: list[str], tmp_path: Path
) -> None:
    asked = await exported(address, tmp_path / "asked.jsonl", past)
    read = await exported(address, tmp_path / "read.jsonl", past, "--today", "examples.ticket_triage.workflow:routes")
    one = {record.run: record for record in asked}
    other = {record.run: record for record in read}
    assert list(one) == past
    assert one.keys() == other.keys()
    for run, record in one.items():
        assert other[run].targets == record.targets
        assert other[run].trace == record.trace
        assert other[run].output == record.output
        assert other[run].right == record.right
