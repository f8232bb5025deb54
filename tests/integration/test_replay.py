"""Runs that were recorded under earlier code replay under this one, command by command."""

import json
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer
from temporalio.workflow import NondeterminismError

from examples.hello.workflow import Hello
from examples.ticket_triage.workflow import TicketTriage
from lens_training.job.sweep import LensSweep
from lens_training.job.workflow import LensTraining
from wonder.plugin import WonderPlugin

HISTORIES = Path(__file__).parent.parent / "histories"
RECORDED = sorted(HISTORIES.glob("*.json"))


def replayer() -> Replayer:
    return Replayer(
        workflows=[TicketTriage, Hello, LensTraining, LensSweep], plugins=[WonderPlugin(roles=["workflow"])]
    )


def history(path: Path) -> WorkflowHistory:
    return WorkflowHistory.from_json(path.stem, path.read_text())


def test_there_are_histories_of_the_shipped_workflows() -> None:
    started = {
        json.loads(path.read_text())["events"][0]["workflowExecutionStartedEventAttributes"]["workflowType"]["name"]
        for path in RECORDED
    }
    assert started == {
        "TicketTriage",
        "Hello",
        "wonder.HumanReview",
        "wonder.Graph",
        "wonder.LensTraining",
    }


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
async def test_a_recorded_run_replays(path: Path) -> None:
    await replayer().replay_workflow(history(path))


async def test_a_run_that_went_elsewhere_does_not_replay() -> None:
    """The check itself can fail: with another confidence, the recorded run would have asked a person."""
    recorded = json.loads((HISTORIES / "ticket_triage_resolved.json").read_text())
    changed = _doubt(recorded)
    assert changed != recorded
    with pytest.raises(NondeterminismError):
        await replayer().replay_workflow(WorkflowHistory.from_json("changed", changed))


def _doubt(recorded: dict[str, object]) -> dict[str, object]:
    """The history with the model's confidence set to a tenth."""
    import base64

    changed = json.loads(json.dumps(recorded))
    for event in changed["events"]:
        if (completed := event.get("activityTaskCompletedEventAttributes")) is None:
            continue
        payload = completed["result"]["payloads"][0]
        message = json.loads(base64.b64decode(payload["data"]))
        message["thought_trace"]["overall_confidence"] = 0.1
        payload["data"] = base64.b64encode(json.dumps(message).encode()).decode()
    return changed
