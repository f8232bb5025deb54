"""The trainer itself under a launcher: stopped with a checkpoint, gone on with by the next job."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

from lens_training.__main__ import main
from lens_training.launch.base import JobLauncher, JobSpec
from lens_training.train.kept import kept_steps
from lens_training.train.progress import read_status
from lens_training.train.segment import Segment, next_epoch
from tests.unit.lens.conftest import Specify
from tests.unit.lens.launching import LONG, PATIENCE_S, until

ROOT = Path(__file__).parents[3]
STEPS = 100_000
"""More than anybody waits for."""


async def check_a_lens_is_trained(
    launcher: JobLauncher, specify: Specify, folder: Path, nproc: int, **settings: Any
) -> None:
    """With `nproc` processes, and the second job with one."""
    spec = specify(folder / "data").model_dump(mode="json") | {
        "lens": {"length": 5},
        "run": {"phases": [{"objective": "warm_start", "steps": STEPS, "batch": 8}], "checkpoint_every": 20},
        "parallel": {"kind": "ddp" if nproc > 1 else "none"},
    }
    config, run = folder / "config.json", folder / "data" / "run"
    config.write_text(json.dumps(spec))
    assert main(["tokens", str(config)]) == main(["dump", str(config)]) == 0

    def job(number: int, nproc: int, until_step: int | None) -> JobSpec:
        segment = Segment(spec=str(config), epoch=next_epoch(run), until_step=until_step)
        path = folder / f"segment-{number}.json"
        path.write_text(segment.model_dump_json())
        whole = {
            "key": f"{folder.name}/train/{number}", "argv": ["-m", "lens_training.train.main", str(path)],
            "env": {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}, "nproc": nproc, "workdir": str(ROOT),
            "run_folder": str(run), **settings,
        }  # fmt: skip
        return JobSpec.model_validate(whole)

    ref = await launcher.submit(job(0, nproc, None))
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not kept_steps(run):
            state = await launcher.poll(ref)
            assert not state.over, (state, (await launcher.logs(ref, 0))[0].decode())
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
    finally:
        await launcher.cancel(ref, LONG)
    assert (await launcher.poll(ref)).state == "cancelled"
    stopped = read_status(run)
    assert stopped is not None
    assert stopped.state == "preempted"
    assert kept_steps(run)[-1] == stopped.step >= 20
    ref = await launcher.submit(job(1, 1, stopped.step + 7))
    try:
        await until(launcher, ref, "succeeded")
    finally:
        await launcher.cancel(ref, LONG)
    ended = read_status(run)
    assert ended is not None
    assert (ended.state, ended.step) == ("segment_done", stopped.step + 7)
