"""What reading costs: a full trace beside plain `generate`, and many ragged requests beside batches of equal ones.

Process CPU time of one thread; the variants of a figure take turns, ratios are taken within a turn, medians over turns.
"""

import argparse
import gc
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks._models import VOCABULARY, llama, prompt_ids, text_of, tokenizer
from benchmarks._results import Row, arguments, report
from benchmarks._timing import in_turns, ratio
from wonder.engine.engine import TraceEngine
from wonder.engine.recorder import ReadPlan
from wonder.engine.request import Request
from wonder.engine.sampling import RowDraw
from wonder.engine.slot_recorder import RowReadings
from wonder.engine.slot_runner import SlotRunner
from wonder.trace.capture import ThoughtCapture
from wonder.trace.sampling import Sampling
from wonder.trace.size import encoded_bytes

ALL = ThoughtCapture(
    capture_attention=True, compute_attention_entropy=True, capture_expert_routing=True, attention_layers="all"
)
QUARTER = ALL.model_copy(update={"attention_layers": "quarter"})
BINNED = ALL.model_copy(update={"detail": "binned"})
OFF = ThoughtCapture(enabled=False)
ROOT = Path(__file__).parent.parent
GROUPS = (
    "kernels",
    "size",
    *(f"steps-{length}" for length in (128, 512, 2048)),
    *(f"prompt-{length}" for length in (1024, 2048)),
    *(f"ragged-{width}" for width in (16, 8)),
)
"""What can be measured alone; its rows then take their places among those that were written before."""
PEERS = Path(os.environ.get("WONDER_BENCH_PEERS", ROOT / ".venv-peers/bin/python"))
"""The interpreter in which the other tools are installed; `make bench-peers` makes it."""


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    quick: bool
    times: int = 1
    """Turns are multiplied by this."""


def peak_mb(run: Callable[[], object]) -> float | None:
    """Growth of the resident memory during a call, at its peak, in MB; None where the system does not say."""
    gc.collect()
    try:
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        run()
        return (_status("VmHWM") - before) / 1024
    except (OSError, KeyError):
        return None


def _status(name: str) -> int:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return int(lines[name].split()[0])


def generate(model: Any, prompts: Sequence[Sequence[int]], new: int) -> None:
    """Plain transformers: greedy, left-padded where lengths differ."""
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    with torch.inference_mode():
        model.generate(ids, attention_mask=mask, max_new_tokens=new, do_sample=False)


def ask(engine: TraceEngine, prompts: Sequence[str], new: Sequence[int], capture: ThoughtCapture) -> None:
    """The engine, from texts to messages."""
    requests = [
        Request(prompt=prompt, sampling=Sampling(max_new_tokens=count), capture=capture)
        for prompt, count in zip(prompts, new, strict=True)
    ]
    for message in engine.generate(requests):
        if isinstance(message, Exception):
            raise message


def over_generate(model: Any, engine: TraceEngine, scale: Scale, wanted: Sequence[int] = (1024, 2048)) -> list[Row]:
    """One long prompt: a full trace over plain `generate`."""
    rows = []
    for length, bar in ((1024, 1.02), (2048, 1.0)):
        if length not in wanted or (scale.quick and length > 1024):
            continue
        ids, new, turns = prompt_ids(length), 8 if scale.quick else 64, 1 if scale.quick else 3 * scale.times
        text = text_of(ids)
        variants: dict[str, Callable[[], object]] = {
            "plain": partial(generate, model, [ids], new),
            "all": partial(ask, engine, [text], [new], ALL),
            "quarter": partial(ask, engine, [text], [new], QUARTER),
        }
        seconds = in_turns(variants, turns)
        how = (
            f"greedy, {new} new tokens, base model (Llama 8 × 512, fp32, random weights); text to message with every "
            f"signal, over transformers' generate on token ids; median of {turns} turns"
        )
        for name, layers in (("all", "all layers"), ("quarter", "a quarter of the layers")):
            figure = f"full trace over plain generate, {length}-token prompt, attention in {layers}"
            rows.append(Row(figure, ratio(seconds, name, "plain"), "x", f"<= {bar}", how))
        if length == 1024:
            rows += peers(length, 4 if scale.quick else 16, turns)
        if length == 2048:
            rows += _memory(variants)
    return rows


def peers(length: int, new: int, turns: int) -> list[Row]:
    """The same of other tools, in their own interpreter: each beside plain `generate` there."""
    command = [str(PEERS), "-m", "benchmarks._peers", str(length), str(new), str(turns)]
    names = (
        "nnsight, norms",
        "nnsight, norms and attention",
        "TransformerLens, hooks",
        "TransformerLens, return_cache",
    )
    found: dict[str, Any] = {"ratios": {}, "failed": {}, "versions": {}}
    if PEERS.exists():
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
    used = ", ".join(f"{package} {number}" for package, number in found["versions"].items())
    rows = []
    for name in names:
        figure = f"beside it: {name}, over plain generate, {length}-token prompt"
        if name in found["ratios"]:
            what = "prompt and answer once more into its cache" if "cache" in name else "the last position of each step"
            how = f"greedy, {new} new tokens, same model shape, fp32; {what}; {used}; median of {turns} turns"
            rows.append(Row(figure, found["ratios"][name], "x", "", how))
        else:
            reason = found["failed"].get(name.split(",")[0], "not installed here: make bench-peers")
            rows.append(Row(figure, None, "", "", reason))
    return rows


def _memory(variants: dict[str, Callable[[], object]]) -> list[Row]:
    peaks = {name: peak_mb(run) for name, run in variants.items()}
    plain, traced = peaks["plain"], peaks["all"]
    if plain is None or traced is None:
        return []
    how = f"peak resident growth, one call each: plain {plain:.0f} MB, traced {traced:.0f} MB (cache laid out before)"
    return [Row("full trace over plain generate, 2048 tokens, extra peak memory", traced - plain, "MB", "<= 20", how)]


def step_costs(engine: TraceEngine, scale: Scale, wanted: Sequence[int] = (128, 512, 2048)) -> list[Row]:
    """One decode step of the slot loop, with and without reading, at the same place in the same cache."""
    rows = []
    n_layers = engine.info.n_layers
    plans = {
        "quarter": ReadPlan(tuple(range(3, n_layers, 4)), 4, (), True, 3),
        "all": ReadPlan(tuple(range(n_layers)), 4, (), True, 3),
    }
    steps = 3 if scale.quick else 30 * scale.times
    for length in [length for length in wanted if length <= 512 or not scale.quick]:
        for count in (1, 8):
            runner = SlotRunner(engine._runtime, count)
            with torch.inference_mode():
                runner.cache.reserve(count, length + 1, 0, count * (length + 64))
                # What stands in the cache does not change what a step costs, so a short prompt fills it.
                draws = [RowDraw(Sampling()) for _ in range(count)]
                runner.prefill(0, [prompt_ids(64, seed) for seed in range(count)], 0, [None] * count, draws)
                for layer in runner.cache.slot_layers:
                    for part in layer._storage():
                        part[:, :, :length] = torch.randn(part[:, :, :length].shape)

                def step(plan: ReadPlan | None, runner=runner, count=count, length=length, draws=draws) -> None:  # type: ignore[no-untyped-def]
                    for _ in range(2):
                        readings = [None if plan is None else RowReadings(plan) for _ in range(count)]
                        runner.decode(0, list(range(1, count + 1)), [length] * count, readings, draws)

                variants: dict[str, Callable[[], object]] = {
                    "plain": lambda step=step: step(None),
                    **{name: lambda step=step, plan=plan: step(plan) for name, plan in plans.items()},
                }
                seconds = in_turns(variants, steps)
            how = f"two decode steps of {count} rows at {length} tokens each; median of {steps} turns; prefill left out"
            for name, bar, layers in (("quarter", 1.05, "a quarter of"), ("all", 1.12, "all")):
                figure = f"own loop traced over plain, {length} × {count}, attention in {layers} layers"
                rows.append(Row(figure, ratio(seconds, name, "plain"), "x", f"<= {bar}", how))
    return rows


def crowd(plain: Any, model: Any, scale: Scale, wanted: Sequence[int] = (16, 8)) -> list[Row]:
    """24 ragged requests: the engine with every signal, static left-padded batches, one after the other."""
    draw = random.Random(0)
    count, turns = (8, 1) if scale.quick else (24, 2 * scale.times)
    longest = 24 if scale.quick else 80
    sizes = [(draw.randint(16, 192), draw.randint(8, longest)) for _ in range(count)]
    prompts = [prompt_ids(length, seed) for seed, (length, _) in enumerate(sizes)]
    new = [size[1] for size in sizes]
    texts = [text_of(ids) for ids in prompts]
    rows: list[Row] = []
    for width in (4,) if scale.quick else wanted:

        def static(width: int = width) -> None:
            for at in range(0, count, width):
                generate(plain, prompts[at : at + width], max(new[at : at + width]))

        def like(width: int = width) -> None:
            order = sorted(range(count), key=lambda at: -new[at])
            for at in range(0, count, width):
                batch = order[at : at + width]
                generate(plain, [prompts[one] for one in batch], new[batch[0]])

        def sequential() -> None:
            for ids, tokens in zip(prompts, new, strict=True):
                generate(plain, [ids], tokens)

        engine = TraceEngine(model, tokenizer(VOCABULARY), max_batch=width)
        variants: dict[str, Callable[[], object]] = {
            "static": static,
            "quarter": partial(ask, engine, texts, new, QUARTER),
            "all": partial(ask, engine, texts, new, ALL),
        }
        if width != 8:
            variants |= {"like": like, "sequential": sequential, "plain": partial(ask, engine, texts, new, OFF)}
        seconds = in_turns(variants, turns)
        engine.close()
        how = (
            f"{count} requests handed over at once, prompts of 16-192 and answers of 8-{longest} tokens, {sum(new)} in "
            f"all; at most {width} rows share a step in the engine, and {width} a static batch; text to message with "
            f"every signal, over transformers' generate on token ids; CPU seconds of the other over the engine's; "
            f"median of {turns} turns"
        )
        labels = {"quarter": "traced, a quarter of the layers", "all": "traced, all layers", "plain": "untraced"}
        for other, against, bar in (
            ("static", "static left-padded batches", ">= 1.5"),
            ("like", "static batches sorted by their budgets, the best case", ""),
            ("sequential", "sequential generate", ">= 2.5"),
        ):
            for name in [name for name in labels if {name, other} <= seconds.keys()]:
                figure = f"{count} ragged requests ({labels[name]}) vs {against}, {width} rows"
                rows.append(Row(figure, ratio(seconds, other, name), "x", "" if name == "plain" else bar, how))
        rate = sum(new) / median(seconds["all"])
        rows.append(Row(f"ragged requests traced (all layers), {width} rows", rate, "tok/CPU s", "", how))
    return rows


class _Kernels(TorchDispatchMode):
    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not (func.is_view or "view" in func.__name__)
        return func(*args, **(kwargs or {}))


def kernels() -> list[Row]:
    """Operations that a decode step dispatches because of reading; views are not counted."""
    engine = TraceEngine(llama(32, 64, 512), tokenizer(512))
    rows = []
    for count in (1, 4):
        found = {}
        lengths = [20 + at for at in range(count)]
        plans = {"off": None, "a quarter of": tuple(range(3, 32, 4)), "all": tuple(range(32))}
        for name, layers in plans.items():
            runner = SlotRunner(engine._runtime, count)
            # Outside inference mode composite operations are counted as what they are made of.
            with torch.no_grad():
                runner.cache.reserve(count, 64, 0, 64 * count)
                draws = [RowDraw(Sampling()) for _ in range(count)]
                for row, length in enumerate(lengths):
                    runner.prefill(row, [prompt_ids(length, row, 512)], 0, [None], draws[row : row + 1])
                plan = None if layers is None else ReadPlan(layers, 4, (), True, 3)
                readings = [None if plan is None else RowReadings(plan) for _ in range(count)]
                with _Kernels() as counted:
                    runner.decode(0, [1] * count, lengths, readings, draws)
                found[name] = counted.count
        shape = "one row" if count == 1 else f"{count} ragged rows"
        for name in ("a quarter of", "all"):
            rows.append(
                Row(
                    f"kernels added per decode step, 32 layers, attention in {name} layers, {shape}",
                    found[name] - found["off"],
                    "kernels",
                    "<= 45",
                    f"dispatched operations that are no views; {found['off']} without reading",
                )
            )
    engine.close()
    return rows


def size() -> list[Row]:
    """A trace of 32 layers and 256 tokens, as it travels: binned over time, and whole."""
    engine = TraceEngine(llama(32, 64, 512), tokenizer(512))
    rows = []
    for capture, name, bar, kept in (
        (BINNED, "binned", "<= 8", "16 time bins and the least certain tokens"),
        (ALL, "every token", "", "every list over tokens, 3 alternatives each"),
    ):
        sampling = Sampling(max_new_tokens=256)
        request = Request(prompt=text_of(prompt_ids(64, 0, 512)), sampling=sampling, capture=capture)
        trace = engine.generate_one(request).thought_trace
        assert trace is not None
        how = f"JSON bytes / 1024 with every signal, attention of all layers, 4 pairs per layer; {kept}"
        figure = f"trace of 32 layers × 256 tokens, encoded, {name}"
        rows.append(Row(figure, encoded_bytes(trace) / 1024, "KB", bar, how))
    engine.close()
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", action="append", choices=GROUPS, metavar="GROUP", help=", ".join(GROUPS))
    parser.add_argument("--times", type=int, default=1, help="so many times as many turns, on a noisy machine")
    chosen, options = parser.parse_known_args(argv)
    scale = Scale(arguments(options).quick, chosen.times)
    torch.set_num_threads(1)
    model = llama()
    plain = llama()  # hooks and taps are on the other one
    engine = TraceEngine(model, tokenizer(VOCABULARY))
    begun = time.perf_counter()
    parts: dict[str, Callable[[], list[Row]]] = {
        "kernels": kernels,
        "size": size,
        **{f"steps-{length}": partial(step_costs, engine, scale, (length,)) for length in (128, 512, 2048)},
        **{f"prompt-{length}": partial(over_generate, plain, engine, scale, (length,)) for length in (1024, 2048)},
        **{f"ragged-{width}": partial(crowd, plain, model, scale, (width,)) for width in (16, 8)},
    }
    left_out = ("ragged-8",) if scale.quick else ()  # a quick run has one width of its own
    rows = []
    for name in [name for name in GROUPS if name not in left_out and name in (chosen.only or GROUPS)]:
        print(f"{time.perf_counter() - begun:5.0f} s  {name} …", file=sys.stderr, flush=True)
        rows += parts[name]()
    engine.close()
    print(f"{time.perf_counter() - begun:5.0f} s  done", file=sys.stderr, flush=True)
    report("engine", rows, options, part=bool(chosen.only))


if __name__ == "__main__":
    main(sys.argv[1:])
