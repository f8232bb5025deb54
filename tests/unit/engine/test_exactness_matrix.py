"""Every family, to the bit: reading changes no logit, no token, no key, no value and no random state."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch

from tests.unit.engine.conftest import FAMILIES, build
from tests.unit.engine.slot_driver import all_signals, cache_of, job, loop_of, prompt
from wonder.engine import loop as padded_loop
from wonder.engine.engine import TraceEngine
from wonder.engine.job import Job
from wonder.engine.loop import run_batch
from wonder.engine.recorder import ReadPlan
from wonder.engine.sampling import RowDraw
from wonder.trace.sampling import Sampling

REQUIRED = {
    "llama4_scout", "llama4_maverick", "qwen3_moe", "mixtral", "deepseek_v3", "gpt_oss", "gemma", "gemma2", "gemma3",
    "mistral", "phi3", "gpt2", "llama",
}  # fmt: skip
"""What Wonder says it reads."""
LENGTHS = (1, 7, 3, 12, 7, 20)
SAMPLINGS = (
    Sampling(max_new_tokens=7),
    Sampling(max_new_tokens=9, temperature=0.8, top_p=0.95, top_k=50, min_p=0.01, seed=7),
    Sampling(max_new_tokens=5, temperature=1.5, seed=8),
)
DTYPES = [torch.float32, torch.bfloat16]


@dataclass
class Everything:
    """All that a run leaves behind."""

    logits: list[torch.Tensor]
    """Raw, of every forward pass that draws."""
    tokens: list[list[int]]
    caches: list[Any]
    """Keys and values of every layer, the empty places included."""
    random_state: list[torch.Tensor]
    """The global one, and that of every request."""


Run = Callable[[TraceEngine, ReadPlan | None, Any], Everything]


def slots(engine: TraceEngine, plan: ReadPlan | None, monkeypatch: Any) -> Everything:
    """One fixed schedule of comings and goings: long prompts fed in pieces, one request cancelled midway."""
    torch.manual_seed(3)
    loop = loop_of(engine, rows=3, chunk=6, idle_chunk=8)
    logits: list[torch.Tensor] = []
    inner = loop.runner._read

    def read(logits_BV: torch.Tensor, *args: Any) -> Any:
        logits.append(logits_BV.clone())
        return inner(logits_BV, *args)

    monkeypatch.setattr(loop.runner, "_read", read)
    caches = []
    jobs: list[Job] = []
    for step in range(60):
        if step % 3 == 0 and len(jobs) < len(LENGTHS):
            at = len(jobs)
            jobs.append(job(engine._runtime, prompt(LENGTHS[at], at), SAMPLINGS[at % len(SAMPLINGS)], plan))
            loop.add(jobs[-1])
        if step == 7:
            jobs[1].end(RuntimeError("cancelled"))
        if len(jobs) == len(LENGTHS) and not loop.has_work:
            break
        loop.step()
        if step % 4 == 0:
            caches.append(cache_of(loop))
    assert not loop.has_work
    caches.append(cache_of(loop))
    return Everything(logits, [item.row.tokens for item in jobs], caches, _random([item.draw for item in jobs]))


def padded(engine: TraceEngine, plan: ReadPlan | None, monkeypatch: Any, rows: int = 3) -> Everything:
    """A padded batch, for the models that the slots cannot hold."""
    made: list[Any] = []

    class Kept(padded_loop.DynamicCache):  # type: ignore[misc, name-defined]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr(padded_loop, "DynamicCache", Kept)
    torch.manual_seed(3)
    logits: list[torch.Tensor] = []
    prompts, samplings = [prompt(length) for length in (12, 4, 3)][:rows], SAMPLINGS[-rows:]
    draws = [RowDraw(sampling) for sampling in samplings]
    done = run_batch(
        engine._runtime, prompts, samplings, plan, draws=draws, on_logits=lambda _step, z: logits.append(z.clone())
    )
    kept = [(layer.keys.clone(), layer.values.clone()) for layer in made[-1].layers]
    return Everything(logits, [row.tokens for row in done.rows], kept, _random(draws))


RUNS: list[Run] = [slots, padded, partial(padded, rows=1)]


def _random(draws: Sequence[RowDraw]) -> list[torch.Tensor]:
    own = [draw.generator.get_state() for draw in draws if draw.generator is not None]
    return [torch.get_rng_state(), *own]


def same(one: Any, other: Any) -> bool:
    """Equal to the bit, also where a number is not one."""
    if isinstance(one, torch.Tensor):
        return one.shape == other.shape and torch.equal(_bits(one), _bits(other))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def _bits(values: torch.Tensor) -> torch.Tensor:
    return values.contiguous().view(torch.uint8)


def differing(one: Everything, other: Everything) -> set[str]:
    return {name for name, found in vars(one).items() if not same(found, vars(other)[name])}


def test_the_matrix_holds_every_family_that_is_promised() -> None:
    assert set(FAMILIES) >= REQUIRED


@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_reading_changes_nothing(family: str, dtype: torch.dtype, make_engine: Any, monkeypatch: Any) -> None:
    engine = make_engine(family, model=build(family).to(dtype))
    for run in RUNS:
        assert differing(run(engine, None, monkeypatch), run(engine, all_signals(engine), monkeypatch)) == set()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_hook_that_writes_or_draws_while_it_reads_would_be_noticed(
    family: str, make_engine: Any, monkeypatch: Any
) -> None:
    engine = make_engine(family)
    runs = RUNS if family == "llama" else [slots]
    block, taps = engine._runtime.anatomy.blocks[1], engine._runtime.taps

    def writes(_module: Any, _args: Any, output: Any) -> None:
        if taps._sink is not None:
            (output if isinstance(output, torch.Tensor) else output[0]).mul_(1.001)

    def draws(*_: Any) -> None:
        if taps._sink is not None:
            torch.rand(1)

    for run in runs:
        off = run(engine, None, monkeypatch)
        for hook, wanted in ((writes, {"logits", "caches"}), (draws, {"random_state"})):
            handle = block.register_forward_hook(hook)
            found = differing(off, run(engine, all_signals(engine), monkeypatch))
            handle.remove()
            assert found - {"tokens"} == wanted
