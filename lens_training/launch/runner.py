"""Runs one job on this machine apart from who asked for it, and writes down how it ended.

`main` leaves when the job has begun, or may not begin; what watches the job lives on in a session of its own. It
imports nothing heavy, because it is there as long as the job. In the job's folder, each file whole from the first
moment it can be seen:

    job.json       what to run; written by whoever asks
    started.json   that it was begun, and who watches it; created exclusively, so that a key never runs twice
    child.json     the process that signals go to: the one that asked for a checkpoint must be torchrun, not its watcher
    cancel.json    that somebody wants it stopped
    exit.json      how it ended
    log            what it printed
"""

import fcntl
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Final

from lens_training.launch.files import create
from lens_training.launch.processes import MARK, boot, marked, send, started

CONFLICT: Final = 75
LOCK: Final = ".job.lock"
"""In the run folder: locked while a job writes there, and says which."""
_SIGNALLED: Final = 128
_NOT_RUN: Final = 127
_GLANCE_S: Final = 0.05


def main(folder: Path) -> int:
    """Begin the job of a folder: 0 if it was begun, now or before; `CONFLICT` if another one writes where it would."""
    job = json.loads((folder / "job.json").read_text())
    told, tell = os.pipe()
    if os.fork():
        os.close(tell)
        answer = os.read(told, 1)
        return answer[0] if answer else 1
    try:
        os.close(told)
        os.setsid()
        code, lock = (0, None) if (folder / "started.json").exists() else _claim(folder, job)
        os.write(tell, bytes([code]))
        os.close(tell)
        if lock is not None:
            ended = _watch(folder, job)
            os.close(lock)  # before the end can be seen, after which somebody may want to write there
            create(folder / "exit.json", ended)
    finally:
        os._exit(0)  # cleaning up is the parent's


def _claim(folder: Path, job: dict[str, Any]) -> tuple[int, int | None]:
    """What to answer, and the lock if this process is the one to run the job."""
    run = Path(job["run_folder"])
    run.mkdir(parents=True, exist_ok=True)
    lock = os.open(run / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return CONFLICT, None
    before = os.pread(lock, 4096, 0)
    # Ranks that outlived torchrun and its watcher go on writing, without a lock.
    if before and any(marked(json.loads(before)["mark"])):
        return CONFLICT, None
    os.ftruncate(lock, 0)
    os.pwrite(lock, json.dumps({"key": job["key"], "mark": job["mark"]}).encode(), 0)
    mine = {"pid": os.getpid(), "began": started(os.getpid()), "boot": boot(), "host": job["host"], "mark": job["mark"]}
    return 0, lock if create(folder / "started.json", mine) else None


def _watch(folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    """How the job ended."""
    if (folder / "cancel.json").exists():
        return {"code": _SIGNALLED + signal.SIGTERM, "reason": "stopped before it began"}
    reason = ""
    try:
        with (folder / "log").open("ab") as log:
            child = subprocess.Popen(
                job["command"],
                cwd=job["workdir"],
                env={**os.environ, **job["env"], MARK: job["mark"]},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
    except OSError as error:
        return {"code": _NOT_RUN, "reason": f"{job['command'][0]} in {job['workdir']}: {error}"}
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())  # a machine that goes down: still time for a checkpoint
    create(folder / "child.json", {"pid": child.pid, "began": started(child.pid) or 0})
    try:
        child.wait(job["wall_s"])
    except subprocess.TimeoutExpired:
        reason = f"its {job['wall_s']} s were over"
        child.terminate()
        try:
            child.wait(job["grace_s"])
        except subprocess.TimeoutExpired:
            child.kill()
    code = child.wait()
    end_all(job["mark"], job["grace_s"])
    return {"code": code if code >= 0 else _SIGNALLED - code, "reason": reason}


def end_all(mark: str, grace_s: float) -> None:
    """Stop what is left of a job: SIGTERM, and after so many seconds SIGKILL until nothing is there."""
    told: set[tuple[int, int]] = set()
    deadline = time.monotonic() + grace_s
    while left := list(marked(mark)):
        for process in left:
            if time.monotonic() >= deadline:
                send(*process, signal.SIGKILL)
            elif process not in told:
                told.add(process)
                send(*process, signal.SIGTERM)
        time.sleep(_GLANCE_S)
