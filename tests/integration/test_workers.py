"""The worker processes: where they find their server, and how they leave."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.client import Client, WorkflowHandle

from tests.integration.review.polling import eventually
from tests.integration.shell import wonder
from tests.integration.workflows import Ask, AskWorkflow
from tests.unit.calibration.bundles import NOW, bundle
from wonder.calibration.registry import CalibrationRegistry
from wonder.dev.stack import Stack
from wonder.engine import TraceEngine
from wonder.names import WORKFLOW_QUEUE
from wonder.worker import READY


@asynccontextmanager
async def worker(*command: str, address: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A worker process that polls; it learns its server from the environment alone."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *command),
        stdout=asyncio.subprocess.PIPE,
        env={"TEMPORAL_ADDRESS": address, "TEMPORAL_NAMESPACE": "default", "PATH": "/usr/bin:/bin"},
    )
    try:
        async with asyncio.timeout(150):  # it imports torch and loads a model, on a machine that may be busy
            assert process.stdout is not None
            assert READY in (await process.stdout.readline()).decode()
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.timeout(420)
@pytest.mark.usefixtures("workers")
async def test_a_gpu_worker_finishes_what_it_has_begun_before_it_leaves(
    client: Client, address: str, unique: str, engine: TraceEngine, tmp_path: Path
) -> None:
    made = bundle(action="drawn_out", model=engine.info.model, model_fingerprint=engine.info.fingerprint)
    CalibrationRegistry(tmp_path).promote(made, at=NOW)
    command = ("workers.gpu", "--task-queue", "drained", "--threads", "1", "--calibrations", str(tmp_path))
    async with worker(*command, address=address) as process:
        handle = await client.start_workflow(
            AskWorkflow.run, Ask(text="x", how="drawn_out"), id=unique, task_queue=WORKFLOW_QUEUE
        )
        await eventually(partial(lasting, handle), bool)
        process.send_signal(signal.SIGTERM)
        (trace,) = await asyncio.wait_for(handle.result(), 120)
        assert len(trace.tokens) + sum(found.count for found in trace.quantiles.values()) > 50
        assert trace.bundles["calibration"] == made.id, "its --calibrations are in force"
        assert await asyncio.wait_for(process.wait(), 120) == 0
    attempts = [
        event.activity_task_started_event_attributes.attempt
        async for event in handle.fetch_history_events()
        if event.HasField("activity_task_started_event_attributes")
    ]
    assert attempts == [1]


@pytest.mark.timeout(300)
async def test_a_cpu_worker_leaves_on_sigint_with_code_zero(address: str) -> None:
    async with worker("workers.cpu", "--task-queue", "unused", "--workflows", address=address) as process:
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 60) == 0


async def test_the_command_line_reads_the_standard_environment(address: str) -> None:
    found = await wonder("review", "ls", "--json", env={"TEMPORAL_ADDRESS": address})
    assert found.code == 0, found.err
    lost = await wonder("review", "ls", "--json", env={"TEMPORAL_ADDRESS": "127.0.0.1:9"})
    assert lost.code == 5
    assert "127.0.0.1:9" in lost.err


async def test_a_worker_without_a_usable_model_leaves_with_a_sentence(address: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "workers.gpu", "--model", "/no/such/folder", "--address", address),
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert process.returncode == 1
    assert b"/no/such/folder" in said
    assert b"Traceback" not in said


async def lasting(handle: WorkflowHandle[Any, Any]) -> bool:
    """Whether its request is being served."""
    pending = (await handle.describe()).raw_description.pending_activities
    return [found.state for found in pending] == [PendingActivityState.PENDING_ACTIVITY_STATE_STARTED]


async def earlier_failures(handle: WorkflowHandle[Any, Any]) -> list[str]:
    """Type of the failure before the attempt that succeeded."""
    return [
        event.activity_task_started_event_attributes.last_failure.application_failure_info.type
        async for event in handle.fetch_history_events()
        if event.HasField("activity_task_started_event_attributes")
    ]


@pytest.mark.timeout(480)
async def test_a_worker_that_loses_its_device_hands_its_requests_back_leaves_and_is_started_anew(
    tmp_path: Path, unique: str
) -> None:
    fuse, said = tmp_path / "fuse", list[str]()
    stack = Stack(
        folder=tmp_path / "stack", port=17100, move_ports=True, ui=False, in_memory=True,
        workflows=["tests.integration.workflows"], gpu_arguments=["--threads", "1"],
        gpu_program=(sys.executable, "-m", "tests.integration.fragile_worker", str(fuse)),
    )  # fmt: skip
    async with stack:
        watching = asyncio.create_task(stack.last_end(said.append))
        handles = [
            await stack.client.start_workflow(
                AskWorkflow.run, Ask(text=f"x {at}", how="handed_back"), id=f"{unique}-{at}", task_queue=WORKFLOW_QUEUE
            )
            for at in range(3)
        ]
        await eventually(lambda: asyncio.gather(*map(lasting, handles)), all)
        fuse.touch()
        for handle in handles:
            (trace,) = await asyncio.wait_for(handle.result(), 180)
            assert trace.overall_confidence is not None
            assert await earlier_failures(handle) == ["DeviceLost"]
        assert not watching.done()
        watching.cancel()
    assert not fuse.exists()
    assert "device-side assert triggered" in said[0]
    assert said[-1] == "gpu-worker is back"
