"""The worker processes: where they find their server, and how they leave."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.client import Client

from tests.integration.shell import wonder
from tests.integration.workflows import Ask, AskWorkflow
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
        async with asyncio.timeout(60):
            assert process.stdout is not None
            assert READY in (await process.stdout.readline()).decode()
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.usefixtures("workers")
async def test_a_gpu_worker_finishes_what_it_has_begun_before_it_leaves(
    client: Client, address: str, unique: str
) -> None:
    command = ("workers.gpu", "--task-queue", "drained", "--threads", "1")
    async with worker(*command, address=address) as process:
        handle = await client.start_workflow(
            AskWorkflow.run, Ask(text="x", how="drawn_out"), id=unique, task_queue=WORKFLOW_QUEUE
        )
        for _ in range(200):
            pending = (await handle.describe()).raw_description.pending_activities
            if [found.state for found in pending] == [PendingActivityState.PENDING_ACTIVITY_STATE_STARTED]:
                break
            await asyncio.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        (trace,) = await asyncio.wait_for(handle.result(), 60)
        assert len(trace.tokens) + sum(found.count for found in trace.quantiles.values()) > 50
        assert await asyncio.wait_for(process.wait(), 60) == 0
    attempts = [
        event.activity_task_started_event_attributes.attempt
        async for event in handle.fetch_history_events()
        if event.HasField("activity_task_started_event_attributes")
    ]
    assert attempts == [1]


async def test_a_cpu_worker_leaves_on_sigint_with_code_zero(address: str) -> None:
    async with worker("workers.cpu", "--task-queue", "unused", "--workflows", address=address) as process:
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 30) == 0


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
