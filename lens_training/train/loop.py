"""`Trainer`: phases of steps with two optimizers; stops, crashes and goes on as if nothing had happened."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from lens_training.batch import Batch
from lens_training.schedules import Schedule
from lens_training.system import LensSystem, Objective, Weights
from lens_training.train.checkpoint import load_checkpoint, optimizer_tensors, restore_optimizer, save_checkpoint
from lens_training.train.progress import Progress
from wonder.errors import Diverged

Stop = Callable[[], bool]

REPORT_EVERY: Final = 20


@dataclass(frozen=True)
class Phase:
    """A stretch of steps with one objective; numbers are schedules over the phase."""

    objective: Objective
    steps: int
    batch: int = 16
    decoder_rate: str = "3e-4"
    encoder_rate: str = "5e-4"
    """0 keeps the encoder frozen."""
    tau: str = "1"
    kl: str = "0"
    lm: str = "0"
    anchor: str = "0"
    entropy: str = "0"
    entropy_floor: float = 0.5
    delta: bool = False
    detach_feedback: bool = False

    def weights(self, step: int) -> Weights:
        """At a step of the phase."""

        def at(text: str) -> float:
            return Schedule.parse(text).at(step, self.steps)

        return Weights(
            tau=at(self.tau),
            detach_feedback=self.detach_feedback,
            kl=at(self.kl),
            lm=at(self.lm),
            anchor=at(self.anchor),
            entropy=at(self.entropy),
            entropy_floor=self.entropy_floor,
            delta=self.delta,
        )


@dataclass(frozen=True)
class Run:
    """What decides a run besides its data and its models."""

    phases: Sequence[Phase]
    seed: int = 1
    clip: float = 1.0
    average: float = 0.0
    """Decay of the moving average of trained weights; 0: none is kept."""
    checkpoint_every: int = 200
    accumulate: int = 1
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


@dataclass
class Trainer:
    """Trains a lens in this process."""

    system: LensSystem
    data: Batch
    run: Run
    folder: Path | None = None
    """Where checkpoints and progress go; None: nothing is written."""
    step: int = 0
    average: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.optimizers = {
            "decoder": torch.optim.AdamW(self.system.decoder.parameters(), lr=0.0, betas=(0.9, 0.95), weight_decay=0.0),
            "encoder": torch.optim.AdamW(self.system.encoder.parameters(), lr=0.0, betas=(0.9, 0.95), weight_decay=0.0),
        }
        if self.run.average:
            self.average = {name: value.detach().clone() for name, value in self.system.named_parameters()}

    def resume(self) -> bool:
        """Go on from the newest checkpoint of the folder; gives whether there was one.

        Raises:
            CorruptCheckpoint: There is one that is not whole.
        """
        found = load_checkpoint(self.folder) if self.folder is not None else None
        if found is None:
            return False
        self.step, tensors, state = found
        weights = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
        self.system.load_state_dict(weights)
        for name, optimizer in self.optimizers.items():
            restore_optimizer(optimizer, f"optimizer.{name}", tensors, state["optimizers"][name])
        self.average = {
            name.removeprefix("average."): value for name, value in tensors.items() if name.startswith("average.")
        }
        return True

    def save(self) -> Path:
        """Publish a checkpoint.

        The data's cursor, the random numbers and the schedules all follow from the step, so the step is all there is.
        """
        assert self.folder is not None
        tensors = {f"model.{name}": value for name, value in self.system.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.items()}
        plain = {}
        for name, optimizer in self.optimizers.items():
            found, plain[name] = optimizer_tensors(optimizer, f"optimizer.{name}")
            tensors |= found
        return save_checkpoint(self.folder, self.step, tensors, {"optimizers": plain, "seed": self.run.seed})

    def train(self, *, until: int | None = None, stop: Stop = lambda: False) -> bool:
        """Take steps until the run, the segment or the patience is over.

        Args:
            until: Step at which a segment ends; None: the end of the run.
            stop: Asked after every step; True ends with a checkpoint.

        Returns:
            Whether the run is complete.

        Raises:
            Diverged: The loss is not a finite number; nothing was changed by that step.
        """
        end = self.run.steps if until is None else min(until, self.run.steps)
        progress = None if self.folder is None else Progress(self.folder, self.run.steps)
        saved = -1
        try:
            while self.step < end and not stop():
                phase, loss, metrics = self._take_step()
                if progress is not None:
                    if self.step % REPORT_EVERY == 0 or self.step == end:
                        rate = float(self.optimizers["decoder"].param_groups[0]["lr"])
                        progress.report(
                            self.step, phase=phase.objective, loss=loss, metrics=metrics, learning_rate=rate
                        )
                    if self.step % self.run.checkpoint_every == 0:
                        self.save()
                        saved = self.step
            is_over = self.step >= self.run.steps
            if progress is not None:
                if saved != self.step:
                    self.save()
                state = "completed" if is_over else "segment_done" if self.step >= end else "preempted"
                progress.status(state, self.step, checkpoint=f"step_{self.step:08d}")  # type: ignore[arg-type]
        except Diverged as error:
            if progress is not None:
                progress.status("failed", self.step, error="Diverged", message=str(error))
            raise
        finally:
            if progress is not None:
                progress.close()
        return is_over

    def _take_step(self) -> tuple[Phase, float, dict[str, float]]:
        at, step = self.run.place(self.step)
        phase = self.run.phases[at]
        for name, text in (("decoder", phase.decoder_rate), ("encoder", phase.encoder_rate)):
            rate = Schedule.parse(text).at(step, phase.steps)
            for group in self.optimizers[name].param_groups:
                group["lr"] = rate
        batch = self.data.shuffled(phase.batch, self.run.seed, self.step)
        size = math.ceil(len(batch) / self.run.accumulate)
        weights = phase.weights(step)
        total, metrics = 0.0, {}
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        for number, piece in enumerate(batch.split(size)):
            seed = (self.run.seed * 1_000_003 + self.step) * 64 + number
            output = self.system(piece, phase.objective, seed, weights)
            share = len(piece) / len(batch)
            (output.loss * share).backward()
            total += output.loss.item() * share
            metrics = output.metrics
        parts = {"decoder": self.system.decoder, "encoder": self.system.encoder}
        norms = [float(torch.nn.utils.clip_grad_norm_(part.parameters(), self.run.clip)) for part in parts.values()]
        if not all(map(math.isfinite, (total, *norms))):
            raise Diverged(
                f"step {self.step}: the loss is {total:.4g} and the norms of the gradients {norms[0]:.4g} and "
                f"{norms[1]:.4g}: go back one checkpoint and halve the learning rate (decoder {phase.decoder_rate}, "
                f"encoder {phase.encoder_rate})"
            )
        for optimizer in self.optimizers.values():
            if optimizer.param_groups[0]["lr"] > 0:
                optimizer.step()
        self.step += 1
        for name, value in self.system.named_parameters() if self.average else ():
            self.average[name].lerp_(value.detach(), 1 - self.run.average)
        return phase, total, metrics
