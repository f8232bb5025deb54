"""A segment by two processes of torchrun, from its files: told to stop, and gone on with by one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lens_training.__main__ import main
from lens_training.train.kept import kept_steps
from lens_training.train.progress import read_status
from lens_training.train.segment import Segment, next_epoch
from tests.unit.lens.test_run import config  # noqa: F401 - a fixture

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def torchrun(config: Path, module: str) -> subprocess.Popen[str]:  # noqa: F811
    folder = Path(json.loads(config.read_text())["folder"]) / "run"
    segment = config.parent / "segment.json"
    segment.write_text(Segment(spec=str(config), epoch=next_epoch(folder)).model_dump_json())
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", module]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*command, str(segment)], env=environment, stderr=subprocess.PIPE, text=True)


def spread(config: Path, **change: Any) -> Path:  # noqa: F811
    value = json.loads(config.read_text()) | {"parallel": {"kind": "ddp"}}
    value["run"] |= change
    config.write_text(json.dumps(value))
    return Path(value["folder"]) / "run"


def test_a_signal_to_torchrun_ends_both_with_a_checkpoint_and_one_goes_on(config: Path) -> None:  # noqa: F811
    phases = [{"objective": "warm_start", "steps": 400, "batch": 7}]
    folder = spread(config, phases=phases, checkpoint_every=5)
    process = torchrun(config, "lens_training.train.main")
    while process.poll() is None and not (folder / "step_00000005").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    status = read_status(folder)
    assert status is not None, errors[-2000:]
    assert status.state == "preempted"
    assert kept_steps(folder)[-1] == status.step >= 5
    assert main(["train", str(config), "--until", str(status.step + 2)]) == 0
    assert kept_steps(folder)[-1] == status.step + 2
