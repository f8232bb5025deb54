"""Drives the slot loop step by step, without its thread."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from wonder.engine.engine import TraceEngine
from wonder.engine.job import Job
from wonder.engine.loop import Row, Runtime, run_batch
from wonder.engine.recorder import ReadPlan
from wonder.engine.request import Request
from wonder.engine.scheduler import SlotLoop
from wonder.trace.sampling import Sampling


def prompt(length: int, seed: int = 0) -> list[int]:
    """Random token ids after the one that begins a text."""
    generator = torch.Generator().manual_seed(1000 * seed + length)
    return [1, *torch.randint(3, 259, (length - 1,), generator=generator).tolist()]


def job(
    runtime: Runtime, prompt: Sequence[int], sampling: Sampling, plan: ReadPlan | None = None, priority: int = 0
) -> Job:
    """A request of token ids."""
    return Job(Request(prompt="", sampling=sampling), prompt, Row(sampling, runtime), plan, priority=priority)


def loop_of(
    engine: TraceEngine, rows: int = 4, tokens: int = 4096, chunk: int = 512, idle_chunk: int = 2048
) -> SlotLoop:
    return SlotLoop(engine._runtime, max_rows=rows, max_tokens=tokens, chunk=chunk, idle_chunk=idle_chunk)


def drain(loop: SlotLoop, after_step: Callable[[], None] | None = None) -> None:
    while loop.has_work:
        loop.step()
        if after_step is not None:
            after_step()


def solo(runtime: Runtime, prompt: Sequence[int], sampling: Sampling) -> list[int]:
    """Tokens of a prompt alone, with transformers' own cache."""
    (row,) = run_batch(runtime, [prompt], [sampling], None).rows
    return row.tokens


def strangers(loop: SlotLoop) -> list[torch.Tensor]:
    """All parts of the cache that belong to nobody who is under way."""
    held = {row: held_by.length for row, held_by in enumerate(loop.live)}
    if loop._partial is not None:
        held[len(loop.live)] = loop._fed
    parts = []
    for layer in loop.runner.cache.layers:
        for storage in (layer.keys, layer.values):
            if storage is not None:
                parts += [storage[row, :, held.get(row, 0) :] for row in range(storage.shape[0])]
    return parts


def everything(engine: TraceEngine) -> ReadPlan:
    layers = tuple(range(engine.info.n_layers))
    return ReadPlan(layers if engine._support.attention is None else (), 4, layers, True, 3)


def all_signals(engine: TraceEngine) -> ReadPlan:
    """What costs a computation of its own as well."""
    layers = everything(engine).state_layers
    has_heads = engine._support.attention is None
    return replace(everything(engine), boosted=True, lens_layers=layers, heads=has_heads, prompt_rows=has_heads)


def cache_of(loop: SlotLoop) -> list[Any]:
    return [(layer.keys.clone(), layer.values.clone()) for layer in loop.runner.cache.layers]
