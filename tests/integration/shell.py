"""Running real commands without holding up the workers that live in this process."""

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


async def run(*command: str | Path, env: dict[str, str] | None = None, stdin: str = "", timeout_s: float = 90) -> Done:
    """Run a command to its end; `env` is added to this process's."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(env or {})},
    )
    out, err = await asyncio.wait_for(process.communicate(stdin.encode()), timeout_s)
    assert process.returncode is not None
    return Done(process.returncode, out.decode(), err.decode())


async def wonder(*arguments: str, env: dict[str, str] | None = None, stdin: str = "") -> Done:
    """Run the `wonder` command."""
    return await run(sys.executable, "-m", "wonder.cli", *arguments, env=env, stdin=stdin)
