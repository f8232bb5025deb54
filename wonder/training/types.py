"""Wire models of `wonder.LensTraining` and `wonder.LensSweep`: plain JSON is all that starts a run."""

from typing import Any, Final, Literal

from pydantic import Field, JsonValue

from wonder.wire import NonNegative, WireModel, WireRecord

Stage = Literal["tokens", "dump", "merge", "train", "evaluate", "gate", "export", "register"]
STAGES: Final[tuple[Stage, ...]] = ("tokens", "dump", "merge", "train", "evaluate", "gate", "export", "register")
State = Literal["running", "pausing", "paused", "stopping", "stopped", "refused", "failed", "done"]
Outcome = Literal["registered", "exported", "evaluated", "trained", "data", "refused", "stopped"]
OVER: Final[frozenset[State]] = frozenset({"stopped", "refused", "failed", "done"})
"""States that never change again."""


class LensReport(WireRecord):
    """How far a job is, as whoever watches it sees it."""

    stage: Stage
    part: str = ""
    """Which slice, such as 3/8."""
    job: str = ""
    """The launcher's own name for it."""
    node: str = ""
    time: float = 0.0
    """Seconds since the epoch."""
    state: str = ""
    """pending or running."""
    step: int | None = None
    loss: float | None = None
    metrics: dict[str, float] = Field(default_factory=dict)
    phase: str = ""
    checkpoint: int = 0
    """Step of the newest one."""
    steps_per_s: float | None = None
    eta_s: float | None = None
    done: int | None = None
    """Of a stage that counts something other than steps."""
    total: int | None = None
    unit: str = ""


class Tries(WireRecord):
    """What a job has been through since it last got further; decides what is tried next."""

    attempt: int = 0
    fruitless: int = 0
    """Attempts in a row that left no new checkpoint."""
    mark: NonNegative = 0.0
    """How far the furthest attempt came: a checkpoint's step, or what a stage had done."""
    out_of_memory: int = 0
    diverged: int = 0
    rate_scale: float = 1.0
    pieces: int = 1
    back_to: int | None = None
    """Step to go back to before the next attempt."""


class Carried(WireRecord, frozen=False):
    """What a run carries into a new history; the workflow's memory."""

    at: int = 0
    """Index of the stage in `STAGES`."""
    paused: bool = False
    segment: int = 1
    segments: int = 0
    """Finished in all histories."""
    restarts: int = 0
    step: int = 0
    checkpoint: int = 0
    tries: Tries = Tries()
    notes: list[str] = Field(default_factory=list)


class LensRun(WireModel):
    """Starts `wonder.LensTraining`."""

    spec: dict[str, Any]
    """The specification (`lens_training.run_spec.RunSpec`) as JSON; checked at once and completely. `{time}` in
    `folder` becomes the time of the start, so that every run of a schedule has a folder of its own."""
    pool: str = "local"
    """Name of the workers that run the jobs: task queue `wonder-train.<pool>`."""
    until: Stage = "register"
    """The last stage."""
    heartbeat_timeout_s: float = Field(30.0, ge=1)
    """A worker that is silent for so long has died, and another one goes on watching."""
    continue_after: int = Field(50, ge=1)
    """Segments until a new history is begun."""
    carried: Carried | None = None
    """Only set by a run that continues as a new one."""


class LensProgress(WireModel):
    """Answer of the query `wonder.lens_progress`, and of every update."""

    name: str = ""
    state: State = "running"
    stage: Stage = "tokens"
    pool: str = ""
    folder: str = ""
    segment: int = 1
    attempt: int = 0
    step: int = 0
    steps: int = 0
    checkpoint: int = 0
    rate_scale: float = 1.0
    pieces: int = 1
    report: LensReport | None = None
    """The newest that the workflow was sent; a heartbeat knows more."""
    evaluation: dict[str, JsonValue] = Field(default_factory=dict)
    reasons: list[str] = Field(default_factory=list)
    """Why the lens was refused."""
    notes: list[str] = Field(default_factory=list)
    """What happened on the way, oldest first."""


class LensResult(WireModel):
    """What a run came to."""

    outcome: Outcome
    folder: str
    step: int = 0
    steps: int = 0
    segments: int = 0
    restarts: int = 0
    """Jobs that ended before their time and were started again."""
    evaluation: dict[str, JsonValue] = Field(default_factory=dict)
    reasons: list[str] = Field(default_factory=list)
    bundle: str = ""
    """Folder of the exported lens."""
    notes: list[str] = Field(default_factory=list)


class ExtendInput(WireModel):
    """More to train: further phases, or further steps like the last ones."""

    steps: int | None = Field(None, ge=1)
    """A further phase like the last one, its schedules held at their last values."""
    phases: list[dict[str, Any]] = Field(default_factory=list)
    """Further phases as in `run.phases`."""


class SweepRun(WireModel):
    """Starts `wonder.LensSweep`: one run with some settings changed in each arm."""

    spec: dict[str, Any]
    """What all arms share; its `folder` holds the data of all, made once."""
    arms: dict[str, dict[str, Any]] = Field(min_length=1)
    """Name → dotted path → value, such as {"short": {"lens.length": 4}}."""
    pool: str = "local"
    parallel: int = Field(1, ge=1)
    """Arms that run at a time."""
    heartbeat_timeout_s: float = Field(30.0, ge=1)


class ArmResult(WireRecord):
    """One row of a sweep."""

    arm: str
    outcome: str
    """As of `LensResult`, or failed."""
    fve: float | None = None
    kl_recovered: float | None = None
    step: int = 0
    note: str = ""
    """Why it was refused, or failed."""


class SweepResult(WireModel):
    """The arms by fraction of variance explained, best first, and what became of the best."""

    arms: list[ArmResult]
    best: str = ""
    """The best arm that passed its gate; empty where none did."""
    registered: bool = False
    bundle: str = ""
