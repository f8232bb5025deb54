"""The slot cache: rows come and go at any step, and no row ever reads another's state."""

from typing import Any

import pytest
import torch
import transformers as hf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.engine.conftest import COMMON, build
from tests.unit.engine.slot_driver import cache_of, drain, everything, job, loop_of, solo, strangers
from wonder.engine.engine import TraceEngine
from wonder.engine.job import Job
from wonder.engine.recorder import ReadPlan
from wonder.engine.request import Request
from wonder.engine.slots import SlotCache
from wonder.errors import OutOfMemory
from wonder.trace.sampling import Sampling

FAMILIES = [
    "llama", "qwen3", "mistral", "gpt2", "gemma2", "gemma3", "qwen3_moe", "mixtral", "llama4", "deepseek_v3", "gpt_oss",
    "falcon",
]  # fmt: skip
LENGTHS = (1, 7, 3, 12, 7, 20, 2, 9)
SAMPLED = Sampling(max_new_tokens=9, temperature=0.8, top_p=0.95, top_k=50, min_p=0.01, seed=7)


def prompt(length: int, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(1000 * seed + length)
    return [1, *torch.randint(3, 259, (length - 1,), generator=generator).tolist()]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gives_the_tokens_of_solo_runs(family: str, make_engine: Any) -> None:
    engine = make_engine(family)
    assert engine._support.slots is None
    loop = loop_of(engine, rows=3, chunk=5, idle_chunk=8)
    jobs = [
        job(engine._runtime, prompt(length, seed), Sampling(max_new_tokens=4 + seed))
        for seed, length in enumerate(LENGTHS)
    ]
    for item in jobs:
        loop.add(item)
    drain(loop)
    for item in jobs:
        assert item.row.tokens == solo(engine._runtime, item.prompt, item.request.sampling)


OTHERS: dict[str, Any] = {
    "mpt": lambda: hf.MptConfig(vocab_size=320, d_model=32, n_layers=3, n_heads=4, max_seq_len=256),
    "opt": lambda: hf.OPTConfig(
        vocab_size=320, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, ffn_dim=64, word_embed_proj_dim=32
    ),
    "gpt_neox": lambda: hf.GPTNeoXConfig(
        vocab_size=320, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64
    ),
    "phi3": lambda: hf.Phi3Config(**COMMON, sliding_window=6),
    "cohere2": lambda: hf.Cohere2Config(**COMMON, sliding_window=6),
}


@pytest.mark.parametrize("family", list(OTHERS))
def test_so_do_others_that_are_not_in_the_matrix(family: str, make_engine: Any) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = hf.AutoModelForCausalLM.from_config(OTHERS[family]()).eval()
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.data.normal_(0, 0.3)
    engine = make_engine(family, model=model)
    loop = loop_of(engine, rows=3, chunk=5, idle_chunk=8)
    jobs = [job(engine._runtime, prompt(length, 3), Sampling(max_new_tokens=8)) for length in LENGTHS]
    for item in jobs:
        loop.add(item)
    drain(loop)
    for item in jobs:
        assert item.row.tokens == solo(engine._runtime, item.prompt, item.request.sampling)


def schedule(engine: TraceEngine, plan: ReadPlan | None, sampling: Sampling, monkeypatch: Any) -> tuple[Any, ...]:
    """Logits of every pass, tokens, cache and random state of one fixed schedule of comings and goings."""
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
            jobs.append(job(engine._runtime, prompt(LENGTHS[len(jobs)], len(jobs)), sampling, plan))
            loop.add(jobs[-1])
        if step == 7:
            jobs[1].end(RuntimeError("cancelled"))
        loop.step()
        if step % 5 == 0 and loop.runner.cache.layers[0].keys is not None:
            caches.append(cache_of(loop))
    assert not loop.has_work
    return logits, [item.row.tokens for item in jobs], caches, torch.get_rng_state()


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@pytest.mark.parametrize("sampling", [Sampling(max_new_tokens=9), SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "qwen3_moe", "llama4", "deepseek_v3", "gpt_oss"])
def test_reading_changes_nothing(
    family: str, dtype: torch.dtype, sampling: Sampling, make_engine: Any, monkeypatch: Any
) -> None:
    engine = make_engine(family, model=build(family).to(dtype))
    off = schedule(engine, None, sampling, monkeypatch)
    on = schedule(engine, everything(engine), sampling, monkeypatch)
    for one, other in zip(off, on, strict=True):
        assert same(one, other)


def test_a_hook_that_writes_in_place_would_be_noticed(make_engine: Any, monkeypatch: Any) -> None:
    engine = make_engine("llama")
    off = schedule(engine, None, Sampling(max_new_tokens=9), monkeypatch)

    def careless(_module: Any, _args: Any, output: torch.Tensor) -> None:
        if engine._runtime.taps._sink is not None:
            output.add_(1e-3)

    handle = engine._runtime.anatomy.blocks[1].register_forward_hook(careless)
    on = schedule(engine, everything(engine), Sampling(max_new_tokens=9), monkeypatch)
    handle.remove()
    assert not same(off[0], on[0])
    assert not same(off[2], on[2])


ARRIVAL = st.tuples(
    st.integers(1, 24),  # prompt tokens
    st.integers(1, 10),  # new tokens
    st.integers(0, 12),  # arrives at step
    st.one_of(st.none(), st.integers(0, 20)),  # cancelled at step
    st.integers(0, 2),  # priority
)
SOLO: dict[tuple[str, int, int, int], list[int]] = {}
ENGINES: dict[str, TraceEngine] = {}


@pytest.mark.parametrize("family", ["llama", "mistral", "llama4", "gpt2"])
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    arrivals=st.lists(ARRIVAL, min_size=1, max_size=9),
    rows=st.integers(1, 5),
    tokens=st.integers(20, 200),
    chunk=st.integers(1, 9),
    reads=st.booleans(),
    garbage=st.booleans(),
)
def test_no_row_ever_reads_another_ones_state(
    family: str,
    arrivals: list[tuple[int, int, int, int | None, int]],
    rows: int,
    tokens: int,
    chunk: int,
    reads: bool,
    garbage: bool,
    make_engine: Any,
) -> None:
    engine = ENGINES.setdefault(family, make_engine(family))
    loop = loop_of(engine, rows, tokens, chunk, 2 * chunk)
    plan = everything(engine) if reads else None
    jobs = [
        (job(engine._runtime, prompt(length, at), Sampling(max_new_tokens=new), plan, priority), begins, ends)
        for at, (length, new, begins, ends, priority) in enumerate(arrivals)
    ]
    step = 0
    while loop.has_work or any(begins >= step for _, begins, _ in jobs):
        for item, begins, ends in jobs:
            if begins == step:
                loop.add(item)
            if ends == step:
                item.end(RuntimeError("cancelled"))
        loop.step()
        assert len(loop.live) <= rows
        assert all(not item.is_over for item in loop.live)
        with torch.inference_mode():
            for part in strangers(loop):
                if garbage:
                    part.fill_(50.0)  # whatever stands where nobody is, is seen by nobody
                else:
                    assert not part.any()  # those who went leave nothing behind
        step += 1
        assert step < 500
    for at, (item, _, ends) in enumerate(jobs):
        length, new = arrivals[at][:2]
        key = (family, at, length, new)
        want = SOLO.get(key) or SOLO.setdefault(key, solo(engine._runtime, item.prompt, item.request.sampling))
        assert item.row.tokens == want[: len(item.row.tokens)]
        if ends is None:
            assert item.row.tokens == want


def test_a_row_that_overflowed_does_not_spoil_its_neighbours_or_the_next_one_in_its_place(make_engine: Any) -> None:
    model = build("llama")
    model.model.embed_tokens.weight.data[200] = float("nan")
    engine = make_engine("llama", model=model)
    loop = loop_of(engine, rows=2)
    broken = job(engine._runtime, [1, 200, *range(30, 60)], Sampling(max_new_tokens=3))
    beside, after = (job(engine._runtime, prompt(length), Sampling(max_new_tokens=12)) for length in (4, 6))
    for item in (broken, beside, after):
        loop.add(item)
    drain(loop)
    for item in (beside, after):
        assert item.row.tokens == solo(engine._runtime, item.prompt, item.request.sampling)


def test_long_prompts_are_fed_in_pieces_between_the_steps_of_the_others(make_engine: Any) -> None:
    engine = make_engine("llama")
    loop = loop_of(engine, rows=3, chunk=8, idle_chunk=8)
    first = job(engine._runtime, prompt(5), Sampling(max_new_tokens=30))
    loop.add(first)
    loop.step()
    long, other = (job(engine._runtime, prompt(length), Sampling(max_new_tokens=4)) for length in (60, 6))
    loop.add(long)
    loop.add(other)
    for fed in range(1, 8):
        before = len(first.row.tokens)
        loop.step()
        assert len(first.row.tokens) == before + 1
        assert loop._partial is long
        assert loop._fed == 8 * fed
    drain(loop)
    for item in (first, long, other):
        assert item.row.tokens == solo(engine._runtime, item.prompt, item.request.sampling)


def test_prompts_of_one_length_are_fed_together(make_engine: Any) -> None:
    engine = make_engine("llama")
    shapes: list[tuple[int, ...]] = []
    handle = engine.model.register_forward_pre_hook(
        lambda _module, _args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    loop = loop_of(engine, rows=6)
    for seed, length in enumerate((5, 9, 5, 9, 5)):
        loop.add(job(engine._runtime, prompt(length, seed), Sampling(max_new_tokens=2)))
    loop.step()
    handle.remove()
    assert shapes == [(3, 5), (2, 9), (5, 1)]


def test_admission_keeps_the_budget_of_tokens_and_nobody_overtakes_a_large_request(make_engine: Any) -> None:
    engine = make_engine("llama")
    loop = loop_of(engine, rows=8, tokens=128)
    small = [job(engine._runtime, prompt(10, seed), Sampling(max_new_tokens=20)) for seed in range(3)]
    large = job(engine._runtime, prompt(100), Sampling(max_new_tokens=6))
    late = job(engine._runtime, prompt(3), Sampling(max_new_tokens=2))
    for item in (*small, large, late):
        loop.add(item)
    loop.step()
    assert loop.live == small
    drain(loop, lambda: _within(loop, 128))
    assert large.began_s > max(item.began_s for item in small)
    assert late.began_s > large.began_s
    assert all(item.row.finished for item in (*small, large, late))


def _within(loop: Any, limit: int) -> None:
    cache = loop.runner.cache
    assert len(loop.live) <= 1 or len(loop.live) * max(item.columns for item in loop.live) <= limit
    assert cache.rows * cache.columns <= limit


def test_a_higher_priority_goes_first_and_a_low_one_is_not_left_waiting_for_ever(make_engine: Any) -> None:
    engine = make_engine("llama")
    loop = loop_of(engine, rows=1)
    low = job(engine._runtime, prompt(3), Sampling(max_new_tokens=1), priority=0)
    loop.add(low)
    high = []
    for step in range(60):
        high.append(job(engine._runtime, prompt(4, step), Sampling(max_new_tokens=1), priority=1))
        loop.add(high[-1])
        loop.step()
        if low.is_over:
            break
    assert high[0].is_over
    assert low.is_over
    assert sum(item.is_over for item in high) >= 16


def test_a_cancelled_request_frees_its_row_within_one_step(make_engine: Any) -> None:
    engine = make_engine("llama")
    loop = loop_of(engine, rows=2)
    jobs = [job(engine._runtime, prompt(5, seed), Sampling(max_new_tokens=40), everything(engine)) for seed in range(3)]
    for item in jobs:
        loop.add(item)
    loop.step()
    assert loop.live == jobs[:2]
    jobs[0].end(RuntimeError("cancelled"))
    assert jobs[0].readings is None
    loop.step()
    assert sorted(map(id, loop.live)) == sorted(map(id, jobs[1:]))


def test_the_cache_grows_and_shrinks_within_its_limit() -> None:
    cache = SlotCache(1)
    cache.reserve(1, 10, 0, 1000)
    assert (cache.rows, cache.columns) == (1, 64)
    cache.reserve(3, 10, 1, 1000)
    assert (cache.rows, cache.columns) == (3, 64)
    cache.reserve(4, 100, 3, 1000)
    assert (cache.rows, cache.columns) == (6, 128)
    cache.reserve(1, 900, 0, 1000)
    assert (cache.rows, cache.columns) == (1, 960)
    cache.reserve(9, 20, 1, 1000)
    assert (cache.rows, cache.columns) == (9, 64)
    cache.reserve(20, 50, 1, 1000)
    assert (cache.rows, cache.columns) == (20, 50)


def test_a_cache_that_finds_no_room_lets_the_newest_wait_or_refuses_it_alone(
    make_engine: Any, monkeypatch: Any
) -> None:
    engine = make_engine("llama")
    loop = loop_of(engine, rows=8)
    inner = SlotCache.reserve

    def small(self: SlotCache, rows: int, columns: int, used: int, limit: int) -> None:
        if rows > 2 or columns > 100:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        inner(self, rows, columns, used, limit)

    monkeypatch.setattr(SlotCache, "reserve", small)
    jobs = [job(engine._runtime, prompt(5, seed), Sampling(max_new_tokens=3 + seed)) for seed in range(5)]
    large = job(engine._runtime, prompt(99), Sampling(max_new_tokens=30))
    for item in (*jobs, large):
        loop.add(item)
    drain(loop, lambda: len(loop.live) <= 2 or pytest.fail("too many rows"))
    for item in jobs:
        assert item.row.tokens == solo(engine._runtime, item.prompt, item.request.sampling)
    with pytest.raises(OutOfMemory, match="99 tokens and 30 new ones"):
        large.wait(0)


def test_a_pass_that_finds_no_room_is_split_and_draws_stay_the_same(make_engine: Any) -> None:
    engine = make_engine("llama")
    sampled = [(prompt(4 + seed, seed), Sampling(max_new_tokens=8, temperature=1.2, seed=seed)) for seed in range(5)]
    want = [solo(engine._runtime, ids, sampling) for ids, sampling in sampled]

    def small_device(_module: Any, _args: Any, kwargs: Any) -> None:
        if kwargs["input_ids"].shape[0] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    handle = engine.model.register_forward_pre_hook(small_device, with_kwargs=True)
    loop = loop_of(engine, rows=8)
    jobs = [job(engine._runtime, ids, sampling, everything(engine)) for ids, sampling in sampled]
    for item in jobs:
        loop.add(item)
    drain(loop)
    handle.remove()
    assert [item.row.tokens for item in jobs] == want


def test_constrained_rows_come_and_go_like_all_others(make_engine: Any) -> None:
    engine = make_engine("llama", max_batch=3)
    schemas = [None, {"enum": ["yes", "no"]}, None, {"type": "boolean"}, {"enum": [1, 22, 333]}, None, {"type": "null"}]
    requests = [
        Request(
            prompt=f"Ticket {at}" * (at + 1),
            sampling=Sampling(max_new_tokens=40, temperature=1.0, seed=at),
            answer_format="json",
            answer_schema=schema,
        )
        for at, schema in enumerate(schemas)
    ]
    together = engine.generate(requests)
    for request, message in zip(requests, together, strict=True):
        assert message.text == engine.generate_one(request).text
        assert message.thought_trace.batching == "slots"
    assert [together[at].text in allowed for at, allowed in ((1, ['"yes"', '"no"']), (3, ["true", "false"]))] == [
        True
    ] * 2
    assert together[6].text == "null"
