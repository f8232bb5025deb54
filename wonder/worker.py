"""Running a worker process: until a signal comes, then draining; shared by all worker entrypoints."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from temporalio.client import Client
from temporalio.runtime import LoggingConfig, Runtime, TelemetryConfig, TelemetryFilter
from temporalio.worker import Worker

log = logging.getLogger("wonder.worker")

READY = "wonder worker ready"
"""Printed to standard output, followed by the queue's name, once the worker polls."""


def runtime() -> Runtime:
    """The SDK's runtime for a worker: it tells the server every minute that it lives, and logs warnings only."""
    return Runtime(
        telemetry=TelemetryConfig(
            logging=LoggingConfig(filter=TelemetryFilter(core_level="WARN", other_level="ERROR"))
        ),
        worker_heartbeat_interval=timedelta(seconds=60),
    )


async def serve(
    client: Client,
    *,
    task_queue: str,
    workflows: Sequence[type] = (),
    activities: Sequence[Callable[..., Any]] = (),
    max_concurrent_activities: int = 100,
    heartbeats_s: float = 60.0,
    drain_s: float = 30.0,
    ends: asyncio.Event | None = None,
) -> None:
    """Poll a queue until SIGINT or SIGTERM, then finish what is running and return.

    Args:
        client: Connected, with `WonderPlugin`; what its roles register is served as well.
        task_queue: The queue to poll.
        workflows: Further workflow classes.
        activities: Further activities.
        max_concurrent_activities: Slots; twice the batch size on a GPU, so that a batch forms while one runs.
        heartbeats_s: At most so long until the server is sent an activity's newest heartbeat, and tells of its
            cancellation.
        drain_s: How long running activities may take to finish once a signal has come. A second signal ends at once.
        ends: Ends it as well when set: no more work is taken, and what is running reports first.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _on_signal, stop, number)
    try:
        async with Worker(
            client,
            task_queue=task_queue,
            workflows=workflows,
            activities=activities,
            max_concurrent_activities=max_concurrent_activities,
            max_heartbeat_throttle_interval=timedelta(seconds=heartbeats_s),
            graceful_shutdown_timeout=timedelta(seconds=drain_s),
        ):
            sys.stdout.write(f"{READY} {task_queue}\n")
            sys.stdout.flush()
            await _first(stop, ends)
            log.info("draining", extra={"task_queue": task_queue, "drain_s": drain_s})
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def _first(*events: asyncio.Event | None) -> None:
    waiting = [asyncio.create_task(event.wait()) for event in events if event is not None]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()


def _on_signal(stop: asyncio.Event, number: int) -> None:
    if stop.is_set():
        os._exit(128 + number)
    stop.set()
