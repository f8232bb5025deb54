"""`wonder dev`, as a person starts and stops it."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.integration.shell import run, wonder


def free_port() -> int:
    """A port whose neighbour 1000 above is free as well."""
    for port in range(17300, 18000):
        with socket.socket() as first, socket.socket() as second:
            try:
                first.bind(("127.0.0.1", port))
                second.bind(("127.0.0.1", port + 1000))
            except OSError:
                continue
            return port
    raise AssertionError("no free ports")


def page_status(url: str) -> int:
    """HTTP status of a page."""
    with urlopen(url) as page:
        return int(page.status)


@asynccontextmanager
async def dev(folder: Path, port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """`wonder dev` in a process of its own, ready; killed if the test leaves it running."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "wonder.cli", "dev", "--folder", str(folder), "--port", str(port)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(120):
            assert process.stdout is not None
            async for line in process.stdout:
                if b"Ctrl-C" in line:
                    break
            else:
                raise AssertionError("wonder dev ended")
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def processes_of(folder: Path) -> list[str]:
    """Command lines of all processes that mention the folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(folder) in line and int(entry.parent.name) != os.getpid():
            found.append(line)
    return found


@pytest.mark.timeout(300)
async def test_the_stack_comes_up_survives_a_restart_and_leaves_nothing_behind(tmp_path: Path, unique: str) -> None:
    folder, port = tmp_path / "stack", free_port()
    address = f"127.0.0.1:{port}"
    async with dev(folder, port) as process:
        assert await asyncio.to_thread(page_status, f"http://localhost:{port + 1000}") == 200
        started = await wonder("run", "Qorvex brumbles the zint.", "--id", unique, "--json", "--address", address)
        assert json.loads(started.out)["status"] == "waiting", started
        doctor = await wonder("doctor", "--address", address)
        assert doctor.code == 0, doctor.out
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 60) == 0
    assert processes_of(folder) == []
    async with dev(folder, port) as process:
        listed = await wonder("review", "ls", "--json", "--address", address)
        assert [row["id"] for row in json.loads(listed.out)] == [f"review/{unique}/classify/1"]
        decided = await wonder("review", "approve", f"review/{unique}/classify/1", "--as", "ana", "--address", address)
        assert decided.code == 0, decided.err
        shown = await wonder("show", unique, "--json", "--address", address)
        assert json.loads(shown.out)["decisions"][0]["to"] == "human_review"
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 60) == 0
    assert processes_of(folder) == []


@pytest.mark.timeout(300)
async def test_a_stack_whose_parent_is_killed_does_not_live_on(tmp_path: Path) -> None:
    folder = tmp_path / "stack"
    async with dev(folder, free_port()) as process:
        process.kill()
        await process.wait()
    for _ in range(300):
        if not processes_of(folder):
            return
        await asyncio.sleep(0.2)
    raise AssertionError(processes_of(folder))


async def test_a_port_in_use_is_said_with_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = await wonder("dev", "--folder", str(tmp_path), "--port", str(port if port < 64000 else 64000))
    assert done.code == 5
    assert "is in use" in done.err
    assert "--port" in done.err


async def test_a_model_that_does_not_exist_stops_the_stack_with_the_workers_sentence(tmp_path: Path) -> None:
    done = await wonder(
        "dev", "--folder", str(tmp_path / "s"), "--port", str(free_port()), "--model", str(tmp_path / "nowhere")
    )
    assert done.code == 5
    assert "nowhere" in done.err
    assert "Traceback" not in done.err


async def test_no_server_binary_and_no_download_is_one_clear_sentence(tmp_path: Path) -> None:
    done = await wonder("dev", "--folder", str(tmp_path), env={"WONDER_TEMPORAL_CLI": "/nowhere/temporal"})
    assert done.code == 5
    assert "WONDER_TEMPORAL_CLI" in done.err


async def test_a_worker_tells_a_missing_server_in_one_sentence() -> None:
    done = await run(sys.executable, "-m", "workers.cpu", "--address", "127.0.0.1:9", "--workflows")
    assert done.code == 5
    assert "no Temporal server answers" in done.err
    assert "Traceback" not in done.err
