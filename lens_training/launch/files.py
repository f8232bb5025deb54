"""Small files that processes leave for each other, and logs read by offset; on the standard library alone."""

import json
import os
import signal
import uuid
from pathlib import Path
from typing import Any, Final

LOG_BYTES: Final = 2**20
"""No look at a log gives more."""
_LAST_BYTES: Final = 4096
_LINE: Final = 300


def create(path: Path, value: dict[str, Any]) -> bool:
    """Write a file that nobody has written before, whole at once; False if somebody has."""
    temporary = _written(path, value)
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    return True


def replace(path: Path, value: dict[str, Any]) -> None:
    """Write a file so that a reader sees all of it or the old one."""
    _written(path, value).replace(path)


def _written(path: Path, value: dict[str, Any]) -> Path:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with temporary.open("w") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    return temporary


def read(path: Path) -> Any:
    """What was written; None before it was."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None


def read_log(path: Path, after: int) -> tuple[bytes, int]:
    """A piece of a log from an offset on, and the offset behind it; nothing before there is a log."""
    try:
        with path.open("rb") as file:
            file.seek(after)
            found = file.read(LOG_BYTES)
    except FileNotFoundError:
        return b"", after
    return found, after + len(found)


def last_line(path: Path) -> str:
    """The last line of a log that says something, shortened; empty before there is one."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _LAST_BYTES))
            return last_said(file.read())
    except FileNotFoundError:
        return ""


def last_said(log: bytes) -> str:
    """The last line that says something, shortened."""
    lines = log.decode(errors="replace").split("\n")
    return next((line.strip()[:_LINE] for line in reversed(lines) if line.strip()), "")


def ending(code: int, last: str = "") -> str:
    """An exit code in words, with the last line of the log."""
    try:
        said = f"killed by {signal.Signals(code - 128).name}"
    except ValueError:
        said = f"exit code {code}"
    return f"{said}: {last}" if last else said
