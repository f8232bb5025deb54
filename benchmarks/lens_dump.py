"""What dumping activations costs beside the forward passes that it cannot do without."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks._results import Row, arguments, report
from lens_training.activations import make_plan, merge
from lens_training.dump import Dumper, dump, source_of
from lens_training.models.target import TargetModel
from lens_training.spec import CorpusSpec, DumpSpec, TargetSpec
from lens_training.stories.files import tokenizer, write_stories
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
    repeats: int


def main() -> None:
    """Measure, then print the rows."""
    quick = arguments().quick
    wide = LlamaConfig(
        vocab_size=len(vocabulary()),
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=4,
        tie_word_embeddings=True,
    )
    cases = [
        Case("the stories' target", config(), 400 if quick else 3000, 3 if quick else 9),
        Case("8 blocks of width 512", wide, 60 if quick else 200, 3 if quick else 7),
    ]
    report("lens_dump", [row for case in cases for row in rows(case)])


def rows(case: Case) -> list[Row]:
    """The figures of one model."""
    torch.manual_seed(SEED)
    target = TargetModel(LlamaForCausalLM(case.config).to(default_device()), LAYER)
    with tempfile.TemporaryDirectory() as folder:
        write_stories(stories(case.documents, SEED), Path(folder) / "stories.jsonl")
        corpus = CorpusSpec(source="jsonl", path=str(Path(folder) / "stories.jsonl"))
        tokenize(corpus, tokenizer(), Path(folder) / "tokens")
        store = TokenStore(Path(folder) / "tokens")
        both = measured(store, target, Path(folder), final=True, repeats=case.repeats)
        cut = measured(store, target, Path(folder), final=False, repeats=3)
    how = (
        f"{case.documents} stories of about 54 tokens, 10 positions of each; time of the whole forward over the same "
        "batches, made beforehand, over that of the whole dump: planned, read, written, synced, hashed and merged; one "
        "after the other, "
    )
    return [
        Row(f"dump over plain forward, {case.name}", both.ratio, "x", ">= 0.90", f"{how}{case.repeats} times, median"),
        Row(
            f"dump over plain forward in processor time, {case.name}",
            both.cpu_ratio,
            "x",
            "",
            f"{how}{case.repeats} times, median of the processor time of all threads",
        ),
        Row(f"dump without final states over plain forward, {case.name}", cut.ratio, "x", "", f"{how}3 times, median"),
        Row(f"rows dumped, {case.name}", both.rows_per_s, "1/s", "", "activation and final state, median"),
    ]


@dataclass(frozen=True)
class Measured:
    """Of one model and one kind of dump."""

    ratio: float
    cpu_ratio: float
    rows_per_s: float


def measured(store: TokenStore, target: TargetModel, folder: Path, *, final: bool, repeats: int) -> Measured:
    """Plain passes and dumps in turn, so that both see the same machine."""
    spec = DumpSpec(final=final, rows_per_shard=8192)
    wanted = TargetSpec(model="made here", layer=LAYER)
    plan = make_plan(store, spec, source_of(target, wanted))
    dumper = Dumper(store, target, spec)
    device = next(target.model.parameters()).device
    passes = [made for shard in plan.shards for made in dumper.passes(shard)[0]]
    batches = [torch.from_numpy(store.gather(made.start_B, made.last_B, made.width)).to(device) for made in passes]

    @torch.inference_mode()
    def plain() -> None:
        for ids_BS in batches:
            target.base(input_ids=ids_BS, use_cache=False)
        if device.type == "cuda":
            torch.cuda.synchronize()

    timed: list[tuple[Times, Times]] = []
    plain()
    for number in range(repeats):

        def whole(out: Path = folder / f"{final}-{number}") -> None:
            dump(store, target, spec, wanted, out)
            merge(out)

        if number % 2:
            dumped, alone = times(whole), times(plain)
        else:
            alone, dumped = times(plain), times(whole)
        timed.append((alone, dumped))
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
