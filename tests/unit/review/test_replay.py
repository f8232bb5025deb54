"""Reviews that were open while the code changed go on: recorded histories replay."""

from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from wonder.plugin import WonderPlugin

HISTORIES = sorted((Path(__file__).parents[2] / "histories").glob("human_review_*.json"))


def test_there_are_histories_of_every_ending() -> None:
    assert {path.stem.removeprefix("human_review_") for path in HISTORIES} >= {
        "approve",
        "edit",
        "timeout",
        "withdrawn",
    }


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
async def test_a_recorded_review_replays(path: Path) -> None:
    history = WorkflowHistory.from_json("review/recorded/classify/1", path.read_text())
    await Replayer(workflows=[], plugins=[WonderPlugin(roles=["workflow"])]).replay_workflow(history)
