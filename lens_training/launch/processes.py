"""Processes of this machine by what cannot be recycled: start time, boot, and a mark in the environment."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

MARK: Final = "WONDER_JOB"
"""A variable that every process of a job inherits; torchrun's ranks are in sessions of their own, where no signal to
the job's process group finds them."""
_PROC: Final = Path("/proc")


def boot() -> str:
    """Which start of this machine it is."""
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def started(pid: int) -> int | None:
    """When a process began, in clock ticks since boot (field 22 of `stat`); None if it is gone or a zombie."""
    try:
        # The name, in parentheses, may hold spaces and parentheses: count from behind it.
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def send(pid: int, began: int, number: signal.Signals) -> bool:
    """Signal the process that began then, and never another one of its number; False if it is gone."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if started(pid) != began:  # looked at while the handle keeps the number from meaning another process
            return False
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True


def marked(mark: str) -> Iterator[tuple[int, int]]:
    """Number and start of each live process of a job."""
    wanted = f"{MARK}={mark}".encode()
    for folder in _PROC.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            found = wanted in (folder / "environ").read_bytes().split(b"\0")
        except OSError:  # gone, or another user's
            continue
        if found and (began := started(int(folder.name))) is not None:
            yield int(folder.name), began
