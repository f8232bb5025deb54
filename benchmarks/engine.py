"""What reading costs: a full trace beside plain `generate`, and many ragged requests beside batches of equal ones.

Process CPU time of one thread; the variants of a figure take turns, ratios are taken within a turn, medians over turns.
"""

import gc
import random
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks._models import VOCABULARY, llama, prompt_ids, text_of, tokenizer
from benchmarks._results import Row, arguments, report
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
OFF = ThoughtCapture(enabled=False)


def cpu_s(run: Callable[[], object]) -> float:
    """Process CPU seconds of a call."""
    gc.collect()
    begun = time.process_time()
    run()
    return time.process_time() - begun


def in_turns(variants: dict[str, Callable[[], object]], turns: int) -> dict[str, list[float]]:
    """CPU seconds of every variant, once per turn, in rotating order; where there are several, one more warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    names = list(variants)
    for turn in range(-1 if turns > 1 else 0, turns):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            found = cpu_s(variants[name])
            if turn >= 0:
                seconds[name].append(found)
    return seconds


def ratio(seconds: dict[str, list[float]], one: str, other: str) -> float:
    """Median of the ratios within the turns."""
    return median(a / b for a, b in zip(seconds[one], seconds[other], strict=True))


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


def over_generate(model: Any, engine: TraceEngine, quick: bool) -> list[Row]:
    """One long prompt: a full trace over plain `generate`."""
    rows = []
    for length, bar in ((1024, 1.02), (2048, 1.0)):
        if quick and length > 1024:
            continue
        ids, new, turns = prompt_ids(length), 16 if quick else 64, 1 if quick else 3
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
        if length == 2048:
            rows += _memory(variants)
    return rows


def _memory(variants: dict[str, Callable[[], object]]) -> list[Row]:
    peaks = {name: peak_mb(run) for name, run in variants.items()}
    plain, traced = peaks["plain"], peaks["all"]
    if plain is None or traced is None:
        return []
    how = f"peak resident growth, one call each: plain {plain:.0f} MB, traced {traced:.0f} MB (cache laid out before)"
    return [Row("full trace over plain generate, 2048 tokens, extra peak memory", traced - plain, "MB", "<= 20", how)]


def step_costs(engine: TraceEngine, quick: bool) -> list[Row]:
    """One decode step of the slot loop, with and without reading, at the same place in the same cache."""
    rows = []
    n_layers = engine.info.n_layers
    plans = {
        "quarter": ReadPlan(tuple(range(3, n_layers, 4)), 4, (), True, 3),
        "all": ReadPlan(tuple(range(n_layers)), 4, (), True, 3),
    }
    lengths = (128, 512) if quick else (128, 512, 2048)
    steps = 6 if quick else 40
    for length in lengths:
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


def crowd(plain: Any, model: Any, quick: bool) -> list[Row]:
    """24 ragged requests: the engine with every signal, static left-padded batches, one after the other."""
    draw = random.Random(0)
    count, turns = (8, 1) if quick else (24, 2)
    sizes = [(draw.randint(16, 192), draw.randint(8, 80)) for _ in range(count)]
    prompts = [prompt_ids(length, seed) for seed, (length, _) in enumerate(sizes)]
    new = [size[1] for size in sizes]
    texts = [text_of(ids) for ids in prompts]
    rows: list[Row] = []
    for width in (4,) if quick else (16, 8):

        def static(width: int = width) -> None:
            for at in range(0, count, width):
                generate(plain, prompts[at : at + width], max(new[at : at + width]))

        def sequential() -> None:
            for ids, tokens in zip(prompts, new, strict=True):
                generate(plain, [ids], tokens)

        engine = TraceEngine(model, tokenizer(VOCABULARY), max_batch=width)
        variants: dict[str, Callable[[], object]] = {
            "static": static,
            "quarter": partial(ask, engine, texts, new, QUARTER),
            "all": partial(ask, engine, texts, new, ALL),
        }
        if not rows:
            variants |= {"sequential": sequential, "plain": partial(ask, engine, texts, new, OFF)}
        seconds = in_turns(variants, turns)
        engine.close()
        how = (
            f"{count} requests, prompts of 16-192 and answers of 8-80 tokens, {sum(new)} tokens in all; at most "
            f"{width} rows in the engine and in a static batch; CPU seconds of the other over the engine's; median of "
            f"{turns} turns"
        )
        labels = {"quarter": "traced, a quarter of the layers", "all": "traced, all layers", "plain": "untraced"}
        for other, against, bar in (
            ("static", "static left-padded batches", ">= 1.5"),
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
    """A trace of 32 layers and 256 tokens, as it travels."""
    engine = TraceEngine(llama(32, 64, 512), tokenizer(512))
    request = Request(prompt=text_of(prompt_ids(64, 0, 512)), sampling=Sampling(max_new_tokens=256), capture=ALL)
    trace = engine.generate_one(request).thought_trace
    assert trace is not None
    how = "JSON bytes / 1024 with every signal, 3 alternatives and 4 pairs per layer; not binned over time"
    engine.close()
    return [Row("trace of 32 layers × 256 tokens, encoded", encoded_bytes(trace) / 1024, "KB", "<= 8", how)]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and report."""
    quick = arguments(argv).quick
    torch.set_num_threads(1)
    model = llama()
    plain = llama()  # hooks and taps are on the other one
    engine = TraceEngine(model, tokenizer(VOCABULARY))
    rows = [*kernels(), *size(), *step_costs(engine, quick), *over_generate(plain, engine, quick)]
    engine.close()
    rows += crowd(plain, model, quick)
    report("engine", rows, argv)


if __name__ == "__main__":
    main(sys.argv[1:])
