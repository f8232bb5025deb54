"""A small target with its stories and dump, the workflow in this process, and real workers of a pool."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import Worker
from transformers import LlamaForCausalLM

from lens_training.__main__ import main
from lens_training.job.sweep import LensSweep
from lens_training.job.workflow import LensTraining
from lens_training.launch.processes import send
from lens_training.stories.files import save_target, write_stories
from lens_training.stories.target import config
from lens_training.stories.world import stories
from wonder.names import LENS_PROGRESS_QUERY
from wonder.plugin import WonderPlugin
from wonder.training.types import Carried, LensProgress, LensResult, LensRun
from wonder.worker import READY

QUEUE = "lens-tests"
TRAIN = 3
"""Index of the stage: a run whose data are made begins there."""


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model, stories, tokens and activations that runs share, each in a folder of its own name."""
    return make_data(tmp_path_factory.mktemp("lens"))


def make_data(root: Path) -> Path:
    """The same in a folder of one's own."""
    torch.manual_seed(0)
    save_target(LlamaForCausalLM(config(32, 3)), root / "model")
    write_stories(stories(120, 1), root / "stories.jsonl")
    (root / "config.json").write_text(json.dumps(specification(root, root / "data")))
    assert main(["tokens", str(root / "config.json")]) == main(["dump", str(root / "config.json")]) == 0
    return root


def specification(root: Path, folder: Path) -> dict[str, Any]:
    return {
        "name": "stories",
        "folder": str(folder),
        "corpus": {"source": "jsonl", "path": str(root / "stories.jsonl"), "tokens_per_shard": 2000},
        "target": {"model": str(root / "model"), "layer": 1},
        "dump": {
            "rows_per_shard": 200,
            "context_length": 64,
            "shares": {"train": 0.7, "val": 0.2, "test": 0.1},
        },
        "lens": {"length": 5},
    }


def steps(count: int, **more: Any) -> dict[str, Any]:
    """A run of one phase."""
    phase = {"objective": "warm_start", "steps": count, "batch": 4}
    return {"phases": [phase], "checkpoint_every": 20, **more}


@dataclass
class Lab:
    """Starts runs, and the workers of their pool."""

    client: Client
    root: Path
    pool: str
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def jobs(self) -> Path:
        """Where the pool remembers its jobs."""
        return self.root / f"jobs-{self.pool}"

    def spec(self, **more: Any) -> dict[str, Any]:
        """A run on the data that are there."""
        return specification(self.root, self.root / "data") | {"run_name": f"run-{self.pool}"} | more

    async def worker(self, *arguments: str) -> subprocess.Popen[str]:
        """A real worker, which polls when this returns."""
        process = subprocess.Popen(  # noqa: ASYNC220 - killed and waited for by its number
            [
                *(sys.executable, "-m", "lens_training", "worker", "--pool", self.pool, "--jobs", self.jobs),
                *("--address", self.client.service_client.config.target_host, "--glance", "0.2", *arguments),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        assert process.stdout is not None
        line = await asyncio.to_thread(process.stdout.readline)
        assert line.startswith(READY), line
        return process

    async def start(self, spec: dict[str, Any], *, at: int = TRAIN, **more: Any) -> WorkflowHandle[Any, LensResult]:
        """A run from the stage at which its data are made."""
        given = LensRun(
            **{
                "spec": spec,
                "pool": self.pool,
                "until": "train",
                "heartbeat_timeout_s": 2,
                "carried": Carried(at=at),
                **more,
            }
        )
        return await self.client.start_workflow(LensTraining.run, given, id=f"lens/{self.pool}", task_queue=QUEUE)


async def progress(handle: WorkflowHandle[Any, Any]) -> LensProgress:
    found: LensProgress = await handle.query(LENS_PROGRESS_QUERY, result_type=LensProgress)
    return found


async def appears(path: Path) -> None:
    """Wait for what a job writes."""
    while not path.exists():  # noqa: ASYNC110 - the job decides
        await asyncio.sleep(0.05)


async def until(handle: WorkflowHandle[Any, Any], wanted: Callable[[LensProgress], bool]) -> LensProgress:
    """Wait for a state of the run."""
    while not wanted(found := await progress(handle)):  # noqa: ASYNC110 - others decide
        await asyncio.sleep(0.1)
    return found


@pytest.fixture(scope="session")
async def workflows(address: str) -> AsyncIterator[None]:
    """What a CPU worker serves of lens training."""
    client = await Client.connect(address, plugins=[WonderPlugin(roles=["workflow"], search_attributes=True)])
    async with Worker(
        client,
        task_queue=QUEUE,
        workflows=[LensTraining, LensSweep],
        max_cached_workflows=0,  # every task replays from the start, so that nondeterminism shows
    ):
        yield


@pytest.fixture
def lab(client: Client, made: Path, unique: str, workflows: None) -> Iterator[Lab]:
    """A pool of one's own."""
    found = Lab(client, made, unique)
    yield found
    for process in found.processes:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    for path in found.jobs.glob("*/child.json"):
        child = json.loads(path.read_text())
        send(child["pid"], child["began"], signal.SIGKILL)
