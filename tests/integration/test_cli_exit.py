"""The command line leaves with the exit code it means, every time."""

import asyncio
import json

import pytest
from temporalio.client import Client

from tests.integration.shell import Done, wonder
from wonder.names import WORKFLOW_QUEUE

pytestmark = pytest.mark.usefixtures("workers")

CALLS = 200
AT_ONCE = 4


@pytest.mark.timeout(600)
async def test_200_short_calls_in_a_row_all_leave_with_their_own_code(address: str, unique: str) -> None:
    """The SDK can crash the interpreter at exit (temporalio/sdk-python#300), in about one call of six."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def call(number: int) -> tuple[int, Done]:
        async with slots:
            if number % 4 == 3:
                return 4, await wonder("review", "show", f"review/none-{unique}/step/1", "--address", address)
            return 0, await wonder("review", "ls", "--json", "--address", address)

    done = await asyncio.gather(*(call(number) for number in range(CALLS)))
    wrong = [(expected, found) for expected, found in done if found.code != expected]
    assert not wrong, f"{len(wrong)} of {CALLS}: {wrong[:3]}"
    assert all(json.loads(found.out) is not None for expected, found in done if expected == 0)


async def test_an_unreachable_server_is_exit_code_5_and_one_sentence() -> None:
    done = await wonder("review", "ls", "--address", "127.0.0.1:9")
    assert done.code == 5
    assert done.err.startswith("wonder: no Temporal server answers at 127.0.0.1:9")
    assert "Traceback" not in done.err


async def test_wrong_use_is_exit_code_2() -> None:
    done = await wonder("review", "juggle")
    assert done.code == 2
    assert "usage" in done.err


async def test_run_starts_watches_and_explains_one_ticket(address: str, unique: str) -> None:
    done = await wonder("run", "I was charged twice for my invoice.", "--id", unique, "--address", address)
    assert done.code == 0, done.err
    assert "on to resolve" in done.out
    assert '"team": "billing"' in done.out
    shown = await wonder("show", unique, "--address", address)
    assert shown.code == 0
    assert "thought_trace.overall_confidence < 0.7" in shown.out


async def test_run_says_which_review_a_doubtful_ticket_waits_for(address: str, unique: str) -> None:
    done = await wonder("run", "Qorvex brumbles the zint.", "--id", unique, "--json", "--address", address)
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["status"] == "waiting"
    assert told["reviews"] == [f"review/{unique}/classify/1"]
    decided = await wonder("review", "approve", told["reviews"][0], "--as", "ana", "--address", address)
    assert decided.code == 0, decided.err


async def test_run_refuses_an_input_that_does_not_fit_before_it_starts_anything(
    client: Client, address: str, unique: str
) -> None:
    done = await wonder("run", "--type", "TicketTriage", "--input", '{"id": "1"}', "--id", unique, "--address", address)
    assert done.code == 1
    assert "text" in done.err
    with pytest.raises(Exception, match="not found"):
        await client.get_workflow_handle(unique).describe()


async def test_a_run_that_fails_is_exit_code_1_with_its_reason(address: str, unique: str) -> None:
    done = await wonder(
        *("run", "--type", "TestAsk", "--input", '{"text": "x", "how": "unknown_probe"}', "--id", unique),
        *("--task-queue", WORKFLOW_QUEUE, "--address", address),
    )
    assert done.code == 1
    assert "failed: " in done.out
    assert "legal_rsk" in done.out


async def test_schema_prints_a_command_that_works_as_it_stands() -> None:
    done = await wonder("schema", "TicketTriage")
    assert done.code == 0
    assert "temporal workflow start --type TicketTriage --task-queue wonder --input" in done.out


async def test_doctor_names_what_is_there_and_what_is_not(address: str) -> None:
    well = await wonder("doctor", "--address", address, "--json")
    assert well.code == 0, well.out
    ill = await wonder("doctor", "--address", address, "--model", "absent", "--json")
    assert ill.code == 5
    failing = [row for row in json.loads(ill.out) if not row["ok"]]
    assert [row["do"] for row in failing] == ["start `wonder-gpu-worker --model absent`"]
