"""Jobs of a Slurm cluster, through sbatch, squeue, scontrol and scancel."""

import asyncio
import fcntl
import math
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final

from lens_training.launch.base import JobRef, JobSpec, JobState, State, short_hash
from lens_training.launch.files import create, ending, last_line, read, read_log
from lens_training.launch.slurm_script import TIME_OVER, script
from wonder.errors import ExtraMissing, JobConflict, JobLost, JobRefused, LauncherUnavailable

_STATES: Final[dict[str, State]] = {
    "PENDING": "pending",
    "CONFIGURING": "pending",
    "REQUEUED": "pending",
    "REQUEUE_FED": "pending",
    "REQUEUE_HOLD": "pending",
    "SPECIAL_EXIT": "pending",
    "RESV_DEL_HOLD": "pending",
    "RUNNING": "running",
    "COMPLETING": "running",
    "SUSPENDED": "running",
    "STOPPED": "running",
    "SIGNALING": "running",
    "STAGE_OUT": "running",
    "RESIZING": "running",
    "COMPLETED": "succeeded",
    "CANCELLED": "cancelled",
    "FAILED": "failed",
    "TIMEOUT": "failed",
    "DEADLINE": "failed",
    "OUT_OF_MEMORY": "failed",
    "PREEMPTED": "failed",
    "REVOKED": "lost",
    "NODE_FAIL": "lost",
    "BOOT_FAIL": "lost",
}
_PASSING: Final = re.compile(
    r"contact slurm controller|timed out|Connection refused|temporar|transmi|communication|Zero Bytes|No route", re.I
)
_AGAIN_S: Final = 10.0
_UNKNOWN: Final = re.compile(r"Invalid job id", re.I)


class SlurmLauncher:
    """Starts jobs with sbatch.

    Preempted by Slurm, or told to go by its administrators, a job writes a checkpoint, is put back into the queue under
    the same number, and goes on from there: seen from here it is pending again.
    """

    kind = "slurm"

    def __init__(
        self,
        folder: Path,
        *,
        options: Sequence[str] = (),
        python: str = sys.executable,
        timeout_s: float = 60.0,
        interval_s: float = 1.0,
    ) -> None:
        """Scripts, logs and endings are kept under `folder`, which this machine and the nodes share.

        Args:
            folder: On a file system with `flock`.
            options: For sbatch, such as `--partition=h100` or `--account=lab`.
            python: The interpreter on the nodes.
            timeout_s: How long a command of Slurm may take before it counts as an outage.
            interval_s: Between two looks while a job is being cancelled.
        """
        self._folder = folder.resolve()
        self._options = tuple(options)
        self._python = python
        self._timeout_s = timeout_s
        self._interval_s = interval_s

    async def submit(self, job: JobSpec) -> JobRef:
        """Start a job, or find it; see `JobLauncher`."""
        return await asyncio.to_thread(self._submit, job)

    async def find(self, key: str) -> JobRef | None:
        """The job of a key: by what it wrote down, and by its name in the queue."""
        found = await asyncio.to_thread(self._find, key)
        return None if found is None else self._ref(found, key)

    async def poll(self, ref: JobRef) -> JobState:
        """How it stands, as Slurm says; once Slurm has forgotten the job, as it wrote down itself."""
        return await asyncio.to_thread(self._poll, ref)

    async def cancel(self, ref: JobRef, grace: timedelta) -> None:
        """SIGTERM to the batch script, which passes it on once; SIGKILL to everything after `grace`."""
        here = self._at(ref.key)
        if (await self.poll(ref)).over:
            return
        create(here / "cancel.json", {})  # seen by the script: no requeue from here on
        asked, killed_s = here / "asked.json", -math.inf
        while not (state := await self.poll(ref)).over:
            if state.state == "pending":
                await self._tell("scancel", "--state=PENDING", ref.job_id)
            elif not asked.exists():
                await self._tell("scancel", "--signal=TERM", "--batch", ref.job_id)
                create(asked, {"time": time.time()})
            elif time.time() >= read(asked)["time"] + grace.total_seconds() and time.monotonic() >= killed_s + _AGAIN_S:
                killed_s = time.monotonic()
                await self._tell("scancel", "--signal=KILL", "--full", ref.job_id)
                await self._tell("scancel", ref.job_id)
            await asyncio.sleep(self._interval_s)

    async def logs(self, ref: JobRef, after: int) -> tuple[bytes, int]:
        """What all nodes printed; a requeued job goes on where it stopped."""
        if (self._at(ref.key) / "job.slurm").exists():
            return read_log(self._at(ref.key) / "log", after)
        raise JobLost(f"no job {ref.key} under {self._folder}: it was started elsewhere, or its folder was removed")

    def _at(self, key: str) -> Path:
        return self._folder / short_hash(key)

    def _ref(self, job_id: str, key: str) -> JobRef:
        return JobRef(kind=self.kind, job_id=job_id, key=key)

    def _submit(self, job: JobSpec) -> JobRef:
        if (found := self._find(job.key)) is not None:
            return self._ref(found, job.key)
        here = self._at(job.key)
        try:
            here.mkdir(parents=True, exist_ok=True)
            with self._holding(job.run_folder) as lock:
                if (found := self._find(job.key)) is not None:
                    return self._ref(found, job.key)
                holder = os.pread(lock, 4096, 0).decode()
                if holder not in {"", job.key} and (live := self._queued(holder)):
                    raise JobConflict(
                        f"{holder} (job {live}) is alive and writes to {job.run_folder}, where {job.key} was to run: "
                        "wait until it is over, or cancel it"
                    )
                os.ftruncate(lock, 0)
                os.pwrite(lock, job.key.encode(), 0)
                file = here / "job.slurm"
                file.write_text(script(job, here, _name(job.key), self._python, self._options))
                job_id = self._sbatch(job.key, file)
                create(here / "submitted.json", {"job_id": job_id})
                return self._ref(job_id, job.key)
        except OSError as error:
            raise LauncherUnavailable(
                f"{job.key} cannot be started from {here} ({error}): make room or access"
            ) from error

    @contextmanager
    def _holding(self, run_folder: str) -> Iterator[int]:
        runs = self._folder / "runs"
        runs.mkdir(exist_ok=True)
        lock = os.open(runs / short_hash(run_folder.rstrip("/")), os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield lock
        finally:
            os.close(lock)

    def _sbatch(self, key: str, file: Path) -> str:
        done = self._ask("sbatch", "--parsable", str(file))
        if done.returncode == 0:
            return done.stdout.strip().partition(";")[0]
        said = _said(done)
        if _PASSING.search(said):
            raise LauncherUnavailable(f"sbatch did not take {key} now ({said}): try again")
        raise JobRefused(f"sbatch refused {key} ({said}): correct the job, or the launcher's options for sbatch")

    def _find(self, key: str) -> str | None:
        here = self._at(key)
        # By the job itself: among twins it is the one.
        if (claim := here / "claim").exists() and (claimed := claim.read_text().strip()):
            return claimed
        submitted = read(here / "submitted.json")
        return submitted["job_id"] if submitted is not None else self._queued(key)

    def _queued(self, key: str) -> str | None:
        """The number of a job that is neither over nor forgotten."""
        done = self._ask("squeue", "--noheader", f"--name={_name(key)}", "--format=%i")
        if done.returncode != 0:
            raise LauncherUnavailable(f"squeue did not answer ({_said(done)}): try again")
        return min(done.stdout.split(), key=int, default=None)

    def _poll(self, ref: JobRef) -> JobState:
        here = self._at(ref.key)
        done = self._ask("scontrol", "show", "job", "--oneliner", ref.job_id)
        if done.returncode != 0 and not _UNKNOWN.search(_said(done)):
            raise LauncherUnavailable(f"scontrol did not answer ({_said(done)}): try again")
        fields = dict(re.findall(r"(?:^| )([A-Z]\w*)=(\S*)", done.stdout))
        cancelled = (here / "cancel.json").exists()
        ended = read(here / "exit.json")
        if done.returncode != 0 or fields.get("JobName") != _name(ref.key):
            if ended is not None:
                return self._ended(here, int(ended["code"]), "", cancelled=cancelled)
            why = "Slurm does not know it, and it did not write down how it ended"
            return JobState(state="cancelled" if cancelled else "lost", reason=why)
        word, node = fields["JobState"], fields.get("BatchHost", "")
        state = _STATES.get(word, "running")
        if state in {"pending", "running", "lost"}:
            restarts = int(fields.get("Restarts", "0"))
            said = [fields["Reason"]] if state == "pending" and fields.get("Reason", "None") != "None" else []
            said += [word] if state == "lost" else []
            said += ["asked to stop"] * cancelled + [f"requeued {restarts} times"] * (restarts > 0)
            return JobState(state=state, reason=", ".join(said), node=node)
        code, number = (int(part) for part in fields["ExitCode"].split(":"))
        return self._ended(here, 128 + number if number else code, word, cancelled=cancelled, node=node)

    def _ended(self, here: Path, code: int, word: str, *, cancelled: bool, node: str = "") -> JobState:
        state: State = "succeeded" if code == 0 else "failed"
        state = "cancelled" if cancelled else _STATES.get(word, state)
        reason = ""
        if (read(here / "exit.json") or {}).get("reason") == TIME_OVER:
            reason = TIME_OVER
        elif state == "failed":
            reason = ending(code, last_line(here / "log"))
            reason = f"{word}, {reason}" if word not in {"", "FAILED"} else reason
        return JobState(state=state, reason=reason, node=node, exit_code=code)

    async def _tell(self, *command: str) -> None:
        # A job that is over in the meantime makes scancel fail, which the next poll finds out.
        done = await asyncio.to_thread(self._ask, *command)
        if done.returncode != 0 and _PASSING.search(_said(done)):
            raise LauncherUnavailable(f"{command[0]} did not answer ({_said(done)}): try again")

    def _ask(self, *command: str) -> subprocess.CompletedProcess[str]:
        if shutil.which(command[0]) is None:
            raise ExtraMissing(
                f"{command[0]} is not on the path: install Slurm's client here, or choose another launcher"
            )
        try:
            return subprocess.run(command, capture_output=True, text=True, timeout=self._timeout_s, check=False)
        except subprocess.TimeoutExpired:
            raise LauncherUnavailable(f"{command[0]} took more than {self._timeout_s:g} s: try again") from None


def _name(key: str) -> str:
    return f"wonder-{short_hash(key)}"


def _said(done: subprocess.CompletedProcess[str]) -> str:
    return " ".join((done.stderr or done.stdout).split())[-300:]
