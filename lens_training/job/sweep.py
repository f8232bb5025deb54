"""`wonder.LensSweep`: one run with some settings changed in each arm; the best that passes its gate is registered."""

import asyncio
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ChildWorkflowError, FailureError

from lens_training.job.workflow import LensTraining
from lens_training.run_spec import RunSpec
from lens_training.spec import parse
from wonder.errors import SpecError
from wonder.names import LENS_SWEEP
from wonder.training.types import ArmResult, LensResult, LensRun, Stage, SweepResult, SweepRun


@workflow.defn(name=LENS_SWEEP)
class LensSweep:
    """Makes the data once, trains and judges every arm, and lets the best one go on to the registry.

    What was done for an arm is found done when the best one is run again to its end.
    """

    @workflow.run
    async def run(self, given: SweepRun) -> SweepResult:
        """Run all arms.

        Raises:
            SpecError: An arm cannot be; nothing was started then.
        """
        self._given = given
        self._rows: dict[str, ArmResult] = {}
        specs = {name: arm_spec(given, name) for name in given.arms}
        self._show()
        await self._child("data", {**given.spec, "run": None}, "merge")
        free = asyncio.Semaphore(given.parallel)
        await asyncio.gather(*(self._arm(name, spec, free) for name, spec in specs.items()))
        table = sorted(self._rows.values(), key=_order)
        best = next((row.arm for row in table if row.outcome == "evaluated"), "")
        if not best:
            return SweepResult(arms=table)
        last = await self._child(f"{best}/register", specs[best], "register")
        return SweepResult(arms=table, best=best, registered=last.outcome == "registered", bundle=last.bundle)

    async def _arm(self, name: str, spec: dict[str, Any], free: asyncio.Semaphore) -> None:
        async with free:
            try:
                found = await self._child(name, spec, "gate")
            except ChildWorkflowError as error:
                self._rows[name] = ArmResult(arm=name, outcome="failed", note=_reason(error))
            else:
                self._rows[name] = ArmResult(
                    arm=name,
                    outcome=found.outcome,
                    fve=_number(found, "fve"),
                    kl_recovered=_number(found, "kl_recovered"),
                    step=found.step,
                    note="; ".join(found.reasons),
                )
            self._show()

    async def _child(self, name: str, spec: dict[str, Any], until: Stage) -> LensResult:
        return await workflow.execute_child_workflow(
            LensTraining.run,
            LensRun(
                spec=spec,
                pool=self._given.pool,
                until=until,
                heartbeat_timeout_s=self._given.heartbeat_timeout_s,
            ),
            id=f"{workflow.info().workflow_id}/{name}",
            static_summary=f"arm {name}",
        )

    def _show(self) -> None:
        lines = ["| arm | outcome | FVE | KL recovered | step | |", "|---|---|--:|--:|--:|---|"]
        for row in sorted(self._rows.values(), key=_order):
            numbers = " | ".join("–" if value is None else f"{value:.3f}" for value in (row.fve, row.kl_recovered))
            lines.append(f"| {row.arm} | {row.outcome} | {numbers} | {row.step:,} | {row.note} |")
        open_ = ", ".join(name for name in self._given.arms if name not in self._rows)
        workflow.set_current_details("\n".join([*lines, "", f"open: {open_}" if open_ else "all arms are over"]))


def arm_spec(given: SweepRun, name: str) -> dict[str, Any]:
    """The specification of an arm: the shared one with its settings, and a run folder of its own beside shared data.

    Raises:
        SpecError: It cannot be, or the arm changes what the shared data are made from.
    """
    spec: dict[str, Any] = {**given.spec, "run_name": f"arm-{name}"}
    for path, value in given.arms[name].items():
        spec = _changed(spec, path.split("."), value, f"arm {name}: {path}")
    parsed = parse(RunSpec, spec, f"arm {name}")
    shared = parse(RunSpec, given.spec)
    for part in ("folder", "corpus", "target", "dump"):
        if getattr(parsed, part) != getattr(shared, part):
            raise SpecError(f"arm {name} changes {part}, and all arms share their data: make it a run of its own")
    if parsed.run is None:
        raise SpecError(f"arm {name} has no run, so there is nothing to compare: add run.phases")
    return spec


def _changed(spec: Any, path: list[str], value: Any, where: str) -> Any:
    """The specification with another value at a path; numbers are places in a list."""
    if not path:
        return value
    name, rest = path[0], path[1:]
    if isinstance(spec, list | tuple):
        if not name.isdecimal() or int(name) >= len(spec):
            raise SpecError(f"{where}: {name} is not a place in a list of {len(spec)}")
        return [_changed(part, rest, value, where) if at == int(name) else part for at, part in enumerate(spec)]
    if not isinstance(spec, dict):
        raise SpecError(f"{where}: there is no {name} in {spec!r}")
    return {**spec, name: _changed(spec.get(name, {}), rest, value, where)}


def _order(row: ArmResult) -> tuple[bool, float, str]:
    return (row.fve is None, -(row.fve or 0.0), row.arm)


def _number(found: LensResult, name: str) -> float | None:
    value = found.evaluation.get(name)
    return float(value) if isinstance(value, int | float) else None


def _reason(error: BaseException) -> str:
    while isinstance(error, FailureError) and error.cause is not None:
        error = error.cause
    return error.message if isinstance(error, FailureError) else str(error)
