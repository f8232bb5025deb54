"""`estimate`: from a specification to what its run will need, phase by phase, and whether it fits."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

from lens_training.plan.cards import DISK, USABLE, Card, DeviceKind, card
from lens_training.plan.memory import Memory, Sizes, memory, sizes_of
from lens_training.plan.shape import DTYPES, Shape, read_shape
from lens_training.plan.work import Lens, Run, Terms, Work, blocks_work, rollout_work, step_work
from lens_training.run_spec import LoraSpec, Phase, RunSpec
from lens_training.schedules import Schedule
from lens_training.spec import Spec
from wonder.errors import SpecError

LETTERS: Final = 4
"""Of a token, about, where a prompt is given as text."""
ADAM: Final = 7
"""Numbers in float32 that a step of Adam reads or writes of each weight."""


class PhasePlan(Spec):
    """What a phase will need, of each process unless said otherwise."""

    objective: str
    steps: int
    batch: int
    work: dict[str, float]
    """FLOPs of a step of one process."""
    memory_always: dict[str, float]
    memory_step: dict[str, float]
    moment: str
    """The fullest moment of a step."""
    seconds: dict[str, float]
    """Of a step, by what they are spent on."""
    rollout_bound: Literal["", "memory bandwidth", "computing", "starting kernels"]
    mfu: float
    flops_per_activation: float

    @property
    def bytes(self) -> float:
        """The most there is at once."""
        return sum(self.memory_always.values()) + sum(self.memory_step.values())

    @property
    def step_s(self) -> float:
        """Of a step."""
        return sum(self.seconds.values())


class RunPlan(Spec):
    """What a run will need."""

    name: str
    model: str
    published_shape: bool
    parameters: int
    parameters_active: int
    trained: int
    layer: int
    layers: int
    device: str
    is_card: bool
    processes: int
    usable_bytes: float
    phases: tuple[PhasePlan, ...]
    rows: int
    """Activations that are dumped."""
    rows_from: str
    """How that is known."""
    dump_seconds: float
    disk_bytes: dict[str, float]
    checkpoint_bytes: float
    problem: str = ""
    """Why it cannot run, and what would help; empty where it can."""

    @property
    def seconds(self) -> float:
        """Of all steps."""
        return sum(phase.steps * phase.step_s for phase in self.phases)

    def summary(self) -> dict[str, Any]:
        """Everything, with what follows from it."""
        found = self.model_dump(mode="json")
        for phase, item in zip(self.phases, found["phases"], strict=True):
            rate = phase.batch / phase.step_s
            item |= {"bytes": phase.bytes, "step_s": phase.step_s, "activations_per_s": rate}
        hours = self.seconds * self.processes / 3600
        return {**found, "fits": not self.problem, "seconds": self.seconds, "device_hours": hours}


def estimate(spec: RunSpec, kind: DeviceKind | None = None) -> RunPlan:
    """What a run will need; nothing of it is loaded.

    Args:
        spec: Of the run.
        kind: Of device; None: an H100 where the launcher asks for GPUs, else this processor.

    Raises:
        SpecError: The model's sizes cannot be known, or there is nothing to train.
    """
    if spec.run is None:
        raise SpecError(f"{spec.folder}: the specification has no run, so there is nothing to plan: add run.phases")
    kind = kind or ("h100" if spec.launch.gpus_per_node else "cpu")
    shape, device = read_shape(spec.target.model), card(kind)
    if spec.target.dtype != "auto":
        shape = replace(shape, dtype=spec.target.dtype)
    if spec.target.layer >= shape.layers - 1:
        raise SpecError(
            f"layer {spec.target.layer} of {spec.target.model}, which has blocks 0 to {shape.layers - 1}: at least one "
            f"must come after the lens, so use 0 to {shape.layers - 2}"
        )
    found = _planned(spec, shape, device, kind)
    return found.model_copy(update={"problem": _problem(spec, shape, device, kind, found)})


def lens_of(spec: RunSpec, shape: Shape, kind: DeviceKind) -> Lens:
    """What of the specification's lens its costs depend on; prompts as text are taken for a token per 4 letters."""
    decoder, adapters = spec.lens.decoder, spec.lens.adapters
    again = spec.parallel.gradient_checkpointing or spec.parallel.compile_blocks or spec.parallel.kind == "fsdp2"
    return Lens(
        target=shape,
        layer=spec.target.layer,
        length=spec.lens.length,
        left=1 + (0 if decoder.left is None else -(-len(decoder.left) // LETTERS)),
        right=-(-len(decoder.right) // LETTERS) + len(decoder.right_ids),
        encoder_left=1,
        injection=decoder.injection,
        written_blocks=decoder.written_blocks,
        rank=None if adapters is None else adapters.rank,
        modules=() if adapters is None else adapters.modules,
        shares=not again,
        device="cpu" if kind == "cpu" else "cuda",
    )


def _planned(spec: RunSpec, shape: Shape, device: Card, kind: DeviceKind) -> RunPlan:
    assert spec.run is not None
    lens, processes = lens_of(spec, shape, kind), spec.launch.processes * spec.launch.nodes
    sizes = sizes_of(lens)
    rows, known = _rows(spec)
    state = sizes.trained * (4 + 4 * bool(spec.run.average) + (2 if spec.parallel.eight_bit_adam else 8))
    held = 2 + 2 * spec.dump.final
    documents = rows / spec.dump.positions_per_document
    tokens = documents * spec.dump.context_length
    return RunPlan(
        name=spec.name,
        model=spec.target.model,
        published_shape=shape.published,
        parameters=shape.parameters,
        parameters_active=shape.layers * shape.block_active + shape.embedding,
        trained=sizes.trained,
        layer=spec.target.layer,
        layers=shape.layers,
        device=device.name,
        is_card=kind != "cpu",
        processes=processes,
        usable_bytes=device.memory * USABLE / (processes if kind == "cpu" else 1),
        phases=tuple(_phase(spec, phase, lens, sizes, device, processes) for phase in spec.run.phases),
        rows=rows,
        rows_from=known,
        dump_seconds=_dump_seconds(spec, lens, device, processes, tokens, rows * held * shape.width),
        disk_bytes={
            "tokens": tokens * (2 if shape.vocabulary < 65536 else 4),
            "activations": rows * (held * shape.width + 20.0),
            "checkpoints": spec.run.keep * state,
        },
        checkpoint_bytes=state,
    )


def _phase(spec: RunSpec, phase: Phase, lens: Lens, sizes: Sizes, device: Card, processes: int) -> PhasePlan:
    assert spec.run is not None
    rows = max(1, phase.batch // processes)
    pieces = min(spec.run.accumulate, rows)
    terms = terms_of(phase)
    work = step_work(lens, phase.objective, rows, phase.group, terms, spec.dump.context_length)
    held = _memory(spec, phase, lens, rows, pieces, processes)
    group = phase.group if phase.objective == "grpo" else 1
    seconds, bound = _seconds(spec, phase, lens, sizes, device, work, rows, group, pieces, processes)
    peak = _peak(spec, lens, device)
    return PhasePlan(
        objective=phase.objective,
        steps=phase.steps,
        batch=phase.batch,
        work=work.parts,
        memory_always=held.always,
        memory_step=held.step,
        moment=held.moment,
        seconds=seconds,
        rollout_bound=bound,
        mfu=work.total / peak / sum(seconds.values()),
        flops_per_activation=work.total / rows,
    )


def terms_of(phase: Phase) -> Terms:
    """Which terms have a weight at some step of a phase."""

    def used(text: str) -> bool:
        return any(piece.start or piece.end for piece in Schedule.parse(text).pieces)

    return Terms(used(phase.kl), used(phase.lm), used(phase.anchor), used(phase.entropy))


def _memory(spec: RunSpec, phase: Phase, lens: Lens, rows: int, pieces: int, processes: int) -> Memory:
    assert spec.run is not None
    return memory(
        lens,
        spec.parallel,
        phase.objective,
        -(-rows // pieces),
        phase.group,
        terms_of(phase),
        spec.dump.context_length,
        processes=processes,
        pieces=pieces,
        average=bool(spec.run.average),
        anchored=any(terms_of(each).anchor for each in spec.run.phases),
        frozen_encoder=phase.encoder_rate.strip() in {"0", "0.0"},
    )


def _seconds(
    spec: RunSpec,
    phase: Phase,
    lens: Lens,
    sizes: Sizes,
    device: Card,
    work: Work,
    rows: int,
    group: int,
    pieces: int,
    processes: int,
) -> tuple[dict[str, float], Any]:
    shape, peak = lens.target, _peak(spec, lens, device)
    found: dict[str, float] = {}
    bound = ""
    texts = -(-rows // pieces) * group
    if "rollout" in work.parts:
        own = DTYPES[shape.dtype] if lens.rank is not None else 4
        weights = shape.layers * _touched(shape, texts) + shape.embedding
        keys = texts * (lens.left + lens.right + lens.length) * shape.key_bytes * shape.layers * own
        compute = rollout_work(lens, -(-rows // pieces), group) / peak / device.efficiency
        ways = {
            "memory bandwidth": lens.length * (weights * own + keys) / device.bandwidth / device.reading,
            "computing": compute,
            "starting kernels": lens.length * shape.layers * device.per_block,
        }
        bound = max(ways, key=lambda name: ways[name])
        found["rollout"] = pieces * ways[bound]
    passes = sum(value for name, value in work.parts.items() if name != "rollout")
    again = work.parts["decoder"] / 3 + work.parts["encoder"] / 3 if spec.parallel.gradient_checkpointing else 0.0
    least = pieces * 3 * (shape.layers + lens.layer + 1) * device.per_block
    found["gradient pass"] = max((passes + again) / peak / device.efficiency, least)
    if processes > 1:
        found["communication"] = _communication(spec, sizes, device, phase, pieces, processes)
    share = processes if spec.parallel.kind == "fsdp2" else 1
    found["update"] = ADAM * 4 * sizes.trained / share / device.bandwidth / device.reading
    return found, bound


def _communication(spec: RunSpec, sizes: Sizes, device: Card, phase: Phase, pieces: int, processes: int) -> float:
    """Seconds that nothing hides, which is more than there will be."""
    ring = (processes - 1) / processes
    if spec.parallel.kind != "fsdp2":
        return 2 * ring * sizes.trained * 4 / device.link
    number = 2 if spec.parallel.autocast == "bfloat16" else 4
    gathered = (sizes.decoder + sizes.encoder) * number
    rollout = 0 if phase.objective == "warm_start" else sizes.decoder * number
    return ring * (pieces * (2 * gathered + rollout) + 4 * sizes.trained) / device.link


def _touched(shape: Shape, tokens: int) -> float:
    """Weights of a block that so many tokens read together; of E experts, n tokens that take k touch E·(1-(1-k/E)ⁿ)."""
    dense = sum(each.size for each in shape.maps)
    if not shape.experts:
        return dense
    share = 1 - (1 - shape.experts_used / shape.experts) ** tokens
    return dense + shape.experts * shape.expert_size * share


def _peak(spec: RunSpec, lens: Lens, device: Card) -> float:
    half = spec.parallel.autocast == "bfloat16" or (lens.rank is not None and DTYPES[lens.target.dtype] == 2)
    return device.half if half else device.full


def _rows(spec: RunSpec) -> tuple[int, str]:
    assert spec.run is not None
    path = Path(spec.activations) / "manifest.json"
    try:
        return sum(json.loads(path.read_text())["rows"].values()), "the dump that is there"
    except (OSError, ValueError, KeyError, TypeError):
        asked = sum(phase.steps * phase.batch for phase in spec.run.phases)
        count = spec.corpus.max_documents
        if count is not None:
            return count * spec.dump.positions_per_document, "corpus.max_documents"
        return round(asked / spec.dump.shares.train), "every activation is used once"


def _dump_seconds(spec: RunSpec, lens: Lens, device: Card, processes: int, tokens: float, stored: float) -> float:
    context = spec.dump.context_length
    blocks = lens.target.layers if spec.dump.final else lens.layer + 1
    work = blocks_work(lens, Run(1, context, context), blocks, "forward", adapted=False) * tokens / context
    peak = device.half if DTYPES[lens.target.dtype] == 2 else device.full
    return max(work / peak / device.efficiency / processes, stored / DISK)


def _problem(spec: RunSpec, shape: Shape, device: Card, kind: DeviceKind, found: RunPlan) -> str:
    at, worst = max(enumerate(found.phases), key=lambda item: item[1].bytes)
    if worst.bytes <= found.usable_bytes:
        return ""
    helps: dict[str, str] = {}
    for what, other in _alternatives(spec, worst):
        if (setting := what.split()[0]) in helps:
            continue
        plan = _planned(other, shape, device, kind)
        most = max(phase.bytes for phase in plan.phases)
        if most <= plan.usable_bytes:
            helps[setting] = f"{what} (then {most / 1e9:.1f} GB)"
        if len(helps) == 3:
            break
    advice = (
        ", or ".join(helps.values())
        if helps
        else "more or larger devices, or a smaller model: no single setting is enough"
    )
    return (
        f"phase {at + 1} ({worst.objective}) needs {worst.bytes / 1e9:.1f} GB of each {device.name}, which has "
        f"{found.usable_bytes / 1e9:.1f} GB for it: {(worst.bytes - found.usable_bytes) / 1e9:.1f} GB too much in the "
        f"{worst.moment}; what helps: {advice}"
    )


def _alternatives(spec: RunSpec, worst: PhasePlan) -> Iterator[tuple[str, RunSpec]]:
    """The specification with one setting changed, the least harmful first."""
    assert spec.run is not None
    processes = spec.launch.processes * spec.launch.nodes

    def parallel(**changed: Any) -> RunSpec:
        return spec.model_copy(update={"parallel": spec.parallel.model_copy(update=changed)})

    pieces = spec.run.accumulate
    while pieces < worst.batch // processes:
        pieces = min(2 * pieces, worst.batch // processes)
        run = spec.run.model_copy(update={"accumulate": pieces})
        candidate = spec.model_copy(update={"run": run})
        yield f"run.accumulate {pieces}", candidate
    if not spec.parallel.gradient_checkpointing:
        yield "parallel.gradient_checkpointing true", parallel(gradient_checkpointing=True)
    if spec.lens.adapters is None:
        lens = spec.lens.model_copy(update={"adapters": LoraSpec()})
        kind = "ddp" if spec.parallel.kind == "fsdp2" else spec.parallel.kind
        yield (
            f"lens.adapters with rank {LoraSpec().rank}"
            + (" and parallel.kind ddp" if kind != spec.parallel.kind else ""),
            parallel(kind=kind).model_copy(update={"lens": lens}),
        )
        if processes > 1 and spec.parallel.kind != "fsdp2":
            yield "parallel.kind fsdp2", parallel(kind="fsdp2")
    if not spec.parallel.eight_bit_adam and spec.parallel.kind != "fsdp2" and spec.launch.gpus_per_node:
        yield "parallel.eight_bit_adam true", parallel(eight_bit_adam=True)
    if spec.parallel.autocast == "none" and spec.launch.gpus_per_node:
        yield "parallel.autocast bfloat16", parallel(autocast="bfloat16")
