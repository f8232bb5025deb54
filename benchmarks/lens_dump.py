"""What dumping activations costs beside the forward passes that it cannot do without."""

import gc
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks._results import Row, arguments, report
from lens_training.activations import make_plan, merge
from lens_training.dump import Dumper, dump, source_of, states
from lens_training.models.target import TargetModel
from lens_training.spec import CorpusSpec, DumpSpec, Shares, TargetSpec
from lens_training.stories.files import tokenizer
from lens_training.stories.target import config
from lens_training.stories.world import stories, vocabulary
from lens_training.tokens import TokenStore, tokenize
from wonder.engine.load import default_device

LAYER = 1
SEED = 1


@dataclass(frozen=True)
class Case:
    """A model and how much of it is dumped."""

    name: str
    config: LlamaConfig
    documents: int
    stories: int
    """That make a document; one has about 80 tokens."""
    turns: int


def main() -> None:
    """Measure, then print the rows."""
    quick = arguments().quick
    cases = [
        Case("4 blocks of width 128", config(128), 400 if quick else 1500, 1, 3 if quick else 7),
        Case("8 blocks of width 512", shape(8, 512, 1408), 40 if quick else 80, 1, 3 if quick else 5),
        Case("12 blocks of width 768", shape(12, 768, 2048), 6 if quick else 16, 4, 3 if quick else 5),
    ]
    report("lens_dump", [row for case in cases for row in rows(case)])


def shape(layers: int, width: int, inner: int) -> LlamaConfig:
    """Of a Llama with heads of 64."""
    return LlamaConfig(
        vocab_size=len(vocabulary()),
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 128,
        tie_word_embeddings=True,
    )


def rows(case: Case) -> list[Row]:
    """The figures of one model."""
    torch.manual_seed(SEED)
    target = TargetModel(LlamaForCausalLM(case.config).to(default_device()), LAYER)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        texts = [" ".join(story.words) for story in stories(case.documents * case.stories, SEED)]
        joined = (" ".join(texts[at : at + case.stories]) for at in range(0, len(texts), case.stories))
        (place / "stories.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in joined))
        tokenize(CorpusSpec(source="jsonl", path=str(place / "stories.jsonl")), tokenizer(), place / "tokens")
        store = TokenStore(place / "tokens")
        both = measured(store, target, place, final=True, turns=case.turns)
        cut = measured(store, target, place, final=False, turns=3)
    how = (
        f"{case.documents} documents of about {80 * case.stories} tokens, contexts of at most 128, 10 positions of "
        "each; the forward passes alone over the same batches, made beforehand, over the whole dump: planned, read, "
        "written, synced, hashed and merged; one after the other in changing order, "
    )
    end = f"median of {case.turns} turns"
    return [
        Row(f"dump over plain forward, {case.name}", both.ratio, "x", ">= 0.90", f"{how}wall time, {end}"),
        Row(
            f"dump over plain forward in processor time, {case.name}",
            both.cpu_ratio,
            "x",
            ">= 0.90",
            f"{how}processor time of all threads, so that work beside the forward counts too; {end}",
        ),
        Row(
            f"dump without final states over a forward that stops at the layer, {case.name}",
            cut.cpu_ratio,
            "x",
            "",
            f"{how}processor time; blocks 0 to {LAYER} of {case.config.num_hidden_layers}; median of 3 turns",
        ),
        Row(f"rows dumped, {case.name}", both.rows_per_s, "1/s", "", f"activation and final state; wall time, {end}"),
    ]


@dataclass(frozen=True)
class Measured:
    """Of one model and one kind of dump."""

    ratio: float
    cpu_ratio: float
    rows_per_s: float


def measured(store: TokenStore, target: TargetModel, folder: Path, *, final: bool, turns: int) -> Measured:
    """Plain passes and dumps in turn, so that both see the same machine."""
    spec = DumpSpec(final=final, rows_per_shard=8192, window="random", shares=Shares(train=1, val=0, test=0))
    wanted = TargetSpec(model="made here", layer=LAYER)
    plan = make_plan(store, spec, source_of(target, wanted))
    dumper = Dumper(store, target, spec)
    device = next(target.model.parameters()).device
    passes = [made for shard in plan.shards for made in dumper.passes(shard)[0]]
    batches = [torch.from_numpy(store.gather(made.start_B, made.last_B, made.width)).to(device) for made in passes]
    one = torch.zeros(1, dtype=torch.long, device=device)

    @torch.inference_mode()
    def plain() -> None:
        for ids_BS in batches:
            if final:
                target.base(input_ids=ids_BS, use_cache=False)
            else:
                states(target, ids_BS, one, one, final=False)  # one state of each: the least that stops at the layer
        if device.type == "cuda":
            torch.cuda.synchronize()

    def whole(number: int) -> None:
        out = folder / f"{final}-{number}"
        dump(store, target, spec, wanted, out)
        merge(out)

    timed: list[tuple[Times, Times]] = []
    for number in range(-1, turns):
        gc.collect()
        if number % 2:
            dumped, alone = times(partial(whole, number)), times(plain)
        else:
            alone, dumped = times(plain), times(partial(whole, number))
        if number >= 0:
            timed.append((alone, dumped))
        shutil.rmtree(folder / f"{final}-{number}")
    return Measured(
        median(alone.wall_s / dumped.wall_s for alone, dumped in timed),
        median(alone.cpu_s / dumped.cpu_s for alone, dumped in timed),
        median(sum(plan.rows.values()) / dumped.wall_s for _, dumped in timed),
    )


@dataclass(frozen=True)
class Times:
    """Of one piece of work."""

    wall_s: float
    cpu_s: float


def times(work: Callable[[], None]) -> Times:
    """How long it takes."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Times(time.perf_counter() - wall, time.process_time() - cpu)


if __name__ == "__main__":
    main()
