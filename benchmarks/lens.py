"""Whether lenses learn: a target trained here, lenses trained from nothing, each method in its budget of CPU seconds.

Every seed has its own target, its own stories and its own lenses. Recipes were chosen on seed 9; all seeds share them.
A budget is CPU seconds of one thread for all that trains the lens; the target, its activations and judging are apart.
"""

import hashlib
import json
import math
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks import _lens_judge, _lens_world
from benchmarks._lens_judge import baselines, judge
from benchmarks._lens_world import CACHE, Place, prepare
from benchmarks._replacement import replacement_rows
from benchmarks._results import Row, arguments, report
from lens_training.evaluate.record import DISTINCT_ROWS
from lens_training.run_spec import Phase, Run
from lens_training.train.loop import Trainer

SEEDS: Final = (1, 2, 3)
STUDENT: Final = {1: math.inf, 2: 12.706, 3: 4.303}
"""Quantile 97.5 % of the mean of so many seeds."""
RISE: Final = "0 -> 1e-3 over 20s then 1e-3 -> 3e-4"
ROOT: Final = Path(__file__).parent.parent


@dataclass(frozen=True)
class Scale:
    """How much is done."""

    seeds: tuple[int, ...] = SEEDS
    target_steps: int = 800
    train: int = 20_000
    test: int = 4096
    share: float = 1.0
    """Of the steps of every method."""


QUICK: Final = Scale((1,), 150, 2000, 512, 0.01)


@dataclass(frozen=True)
class Method:
    """A recipe, and the CPU seconds it may take."""

    name: str
    about: str
    phases: tuple[Phase, ...]
    budget_s: float | None = None


def warm(steps: int) -> Phase:
    """Say and read the true last words."""
    return Phase(objective="warm_start", steps=steps, batch=64, decoder_rate=RISE, encoder_rate=RISE)


def policy(steps: int, **changed: Any) -> Phase:
    """Policy gradient with an online encoder, held near the warm start."""
    usual = {"batch": 32, "anchor": "0.15", "decoder_rate": "6e-4 -> 5e-5", "encoder_rate": "1e-3 -> 1e-4"}
    return Phase(objective="grpo", steps=steps, **{**usual, **changed})


def straight(objective: Any, steps: int) -> Phase:
    """Straight-through from nothing."""
    return Phase(
        objective=objective,
        steps=steps,
        batch=64,
        tau="2 -> 0.7 [geometric]",
        decoder_rate="0 -> 3e-4 over 20s then 3e-4 -> 3e-5 [cosine]",
        encoder_rate="0 -> 1e-3 over 20s then 1e-3 -> 1e-4 [cosine]",
    )


METHODS: Final = (
    Method("warm start", "says and reads the true last eight words", (warm(600),)),
    Method("readable, 150 s", "warm start, then GRPO with an online encoder", (warm(600), policy(900)), 150),
    Method("readable, 6 min", "the same for longer", (warm(600), policy(2800)), 360),
    Method("two-pass straight-through", "cold", (straight("ste_parallel", 5000),), 300),
    Method("recurrent straight-through", "cold; the first plan's algorithm", (straight("ste_recurrent", 1200),), 300),
    Method(
        "encoder alone",
        "warm start, then only the encoder learns, from the decoder's texts",
        (warm(600), policy(400, decoder_rate="0", anchor="0")),
    ),
    Method(
        "true words",
        "an encoder trained on the true last eight words of 192,000 rows",
        (Phase(objective="warm_start", steps=3000, batch=64, decoder_rate="0", encoder_rate=RISE),),
    ),
)


def main() -> None:
    """Measure, then print the rows."""
    quick = arguments().quick
    torch.set_num_threads(1)
    scale = QUICK if quick else Scale()
    found = {seed: measured(seed, scale) for seed in scale.seeds}
    told = [*rows(found), *replacement_rows(quick=quick)]
    if quick:
        told = [Row(f"toy of {row.figure}", row.value, row.unit, "", row.how) for row in told]
    report("lens", told, more={"seeds": {str(seed): value for seed, value in found.items()}})


def measured(seed: int, scale: Scale) -> dict[str, Any]:
    """Every method of one seed; what was measured before with the same code is taken from where it was kept."""
    place: list[Place] = []

    def at() -> Place:
        if not place:
            place.append(prepare(seed, steps=scale.target_steps, train=scale.train, test=scale.test))
        return place[0]

    found: dict[str, Any] = {"baselines": kept(f"{seed} {scale} baselines", lambda: baselines(at())), "methods": {}}
    for method in METHODS:
        phases = [
            phase.model_copy(update={"steps": max(4, round(phase.steps * scale.share))}) for phase in method.phases
        ]
        run = Run(phases=tuple(phases), seed=seed)
        what = f"{seed} {scale} {run.model_dump_json()}"
        found["methods"][method.name] = kept(what, lambda run=run: one(at(), run))
        sys.stderr.write(f"seed {seed}, {method.name}: {line(found['methods'][method.name])}\n")
    return found


def one(place: Place, run: Run) -> dict[str, Any]:
    """Train a lens and judge it."""
    lens = place.lens(run.seed)
    trainer = Trainer(lens, place.train, run)
    begun = time.process_time()
    trainer.train()
    cpu_s = time.process_time() - begun
    return {"cpu_s": cpu_s, "steps": [phase.steps for phase in run.phases], **judge(lens, place).as_dict()}


def kept(what: str, make: Any) -> Any:
    """A result of this code, from the folder of kept ones or made now."""
    folders = ("lens_training", "wonder/lens")
    files = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    files += [Path(str(module.__file__)) for module in (_lens_judge, _lens_world)]
    source = b"".join(path.read_bytes() for path in files)
    path = CACHE / f"result-{hashlib.sha256(source + what.encode() + torch.__version__.encode()).hexdigest()[:16]}.json"
    if not path.exists():
        found = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, ensure_ascii=False))
    return json.loads(path.read_text())


def line(found: dict[str, Any]) -> str:
    """A method in a line."""
    return (
        f"{found['cpu_s']:.0f} CPU s, FVE {found['fve']['value']:.3f}, "
        f"KL recovered {found['kl_recovered']['value']:.3f}, "
        f"distinct {found['distinct']:.2f}, nll {found['nll']:.2f} beside {found['nll_tail']:.2f}"
    )


def rows(found: dict[int, dict[str, Any]]) -> list[Row]:
    """The figures, means over seeds."""
    methods = {method.name: method for method in METHODS}
    short, long = "readable, 150 s", "readable, 6 min"

    def of(name: str, *path: str) -> list[float]:
        values = []
        for one_seed in found.values():
            value: Any = one_seed["methods"][name]
            for part in path:
                value = value[part]
            values.append(float(value))
        return values

    def row(figure: str, values: Sequence[float], unit: str, reach: str, how: str) -> Row:
        return Row(figure, statistics.fmean(values), unit, reach, f"{how}; {spread(values)}")

    def difference(one: Sequence[float], other: Sequence[float]) -> list[float]:
        return [a - b for a, b in zip(one, other, strict=True)]

    told = []
    for name, fve_reach, kl_reach in (
        (short, ">= 0.84", ">= 0.89"),
        (long, ">= 0.90", ""),
        ("recurrent straight-through", ">= 0.70", ""),
        ("two-pass straight-through", ">= 0.85", ""),
    ):
        method = methods[name]
        said = f"{method.about}; greedy texts of {_lens_world.LENGTH} words, held-out stories"
        documents = "; ".join(
            f"{one['methods'][name]['fve']['low']:.3f} to {one['methods'][name]['fve']['high']:.3f}"
            for one in found.values()
        )
        told += [
            row(f"lens, {name}: variance explained", of(name, "fve", "value"), "", fve_reach,
                f"{said}; bootstrap over stories per seed: {documents}"),
            row(f"lens, {name}: KL recovered", of(name, "kl_recovered", "value"), "", kl_reach, said),
            Row(f"lens, {name}: CPU seconds, worst seed", max(of(name, "cpu_s")), "s", f"<= {method.budget_s:g}",
                "process time of one thread, everything that trains the lens"),
            row(f"lens, {name}: texts less likely than true words", difference(of(name, "nll"), of(name, "nll_tail")),
                "nats per word", "<= 1" if name == long else "", "negative log-likelihood under the target"),
            row(f"lens, {name}: distinct texts", of(name, "distinct"), "", ">= 0.60" if name == long else "",
                f"of the first {DISTINCT_ROWS} held-out rows"),
            row(f"lens, {name}: shuffled texts", of(name, "fve_shuffled"), "", "<= -0.5" if name == long else "",
                "variance explained by the texts of other rows"),
            row(f"lens, {name}: words that are true", of(name, "said"), "", "",
                "of the names, places, animals, things that texts mention, the share that the story is about; other "
                f"stories' by chance: {statistics.fmean(of(name, 'said_chance')):.3f}"),
            row(f"lens, {name}: meaning kept", meaning(found, name), "", "",
                "accuracy of linear probes for what the story is about, on reconstructions over on activations, each "
                "above chance, mean over kinds"),
        ]  # fmt: skip
    quoted = [max(pair) for pair in zip(of("true words", "fve_tail"), of("warm start", "fve_tail"), strict=True)]
    best = [max(value for key, value in one["baselines"].items() if "ridge" in key) for one in found.values()]
    for name in (short, long):
        fve = of(name, "fve", "value")
        told += [
            row(f"lens, {name}: over an encoder of the true words", difference(fve, quoted), "",
                ">= 0.10" if name == long else "",
                f"{methods['true words'].about}, or the warm start's where it is better"),
            row(f"lens, {name}: over ridge on the true words", difference(fve, best), "",
                ">= 0.15" if name == long else "",
                "one-hot last 1, 2, 4 or 8 words, the best of them"),
            row(f"lens, {name}: over the encoder alone", difference(fve, of("encoder alone", "fve", "value")), "", "",
                methods["encoder alone"].about),
        ]  # fmt: skip
    return told


def meaning(found: dict[int, dict[str, Any]], name: str) -> list[float]:
    """Per seed: accuracy above chance on reconstructions, over that on activations, mean over kinds."""
    shares = []
    for one_seed in found.values():
        probes = one_seed["methods"][name]["probes"].values()
        above = [(p["reconstruction"] - p["chance"], p["activation"] - p["chance"]) for p in probes]
        shares.append(sum(one for one, _ in above) / max(sum(other for _, other in above), 1e-9))
    return shares


def spread(values: Sequence[float]) -> str:
    """Mean and interval over seeds, in words."""
    if len(values) == 1:
        return "one seed"
    half = STUDENT[len(values)] * statistics.stdev(values) / len(values) ** 0.5
    middle = statistics.fmean(values)
    seeds = ", ".join(f"{value:.3f}" for value in values)
    return f"mean of {len(values)} seeds ({seeds}), 95 % interval {middle - half:.3f} to {middle + half:.3f}"


if __name__ == "__main__":
    main()
