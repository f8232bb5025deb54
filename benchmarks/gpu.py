"""The engine on a GPU: what reading costs there, how near it comes to the memory's speed, and how long requests take.

`python -m benchmarks.gpu` writes `results/gpu.json` on a machine with a CUDA card. Elsewhere, or with `--toy`, the same
code runs at toy size on whatever there is, and writes nothing: those numbers mean nothing.
"""

import gc
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median, quantiles
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen3MoeConfig

from benchmarks._models import prompt_ids, text_of, tokenizer
from benchmarks._results import Row, report
from wonder.engine.engine import TraceEngine
from wonder.engine.job import Handle
from wonder.engine.recorder import ReadPlan
from wonder.engine.request import Request
from wonder.engine.sampling import RowDraw
from wonder.engine.slot_recorder import RowReadings
from wonder.engine.slot_runner import SlotRunner
from wonder.trace.capture import ThoughtCapture
from wonder.trace.sampling import Sampling

TRACED = ThoughtCapture(capture_attention=True, compute_attention_entropy=True, capture_expert_routing=True)
"""Every signal; attention in a quarter of the layers, the default."""
UNTRACED = ThoughtCapture(enabled=False)
BANDWIDTH = {"H200": 4.8e12, "H100 PCIe": 2.0e12, "H100 NVL": 3.9e12, "H100": 3.35e12, "A100": 2.0e12, "B200": 8.0e12}
"""Peak memory bandwidth by the vendor's data sheets, bytes per second; the first name found in the card's counts."""


@dataclass(frozen=True)
class Size:
    """How much is run."""

    batches: tuple[int, ...]
    prompt: tuple[int, int]
    """Shortest and longest prompt, tokens."""
    new: int
    turns: int
    steps: int
    alone: int
    """Requests of the one-at-a-time loop."""
    rates: tuple[float, ...]
    """Requests per second."""
    seconds: float
    """How long requests keep arriving."""
    patience_s: float
    """How long the last of them are waited for."""
    max_batch: int


REAL = Size((16, 64), (128, 512), 128, 3, 20, 3, (10.0, 50.0, 100.0), 20.0, 60.0, 256)
QUICK = Size((16, 64), (128, 512), 32, 1, 5, 1, (50.0,), 5.0, 20.0, 256)
TOY = Size((2, 4), (8, 24), 6, 1, 2, 2, (20.0, 40.0), 0.5, 20.0, 8)


def dense(toy: bool) -> Any:
    """The shape of Llama-3-8B."""
    if toy:
        return _config(LlamaConfig, 64, 160, 3, 4, 2, 512)
    return _config(LlamaConfig, 4096, 14336, 32, 32, 8, 128256, rope_theta=500000.0)


def sparse(toy: bool) -> Any:
    """The shape of Qwen3-30B-A3B; half as deep where the card would not hold it."""
    if toy:
        moe = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 16}
        return _config(Qwen3MoeConfig, 64, 96, 3, 4, 2, 512, **moe)
    deep = torch.cuda.get_device_properties(0).total_memory > 90e9
    moe = {"num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768, "head_dim": 128}
    return _config(Qwen3MoeConfig, 2048, 6144, 48 if deep else 24, 32, 4, 151936, **moe)


def _config(
    kind: Any, width: int, inner: int, layers: int, heads: int, key_heads: int, vocabulary: int, **more: Any
) -> Any:
    return kind(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        max_position_embeddings=8192,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
        tie_word_embeddings=False,
        **more,
    )


@contextmanager
def serving(config: Any, device: torch.device, size: Size) -> Iterator[TraceEngine]:
    """An engine over random weights, bf16 on a card."""
    torch.manual_seed(0)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    with device:
        model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    model.generation_config.pad_token_id = 0
    tokens = size.max_batch * (size.prompt[1] + size.new)
    engine = TraceEngine(model, tokenizer(config.vocab_size), max_batch=size.max_batch, max_batch_tokens=tokens)
    if engine.info.unsupported:
        print(f"unsupported here: {engine.info.unsupported}", file=sys.stderr)
    try:
        yield engine
    finally:
        engine.close()


def requests(count: int, size: Size, vocabulary: int, capture: ThoughtCapture, seed: int = 0) -> list[Request]:
    """Ragged prompts; every answer has the same number of tokens, so that a rate means something."""
    draw = random.Random(seed)
    lengths = [draw.randint(*size.prompt) for _ in range(count)]
    sampling = Sampling(max_new_tokens=size.new)
    return [
        Request(prompt=text_of(prompt_ids(length, seed + at, vocabulary)), sampling=sampling, capture=capture)
        for at, length in enumerate(lengths)
    ]


def wall_s(run: Callable[[], object]) -> float:
    """Seconds of a call whose results end on the host."""
    gc.collect()
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def answer(engine: TraceEngine, asked: Sequence[Request]) -> None:
    """All of them, from texts to messages."""
    for message in engine.generate(asked):
        if isinstance(message, Exception):
            raise message


def throughput(name: str, engine: TraceEngine, size: Size, bar: str) -> tuple[list[Row], dict[int, float]]:
    """Tokens per second with and without reading; also the traced ones by number of rows."""
    rows: list[Row] = []
    rates: dict[int, float] = {}
    for count in size.batches:
        asked = {
            kind: requests(count, size, engine.info.vocabulary, capture)
            for kind, capture in (("untraced", UNTRACED), ("traced", TRACED))
        }
        seconds: dict[str, list[float]] = {kind: [] for kind in asked}
        for turn in range(-1, size.turns):
            for kind in list(asked)[:: 1 if turn % 2 else -1]:
                found = wall_s(partial(answer, engine, asked[kind]))
                if turn >= 0:
                    seconds[kind].append(found)
        share = median(u / t for u, t in zip(seconds["untraced"], seconds["traced"], strict=True))
        how = (
            f"{count} requests at once, prompts of {size.prompt[0]}-{size.prompt[1]} tokens, {size.new} new each, text "
            "to message with every signal and attention in a quarter of the layers; wall time, median of "
            f"{size.turns} turns"
        )
        for kind in asked:
            rate = count * size.new / median(seconds[kind])
            rows.append(Row(f"{name}, {count} rows, {kind}", rate, "tok/s", "", how))
            rates |= {count: rate} if kind == "traced" else {}
        rows.append(Row(f"{name}, {count} rows, traced over untraced tokens/s", share, "x", bar and ">= 0.95", how))
    return rows, rates


def alone(name: str, engine: TraceEngine, size: Size, rates: dict[int, float], bar: str) -> list[Row]:
    """The engine, traced, over transformers' `generate` that answers one request after the other and reads nothing."""
    device = torch.device(engine.info.device)
    prompts = [prompt_ids((size.prompt[0] + size.prompt[1]) // 2, seed, engine.info.vocabulary) for seed in range(3)]

    def one(ids: list[int]) -> None:
        fed = torch.tensor([ids], device=device)
        with torch.inference_mode():
            found: Any = engine.model.generate(  # type: ignore[operator]
                fed, attention_mask=torch.ones_like(fed), max_new_tokens=size.new, do_sample=False
            )
        found.tolist()

    one(prompts[0])
    seconds = [wall_s(partial(one, prompts[at % len(prompts)])) for at in range(size.alone)]
    rate = size.new / median(seconds)
    count = max(rates)
    how = (
        f"tokens/s of {count} traced requests at once, over those of transformers' untraced generate, one after the "
        f"other ({rate:,.0f} tok/s, median of {size.alone})"
    )
    return [Row(f"{name}, engine over one request at a time", rates[count] / rate, "x", bar and ">= 10", how)]


def steps(name: str, engine: TraceEngine, size: Size, peak: tuple[float, str]) -> list[Row]:
    """Decode steps alone: how much of the time the memory would need at its best they take."""
    model, config = engine.model, engine.model.config
    layers = engine.info.n_layers
    plan = ReadPlan(tuple(range(3, layers, 4)), 4, (), True, 3)
    rows = []
    for count in size.batches:
        lengths = [size.prompt[0] + at * (size.prompt[1] - size.prompt[0]) // count for at in range(count)]
        runner, found = SlotRunner(engine._runtime, count), {}
        with torch.inference_mode():
            columns = max(lengths) + 2
            runner.cache.reserve(count, columns, 0, count * (columns + 64))
            draws = [RowDraw(Sampling()) for _ in range(count)]
            prompts = [prompt_ids(length, at, engine.info.vocabulary) for at, length in enumerate(lengths)]
            for at, prompt in enumerate(prompts):
                runner.prefill(at, [prompt], 0, [None], draws[at : at + 1])

            def step(
                plan: ReadPlan | None, runner: SlotRunner = runner, lengths: list[int] = lengths, draws: Any = draws
            ) -> None:
                readings = [None if plan is None else RowReadings(plan) for _ in lengths]
                runner.decode(0, [1] * len(lengths), lengths, readings, draws)

            for kind, wanted in (("untraced", None), ("traced", plan)):
                step(wanted)
                found[kind] = median(wall_s(partial(step, wanted)) for _ in range(size.steps))
        read = bytes_per_step(model, config, lengths)
        for kind, seconds in found.items():
            how = (
                f"{read / 1e9:.2f} GB per step (weights that are used, keys and values of {sum(lengths)} tokens) at "
                f"{peak[0] / 1e12:.2f} TB/s ({peak[1]}), over {seconds * 1e3:.2f} ms; median of {size.steps} steps, "
                "eager kernels: neither CUDA graphs nor compiled steps"
            )
            share = read / peak[0] / seconds
            rows.append(Row(f"{name}, {count} rows, {kind} decode: share of the bandwidth bound", share, "", "", how))
    return rows


def bytes_per_step(model: Any, config: Any, lengths: Sequence[int]) -> float:
    """What one decode step has to read: weights once, experts as far as they are chosen, keys and values of every row.

    Of E experts of which every token takes k at random, n tokens touch E · (1 - (1 - k/E)ⁿ).
    """
    rows, total = len(lengths), 0.0
    embedding = model.get_input_embeddings().weight
    experts, taken = getattr(config, "num_experts", 0), getattr(config, "num_experts_per_tok", 0)
    touched = 1 - (1 - taken / experts) ** rows if experts else 1.0
    for name, weight in model.named_parameters():
        if weight is not embedding:
            total += weight.nbytes * (touched if ".experts." in name else 1.0)
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * head * embedding.element_size()
    return total + per_token * sum(lengths)


def peak_bandwidth(device: torch.device) -> tuple[float, str]:
    """Bytes per second, and where the number comes from."""
    if device.type == "cuda":
        card = torch.cuda.get_device_name(device)
        for name, value in BANDWIDTH.items():
            if all(part in card for part in name.split()):
                return value, f"data sheet of {name}"
    source = torch.zeros(2**30 if device.type == "cuda" else 2**24, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def copy() -> None:
        for _ in range(5):
            target.copy_(source)
        target[:1].tolist()

    copy()
    return 10 * source.nbytes / min(wall_s(copy) for _ in range(3)), "measured by copying"


def latency(name: str, engine: TraceEngine, size: Size) -> list[Row]:
    """Requests that come when they come, whether or not others are done: seconds from asking to the whole answer."""
    rows = []
    answer(engine, requests(2, size, engine.info.vocabulary, TRACED))
    for rate in size.rates:
        draw = random.Random(0)
        arrivals: list[float] = []
        at = draw.expovariate(rate)
        while at < size.seconds:
            arrivals.append(at)
            at += draw.expovariate(rate)
        asked = requests(max(1, len(arrivals)), size, engine.info.vocabulary, TRACED, seed=int(rate))
        arrivals = arrivals or [0.0]
        done: list[float] = []
        lock = threading.Lock()
        handles: list[Handle] = []
        begun = time.perf_counter()

        def ended(due: float, begun: float = begun, done: list[float] = done, lock: threading.Lock = lock) -> None:
            with lock:
                done.append(time.perf_counter() - begun - due)

        for due, request in zip(arrivals, asked, strict=True):
            time.sleep(max(0.0, begun + due - time.perf_counter()))
            handle = engine.submit(request)
            handle.when_done(partial(ended, due))
            handles.append(handle)
        deadline = time.perf_counter() + size.patience_s
        while len(done) < len(handles) and time.perf_counter() < deadline:
            time.sleep(0.01)
        answered = sorted(done)
        open_still = sum(handle.cancel() for handle in handles)
        how = (
            f"{len(handles)} requests arriving at random over {size.seconds:g} s whether or not others are done, "
            f"prompts of {size.prompt[0]}-{size.prompt[1]} tokens, {size.new} new, traced; seconds from the due moment "
            f"to the last token; at most {size.max_batch} rows; {open_still} unanswered {size.patience_s:g} s after "
            "the last came"
        )
        cuts = quantiles(answered, n=100, method="inclusive") if len(answered) > 1 else [float(*answered)] * 99
        for percent in (50, 99):
            # Who is not answered waits longest of all, so the percentile is unknown when he is within it.
            known = open_still <= len(handles) * (1 - percent / 100)
            rows.append(
                Row(
                    f"{name}, {rate:.0f} requests/s, p{percent} of the time to the whole answer",
                    cuts[percent - 1] if known else None,
                    "s",
                    "",
                    how if known else f"too many were still waiting: {how}",
                )
            )
    return rows


def measure(toy: bool, quick: bool) -> list[Row]:
    """All rows; without bars at toy size."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    size = TOY if toy else QUICK if quick else REAL
    bar = "" if toy else "bar"
    peak = peak_bandwidth(device)
    rows: list[Row] = []
    for name, config in (
        ("Llama-3-8B shape", partial(dense, toy)),
        ("Qwen3-30B-A3B shape", partial(sparse, toy)),
    ):
        label = f"toy of the {name}" if toy else f"{name}, bf16"
        print(f"{label} …", file=sys.stderr, flush=True)
        rows += _model(label, config(), device, size, peak, bar)
        # Nobody holds the first model any more: a card of 80 GB does not hold both.
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return rows


def _model(label: str, config: Any, device: torch.device, size: Size, peak: tuple[float, str], bar: str) -> list[Row]:
    with serving(config, device, size) as engine:
        rows, rates = throughput(label, engine, size, bar)
        rows += [*alone(label, engine, size, rates, bar), *steps(label, engine, size, peak)]
        if config.model_type == "llama":
            rows += latency(label, engine, size)
    return rows


def card() -> dict[str, Any]:
    """What a reader needs to judge a GPU's numbers by."""
    if not torch.cuda.is_available():
        return {}
    about = torch.cuda.get_device_properties(0)
    return {"gpu": about.name, "gpu_memory_gb": round(about.total_memory / 2**30), "cuda": torch.version.cuda}


def main(argv: Sequence[str]) -> None:
    """Measure and report."""
    toy = "--toy" in argv or not torch.cuda.is_available()
    options = [option for option in argv if option != "--toy"]
    rows = measure(toy, "--quick" in options)
    # Toy numbers are never written.
    report("gpu", rows, [*options, "--quick"] if toy and "--quick" not in options else options, card())


if __name__ == "__main__":
    main(sys.argv[1:])
