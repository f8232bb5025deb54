"""Deciding from a terminal: with `wonder review`, and with nothing but Temporal's own command line."""

import asyncio
import json
import os
import sys
from pathlib import Path

from tests.integration.review.conftest import Opener
from tests.integration.review.polling import waiting
from wonder.review.client import ReviewClient


async def execute(*command: str, stdin: str = "", **environment: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"USER": "ana"} | environment,
    )
    out, err = await process.communicate(stdin.encode())
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def wonder(address: str, verb: str, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
    command = (sys.executable, "-m", "wonder.cli", "review", verb, "--address", address, *arguments)
    return await execute(*command, stdin=stdin)


TRACE = {
    "action": "classify",
    "model": "support-desk",
    "tokens": ["bill", "ing"],
    "token_confidences": [0.41, 0.99],
    "top_alternatives": [[{"token": "bill", "probability": 0.41}, {"token": "legal", "probability": 0.38}]],
    "overall_confidence": 0.41,
    "confidence_status": "calibrated",
}


async def test_an_item_is_found_shown_claimed_and_corrected(
    ask: Opener, reviews: ReviewClient, address: str, unique: str
) -> None:
    handle = await ask(queue=unique, trace=TRACE, why="the model was not sure")
    await waiting(reviews, unique)
    code, out, _ = await wonder(address, "ls", "--queue", unique)
    assert code == 0
    assert handle.id in out
    assert "██░░░  41%" in out
    assert "the model was not sure" in out

    code, out, _ = await wonder(address, "next", "--queue", unique)
    assert code == 0
    assert "bill[41%]ing" in out
    assert "instead of 'bill': 'bill' 41% · 'legal' 38%" in out
    assert "claimed by ana" in out

    code, out, _ = await wonder(address, "edit", handle.id, "--set", "team=legal", "--set", "urgency=5", "--json")
    assert code == 0
    assert json.loads(out)["decided_by"] == "ana"
    assert (await handle.result()).value == {"team": "legal", "urgency": 5}


async def test_an_answer_is_corrected_from_standard_input(ask: Opener, address: str) -> None:
    handle = await ask()
    code, out, _ = await wonder(address, "edit", handle.id, "--file", "-", stdin='{"team": "legal", "urgency": 3}')
    assert code == 0
    assert out == f"{handle.id}: edit by ana\n"
    assert (await handle.result()).value == {"team": "legal", "urgency": 3}


async def test_each_refusal_has_its_exit_code_and_one_sentence(
    ask: Opener, reviews: ReviewClient, address: str
) -> None:
    handle = await ask(reviewers=["ana", "bob"])
    await reviews.claim(handle.id, "bob")
    expected = [
        (("claim", handle.id), 3, "bob holds"),
        (("claim", handle.id, "--as", "eve"), 4, "not for eve"),
        (("approve", "nowhere"), 4, "there is no review nowhere"),
        (("edit", handle.id, "--as", "bob", "--set", "team=marketing"), 2, "team must be one of"),
        (("edit", handle.id, "--as", "bob", "--set", "nonsense"), 2, "PATH=VALUE"),
        (("approve",), 2, "required: id"),
    ]
    found = await asyncio.gather(*(wonder(address, *call) for call, _, _ in expected))
    for (_, code, sentence), (got, out, err) in zip(expected, found, strict=True):
        assert (got, out) == (code, ""), err
        assert sentence in err
    code, _, err = await wonder("localhost:1", "ls")
    assert code == 5, err


async def test_every_verb_prints_json(ask: Opener, address: str, unique: str) -> None:
    handle = await ask(queue=unique)
    for call in (
        ("claim", handle.id, "--lease-s", "60"),
        ("renew", handle.id),
        ("comment", handle.id, "hm"),
        ("release", handle.id),
        ("show", handle.id),
        ("reject", handle.id, "--comment", "no"),
    ):
        code, out, err = await wonder(address, *call, "--json")
        assert code == 0, err
        assert json.loads(out)["id"] == handle.id
    code, out, _ = await wonder(address, "next", "--queue", unique, "--json")
    assert (code, json.loads(out)) == (0, None)


async def test_temporal_s_own_command_line_is_enough(
    ask: Opener, reviews: ReviewClient, address: str, temporal_cli: Path
) -> None:
    handle = await ask()

    async def temporal(*arguments: str) -> tuple[int, str, str]:
        return await execute(
            str(temporal_cli), "workflow", *arguments, "--address", address, "--workflow-id", handle.id
        )

    def update(name: str, **value: object) -> tuple[str, ...]:
        return ("update", "execute", "--name", name, "--input", json.dumps(value), "--output", "json")

    code, out, err = await temporal("query", "--type", "view", "--output", "json")
    assert code == 0, err
    assert json.loads(out)["queryResult"][0]["status"] == "open"
    code, _, err = await temporal(*update("claim", reviewer="ana"))
    assert code == 0, err
    code, _, err = await temporal(*update("decide", reviewer="bob", verdict="approve"))
    assert code != 0
    assert "ana holds" in err
    code, _, err = await temporal(*update("decide", reviewer="ana", verdict="aprove"))
    assert code != 0
    assert "verdict: Input should be 'approve', 'edit' or 'reject'" in err
    code, _, err = await temporal(
        *update("decide", reviewer="ana", verdict="edit", value={"team": "legal", "urgency": 1})
    )
    assert code == 0, err
    outcome = await handle.result()
    assert (outcome.reviewer, outcome.value) == ("ana", {"team": "legal", "urgency": 1})


async def test_the_item_explains_itself_in_temporal_s_ui(ask: Opener, address: str, temporal_cli: Path) -> None:
    handle = await ask(trace=TRACE, why="the model was not sure", prompt="Ticket: where is my money?")
    command = ("workflow", "metadata", "--address", address, "--workflow-id", handle.id)
    code, out, err = await execute(str(temporal_cli), *command)
    assert code == 0, err
    for words in ("the model was not sure", "0.41 (calibrated)", '"team": "billing"', "Ticket: where is my money?"):
        assert words in out
    assert f"--workflow-id {handle.id} --name decide" in out
    assert 'Decide: {"reviewer": "ana", "verdict": "approve"}' in out
