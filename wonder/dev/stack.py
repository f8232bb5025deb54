"""`Stack`: Temporal server, GPU worker and CPU worker, started in order and drained in reverse."""

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from temporalio.client import Client

from wonder import search_attributes
from wonder.connect import connect
from wonder.dev import server
from wonder.dev.children import Child
from wonder.entry import START_AGAIN
from wonder.errors import ServerNotReachable, StackError
from wonder.names import EMBEDDED_MODEL
from wonder.plugin import WonderPlugin
from wonder.worker import READY

START_LIMIT_S = 180.0
"""A large model may take minutes to load."""
GPU_WORKER = "gpu-worker"
REVIVALS = 3
"""How often a GPU worker that keeps losing its device is started anew within `REVIVAL_WINDOW_S`."""
REVIVAL_WINDOW_S = 600.0


@dataclass
class Stack:
    """A running local stack; use it as an async context manager."""

    folder: Path = Path(".wonder")
    """Database, logs, artifacts and calibrations; keep it to keep the histories."""
    port: int = 7233
    move_ports: bool = False
    """Take the next free ports when the wanted ones are in use."""
    ui: bool = True
    address: str | None = None
    """Use this running server instead of starting one."""
    model: str = EMBEDDED_MODEL
    workflows: Sequence[str] | None = None
    """Modules with workflows; None: the project's settings."""
    in_memory: bool = False
    gpu_arguments: Sequence[str] = ()
    """Further arguments of `wonder-gpu-worker`."""
    gpu_program: Sequence[str] = (sys.executable, "-m", "workers.gpu")
    """The GPU worker, where it is one of your own."""
    pool: str | None = None
    """Also run a worker for lens training on this machine, for the pool of this name."""
    drain_s: float = 20.0
    echo: Callable[[str, str], None] | None = None
    """Called with every line a part prints."""

    client: Client = field(init=False)
    ui_url: str | None = field(init=False, default=None)
    children: list[Child] = field(init=False, default_factory=list)

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        target = self.address or await self._start_server()
        self.address = target
        self.client = await self._connected(target)
        await search_attributes.register(self.client)
        common = ["--address", target, "--drain", str(self.drain_s)]
        kept = ["--artifacts", str(self.folder / "artifacts"), "--calibrations", str(self.folder / "calibrations")]
        gpu = ["--model", self.model, *kept, *self.gpu_arguments]
        cpu = [] if self.workflows is None else ["--workflows", *self.workflows]
        workers = [
            self._child(GPU_WORKER, [*self.gpu_program, *common, *gpu]),
            self._child("cpu-worker", [sys.executable, "-m", "workers.cpu", *common, *cpu]),
        ]
        if self.pool is not None:
            # By name: training sits above this package, and only its command is known here.
            train = ["--pool", self.pool, "--jobs", str(self.folder / "jobs")]
            workers.append(
                self._child("train-worker", [sys.executable, "-m", "lens_training", "worker", *common, *train])
            )
        for worker in workers:
            await worker.start()
        await asyncio.gather(*(worker.wait_for_line(READY, START_LIMIT_S) for worker in workers))

    async def _start_server(self) -> str:
        binary = await server.find_binary(self.folder / "bin")
        port, ui_port = server.choose_ports(self.port, move=self.move_ports)
        database = None if self.in_memory else self.folder / "temporal.db"
        command = server.command(binary, port=port, ui_port=ui_port if self.ui else None, database=database)
        child = self._child("temporal", command)
        await child.start()
        self.ui_url = f"http://localhost:{ui_port}" if self.ui else None
        return f"127.0.0.1:{port}"

    async def _connected(self, target: str) -> Client:
        """A client, as soon as the server answers."""
        own = self.children[0] if self.children else None
        for _ in range(150):
            try:
                return await connect(target, plugins=[WonderPlugin()], timeout_s=5)
            except ServerNotReachable:
                if own is None:
                    raise
                if not own.running:
                    raise StackError(f"the Temporal server ended; its last lines:\n{own.tail()}") from None
            await asyncio.sleep(0.2)
        raise ServerNotReachable(f"the Temporal server at {target} did not answer within 30 s")

    def _child(self, name: str, command: Sequence[str]) -> Child:
        child = Child(name, command, log=self.folder / "logs" / f"{name}.log", echo=self.echo)
        self.children.append(child)
        return child

    async def first_end(self) -> Child:
        """Wait until any part ends by itself."""
        ends = {asyncio.create_task(child.ended()): child for child in self.children}
        try:
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            return ends[done.pop()]
        finally:
            for task in ends:
                task.cancel()

    async def last_end(self, say: Callable[[str], None] = lambda _line: None) -> Child:
        """Wait until a part ends for good.

        A GPU worker whose device broke has handed its requests back to the server and cannot go on, though a new
        process can: it is started anew, unless that happens again and again.

        Args:
            say: Told of it in a sentence.
        """
        revived: list[float] = []
        while True:
            child = await self.first_end()
            now = time.monotonic()
            revived = [then for then in revived if now - then < REVIVAL_WINDOW_S]
            if child.name != GPU_WORKER or await child.ended() != START_AGAIN or len(revived) >= REVIVALS:
                return child
            revived.append(now)
            say(f"{child.name} lost its device ({child.last[-1] if child.last else 'it said nothing'})")
            say(f"{child.name} is started anew; its requests are tried again")
            await child.start()
            await child.wait_for_line(READY, START_LIMIT_S)
            say(f"{child.name} is back")

    async def stop(self) -> None:
        """Drain the workers, then stop the server."""
        workers = [child for child in self.children if child.name != "temporal"]
        await asyncio.gather(*(worker.stop(self.drain_s + 5) for worker in workers))
        for child in self.children:
            if child.name == "temporal":
                await child.stop(10)
