"""What decides a lens and its training: one frozen specification from texts to a registered bundle; torch-free."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from lens_training.schedules import Schedule
from lens_training.spec import DataSpec, Spec, Split, digest_of

Objective = Literal["warm_start", "ste_parallel", "ste_recurrent", "grpo"]
"""`warm_start`: say and read the true words before the activation. `ste_parallel`: straight-through Gumbel in two
passes. `ste_recurrent`: the same through a differentiable rollout. `grpo`: policy gradient on the reconstruction, with
the encoder learning along."""
Injection = Literal["projection", "scale", "per_layer", "additive"]


def _schedule(text: str) -> str:
    Schedule.parse(text)
    return text


ScheduleText = Annotated[str, AfterValidator(_schedule)]
"""A schedule as `lens_training.schedules` reads it."""


class LoraSpec(Spec):
    """Two low-rank adapters on one shared base, instead of two copies of the target."""

    rank: int = Field(64, ge=1)
    alpha: float = Field(128.0, gt=0)
    modules: tuple[str, ...] = ()
    """Names of the linear maps that are adapted; empty: all of the blocks."""


class DecoderSpec(Spec):
    """How an activation enters, and what stands around it."""

    injection: Injection = "projection"
    written_blocks: int = Field(4, ge=1)
    """Blocks before which `per_layer` writes."""
    left: str | None = None
    """Text before the activation; none: the token that begins every sequence."""
    right: str = ""
    """Text between the activation and what is said; empty is cheapest, as everything before it is shared."""
    right_ids: tuple[int, ...] = ()
    """The same as token ids, for a marker that no text gives."""
    forbidden: tuple[int, ...] = ()
    """Tokens never spoken, besides the special ones."""


class LensSpec(Spec):
    """The two models."""

    length: int = Field(8, ge=1, le=512)
    """Tokens of a text."""
    decoder: DecoderSpec = DecoderSpec()
    adapters: LoraSpec | None = None
    """None: decoder and encoder are full copies of the target."""
    skip: int = Field(2, ge=0)
    """First tokens that the term `lm` leaves free."""


class Phase(Spec):
    """A stretch of steps with one objective; numbers as text are schedules over the phase."""

    objective: Objective
    steps: int = Field(ge=1)
    batch: int = Field(16, ge=1)
    """Activations of all ranks together."""
    group: int = Field(4, ge=1)
    """Texts per activation, for `grpo`."""
    decoder_rate: ScheduleText = "3e-4"
    encoder_rate: ScheduleText = "5e-4"
    """0 keeps the encoder frozen."""
    tau: ScheduleText = "1"
    """Temperature of the soft twin, for `ste_…`."""
    kl: ScheduleText = "0"
    lm: ScheduleText = "0"
    anchor: ScheduleText = "0"
    entropy: ScheduleText = "0"
    entropy_floor: float = Field(0.5, ge=0)
    """Nats."""
    delta: bool = False
    detach_feedback: bool = False

    @model_validator(mode="after")
    def _group(self) -> Self:
        if self.objective == "grpo" and self.group < 2:
            raise ValueError("group is 1: grpo compares texts of one activation, so it needs at least 2")
        return self


class Run(Spec):
    """What decides the numbers of a training run besides its data and its models."""

    phases: tuple[Phase, ...] = Field(min_length=1)
    seed: int = Field(1, ge=0)
    clip: float = Field(1.0, gt=0)
    """Largest norm of the gradient of decoder and encoder each."""
    weight_decay: float = Field(0.0, ge=0)
    average: float = Field(0.0, ge=0, lt=1)
    """Decay of the moving average of trained weights; 0: none is kept."""
    checkpoint_every: int = Field(200, ge=1)
    """Steps."""
    keep: int = Field(3, ge=1)
    """Newest checkpoints that stay."""
    accumulate: int = Field(1, ge=1)
    """Pieces a batch is cut into; the gradient is that of the whole."""

    @property
    def steps(self) -> int:
        """Of all phases."""
        return sum(phase.steps for phase in self.phases)

    def place(self, step: int) -> tuple[int, int]:
        """(phase, step within it)."""
        for at, phase in enumerate(self.phases):
            if step < phase.steps:
                return at, step
            step -= phase.steps
        raise IndexError("the run is over")


class ParallelSpec(Spec):
    """How a step is spread; changes no result beyond rounding, so a run may go on with another one."""

    kind: Literal["none", "ddp", "fsdp2"] = "none"
    """`ddp` with one process is the same as `none`."""
    autocast: Literal["none", "bfloat16"] = "none"
    gradient_checkpointing: bool = False
    compile_blocks: bool = False
    eight_bit_adam: bool = False
    """Moments in 8 bits; needs a GPU and bitsandbytes."""


Tracker = Literal["tensorboard", "wandb"]


class TrackSpec(Spec):
    """Who is shown the progress besides `progress.jsonl`."""

    kinds: tuple[Tracker, ...] = ()
    project: str = "lens"
    online: bool = False
    """Whether Weights & Biases may send anything; otherwise it writes into the run's folder."""


class EvaluationSpec(Spec):
    """On what a lens is judged."""

    split: Split = "val"
    rows: int = Field(4096, ge=16)
    """At most; claims on fewer than 4,096 rows are wide."""
    weights: Literal["newest", "average"] = "newest"
    """Which of them stand for the lens; the moving average is measured beside them where it is kept."""
    draws: int = Field(1000, ge=100)
    """Of the bootstrap over documents."""
    samples: int = Field(24, ge=0)
    """Texts shown in the report."""
    fit_rows: int = Field(12_000, ge=16)
    """Training rows, at most, on which controls and probes are fitted."""
    permutations: int = Field(8, ge=1)
    """Orders of the words of a text over which that control is averaged: a single one says little."""
    best_of: int = Field(8, ge=0)
    """Texts drawn per activation for the curve of the best of k; 0: none is drawn."""
    best_of_rows: int = Field(1024, ge=16)
    control_steps: int = Field(0, ge=0)
    """Steps for which further encoders are trained as controls, on true words and on the warm start's texts."""
    labels: tuple[str, ...] = ()
    """What documents are about, for probes on reconstructions: names of fields of `label_file`, or of the corpus's own
    lines of JSON."""
    label_file: str = ""
    """Lines of JSON with `document` (its number in the corpus), if wanted `position`, and the labels."""
    seed: int = Field(0, ge=0)


class GateSpec(Spec):
    """What a lens must reach to be registered; a bar that is None is not asked.

    A minimum is reached when the low end of the 95 % interval reaches it, a maximum when the high end stays under it.
    """

    minimum_fve: float | None = None
    minimum_kl_recovered: float | None = None
    maximum_shuffled_fve: float | None = 0.0
    """A lens whose texts do not matter reads as well from shuffled ones."""
    beat_current: bool = True
    """Not worse than the lens that the alias points to: its interval reaches at least that lens's value."""


class RegisterSpec(Spec):
    """Where a lens goes that passed."""

    registry: str = ""
    """Folder or address of the registry; empty: exported, not registered."""
    name: str = "lens"
    alias: str = "current"


class LaunchSpec(Spec):
    """Where segments run."""

    kind: Literal["local", "slurm", "sagemaker", "kubernetes"] = "local"
    processes: int = Field(1, ge=1)
    """Per node."""
    nodes: int = Field(1, ge=1)
    gpus_per_node: int = Field(0, ge=0)
    device: str = ""
    """cpu or cuda; empty: cuda where gpus_per_node is above 0."""
    segment_steps: int | None = Field(None, ge=1)
    segment_seconds: float | None = Field(None, gt=0)
    """A segment ends at whichever comes first, on a checkpoint; neither: one segment for the whole run."""
    dump_slices: int = Field(1, ge=1)
    grace_seconds: float = Field(30.0, gt=0)
    """From the wish to stop to the end, in which a checkpoint must fit."""
    stall_seconds: float = Field(600.0, gt=0)
    """Without progress for so long, a segment counts as stalled."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The launcher's own: partition, instance type, image …"""


class RunSpec(DataSpec):
    """From texts to a registered lens; what every stage and the workflow reads."""

    name: str = Field("lens", min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9-]*$")
    lens: LensSpec = LensSpec()
    run: Run | None = None
    """None: only data are made."""
    run_name: str = Field("run", min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9-]*$")
    """Subfolder of checkpoints and progress: several runs may share one folder, and so its data."""
    parallel: ParallelSpec = ParallelSpec()
    track: TrackSpec = TrackSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    gate: GateSpec = GateSpec()
    register_as: RegisterSpec = RegisterSpec()
    launch: LaunchSpec = LaunchSpec()

    @model_validator(mode="after")
    def _reach(self) -> Self:
        if self.run is not None and self.dump.minimum_position + 1 < self.lens.length:
            raise ValueError(
                f"lens.length {self.lens.length} is more than there is before dump.minimum_position "
                f"{self.dump.minimum_position}: raise the position to {self.lens.length - 1} or shorten the texts"
            )
        return self

    @property
    def run_folder(self) -> Path:
        """Folder of checkpoints, progress, evaluation and bundle."""
        return Path(self.folder) / self.run_name

    def training_digest(self, step: int) -> str:
        """Of everything that decides the weights after so many steps; checkpoints of another one are not gone on with.

        Where things are, how steps are spread, and how a lens is judged and registered, are no part of it; nor are
        phases that had not begun, so that a run can be extended.
        """
        assert self.run is not None
        parts: dict[str, Any] = {
            name: getattr(self, name).model_dump(mode="json") for name in ("corpus", "target", "dump", "lens")
        }
        run = self.run.model_dump(mode="json", exclude={"checkpoint_every", "keep", "accumulate"})
        begun = self.run.place(step - 1)[0] + 1 if 0 < step <= self.run.steps else len(self.run.phases) if step else 0
        run["phases"] = run["phases"][:begun]
        parts["corpus"].pop("path")
        return digest_of({**parts, "run": run})
