"""`Trainer`: phases of steps with two optimizers; stops, crashes and goes on as if nothing had happened."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from lens_training.batch import RowSource
from lens_training.run_spec import Phase, Run
from lens_training.schedules import Schedule
from lens_training.system import LensSystem, Weights
from lens_training.train.checkpoint import load_checkpoint, optimizer_tensors, restore_optimizer, save_checkpoint
from lens_training.train.progress import Progress
from wonder.errors import DigestMismatch, Diverged

Stop = Callable[[], bool]

REPORT_EVERY: Final = 20


def weights_of(phase: Phase, step: int) -> Weights:
    """The weight of each term at a step of the phase."""

    def at(text: str) -> float:
        return Schedule.parse(text).at(step, phase.steps)

    return Weights(
        tau=at(phase.tau),
        group=phase.group,
        detach_feedback=phase.detach_feedback,
        kl=at(phase.kl),
        lm=at(phase.lm),
        anchor=at(phase.anchor),
        entropy=at(phase.entropy),
        entropy_floor=phase.entropy_floor,
        delta=phase.delta,
    )


@dataclass
class Trainer:
    """Trains a lens in this process."""

    system: LensSystem
    data: RowSource
    run: Run
    folder: Path | None = None
    """Where checkpoints and progress go; None: nothing is written."""
    rate_scale: float = 1.0
    """By which every learning rate is multiplied: below 1 after a run diverged."""
    may_publish: Callable[[], None] = lambda: None
    """Asked before a checkpoint is published; raises where another attempt has taken the run over."""
    epoch: int = 0
    """Of the lease; stands in the status."""
    digest: Callable[[int], str] = lambda _step: ""
    """Of what the specification says up to a step; a checkpoint of another one is refused."""
    step: int = 0
    average: dict[str, Tensor] = field(default_factory=dict)
    _saved: int = field(default=-1, init=False)
    """Step of the newest checkpoint: a kill while the one to go on from is written again would leave none."""

    def __post_init__(self) -> None:
        self.optimizers = {
            name: torch.optim.AdamW(part.parameters(), lr=0.0, betas=(0.9, 0.95), weight_decay=self.run.weight_decay)
            for name, part in (("decoder", self.system.decoder), ("encoder", self.system.encoder))
        }
        if self.run.average:
            self.average = {name: value.detach().clone() for name, value in self.system.named_parameters()}

    def resume(self) -> bool:
        """Go on from the newest checkpoint of the folder; gives whether there was one.

        Raises:
            CorruptCheckpoint: There is one that is not whole.
            DigestMismatch: There is one of another specification.
        """
        found = load_checkpoint(self.folder) if self.folder is not None else None
        if found is None:
            return False
        self.step, tensors, state = found
        self._saved = self.step
        if state["digest"] != (wanted := self.digest(self.step)):
            raise DigestMismatch(
                f"the checkpoint at step {self.step} in {self.folder} is of the specification {state['digest'][:12]}…, "
                f"and this run's is {wanted[:12]}…: train into another folder, or go on with the one it is of"
            )
        with torch.no_grad():
            for name, value in self._weights().items():
                value.copy_(tensors[f"model.{name}"])
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
        self.may_publish()
        tensors = {f"model.{name}": value for name, value in self._weights().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.items()}
        plain = {}
        for name, optimizer in self.optimizers.items():
            found, plain[name] = optimizer_tensors(optimizer, f"optimizer.{name}")
            tensors |= found
        state = {"optimizers": plain, "digest": self.digest(self.step)}
        saved = save_checkpoint(self.folder, self.step, tensors, state, keep=self.run.keep)
        self._saved = self.step
        return saved

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
        progress = None if self.folder is None else Progress(self.folder, self.run.steps, self.epoch)
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
            is_over = self.step >= self.run.steps
            if progress is not None:
                if self._saved != self.step:
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

    def _weights(self) -> dict[str, Tensor]:
        """Everything that a checkpoint holds of the models; tied weights once."""
        kept = self.system.state_dict().keys()
        named = {**dict(self.system.named_parameters()), **dict(self.system.named_buffers())}
        return {name: value for name, value in named.items() if name in kept}

    def _take_step(self) -> tuple[Phase, float, dict[str, float]]:
        at, step = self.run.place(self.step)
        phase = self.run.phases[at]
        for name, text in (("decoder", phase.decoder_rate), ("encoder", phase.encoder_rate)):
            rate = self.rate_scale * Schedule.parse(text).at(step, phase.steps)
            for group in self.optimizers[name].param_groups:
                group["lr"] = rate
        batch = self.data.shuffled(phase.batch, self.run.seed, self.step)
        size = math.ceil(len(batch) / self.run.accumulate)
        weights = weights_of(phase, step)
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
