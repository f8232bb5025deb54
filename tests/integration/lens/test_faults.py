"""What really goes wrong in a trainer, and what the run does about it. Minutes: `make test-lens-kill`."""

import json
import resource
from pathlib import Path

import pytest

from tests.integration.lens.conftest import Lab
from tests.integration.lens.test_run import failure_of, jobs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOM = 400 * 2**20
"""Bytes that a trainer may take beyond what its libraries map."""


def settings(lab: Lab, spec: dict[str, object], name: str) -> list[float]:
    """What each attempt of the first segment was told, in order."""
    found = []
    for path in lab.jobs.glob("*/job.json"):
        job = json.loads(path.read_text())
        segment = json.loads(Path(job["command"][-1]).read_text())
        found.append((job["key"], float(segment[name])))
    return [value for _, value in sorted(found)]


async def test_a_run_whose_loss_is_no_number_halves_its_rates_twice_and_then_says_so(lab: Lab) -> None:
    await lab.worker()
    phase = {"objective": "warm_start", "steps": 400, "batch": 4, "decoder_rate": "1e6", "encoder_rate": "1e6"}
    spec = lab.spec(run={"phases": [phase], "checkpoint_every": 20, "clip": 1e9})
    cause = await failure_of(lab, spec, 600)
    assert cause.type == "Diverged"
    assert "after 2 times with half the rate, the last 0.25 of it" in cause.message
    assert jobs(lab) == ["train/1/0", "train/1/1", "train/1/2"]
    assert settings(lab, spec, "rate_scale") == [1, 0.5, 0.25]


async def test_a_run_that_does_not_fit_is_cut_into_smaller_pieces_once_and_then_says_so(lab: Lab) -> None:
    worker = await lab.worker()
    mapped = 2 * 2**30
    resource.prlimit(worker.pid, resource.RLIMIT_AS, (mapped + ROOM, mapped + ROOM))
    spec = lab.spec(run={"phases": [{"objective": "warm_start", "steps": 4, "batch": 200_000}]})
    cause = await failure_of(lab, spec, 600)
    assert cause.type == "OutOfMemory"
    assert "also with 2 times as many pieces" in cause.message
    assert jobs(lab) == ["train/1/0", "train/1/1"]
    assert settings(lab, spec, "pieces") == [1, 2]


async def test_a_layer_that_is_not_there_ends_the_run_with_the_sentence_of_the_stage(lab: Lab) -> None:
    await lab.worker()
    spec = lab.spec(folder=str(lab.root / lab.pool), run=None)
    spec["target"] = spec["target"] | {"layer": 7}
    cause = await failure_of(lab, spec, 600, at=0, until="merge")
    assert cause.type == "SpecError"
    assert cause.message.startswith("dump: ")
    assert "layer 7" in cause.message
