"""What really goes wrong in a trainer, and what the run does about it; sweeps. Minutes: `make test-lens-kill`."""

import asyncio
import json
import resource
from pathlib import Path

import pytest
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import CancelledError, TerminatedError

from lens_training.train.kept import latest_step
from lens_training.train.progress import read_status
from tests.integration.lens.conftest import QUEUE, Lab, appears, steps
from tests.integration.lens.test_run import failure_of, jobs
from wonder.names import LENS_SWEEP
from wonder.training.types import SweepResult, SweepRun

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


@pytest.mark.parametrize("how", ["terminate", "cancel"])
async def test_a_run_that_temporal_ends_leaves_a_checkpoint_and_no_job(lab: Lab, how: str) -> None:
    await lab.worker()
    spec = lab.spec(run=steps(20_000))
    handle = await lab.start(spec)
    folder = lab.root / "data" / str(spec["run_name"])
    await appears(folder / "step_00000020")
    await (handle.terminate() if how == "terminate" else handle.cancel())
    with pytest.raises(WorkflowFailureError) as caught:
        await handle.result()
    status = read_status(folder)
    async with asyncio.timeout(100):
        while status is None or status.state == "running":
            await asyncio.sleep(0.1)
            status = read_status(folder)
    assert (status.state, status.step) == ("preempted", latest_step(folder))
    assert isinstance(caught.value.cause, TerminatedError if how == "terminate" else CancelledError)


async def test_a_layer_that_is_not_there_ends_the_run_with_the_sentence_of_the_stage(lab: Lab) -> None:
    await lab.worker()
    spec = lab.spec(folder=str(lab.root / lab.pool), run=None)
    spec["target"] = spec["target"] | {"layer": 7}
    cause = await failure_of(lab, spec, 600, at=0, until="merge")
    assert cause.type == "SpecError"
    assert cause.message.startswith("dump: ")
    assert "layer 7" in cause.message


async def test_slices_of_a_dump_run_beside_each_other_and_are_merged(lab: Lab) -> None:
    await lab.worker("--slots", "2")
    spec = lab.spec(folder=str(lab.root / lab.pool), run=None, launch={"dump_slices": 2})
    handle = await lab.start(spec, at=0, until="merge")
    result = await asyncio.wait_for(handle.result(), 300)
    assert result.outcome == "data"
    assert jobs(lab) == ["dump-0/2/0", "dump-1/2/0", "merge/0", "tokens/0"]
    made = [(lab.root / name / "activations" / "act-00000.safetensors").read_bytes() for name in ("data", lab.pool)]
    assert made[0] == made[1]


async def test_the_arms_of_a_sweep_share_their_data_and_come_as_a_table(lab: Lab) -> None:
    await lab.worker()
    given = SweepRun(
        spec=lab.spec(run=steps(40)) | {"gate": {"minimum_fve": 2.0}},
        arms={
            "short": {"lens.length": 3},
            "broken": {
                "run.phases.0.decoder_rate": "1e6",
                "run.phases.0.encoder_rate": "1e6",
                "run.phases.0.steps": 400,
            },
        },
        pool=lab.pool,
        heartbeat_timeout_s=5,
    )
    handle = await lab.client.start_workflow(
        LENS_SWEEP, given, id=f"sweep/{lab.pool}", task_queue=QUEUE, result_type=SweepResult
    )
    result = await asyncio.wait_for(handle.result(), 600)
    assert (result.best, result.registered) == ("", False)
    assert {row.arm: row.outcome for row in result.arms} == {"short": "refused", "broken": "failed"}
