"""How a job stands and how it ended, read from its launcher and from what it writes; knows nothing of Temporal."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from lens_training.evaluate.gate import Standing
from lens_training.evaluate.record import read_evaluation
from lens_training.job.orders import How, JobEnd, JobOrder, JobTicket
from lens_training.launch.base import JobLauncher, JobState
from lens_training.run_spec import RunSpec
from lens_training.spec import parse
from lens_training.train.kept import kept_steps, latest_step
from lens_training.train.progress import last_progress, read_status
from lens_training.train.segment import held_epoch
from wonder.errors import JobLost, LauncherUnavailable, by_name
from wonder.lens.registry import LensRegistry
from wonder.training.types import LensReport

STOPPED: Final = (130, 137, 143)
"""Exit codes of a process that was interrupted, killed or asked to stop: nothing is known against it."""
TAIL: Final = 8192
METRICS: Final = 12
"""At most so many travel with a report."""


@dataclass
class Watch:
    """One job under watch."""

    launcher: JobLauncher
    order: JobOrder
    ticket: JobTicket
    patience_s: float = 900.0
    """How long the place may not answer before the job counts as lost."""
    clock: Callable[[], float] = time.monotonic
    spec: RunSpec = field(init=False)
    _tail: bytes = b""
    _read: int = 0
    _answered: float = field(init=False)
    _moved: float = field(init=False)
    _last: tuple[object, ...] = ()

    def __post_init__(self) -> None:
        self.spec = parse(RunSpec, self.order.spec)
        self._answered = self._moved = self.clock()

    async def look(self) -> tuple[LensReport, JobEnd | None]:
        """How it stands, and how it ended once it has.

        A job that has shown nothing new for `launch.stall_seconds` is stopped and counts as stalled.
        """
        try:
            state = await self.launcher.poll(self.ticket.ref)
            await self._read_log()
            self._answered = self.clock()
        except LauncherUnavailable as error:
            if self.clock() - self._answered < self.patience_s:
                return self.report("unknown"), None
            return self.report("unknown"), self._end("lost", message=str(error))
        report = self.report(state.state, state.node)
        if state.over:
            return report, self.end(state)
        signs = (state.state, report.step, report.checkpoint, report.done, report.time, self._read)
        if signs != self._last or state.state == "pending":
            self._last, self._moved = signs, self.clock()
        elif self.clock() - self._moved > self.spec.launch.stall_seconds:
            await self.cancel()
            said = f"no sign of progress for {self.spec.launch.stall_seconds:g} s"
            return report, self._end("stalled", message=said, node=state.node)
        return report, None

    async def cancel(self) -> JobEnd:
        """End the job, with a checkpoint if it writes some."""
        await self.launcher.cancel(self.ticket.ref, timedelta(seconds=self.spec.launch.grace_seconds))
        state = await self.launcher.poll(self.ticket.ref)
        await self._read_log()
        return self.end(state)

    def report(self, state: str, node: str = "") -> LensReport:
        """What the job has written so far."""
        found: dict[str, Any] = {"stage": self.order.stage, "part": self.order.part, "state": state, "node": node}
        found["job"] = self.ticket.ref.job_id
        if self.order.stage == "train":
            record = last_progress(self.spec.run_folder)
            found["checkpoint"] = latest_step(self.spec.run_folder)
            if record is not None:
                found |= record.model_dump(include={"step", "time", "loss", "phase", "steps_per_s", "eta_s"})
                found["metrics"] = dict(list(record.metrics.items())[:METRICS])
            return LensReport(**found)
        ticks = [line for line in self._lines() if "done" in line and "total" in line]
        if ticks:
            found |= {name: ticks[-1].get(name) for name in ("done", "total", "unit", "eta_s")}
        return LensReport(**found)

    def end(self, state: JobState) -> JobEnd:
        """How it ended: by what it wrote down, else by what the launcher says."""
        return self._train_end(state) if self.order.stage == "train" else self._stage_end(state)

    def _train_end(self, state: JobState) -> JobEnd:
        folder = self.spec.run_folder
        status = read_status(folder)
        if status is not None and status.epoch == self.ticket.epoch:
            if status.state in ("completed", "segment_done", "preempted"):
                return self._end(status.state, node=state.node)
            if status.state == "failed":
                return self._failed(status.error, status.message, state)
        if (held := held_epoch(folder)) > self.ticket.epoch:
            said = f"attempt {held} has taken {folder} over: two runs train into it; give one of them another folder"
            return self._failed("LeaseLost", said, state)
        return self._by_launcher(state)

    def _stage_end(self, state: JobState) -> JobEnd:
        if state.state == "succeeded":
            return self._end("completed", node=state.node, **(self._judged() if self.order.stage == "evaluate" else {}))
        said = [line for line in self._lines() if "error" in line and "message" in line]
        if said and state.state == "failed":
            return self._failed(str(said[-1]["error"]), str(said[-1]["message"]), state)
        return self._by_launcher(state)

    def _failed(self, error: str, message: str, state: JobState) -> JobEnd:
        kind = by_name(error)
        how: How = "crashed" if kind is None or (kind.retryable and error != "OutOfMemory") else "failed"
        return self._end(how, error=error, message=message, node=state.node)

    def _by_launcher(self, state: JobState) -> JobEnd:
        if state.state == "cancelled" or state.exit_code in (130, 143):
            return self._end("preempted", message=state.reason, node=state.node)
        if state.state in ("lost", "succeeded") or state.exit_code in STOPPED:
            return self._end("lost", message=state.reason or "it wrote no end", node=state.node)
        return self._end("crashed", message=state.reason, node=state.node)

    def _end(self, how: How, **more: Any) -> JobEnd:
        report = self.report("over")
        if self.order.stage != "train":
            return JobEnd(how=how, report=report, mark=float(report.done or 0), **more)
        folder = self.spec.run_folder
        at = latest_step(folder)
        return JobEnd(
            how=how, report=report, step=at, checkpoint=at, checkpoints=kept_steps(folder), mark=float(at), **more
        )

    def _judged(self) -> dict[str, Any]:
        """What was measured, and the lens in force beside which it stands."""
        found = read_evaluation(self.spec.run_folder)
        if found is None:
            return {}
        small = found.model_copy(update={"samples": [], "probes": [], "slices": {}, "settings": {}})
        return {"evaluation": small, "current": in_force(self.spec, found.fingerprint)}

    def _lines(self) -> list[dict[str, Any]]:
        found = []
        for line in self._tail.decode(errors="replace").splitlines():
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict):
                found.append(value)
        return found

    async def _read_log(self) -> None:
        """Keep the end of what a stage prints."""
        while self.order.stage != "train":
            try:
                found, self._read = await self.launcher.logs(self.ticket.ref, self._read)
            except JobLost:
                break
            self._tail = (self._tail + found)[-TAIL:]
            if not found:
                break


def in_force(spec: RunSpec, fingerprint: str) -> Standing | None:
    """The lens of this name that the alias points to for the model's weights.

    Raises:
        CorruptBundle: The registry's entry, or the lens, is harmed.
    """
    place = spec.register_as
    if not place.registry:
        return None
    registry = LensRegistry(place.registry)
    entry = registry.in_force(place.name, fingerprint, place.alias)
    if entry is None:
        return None
    lens = registry.version(place.name, entry.version)
    return Standing(
        name=lens.id,
        fve=lens.metrics.fve.value,
        rows_digest=lens.metrics.data_sha256,
        fingerprint=lens.target.fingerprint,
        layer=lens.target.layer,
    )
