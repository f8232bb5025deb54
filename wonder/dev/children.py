"""Child processes of the local stack: started in their own group, watched, drained, never left behind."""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from wonder.errors import StackError

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    """Ask Linux to end this child when its parent dies, however that happens."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Child:
    """One process: its output goes to a log file, and to `echo` line by line."""

    def __init__(
        self, name: str, command: Sequence[str], *, log: Path, echo: Callable[[str, str], None] | None = None
    ) -> None:
        """Nothing starts before `start`."""
        self.name = name
        self.command = list(command)
        self.log = log
        self.echo = echo
        self.last: deque[str] = deque(maxlen=20)
        self._seen: dict[str, asyncio.Event] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._pump: asyncio.Task[None] | None = None

    async def start(self, environment: dict[str, str] | None = None) -> None:
        """Start it in a session of its own, so that Ctrl-C reaches only the parent, which drains in order.

        One that has ended may be started again; what it printed before is in the log.
        """
        self.last.clear()
        self._seen.clear()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._process = await asyncio.create_subprocess_exec(
            *self.command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
        self._pump = asyncio.create_task(self._copy(self._process))

    async def _copy(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        with self.log.open("a", encoding="utf-8") as log:
            async for raw in process.stdout:
                line = raw.decode(errors="replace").rstrip()
                log.write(line + "\n")
                log.flush()
                self.last.append(line)
                for text, event in self._seen.items():
                    if text in line:
                        event.set()
                if self.echo is not None:
                    self.echo(self.name, line)

    async def wait_for_line(self, text: str, timeout_s: float) -> None:
        """Return once a line with this text was printed.

        Raises:
            StackError: The process ended first, or the time is up.
        """
        event = self._seen.setdefault(text, asyncio.Event())
        if any(text in line for line in self.last):
            return
        seen, ended = asyncio.create_task(event.wait()), asyncio.create_task(self.ended())
        try:
            await asyncio.wait({seen, ended}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if not seen.done():
                what = "ended" if ended.done() else f"was not ready after {timeout_s:g} s"
                raise StackError(f"{self.name} {what}; its last lines (all in {self.log}):\n{self.tail()}")
        finally:
            seen.cancel()
            ended.cancel()

    async def ended(self) -> int:
        """Wait for the end; the exit code."""
        assert self._process is not None
        code = await self._process.wait()
        if self._pump is not None:
            await asyncio.shield(self._pump)
        return code

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int | None:
        """Process id, once started."""
        return None if self._process is None else self._process.pid

    def tail(self) -> str:
        """Its last lines."""
        return "\n".join(f"  {line}" for line in self.last) or "  (it printed nothing)"

    async def stop(self, grace_s: float) -> None:
        """SIGTERM, then after the grace SIGKILL to the whole group."""
        if self._process is None:
            return
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), grace_s)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
                await self._process.wait()
        if self._pump is not None:
            await self._pump
