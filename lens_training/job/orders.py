"""What the workflow and its activities tell each other about a job: an order, a ticket, an end."""

from typing import Any, Literal

from pydantic import Field

from lens_training.evaluate.gate import Standing
from lens_training.evaluate.record import Evaluation
from lens_training.launch.base import JobRef
from wonder.training.types import LensReport, Stage
from wonder.wire import WireModel

How = Literal["completed", "segment_done", "preempted", "lost", "stalled", "crashed", "failed"]
"""`lost`: it is gone, and wrote no end. `crashed`: it ended by an error that is none of the documented ones. `failed`:
by a documented one."""


class JobOrder(WireModel):
    """One job of a run: a data stage, a slice of one, or a segment of training."""

    key: str
    """Names the job for ever; ordered twice, it is started once."""
    stage: Stage
    part: str = ""
    """Slice of the dump, such as 3/8."""
    spec: dict[str, Any]
    until_step: int | None = None
    max_seconds: float | None = None
    rate_scale: float = 1.0
    pieces: int = 1
    back_to: int | None = None
    """Checkpoint to go back to before the job is started; 0: the beginning."""


class JobTicket(WireModel):
    """A job that was started."""

    ref: JobRef
    epoch: int = 0
    """Of the lease on the run folder, for a segment of training."""


class WatchOrder(WireModel):
    """A job to follow, or to end."""

    order: JobOrder
    ticket: JobTicket | None = None
    """None: it is to be ended, and nobody knows whether it was started."""


class JobEnd(WireModel):
    """How a job ended."""

    how: How
    error: str = ""
    """Class of the failure, by its documented name."""
    message: str = ""
    node: str = ""
    step: int = 0
    """Done, by the newest checkpoint."""
    checkpoint: int = 0
    """Step of the newest checkpoint; 0: none."""
    checkpoints: list[int] = Field(default_factory=list)
    mark: float = 0.0
    """How far it came, for whoever asks whether an attempt was of use."""
    report: LensReport | None = None
    evaluation: Evaluation | None = None
    """After the stage `evaluate`; without what is only for reading."""
    current: Standing | None = None
    """The lens that the alias points to then."""
