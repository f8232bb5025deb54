"""A plan as people read it."""

from collections.abc import Mapping

from lens_training.plan.estimate import PhasePlan, RunPlan
from lens_training.rates import duration


def text_of(plan: RunPlan) -> str:
    """What is planned, a block of lines for each subject."""
    shape = " (its published shape)" if plan.published_shape else ""
    lines = [
        f"{plan.name} · {plan.model}{shape}, layer {plan.layer} of {plan.layers}",
        f"{_count(plan.parameters)} parameters, {_count(plan.trained)} trained · {_devices(plan)}",
    ]
    for number, phase in enumerate(plan.phases, 1):
        lines += ["", *_phase(plan, phase, number)]
    total = plan.seconds
    disk = sum(plan.disk_bytes.values())
    lines += [
        "",
        f"data       {plan.rows:,} activations ({plan.rows_from}), dumped in about {duration(plan.dump_seconds)}",
        f"disk       {_bytes(disk)}: {_parts(plan.disk_bytes)}; each checkpoint {_bytes(plan.checkpoint_bytes)}",
        f"all steps  about {duration(total)}, {total * plan.processes / 3600:,.1f} device hours",
    ]
    if plan.problem:
        lines += ["", f"DOES NOT FIT: {plan.problem}"]
    else:
        most = max(phase.bytes for phase in plan.phases)
        lines += ["", f"fits: at most {_bytes(most)} of the {_bytes(plan.usable_bytes)} that each may use"]
    return "\n".join([*lines, "", "Memory and work are counted; times are estimates from data sheets."])


def _phase(plan: RunPlan, phase: PhasePlan, number: int) -> list[str]:
    rate = 1 / phase.step_s
    mfu = f"MFU {100 * phase.mfu:.0f} %, " if plan.is_card else ""
    bound = f" (the rollout waits for {phase.rollout_bound})" if phase.rollout_bound else ""
    return [
        f"phase {number}    {phase.objective}, {phase.steps:,} steps of {phase.batch} activations",
        f"  memory   {_bytes(phase.bytes)} each, fullest in the {phase.moment}",
        f"           always    {_parts(phase.memory_always)}",
        f"           step      {_parts(phase.memory_step)}",
        f"  work     {phase.flops_per_activation / 1e12:,.3g} TFLOP per activation: {_shares(phase.work)}",
        f"  step     {_seconds(phase.step_s)}{bound}: "
        + ", ".join(f"{k} {_seconds(v)}" for k, v in phase.seconds.items()),
        f"  rate     {rate:,.3g} steps/s, {rate * phase.batch:,.3g} activations/s, {mfu}"
        f"{duration(phase.steps * phase.step_s)} in all",
    ]


def _devices(plan: RunPlan) -> str:
    return plan.device if plan.processes == 1 else f"{plan.processes} × {plan.device}"


def _parts(parts: Mapping[str, float]) -> str:
    ordered = sorted(parts.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {_bytes(value)}" for name, value in ordered if value)


def _shares(parts: Mapping[str, float]) -> str:
    total = sum(parts.values())
    return ", ".join(f"{name} {100 * value / total:.0f} %" for name, value in parts.items())


def _bytes(value: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if value >= size:
            return f"{value / size:,.3g} {unit}" if value < 100 * size else f"{value / size:,.0f} {unit}"
    return f"{value / 1e3:,.0f} kB"


def _count(value: float) -> str:
    return f"{value / 1e9:,.2f} G" if value >= 1e9 else f"{value / 1e6:,.1f} M"


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.3g} ms"
