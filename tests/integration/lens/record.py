"""Records the histories of lens training that `test_replay.py` replays: `python -m tests.integration.lens.record`.

Run it after a deliberate change of the workflows' commands, and keep the old files as long as such runs live.
"""

import asyncio
import json
import signal
import tempfile
import uuid
from pathlib import Path

from temporalio.client import Client, WorkflowHandle
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from lens_training.job.sweep import LensSweep
from lens_training.job.workflow import LensTraining
from tests.integration.lens.conftest import QUEUE, Lab, appears, make_data, specification, steps, until
from tests.integration.record_histories import HISTORIES
from wonder.dev.server import installed
from wonder.names import LENS_SWEEP
from wonder.plugin import WonderPlugin
from wonder.training.client import LensRuns
from wonder.training.types import ExtendInput, SweepResult, SweepRun


async def main(root: Path) -> None:
    """A course with everything that can be asked of a run, and a sweep."""
    environment = await WorkflowEnvironment.start_local(dev_server_existing_path=str(installed()))
    target = environment.client.service_client.config.target_host
    client = await Client.connect(target, plugins=[WonderPlugin(roles=["workflow"])])
    make_data(root)
    async with Worker(client, task_queue=QUEUE, workflows=[LensTraining, LensSweep]):
        lab = Lab(client, root, uuid.uuid4().hex[:6])
        worker = await lab.worker()
        await course(lab)
        await sweep(lab)
        worker.send_signal(signal.SIGTERM)
        await asyncio.to_thread(worker.wait)
    await environment.shutdown()


async def course(lab: Lab) -> None:
    """From texts to the registry, paused, extended and resumed on the way."""
    spec = specification(lab.root, lab.root / "course") | {
        "run": steps(200),
        "evaluation": {"rows": 64, "draws": 100, "samples": 2},
        "gate": {"maximum_shuffled_fve": None},
        "register_as": {"registry": str(lab.root / "registry"), "name": "stories"},
        "launch": {"segment_steps": 110, "dump_slices": 2},
    }
    handle = await lab.start(spec, at=0, until="register")
    runs = LensRuns(lab.client)
    await appears(lab.root / "course" / "run" / "step_00000020")
    await runs.change(handle.id, "pause")
    await until(handle, lambda found: found.state == "paused")
    await runs.change(handle.id, "extend", ExtendInput(steps=30))
    await runs.change(handle.id, "resume")
    await handle.result()
    await keep(handle, "lens_training")


async def sweep(lab: Lab) -> None:
    """Two arms."""
    spec = specification(lab.root, lab.root / "course") | {
        "run": steps(20),
        "evaluation": {"rows": 64, "draws": 100, "samples": 2},
        "gate": {"maximum_shuffled_fve": None},
    }
    given = SweepRun(
        spec=spec, arms={"short": {"lens.length": 3}, "long": {"lens.length": 6}}, pool=lab.pool, parallel=2
    )
    handle = await lab.client.start_workflow(
        LENS_SWEEP, given, id="lens_sweep", task_queue=QUEUE, result_type=SweepResult
    )
    await handle.result()
    await keep(handle, "lens_sweep")


async def keep(handle: WorkflowHandle[object, object], name: str) -> None:
    """Write a history down, in as few bytes as it takes."""
    found = json.loads((await handle.fetch_history()).to_json())
    (HISTORIES / f"{name}.json").write_text(json.dumps(found, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder)))
