"""What a request puts into the model reaches its own row exactly as asked, and no other row by a single bit."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load
from torch.utils._python_dispatch import TorchDispatchMode

from tests.unit.engine.conftest import COMMON, build
from tests.unit.engine.slot_driver import loop_of
from wonder.engine.engine import TraceEngine
from wonder.engine.injection_batch import NOTHING, Injected, Push, pushes
from wonder.engine.job import Job
from wonder.engine.padded import PaddedLoop
from wonder.engine.request import Request, SoftPrompt, Steering
from wonder.engine.scheduler import SlotLoop
from wonder.errors import InjectionRefused, PromptTooLong, RequestError, SettingNotSupported
from wonder.trace.capture import ThoughtCapture
from wonder.trace.injection import InjectionRecord
from wonder.trace.sampling import Sampling
from wonder.trace.store import DirectoryStore

WIDTH = COMMON["hidden_size"]
FAMILIES = ["llama", "gpt2", "gemma2", "gemma3", "mistral", "qwen3_moe", "llama4", "deepseek_v3", "gpt_oss", "falcon"]


@pytest.fixture(scope="module")
def engine(make_engine: Any) -> TraceEngine:
    """For what leaves no mark on it."""
    found: TraceEngine = make_engine("llama")
    return found


def vector(seed: int = 0, width: int = WIDTH) -> torch.Tensor:
    return torch.randn(width, generator=torch.Generator().manual_seed(seed))


def ask(prompt: str = "hello", tokens: int = 6, **options: Any) -> Request:
    options.setdefault("capture", ThoughtCapture(top_alternatives=1))
    return Request(prompt=prompt, sampling=Sampling(max_new_tokens=tokens), **options)


def words(engine: TraceEngine, text: str) -> SoftPrompt:
    """The embeddings of a text's own tokens."""
    ids = torch.tensor(engine.tokenizer(text, add_special_tokens=False)["input_ids"])
    with torch.inference_mode():
        return SoftPrompt(engine._runtime.embed(ids.to(engine._runtime.device)).cpu())


def endless(engine: TraceEngine) -> TraceEngine:
    """With no end token, so that two runs have one schedule whatever is written."""
    engine._desk._runtime = engine._runtime = replace(engine._runtime, end_ids=frozenset())
    return engine


def answer(
    engine: TraceEngine, requests: list[Request], *, cancel: int | None = None, **bounds: int
) -> list[tuple[list[int], list[torch.Tensor]]]:
    """Tokens and raw logits of each request; `cancel` ends the request of that index at the third step."""
    loop = loop_of(engine, **({"rows": 8} | bounds))
    jobs = [engine._desk.job(request) for request in requests]
    logits: dict[int, list[torch.Tensor]] = {id(job): [] for job in jobs}
    inner = loop._push

    def push(live: list[Job], done: Any) -> None:
        for job, row_V in zip(live, done.logits_BV, strict=True):
            logits[id(job)].append(row_V.clone())
        inner(live, done)

    loop._push = push  # type: ignore[method-assign]
    for job in jobs:
        loop.add(job)
    step = 0
    while loop.has_work:
        loop.step()
        step += 1
        if step == 3 and cancel is not None:
            jobs[cancel].end(RuntimeError("cancelled"))
    assert engine._runtime.taps.pushes is NOTHING
    return [(job.row.tokens, logits[id(job)]) for job in jobs]


def same_bits(one: Any, other: Any) -> bool:
    assert one[0] == other[0]
    assert len(one[1]) == len(other[1]) > 0
    return all(torch.equal(a.view(torch.int32), b.view(torch.int32)) for a, b in zip(one[1], other[1], strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_soft_tokens_that_are_real_embeddings_give_exactly_the_text_of_those_tokens(
    family: str, make_engine: Any
) -> None:
    engine = make_engine(family)
    assert engine._support.soft_prompt is None
    (plain,) = answer(engine, [ask("once upon a time")])
    (soft,) = answer(engine, [ask("a time", injection=words(engine, "once upon "))])
    assert same_bits(plain, soft)
    pieces = answer(engine, [ask("a time", injection=words(engine, "once upon "))], chunk=3, idle_chunk=4)
    assert pieces[0][0] == plain[0]


def test_they_share_passes_with_prompts_of_their_length(make_engine: Any) -> None:
    engine = endless(make_engine("llama"))
    texts = ["once upon a time", "twice upon a day", "never below sea."]
    plain = answer(engine, [ask(text) for text in texts])
    mixed = answer(engine, [ask(texts[0]), ask(texts[1][6:], injection=words(engine, texts[1][:6])), ask(texts[2])])
    assert all(same_bits(one, other) for one, other in zip(plain, mixed, strict=True))


INJECTIONS = (Steering(1, vector(), 0.8), Steering(0, vector(), -0.5, "all"), Steering(3, vector(), 1.0))


TEXTS = ["once upon a time", "a stranger came!", "and slept", "for ever"]


def among(engine: TraceEngine, injection: Any, cancel: int | None = None) -> Any:
    requests = [ask(text, 8) for text in TEXTS]
    requests[1] = ask(TEXTS[1], 8, injection=injection)
    return answer(engine, requests, cancel=cancel)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_neighbours_are_untouched_to_the_bit(family: str, make_engine: Any) -> None:
    engine = endless(make_engine(family))
    for cancel in (None, 1):
        plain = among(engine, None, cancel)
        for injection in INJECTIONS:
            steered = among(engine, injection, cancel)
            assert all(same_bits(plain[row], steered[row]) for row in (0, 2, 3))
            assert not torch.equal(plain[1][1][0], steered[1][1][0])


def test_neighbours_in_a_mixture_of_experts_keep_their_text(make_engine: Any) -> None:
    """Experts multiply together whoever chose them, so there any other neighbour, steered or not, moves last bits."""
    engine = endless(make_engine("gpt_oss"))
    plain = among(engine, None)
    for injection in INJECTIONS:
        steered = among(engine, injection)
        for row in (0, 2, 3):
            assert plain[row][0] == steered[row][0]
            for one_V, other_V in zip(plain[row][1], steered[row][1], strict=True):
                assert torch.allclose(one_V, other_V, atol=1e-5, rtol=1e-5)


def test_neighbours_of_a_soft_prompt_are_untouched_to_the_bit(make_engine: Any) -> None:
    engine = endless(make_engine("llama"))

    def beside(second: Request) -> Any:
        return answer(engine, [ask("once upon a time", 8), second, ask("and slept", 8)], cancel=1)

    loud = SoftPrompt(1e30 * torch.ones(6, WIDTH))
    plain, soft = beside(ask("a stranger came!", 8)), beside(ask("er came!!!", 8, injection=loud))
    assert same_bits(plain[0], soft[0])
    assert same_bits(plain[2], soft[2])


def test_a_state_that_is_not_finite_spoils_its_own_row_only() -> None:
    states_BQD = torch.randn(3, 2, WIDTH)
    states_BQD[1, 0, 0] = math.inf
    states_BQD[0, 0, 0] = -0.0
    where = torch.tensor([[[False], [False]], [[True], [True]], [[False], [True]]])
    push = Push(where, torch.stack([torch.zeros(WIDTH), vector(1), vector(2)])[:, None])
    before = states_BQD.clone()
    after = push.apply(states_BQD)
    assert after is not states_BQD
    assert torch.equal(states_BQD.view(torch.int32), before.view(torch.int32))
    untouched = ~where[..., 0]
    assert torch.equal(after[untouched].view(torch.int32), before[untouched].view(torch.int32))
    assert not after[1, 0].isfinite().all()
    assert after[2, 1].isfinite().all()


def test_a_vector_of_zeros_changes_no_bit(make_engine: Any) -> None:
    engine = endless(make_engine("llama"))
    requests = [ask("once upon a time"), ask("and slept")]
    plain = answer(engine, requests)
    nothing = [replace(item, injection=Steering(2, torch.zeros(WIDTH), 1.0, "all")) for item in requests]
    assert all(same_bits(one, other) for one, other in zip(plain, answer(engine, nothing), strict=True))
    beside = [requests[0], replace(requests[1], injection=Steering(2, vector(), 0.5))]
    assert same_bits(plain[0], answer(engine, beside)[0])
    message = engine.generate_one(nothing[0])
    assert message.thought_trace is not None
    assert message.thought_trace.injection is not None
    assert message.thought_trace.injection.strength == 1.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_read_is_the_steered_state(dtype: torch.dtype, tokenizer: Any, store: DirectoryStore) -> None:
    engine = TraceEngine(build("llama").to(dtype), tokenizer, store=store)
    reads = ThoughtCapture(capture_hidden_states=[1, 2])

    def states(injection: Any) -> torch.Tensor:
        message = engine.generate_one(ask("once upon a time", 1, capture=reads, injection=injection))
        assert message.thought_trace is not None
        return load(store.get(message.thought_trace.artifacts[0]))["hidden.last_prompt"]

    plain, steered = states(None), states(Steering(1, 3 * vector(), 0.25))
    wanted = plain[0] + (0.25 * plain[0].norm() * vector() / vector().norm()).to(dtype).float()
    assert torch.allclose(steered[0], wanted.to(dtype).float(), rtol=1e-5 if dtype == torch.float32 else 1e-2)
    assert not torch.allclose(steered[1], plain[1], rtol=1e-3)


@pytest.mark.parametrize("chunk", [5, 512])
def test_the_modes_steer_the_positions_that_they_name(chunk: int, make_engine: Any, monkeypatch: Any) -> None:
    """Against transformers itself, one pass over prompt and answer, steered by a plain hook."""
    engine = endless(make_engine("llama"))
    unit = vector() / vector().norm()
    block = engine._runtime.anatomy.blocks[1]
    for mode in ("generated", "all"):
        injection = Steering(1, vector(), 0.6, mode)  # type: ignore[arg-type]
        ((tokens, logits),) = answer(
            engine, [ask("once upon a time", 5, injection=injection)], chunk=chunk, idle_chunk=chunk
        )
        prompt = engine.tokenizer("once upon a time")["input_ids"]
        first = 0 if mode == "all" else len(prompt) - 1

        def steer(_module: Any, _args: Any, output: Any, first: int = first) -> Any:
            steered = output.clone()
            steered[:, first:] += 0.6 * output[:, first:].norm(dim=-1, keepdim=True) * unit
            return steered

        handle = block.register_forward_hook(steer)
        with torch.inference_mode():
            whole = engine.model(input_ids=torch.tensor([[*prompt, *tokens[:-1]]])).logits[0, len(prompt) - 1 :]
        handle.remove()
        assert torch.allclose(torch.stack(logits), whole, atol=1e-4, rtol=1e-4)


def test_a_strength_beyond_the_clamp_is_clamped_and_told(engine: TraceEngine) -> None:
    for asked, used in ((7.5, 1.0), (-7.5, -1.0), (math.inf, 1.0), (0.3, 0.3)):
        loud, quiet = (
            engine.generate_one(ask(injection=Steering(2, vector(), strength))).thought_trace
            for strength in (asked, used)
        )
        assert loud.injection is not None
        assert (loud.injection.strength, loud.injection.clamped) == (used, asked != used)
        assert loud.tokens == quiet.tokens
        assert loud.injection.sha256 == quiet.injection.sha256


def test_the_trace_tells_what_was_put_in(engine: TraceEngine) -> None:
    off = ThoughtCapture(enabled=False)
    steered = engine.generate_one(ask(injection=Steering(2, vector(), 0.5, "all"), capture=off)).thought_trace
    assert steered is not None
    assert steered.injection == InjectionRecord(
        kind="steering",
        source="own",
        sha256=steered.injection.sha256,  # type: ignore[union-attr]
        layer=2,
        mode="all",
        strength=0.5,
    )
    reads = ThoughtCapture(capture_attention=True, attention_layers="all", key_pairs_per_layer=32)
    soft = engine.generate_one(ask("a", injection=words(engine, "bcdefgh"), capture=reads)).thought_trace
    assert soft is not None
    assert soft.injection is not None
    assert (soft.injection.kind, soft.injection.soft_tokens, soft.injection.layer) == ("soft_prompt", 7, None)
    assert soft.prompt_tokens == 1 + 7 + 1
    named = {pair.key: pair.key_token for pair in soft.key_attention_pairs if pair.key <= 8}
    assert {token for key, token in named.items() if key <= 7} <= {f"<soft {number}>" for number in range(1, 8)}
    assert named.get(8, "a") == "a"
    plain = engine.generate_one(ask()).thought_trace
    assert plain is not None
    assert plain.injection is None
    assert "injection" not in plain.missing


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("mode", ["generated", "all"])
def test_padded_batches_steer_and_prompt_as_slots_do(side: str, mode: str, make_engine: Any) -> None:
    engine = endless(make_engine("llama", padding_side=side))
    requests = [
        ask("once upon a time", injection=Steering(1, vector(), 0.7, mode)),  # type: ignore[arg-type]
        ask("and slept"),
        ask("ever", injection=words(engine, "for ")),
        ask("a", injection=Steering(2, vector(3), -0.9, mode)),  # type: ignore[arg-type]
    ]
    slots = [tokens for tokens, _ in answer(engine, requests)]
    loop = PaddedLoop(engine._runtime, max_rows=8, max_tokens=4096)
    jobs = [engine._desk.job(request) for request in requests]
    for job in jobs:
        loop.add(job)
    while loop.has_work:
        loop.step()
    assert [job.row.tokens for job in jobs] == slots
    assert jobs[0].wait(0).batch.batching == "padded"
    assert engine._runtime.taps.pushes is NOTHING


COMING = st.tuples(
    st.integers(1, 14),  # characters of the prompt
    st.integers(1, 7),  # tokens of the answer
    st.integers(0, 5),  # step at which it comes
    st.one_of(st.none(), st.integers(1, 9)),  # step at which it is cancelled
    st.sampled_from(["plain", "steered", "steered all", "soft"]),
)


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(arrivals=st.lists(COMING, min_size=2, max_size=7), rows=st.integers(1, 4), chunk=st.integers(1, 9))
def test_whoever_comes_and_goes_everybody_writes_what_they_write_alone(
    arrivals: list[tuple[int, int, int, int | None, str]], rows: int, chunk: int, engine: TraceEngine
) -> None:
    kinds = {
        "plain": None,
        "steered": Steering(1, vector(1), 0.9),
        "steered all": Steering(2, vector(2), -0.9, "all"),
        "soft": words(engine, "soft"),
    }
    requests = [ask("once upon a time"[:length], new, injection=kinds[kind]) for length, new, _, _, kind in arrivals]
    loop = loop_of(engine, rows, 200, chunk, 2 * chunk)
    jobs = [engine._desk.job(request) for request in requests]
    for step in range(200):
        for job, (_, _, begins, ends, _) in zip(jobs, arrivals, strict=True):
            if begins == step:
                loop.add(job)
            if ends == step:
                job.end(RuntimeError("cancelled"))
        if step > 9 and not loop.has_work:
            break
        loop.step()
    for job, request, arrival in zip(jobs, requests, arrivals, strict=True):
        key = (arrival[0], arrival[1], arrival[4])
        if key not in ALONE:
            ALONE[key] = answer(engine, [request])[0][0]
        alone = ALONE[key]
        assert job.row.tokens == (alone if arrival[3] is None else alone[: len(job.row.tokens)])


ALONE: dict[tuple[int, int, str], list[int]] = {}

BAD: dict[str, tuple[Any, str]] = {
    "not a number": (Steering(1, [math.nan] * WIDTH, 0.5), "not finite"),
    "infinite": (Steering(1, torch.full((WIDTH,), math.inf), 0.5), "not finite"),
    "too large for float32": (Steering(1, torch.full((WIDTH,), 1e300, dtype=torch.float64), 0.5), "not finite"),
    "too wide": (Steering(1, vector(width=WIDTH + 1), 0.5), rf"shape \({WIDTH + 1},\), wanted \({WIDTH},\)"),
    "a matrix": (Steering(1, [[0.0] * WIDTH] * 2, 0.5), "wanted"),  # type: ignore[list-item]
    "words": (Steering(1, ["a"] * WIDTH, 0.5), "no array of numbers"),  # type: ignore[list-item]
    "beyond the last layer": (Steering(4, vector(), 0.5), r"layer 4, this model has layers 0\.\.3"),
    "before the first layer": (Steering(-1, vector(), 0.5), "layer -1"),
    "no strength": (Steering(1, vector(), math.nan), "strength is nan"),
    "an unknown mode": (Steering(1, vector(), 0.5, "sometimes"), "'generated' or 'all'"),  # type: ignore[arg-type]
    "soft and not finite": (SoftPrompt([[math.nan] * WIDTH]), "not finite"),
    "soft and too narrow": (SoftPrompt(torch.ones(3, WIDTH - 1)), rf"wanted \(tokens, {WIDTH}\)"),
    "no soft token": (SoftPrompt(torch.ones(0, WIDTH)), "at least one token"),
}


@pytest.mark.parametrize("name", list(BAD))
def test_what_cannot_be_put_in_is_refused_and_disturbs_nobody(name: str, engine: TraceEngine) -> None:
    injection, sentence = BAD[name]
    neighbour = ask("once upon a time")
    bad, good = engine.generate([ask(injection=injection), neighbour])
    assert isinstance(bad, InjectionRefused)
    with pytest.raises(InjectionRefused, match=sentence):
        raise bad
    assert good.thought_trace.tokens == engine.generate_one(neighbour).thought_trace.tokens


def test_soft_tokens_need_room_too(engine: TraceEngine) -> None:
    with pytest.raises(PromptTooLong, match="1020 soft ones"):
        engine.generate_one(ask(injection=SoftPrompt(torch.ones(1020, WIDTH))))


def test_a_model_that_uses_ids_beyond_its_embedding_takes_no_soft_prompt(tokenizer: Any) -> None:
    model = build("llama")
    inner = type(model).forward

    class Peeking(type(model)):  # type: ignore[misc]
        def forward(self, input_ids: Any = None, **kwargs: Any) -> Any:
            output = inner(self, input_ids=input_ids, **kwargs)
            if input_ids is not None:
                output.logits = output.logits + (input_ids[:, -1:, None] % 7).float()
            return output

    model.__class__ = Peeking
    engine = TraceEngine(model, tokenizer)
    assert "beyond its embedding" in engine.info.unsupported["soft_prompt"] or "ids only" in str(
        engine.info.unsupported
    )
    with pytest.raises(SettingNotSupported, match="no soft prompt"):
        engine.generate_one(ask(injection=SoftPrompt(torch.ones(1, WIDTH))))
    assert engine.generate_one(ask(injection=Steering(1, vector(), 0.5))).thought_trace is not None


class Count(TorchDispatchMode):
    """Operations that reach the dispatcher."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def operations(engine: TraceEngine, injection: Any) -> int:
    """Of one decode step of two rows."""
    loop: SlotLoop = loop_of(engine)
    for request in (ask("once upon a time", 9), ask("and slept", 9, injection=injection)):
        loop.add(engine._desk.job(request))
    for _ in range(3):
        loop.step()
    with Count() as counted:
        loop.step()
    return counted.count


def test_a_request_without_an_injection_costs_no_operation(make_engine: Any) -> None:
    engine = endless(make_engine("llama"))
    plain = operations(engine, None)
    assert operations(engine, words(engine, "for ever ")) == plain
    assert plain < operations(engine, Steering(1, vector(), 0.5)) <= plain + 8
    assert operations(engine, None) == plain


def test_where_nobody_is_steered_nothing_is_made() -> None:
    record = InjectionRecord(kind="soft_prompt", source="own", sha256="")
    assert pushes([None, Injected(record, soft_KD=torch.ones(1, WIDTH))], 1, torch.device("cpu"), last=[0, 0]) == {}


def test_own_vectors_and_a_prior_state_are_not_mixed(engine: TraceEngine) -> None:
    capture = ThoughtCapture(inject={"kind": "steering"})
    with pytest.raises(RequestError, match="keep one"):
        engine.generate_one(ask(capture=capture, injection=Steering(1, vector(), 0.5)))
