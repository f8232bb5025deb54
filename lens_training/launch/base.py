"""What every launcher promises, and the words it is said in: a job, a reference to one, its state."""

import hashlib
import re
from datetime import timedelta
from typing import Final, Literal, Protocol

from pydantic import Field, field_validator

from lens_training.spec import Spec
from wonder.wire import WireModel

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

State = Literal["pending", "running", "succeeded", "failed", "cancelled", "lost"]
OVER: Final[frozenset[State]] = frozenset({"succeeded", "failed", "cancelled", "lost"})
"""States that never change again."""


class JobSpec(Spec):
    """One job: a command on so many processes, and the run folder that it alone may write to."""

    key: str = Field(min_length=1, max_length=512)
    """Names the job for ever, such as run/segment/attempt: a key is started once, whoever asks how often."""
    argv: list[str] = Field(min_length=1)
    """What each rank runs, without the interpreter: `["-m", "lens_training.train.main", "SEGMENT.json"]`."""
    env: dict[str, str] = Field(default_factory=dict)
    """Added to what the place itself sets. No secrets: some places keep them readable."""
    nproc: int = Field(1, ge=1)
    """Processes per node."""
    nodes: int = Field(1, ge=1)
    gpus_per_node: int = Field(0, ge=0)
    cpus: int | None = Field(None, ge=1)
    """Per node; None: what the place gives."""
    memory_gb: int | None = Field(None, ge=1)
    """GiB per node; None: what the place gives."""
    wall_s: int | None = Field(None, ge=1)
    """After this time the job is told to stop, and fails; None: no limit of ours."""
    grace_s: int = Field(120, ge=1)
    """From SIGTERM to SIGKILL where the place itself ends the job: longer than a checkpoint takes."""
    image: str = ""
    """For places that run containers."""
    workdir: str = Field(min_length=1)
    run_folder: str = Field(min_length=1)
    """A folder, or the address of one; no two live jobs share it."""

    @field_validator("argv")
    @classmethod
    def _passable(cls, value: list[str]) -> list[str]:
        if any("\0" in part for part in value):
            raise ValueError("an argument holds a NUL character, which no command line can carry")
        return value

    @field_validator("env")
    @classmethod
    def _settable(cls, value: dict[str, str]) -> dict[str, str]:
        for name, content in value.items():
            if not _VARIABLE.fullmatch(name) or "\0" in content:
                raise ValueError(f"{name!r} cannot be set: letters, digits and _ in a name, and no NUL in a value")
        return value


class JobRef(WireModel):
    """Where to find a job that was started."""

    kind: str
    """Of the launcher that started it."""
    job_id: str
    """The place's own name for it."""
    key: str


class JobState(WireModel):
    """How a job stands."""

    state: State
    """`lost`: it is not running and nobody knows how it ended; what it wrote tells."""
    reason: str = ""
    """Why it is so, for people."""
    node: str = ""
    """Where it runs or ran."""
    exit_code: int | None = None
    """128 + n after signal n. With several processes torchrun returns 1 for any failure."""

    @property
    def over(self) -> bool:
        """Whether it will never change again."""
        return self.state in OVER


class JobLauncher(Protocol):
    """Starts jobs somewhere; keeps nothing in memory that matters, so another one may go on where this one died.

    Every call raises LauncherUnavailable (retryable) when the place does not answer; the job is then as it was.
    """

    kind: str

    async def submit(self, job: JobSpec) -> JobRef:
        """Start a job, or find the one that this key started before, even if it is over.

        Raises:
            JobConflict: A live job of another key writes to the same run folder.
            JobRefused: The place does not take such a job, and will not when asked again.
            LauncherUnavailable: The place does not answer; whether the job was started, the next call finds out.
        """
        ...

    async def find(self, key: str) -> JobRef | None:
        """The job that was started under a key, by whichever launcher; None if there is none."""
        ...

    async def poll(self, ref: JobRef) -> JobState:
        """How it stands now; a job that the place does not know is `lost`."""
        ...

    async def cancel(self, ref: JobRef, grace: timedelta) -> None:
        """SIGTERM, time to write a checkpoint, SIGKILL after `grace`; returns when the job is over.

        Some places give no more than the job's own `grace_s`.
        A job that is over stays as it ended. May itself be cancelled, and called again.
        """
        ...

    async def logs(self, ref: JobRef, after: int) -> tuple[bytes, int]:
        """What the job has printed from byte `after` on, a piece at a time, and the offset behind that.

        Raises:
            JobLost: The place does not know the job.
        """
        ...


def short_hash(text: str, letters: int = 16) -> str:
    """Letters and digits that stand for any text, in names of jobs."""
    return hashlib.sha256(text.encode()).hexdigest()[:letters]
