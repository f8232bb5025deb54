"""The slot cache: rows come and go at any step, and no row ever reads another's state."""

from dataclasses import is_dataclass
from typing import Any

import pytest
import torch
import transformers as hf
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.unit.engine.conftest import COMMON, build
from tests.unit.engine.slot_driver import all_signals, drain, everything, job, loop_of, prompt, solo, strangers
from wonder.engine.engine import TraceEngine
from wonder.engine.job import Job
from wonder.engine.loop import run_batch
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


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_of_different_lengths_share_a_pass_and_come_out_as_alone(
    family: str, make_engine: Any, monkeypatch: Any
) -> None:
    engine = make_engine(family)
    loop = loop_of(engine, rows=4, idle_chunk=64)
    fed: list[list[int]] = []
    inner = loop.runner.prefill

    def prefill(first: int, pieces: list[list[int]], *args: Any) -> Any:
        fed.append([len(piece) for piece in pieces])
        return inner(first, pieces, *args)

    monkeypatch.setattr(loop.runner, "prefill", prefill)
    plan = everything(engine)
    jobs = [job(engine._runtime, prompt(length, 5), Sampling(max_new_tokens=6), plan) for length in (12, 3, 1, 7)]
    for item in jobs:
        loop.add(item)
    loop.step()
    assert fed == [[1, 3, 7, 12]]
    assert all(not part.any() for part in strangers(loop))
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


def plan_of(engine: TraceEngine, reads: str) -> ReadPlan | None:
    if reads == "some":
        return ReadPlan(attention_layers=(1,), pairs=2, state_layers=(0, 3), alternatives=1)
    return all_signals(engine) if reads == "all" else None


def settings_of(at: int, new: int, draws: bool) -> Sampling:
    return Sampling(max_new_tokens=new, temperature=0.8, top_p=0.95, seed=at) if draws else Sampling(max_new_tokens=new)


def alone(engine: TraceEngine, item: Job) -> tuple[list[int], dict[str, torch.Tensor]]:
    """Tokens and readings of a request by itself, with transformers' own cache and by the other recorder."""
    done = run_batch(engine._runtime, [item.prompt], [item.request.sampling], item.plan)
    return done.rows[0].tokens, read_of(done.readings)


def read_of(readings: Any, name: str = "") -> dict[str, torch.Tensor]:
    """All numbers that were read, as they are before a trace rounds them, by name; those that say nothing left out."""
    if isinstance(readings, torch.Tensor):
        return {} if readings.is_floating_point() and readings.isnan().all() else {name: readings}
    if isinstance(readings, dict):
        parts = {str(key): part for key, part in readings.items()}
    else:
        parts = vars(readings) if is_dataclass(readings) else {}
    found: dict[str, torch.Tensor] = {}
    for key, part in parts.items():
        found |= read_of(part, f"{name}.{key}")
    return found


def assert_same_readings(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, numbers in found.items():
        other = wanted[name]
        assert numbers.shape == other.shape, name
        if name == ".attention.column_NABK":
            assert_same_columns(numbers, found[".attention.weight_NABK"], other, wanted[".attention.weight_NABK"])
        elif numbers.is_floating_point():
            assert torch.allclose(numbers.float(), other.float(), rtol=1e-4, atol=1e-5, equal_nan=True), name
        else:
            assert torch.equal(numbers, other), name


def assert_same_columns(
    found_NABK: torch.Tensor, weight_NABK: torch.Tensor, wanted_NABK: torch.Tensor, wanted_weight_NABK: torch.Tensor
) -> None:
    """The same columns are looked at as much; which of two that weigh the same comes first, or in at all, is chance."""
    same = found_NABK[..., :, None] == wanted_NABK[..., None, :]
    as_heavy = (weight_NABK[..., :, None] - wanted_weight_NABK[..., None, :]).abs() < 1e-5
    at_the_edge = weight_NABK - weight_NABK.amin(-1, keepdim=True) < 1e-5
    assert bool(((same & as_heavy).any(-1) | at_the_edge).all())


ARRIVAL = st.tuples(
    st.integers(1, 24),  # prompt tokens
    st.integers(1, 10),  # new tokens
    st.integers(0, 12),  # arrives at step
    st.one_of(st.none(), st.integers(0, 20)),  # cancelled at step
    st.integers(0, 2),  # priority
    st.sampled_from(["nothing", "some", "all", "all"]),  # what is read of it
    st.booleans(),  # draws its tokens, or takes the likeliest
)
SOLO: dict[tuple[Any, ...], tuple[list[int], dict[str, torch.Tensor]]] = {}
ENGINES: dict[str, TraceEngine] = {}


@pytest.mark.parametrize("family", ["llama", "mistral", "llama4", "gpt2"])
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # shrinking takes minutes, and says little more
)
@given(
    arrivals=st.lists(ARRIVAL, min_size=1, max_size=9),
    rows=st.integers(1, 5),
    tokens=st.integers(20, 200),
    chunk=st.integers(1, 9),
    garbage=st.booleans(),
)
def test_no_row_ever_reads_another_ones_state(
    family: str,
    arrivals: list[tuple[int, int, int, int | None, int, str, bool]],
    rows: int,
    tokens: int,
    chunk: int,
    garbage: bool,
    make_engine: Any,
) -> None:
    engine = ENGINES.setdefault(family, make_engine(family))
    loop = loop_of(engine, rows, tokens, chunk, 2 * chunk)
    jobs = [
        (job(engine._runtime, prompt(length, at), settings_of(at, new, draws), plan_of(engine, reads), priority), *when)
        for at, (length, new, *when, priority, reads, draws) in enumerate(arrivals)
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
        length, new, *_, reads, draws = arrivals[at]
        key = (family, at, length, new, reads, draws)
        if key not in SOLO:
            SOLO[key] = alone(engine, item)
        want, readings = SOLO[key]
        assert item.row.tokens == want[: len(item.row.tokens)]
        if ends is None:
            assert item.answered is not None
        if item.answered is not None:
            assert item.row.tokens == want
            assert_same_readings(read_of(item.answered.batch.readings), readings)


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
    for seed, length in enumerate((5, 50, 5, 50, 5)):
        loop.add(job(engine._runtime, prompt(length, seed), Sampling(max_new_tokens=2)))
    loop.step()
    handle.remove()
    assert shapes == [(3, 5), (2, 50), (5, 1)]


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
