"""Twenty random kills of trainer, launcher, workers and server during one run change no bit of what is trained."""

import asyncio
import contextlib
import json
import random
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from temporalio.client import Client

from lens_training.launch.processes import send
from lens_training.train.kept import latest_step
from lens_training.train.progress import final_trace, read_progress
from tests.integration.lens.conftest import TRAIN, specification
from wonder.connect import connect
from wonder.dev import server
from wonder.errors import ServerNotReachable
from wonder.names import LENS_TRAINING, WORKFLOW_QUEUE
from wonder.plugin import WonderPlugin
from wonder.training.types import Carried, LensResult, LensRun
from wonder.worker import READY

KILLS = 20
CHECKPOINT_EVERY = 20
STEPS = 600
RUN = {
    "phases": [
        {"objective": "warm_start", "steps": 450, "batch": 4, "decoder_rate": "1e-3 -> 1e-4"},
        {"objective": "grpo", "steps": 150, "batch": 2, "group": 2},
    ],
    "average": 0.9,
    "checkpoint_every": CHECKPOINT_EVERY,
}


class Stage:
    """Server and workers as processes, each of which may be killed and is then started again."""

    def __init__(self, root: Path, binary: Path) -> None:
        self.root = root
        self.port, _ = server.choose_ports(18300, move=True)
        self.address = f"127.0.0.1:{self.port}"
        self._commands: dict[str, list[str]] = {
            "server": server.command(binary, port=self.port, ui_port=None, database=root / "temporal.db"),
            "cpu": [sys.executable, "-m", "workers.cpu", "--workflows", "--address", self.address],
            "worker": [
                *(sys.executable, "-m", "lens_training", "worker", "--address", self.address),
                *("--jobs", str(root / "jobs"), "--glance", "0.2"),
            ],
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    async def start(self, name: str) -> None:
        log = (self.root / f"{name}.log").open("ab")
        self.processes[name] = subprocess.Popen(  # noqa: ASYNC220 - killed by its number
            self._commands[name], stdout=log, stderr=log
        )
        log.close()

    async def connected(self) -> Client:
        while True:
            with contextlib.suppress(ServerNotReachable):
                return await connect(self.address, plugins=[WonderPlugin()], timeout_s=5)
            await asyncio.sleep(0.2)

    async def kill(self, name: str) -> bool:
        """SIGKILL, and another one in its place; False where there was nothing to kill."""
        if name in self.processes:
            self.processes[name].send_signal(signal.SIGKILL)
            self.processes[name].wait()
            await self.start(name)
            return True
        what = {"trainer": "child.json", "launcher": "started.json"}[name]
        for folder in (self.root / "jobs").iterdir():
            with contextlib.suppress(FileNotFoundError):
                process = json.loads((folder / what).read_text())
                if send(process["pid"], process["began"], signal.SIGKILL):
                    return True
        return False

    def stop(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()


def tensors(folder: Path, step: int) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for path in sorted((folder / f"step_{step:08d}").glob("*.safetensors")):
        found |= load_file(path)
    return found


def alternate(victims: list[str]) -> bool:
    """Whether a trainer dies between any two launchers: a job whose launcher is gone has none to kill."""
    order = [name for name in victims if name in ("trainer", "launcher")]
    return all(pair != ("launcher", "launcher") for pair in pairwise(order))


def spec_of(made: Path, folder: Path, run_name: str) -> dict[str, Any]:
    spec = specification(made, made / "data") | {"run": RUN, "run_name": run_name}
    return spec | {"folder": str(folder), "launch": {"segment_steps": 250}}


@pytest.mark.slow
@pytest.mark.timeout(3000)
async def test_twenty_kills_lose_no_step_and_change_no_bit(made: Path, temporal_cli: Path, tmp_path: Path) -> None:
    (tmp_path / "plain.json").write_text(json.dumps(spec_of(made, made / "data", "undisturbed")))
    assert await asyncio.to_thread(main_in_a_process, tmp_path / "plain.json") == 0
    chance, stage = random.Random(7), Stage(tmp_path, temporal_cli)
    spec = spec_of(made, made / "data", "killed")
    folder = made / "data" / "killed"
    thresholds = sorted(chance.sample(range(1, STEPS // CHECKPOINT_EVERY - 2), KILLS))
    victims = [name for name in ("trainer", "launcher", "worker", "server", "cpu") for _ in range(KILLS // 5)]
    while not alternate(victims):
        chance.shuffle(victims)
    killed: list[str] = []
    try:
        for name in ("server", "cpu", "worker"):
            await stage.start(name)
            if name == "server":
                client = await stage.connected()
        given = LensRun(spec=spec, until="train", heartbeat_timeout_s=3, carried=Carried(at=TRAIN))
        handle = await client.start_workflow(
            LENS_TRAINING, given, id="killed", task_queue=WORKFLOW_QUEUE, result_type=LensResult
        )
        for threshold, victim in zip(thresholds, victims, strict=True):
            async with asyncio.timeout(600):
                while latest_step(folder) < threshold * CHECKPOINT_EVERY:  # noqa: ASYNC110 - a trainer writes it
                    await asyncio.sleep(0.02)
                await asyncio.sleep(chance.uniform(0, 0.3))
                while not await stage.kill(victim):  # noqa: ASYNC110 - there may be none of it at the moment
                    await asyncio.sleep(0.02)
            killed.append(victim)
        result = await handle.result()
    finally:
        stage.stop()
    assert len(killed) == KILLS
    assert (result.outcome, result.step) == ("trained", STEPS)
    assert result.restarts <= killed.count("trainer") + killed.count("launcher")
    expected, found = tensors(made / "data" / "undisturbed", STEPS), tensors(folder, STEPS)
    assert expected.keys() == found.keys()
    assert all(value.equal(found[name]) for name, value in expected.items())
    records = list(read_progress(folder))
    assert set(range(20, STEPS + 1, 20)) <= {record.step for record in final_trace(records)}
    again = [before.step - after.step for before, after in pairwise(records)]
    assert max(again) < CHECKPOINT_EVERY  # what was reported after the newest checkpoint, and nothing before it
    assert READY in (tmp_path / "worker.log").read_text()


def main_in_a_process(config: Path) -> int:
    """One thread and one process, as the trainers of the launcher."""
    return subprocess.run([sys.executable, "-m", "lens_training", "train", config], check=False).returncode
