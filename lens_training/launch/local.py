"""Jobs on this machine, each apart from the worker that started it and found again by the next one."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from lens_training.launch.base import JobRef, JobSpec, JobState, short_hash
from lens_training.launch.command import command, environment
from lens_training.launch.files import create, ending, last_line, read, read_log, replace
from lens_training.launch.processes import boot, marked, send, started
from lens_training.launch.runner import CONFLICT, LOCK
from wonder.errors import JobConflict, JobLost, JobRefused, LauncherUnavailable

_ROOT: Final = Path(__file__).parents[2]
_RUN: Final = (
    "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; "
    "from lens_training.launch.runner import main; sys.exit(main(Path(sys.argv[2])))"
)
_GLANCE_S: Final = 0.05
_TRIES: Final = 40


class LocalLauncher:
    """Starts jobs as processes of this machine.

    A job outlives the worker that asked for it, but not the machine, nor the container or the service unit whose end
    kills everything inside.
    """

    kind = "local"

    def __init__(self, folder: Path, *, python: str = sys.executable, host: str = "") -> None:
        """Jobs are remembered under `folder`, which must outlive the worker.

        Args:
            folder: On a disk of this machine.
            python: The interpreter that jobs run with.
            host: What this machine calls itself, where its name changes with every start; default: its host name.
        """
        self._folder = folder
        self._python = python
        self._host = host or socket.gethostname()

    async def submit(self, job: JobSpec) -> JobRef:
        """Start a job, or find it; see `JobLauncher`."""
        return await asyncio.to_thread(self._submit, job)

    async def find(self, key: str) -> JobRef | None:
        """The job of a key, if it was begun."""
        return self._ref(key) if (self._at(short_hash(key)) / "started.json").exists() else None

    async def poll(self, ref: JobRef) -> JobState:
        """How it stands."""
        return await asyncio.to_thread(self._poll, self._at(ref.job_id))

    async def cancel(self, ref: JobRef, grace: timedelta) -> None:
        """SIGTERM to the process itself or to torchrun; ranks of torchrun have no more than the job's `grace_s`."""
        folder = self._at(ref.job_id)
        if not (folder / "started.json").exists() or (await self.poll(ref)).over:
            return
        create(folder / "cancel.json", {})
        asked = folder / "asked.json"
        while not (await self.poll(ref)).over:
            if not asked.exists() and (child := read(folder / "child.json")) is not None:
                # A second SIGTERM would interrupt torchrun while it waits for its ranks; so it is written down.
                if not send(child["pid"], child["began"], signal.SIGTERM):
                    await asyncio.to_thread(self._signal, folder, signal.SIGTERM)
                create(asked, {"time": time.time()})
            if asked.exists() and time.time() >= read(asked)["time"] + grace.total_seconds():
                await asyncio.to_thread(self._signal, folder, signal.SIGKILL)
            await asyncio.sleep(_GLANCE_S)

    async def logs(self, ref: JobRef, after: int) -> tuple[bytes, int]:
        """What it printed, both streams together."""
        folder = self._at(ref.job_id)
        if not (folder / "started.json").exists():
            raise JobLost(f"no job {ref.key} under {self._folder}: it was started elsewhere, or its folder was removed")
        return read_log(folder / "log", after)

    def _at(self, job_id: str) -> Path:
        return self._folder / job_id

    def _ref(self, key: str) -> JobRef:
        return JobRef(kind=self.kind, job_id=short_hash(key), key=key)

    def _signal(self, folder: Path, number: signal.Signals) -> None:
        for process in marked(read(folder / "started.json")["mark"]):
            send(*process, number)

    def _submit(self, job: JobSpec) -> JobRef:
        _check(job)
        folder = self._at(short_hash(job.key))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            whole = {
                "key": job.key,
                "mark": uuid.uuid4().hex,
                "host": self._host,
                "command": command(job, self._python),
                "env": environment(job),
                "workdir": job.workdir,
                "run_folder": str(Path(job.run_folder).resolve()),
                "wall_s": job.wall_s,
                "grace_s": job.grace_s,
            }
            replace(folder / "job.json", whole)
            for _ in range(_TRIES):
                if (code := self._begin(folder)) == 0:
                    return self._ref(job.key)
                holder = read(Path(job.run_folder) / LOCK) or {}
                if code == CONFLICT and holder.get("key") not in {None, job.key}:
                    raise JobConflict(
                        f"{holder['key']} is alive and writes to {job.run_folder}, where {job.key} was to run: "
                        "wait until it is over, or cancel it"
                    )
                if code != CONFLICT:
                    break
                time.sleep(_GLANCE_S)  # a twin of ours is about to write down that it has begun
        except OSError as error:
            raise LauncherUnavailable(
                f"{job.key} cannot be started from {folder} ({error}): make room or access"
            ) from error
        raise LauncherUnavailable(f"{job.key} did not begin: {last_line(folder / 'runner.log') or 'it said nothing'}")

    def _begin(self, folder: Path) -> int:
        # -I: nothing of the worker's surroundings decides what is imported here, only for the job itself.
        with (folder / "runner.log").open("ab") as log:
            return subprocess.run(
                [sys.executable, "-I", "-c", _RUN, str(_ROOT), str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                check=False,
            ).returncode

    def _poll(self, folder: Path) -> JobState:
        began = read(folder / "started.json")
        if began is None:
            return JobState(state="lost", reason=f"nothing was started from {folder}", node=self._host)
        node = began["host"]
        if node != self._host:
            raise LauncherUnavailable(f"{folder.name} runs on {node}, this is {self._host}: ask the worker there")
        # In this order: a job that ends between two looks has written its end by the second.
        watched = began["boot"] == boot() and started(began["pid"]) == began["began"]
        left = watched or (began["boot"] == boot() and any(marked(began["mark"])))
        ended = read(folder / "exit.json")
        cancelled = (folder / "cancel.json").exists()
        if ended is None and left:
            reason = "" if watched else "its watcher is gone, and how it ends will not be known"
            return JobState(state="running", reason="asked to stop" if cancelled else reason, node=node)
        if ended is None:
            why = "it was killed together with its watcher" if began["boot"] == boot() else "the machine went down"
            return JobState(state="cancelled" if cancelled else "lost", reason=why, node=node)
        code = int(ended["code"])
        state: Any = "cancelled" if cancelled else "succeeded" if code == 0 and not ended["reason"] else "failed"
        reason = ended["reason"] or ("" if code == 0 else ending(code, last_line(folder / "log")))
        return JobState(state=state, reason=reason, node=node, exit_code=code)


def _check(job: JobSpec) -> None:
    if job.nodes != 1:
        raise JobRefused(f"{job.key} wants {job.nodes} nodes, and this launcher has one: use slurm or kubernetes")
    if "://" in job.run_folder:
        raise JobRefused(f"{job.key} wants to run in {job.run_folder}: a local job needs a folder of this machine")
    have = sum(re.fullmatch(r"nvidia\d+", name) is not None for name in os.listdir("/dev"))
    if job.gpus_per_node > have and not Path("/dev/kfd").exists():
        raise JobRefused(
            f"{job.key} wants {job.gpus_per_node} GPUs, and this machine shows {have}: lower gpus_per_node"
        )
