"""`Trainer`: phases of steps with two optimizers; stops, crashes and goes on as if nothing had happened."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from lens_training.batch import Batch, RowSource
from lens_training.run_spec import ParallelSpec, Phase, Run
from lens_training.schedules import Schedule
from lens_training.system import LensSystem, Weights
from lens_training.train.checkpoint import Part, Writer, open_checkpoint, part_of
from lens_training.train.flops import Cost
from lens_training.train.guard import Guard
from lens_training.train.kept import name_of
from lens_training.train.meter import Meter
from lens_training.train.optimizers import copied_like, make_optimizer, moments, restore_moments
from lens_training.train.progress import Mirror, Progress
from lens_training.train.ranks import Ranks
from lens_training.train.spread import Spread
from wonder.errors import DigestMismatch, Diverged

Stop = Callable[[], bool]

REPORT_EVERY: Final = 20
"""Steps between reports …"""
REPORT_SECONDS: Final = 5.0
"""… if they do not take longer than this."""


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


def uses_anchor(phase: Phase) -> bool:
    """Whether the term `anchor` has a weight at some step of the phase."""
    return any(piece.start or piece.end for piece in Schedule.parse(phase.anchor).pieces)


@dataclass(frozen=True)
class Step:
    """A step that was taken."""

    phase: Phase
    loss: float
    metrics: dict[str, float]
    norms: dict[str, float]
    """Of the gradients, before they were clipped."""


@dataclass
class Trainer:
    """Trains a lens: in this process alone, or as one of several that do the same."""

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
    """Moving average of what is trained, by name; empty if none is kept."""
    parallel: ParallelSpec = field(default_factory=ParallelSpec)
    ranks: Ranks = field(default_factory=Ranks)
    mirrors: Sequence[Mirror] = ()
    """Told every report; only of the first process."""
    _saved: int = field(default=-1, init=False)
    """Step of the newest checkpoint: a kill while the one to go on from is written again would leave none."""

    def __post_init__(self) -> None:
        for phase in self.run.phases:
            self.ranks.part(phase.batch)
        self._cost = Cost(self.system)
        if any(map(uses_anchor, self.run.phases)) and self.system.anchor is None:
            self.system.make_anchor()
        self._anchored = False
        self._spread = Spread(self.system, self.parallel, self.ranks)
        self.trained = self._spread.trained
        self.optimizers = {part: make_optimizer(named, self.run, self.parallel) for part, named in self.trained.items()}
        if self.run.average:
            self.average = {name: value.detach().clone() for name, value in self._parameters().items()}
        self._guard = Guard()
        self._meter = Meter(self._spread.device, self.ranks.count)
        self._writer: Writer | None = None
        if self.folder is not None:
            self._writer = Writer(self.folder, self.run.keep, self.ranks, self.may_publish, self.epoch)

    @torch.no_grad()
    def resume(self) -> bool:
        """Go on from the newest checkpoint of the folder; gives whether there was one.

        Raises:
            CorruptCheckpoint: There is one that is not whole.
            DigestMismatch: There is one of another specification.
        """
        if self.folder is None or self._writer is None:
            return False
        if self.ranks.rank == 0:
            self._writer.sweep()
        self.ranks.wait()
        found = open_checkpoint(self.folder, self.ranks)
        if found is None:
            return False
        state = found.state
        if state["digest"] != (wanted := self.digest(found.step)):
            raise DigestMismatch(
                f"the checkpoint at step {found.step} in {self.folder} is of the specification {state['digest'][:12]}… "
                f"and this run's is {wanted[:12]}…: train into another folder, or go on with the one it is of"
            )
        if state["eight_bit"] != self.parallel.eight_bit_adam:
            raise DigestMismatch(
                f"the checkpoint at step {found.step} in {self.folder} has moments in "
                f"{'8' if state['eight_bit'] else '32'} bits: keep parallel.eight_bit_adam as it was"
            )
        self.step = self._saved = found.step
        for name, value in self._parameters().items():
            value.copy_(copied_like(value, found.like(f"model.{name}", value)))
            if self.average:
                self.average[name] = copied_like(value, found.like(f"average.{name}", value))
        for part, optimizer in self.optimizers.items():
            prefix = f"optimizer.{part}."
            restore_moments(optimizer, self.trained[part], found, prefix, state["optimizers"][part])
        self._anchored = bool(state["anchored"])
        for name, value in self.system.anchored().items() if self._anchored else ():
            value.copy_(copied_like(value, found.like(f"anchor.{name}", value)))
        self._guard.restore(state["guard"])
        return True

    def save(self, *, wait: bool = True) -> None:
        """Publish a checkpoint, or begin to.

        The data's cursor, the random numbers and the schedules all follow from the step, so the step is all there is.

        Raises:
            LeaseLost: Another attempt has taken the run over.
            StoreNotUsable: There is no room; what was published before stays.
        """
        assert self._writer is not None
        tensors: dict[str, Tensor | Part] = {}
        plain = {}
        for part, optimizer in self.optimizers.items():
            found, plain[part] = moments(optimizer, self.trained[part])
            tensors |= {f"optimizer.{part}.{name}": part_of(value) for name, value in found.items()}
        anchored = self.system.anchored() if self._anchored else {}
        for prefix, named in (("model", self._parameters()), ("average", self.average), ("anchor", anchored)):
            tensors |= {f"{prefix}.{name}": part_of(value) for name, value in named.items()}
        state = {
            "optimizers": plain,
            "digest": self.digest(self.step),
            "anchored": self._anchored,
            "guard": self._guard.state(),
            "eight_bit": self.parallel.eight_bit_adam,
        }
        self._writer.save(self.step, tensors, state)
        self._saved = self.step
        if wait:
            self._writer.wait()

    def train(self, *, until: int | None = None, stop: Stop = lambda: False) -> bool:
        """Take steps until the run, the segment or the patience is over.

        Args:
            until: Step at which a segment ends; None: the end of the run.
            stop: Asked before every step of every process; True from one of them ends with a checkpoint.

        Returns:
            Whether the run is complete.

        Raises:
            Diverged: The loss is not a finite number, and nothing was changed by that step; or it is far too high.
            LeaseLost: Another attempt has taken the run over.
            StoreNotUsable: A checkpoint cannot be written.
        """
        end = self.run.steps if until is None else min(until, self.run.steps)
        progress: Progress | None = None
        if self.folder is not None and self.ranks.rank == 0:
            progress = Progress(self.folder, self.run.steps, self.epoch, self.mirrors)
            progress.status("running", self.step)
        try:
            while self.step < end and not self.ranks.any(stop()):
                step = self._take_step()
                if progress is not None and self._is_due(end):
                    self._report(progress, step)
                if self._writer is not None and self.step % self.run.checkpoint_every == 0:
                    self.save(wait=False)
            is_over = self.step >= self.run.steps
            if self._writer is not None:
                if self._saved != self.step:
                    self.save(wait=False)
                self._writer.wait()
            if progress is not None:
                state = "completed" if is_over else "segment_done" if self.step >= end else "preempted"
                progress.status(state, self.step, checkpoint=name_of(self.step))  # type: ignore[arg-type]
        except Diverged as error:
            if progress is not None:
                progress.status("failed", self.step, error="Diverged", message=str(error))
            raise
        finally:
            if self._writer is not None:
                self._writer.finish()
            if progress is not None:
                progress.close()
        return is_over

    def _parameters(self) -> dict[str, Tensor]:
        return {name: value for named in self.trained.values() for name, value in named.items()}

    def _is_due(self, end: int) -> bool:
        return self.step % REPORT_EVERY == 0 or self.step == end or self._meter.waited() >= REPORT_SECONDS

    def _report(self, progress: Progress, step: Step) -> None:
        progress.report(
            self.step,
            phase=step.phase.objective,
            loss=step.loss,
            metrics=step.metrics,
            learning_rate=float(self.optimizers["decoder"].param_groups[0]["lr"]),
            gradient_norms=step.norms,
            **self._meter.read(),
        )

    def _hold(self) -> None:
        """Hold on to the decoder as it is now."""
        with torch.no_grad():
            for name, value in self.system.anchored().items():
                value.copy_(self.trained["decoder"][name])
        self._anchored = True

    def _take_step(self) -> Step:
        at, step = self.run.place(self.step)
        phase = self.run.phases[at]
        weights = weights_of(phase, step)
        if uses_anchor(phase) and not self._anchored:
            self._hold()
        rates = {
            part: self.rate_scale * Schedule.parse(text).at(step, phase.steps)
            for part, text in (("decoder", phase.decoder_rate), ("encoder", phase.encoder_rate))
        }
        moving = frozenset(part for part, rate in rates.items() if rate > 0)
        for part, optimizer in self.optimizers.items():
            optimizer.zero_grad(set_to_none=True)
            for group in optimizer.param_groups:
                group["lr"] = rates[part]
        self._spread.train_only(moving)
        with self._meter.part("data"):
            batch = self._rows(phase)
        sums = self._passes(batch, phase, weights, backward=bool(moving))
        total, metrics = sums.pop("loss"), sums
        with self._meter.part("optimizer"):
            norms = {part: self._clipped(part) for part in self.trained}
        if not all(map(math.isfinite, (total, *norms.values()))):
            raise Diverged(
                f"step {self.step}: the loss is {total:.4g} and the norms of the gradients {norms['decoder']:.4g} and "
                f"{norms['encoder']:.4g}: {self._remedy(phase)}"
            )
        if wrong := self._guard(at, total):
            raise Diverged(f"step {self.step}: {wrong}: {self._remedy(phase)}")
        with self._meter.part("optimizer"):
            for part in moving:
                self.optimizers[part].step()
            for name, value in self._parameters().items() if self.average else ():
                self.average[name].lerp_(value.detach(), 1 - self.run.average)
        self.step += 1
        texts = phase.group if phase.objective == "grpo" else 1
        flops = self._cost(phase.objective, weights, batch.ids_BS.shape[1])
        self._meter.count(phase.batch, phase.batch * texts * self.system.length, phase.batch * flops)
        return Step(phase, total, metrics, norms)

    def _rows(self, phase: Phase) -> Batch:
        """This process's rows of the step's batch."""
        if self.ranks.count == 1:
            batch = self.data.shuffled(phase.batch, self.run.seed, self.step)
        else:
            batch = self.data.shuffled(phase.batch, self.run.seed, self.step, self.ranks.part(phase.batch))
        return batch.to(self._spread.device)

    def _passes(self, batch: Batch, phase: Phase, weights: Weights, *, backward: bool) -> dict[str, float]:
        """Forward and backward passes over the pieces of a batch; gives loss and metrics of all processes' rows."""
        # As many pieces in every process, or one would wait for another's gradients for ever.
        pieces = min(self.run.accumulate, phase.batch // self.ranks.count)
        seed = self.run.seed * 1_000_003 + self.step
        found: dict[str, float] = {"loss": 0.0}
        for number in range(pieces):
            bounds = (number * len(batch) // pieces, (number + 1) * len(batch) // pieces)
            piece = batch if pieces == 1 else batch.part(*bounds)
            share = len(piece) / phase.batch
            with self._spread.piece(last=number + 1 == pieces):
                with self._meter.part("forward"), self._spread.autocast():
                    output = self._spread.module(piece, phase.objective, seed, weights)
                if backward:
                    with self._meter.part("backward"):
                        # Gradients are averaged over processes, and the shares of all of them sum to one.
                        (output.loss * (share * self.ranks.count)).backward()
            for name, value in (("loss", output.loss.item()), *output.metrics.items()):
                found[name] = found.get(name, 0.0) + value * share
        return self.ranks.sums(found)

    def _clipped(self, part: str) -> float:
        """Clip the gradient of a part; gives its norm before that."""
        norm: Any = torch.nn.utils.clip_grad_norm_(self.trained[part].values(), self.run.clip)
        return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)

    def _remedy(self, phase: Phase) -> str:
        return (
            f"go back one checkpoint and halve the learning rate (decoder {phase.decoder_rate}, encoder "
            f"{phase.encoder_rate})"
        )
