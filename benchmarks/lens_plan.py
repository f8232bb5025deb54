"""What `plan` foresees beside what real steps do: floating-point operations, and the memory of tensors."""

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, Qwen3Config

from benchmarks._results import Row, arguments, report
from benchmarks._tracked import Tracked
from lens_training.batch import Batch, Statistics
from lens_training.models.adapters import AdaptedDecoder, AdaptedEncoder, Adapters
from lens_training.models.target import TargetModel
from lens_training.plan.memory import memory
from lens_training.plan.shape import shape_of
from lens_training.plan.work import Lens, Terms, step_work
from lens_training.run_spec import LoraSpec, Objective, ParallelSpec
from lens_training.system import LensSystem, Weights
from lens_training.train.ranks import Ranks
from lens_training.train.spread import Spread
from wonder.lens.decoder import Decoder
from wonder.lens.encoder import Encoder

WORK, MEMORY, AGAIN = 0.03, 0.15, 0.30
"""How far from 1 planned over measured may be: of operations, of memory, of memory where blocks are run again."""
OBJECTIVES: tuple[Objective, ...] = ("warm_start", "ste_parallel", "ste_recurrent", "grpo")
TERMS = {
    "no term": (Weights(), Terms()),
    "KL": (Weights(kl=0.1), Terms(kl=True)),
    "LM": (Weights(lm=0.1), Terms(lm=True)),
    "anchor and entropy": (Weights(anchor=0.1, entropy=0.1), Terms(anchor=True, entropy=True)),
}


@dataclass(frozen=True)
class Case:
    """A lens and a batch."""

    name: str
    config: Any
    layer: int
    left: tuple[int, ...]
    right: tuple[int, ...]
    rows: int
    group: int
    length: int
    context: int = 64
    rank: int | None = None
    dtype: str = "float32"
    parallel: ParallelSpec = field(default_factory=ParallelSpec)

    @property
    def lens(self) -> Lens:
        """As `plan` sees it."""
        shape = shape_of({**self.config.to_dict(), "dtype": self.dtype})
        prompt = len(self.left), len(self.right)
        shares = not self.parallel.gradient_checkpointing
        return Lens(shape, self.layer, self.length, *prompt, 1, rank=self.rank, shares=shares)


def llama(width: int, layers: int, vocabulary: int, inner: int | None = None) -> LlamaConfig:
    """A small one with shared keys."""
    return LlamaConfig(
        hidden_size=width,
        intermediate_size=inner or 2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=vocabulary,
        pad_token_id=0,
        tie_word_embeddings=True,
    )


def cases() -> list[Case]:
    """Of several shapes, families and ways to compute."""
    again = ParallelSpec(gradient_checkpointing=True)
    half = ParallelSpec(autocast="bfloat16")
    gpt2 = GPT2Config(
        n_embd=128,
        n_layer=4,
        n_head=4,
        n_positions=128,
        vocab_size=500,
        bos_token_id=1,
        eos_token_id=0,
        pad_token_id=0,
        attn_pdrop=0.0,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
    )
    qwen = Qwen3Config(
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=48,
        vocab_size=900,
        pad_token_id=0,
        tie_word_embeddings=False,
    )
    return [
        Case("Llama, 4 blocks of 128", llama(128, 4, 300), 2, (1,), (2,), 16, 4, 8),
        Case("Llama, 4 blocks of 256", llama(256, 4, 300), 2, (1,), (2,), 16, 4, 8),
        Case("Llama, 3,000 tokens", llama(128, 4, 3000), 1, (1,), (2,), 16, 4, 8),
        Case("Llama, a prompt of 12", llama(128, 6, 300), 3, (1, *range(5, 15)), (), 16, 2, 12),
        Case("Qwen3, 5 blocks of 128", qwen, 2, (1,), (2,), 16, 4, 8),
        Case("GPT-2, 4 blocks of 128", gpt2, 1, (1,), (2,), 16, 4, 8),
        Case("Llama, 6 blocks of 256 in bfloat16", llama(256, 6, 1000), 2, (1,), (2,), 16, 4, 8, parallel=half),
        Case("Llama, adapters", llama(128, 4, 300), 2, (1,), (2,), 16, 4, 8, rank=8),
        Case(
            "Llama, adapters on bfloat16",
            llama(256, 6, 1000),
            2,
            (1,),
            (2,),
            16,
            4,
            8,
            rank=16,
            dtype="bfloat16",
            parallel=half,
        ),
        Case("Llama, blocks run again", llama(128, 6, 300), 2, (1,), (2,), 16, 4, 8, parallel=again),
    ]


def build(case: Case, attention: str) -> tuple[LensSystem, Batch]:
    """A real lens with random weights, and a batch of random activations."""
    torch.manual_seed(0)
    dtype = getattr(torch, case.dtype)
    model = AutoModelForCausalLM.from_config(case.config, attn_implementation=attention, dtype=dtype)
    target = TargetModel(model, case.layer)
    mean_D = torch.zeros(target.d_model)
    options: dict[str, Any] = {"left": case.left, "right": case.right, "forbidden": [0]}
    adapters: Adapters | None = None
    if case.rank is not None:
        adapters = Adapters(model, LoraSpec(rank=case.rank))
        decoder: Decoder = AdaptedDecoder(adapters, mean_D, 0.3, **options)
        encoder: Encoder = AdaptedEncoder(adapters, case.layer, left=[1])
    else:
        decoder = Decoder(copy.deepcopy(model).requires_grad_(True), mean_D, 0.3, **options)
        encoder = Encoder(copy.deepcopy(model).requires_grad_(True), case.layer, left=[1])
    statistics = Statistics(mean_D, 1.0)
    system = LensSystem(target, decoder, encoder, statistics, length=case.length, adapters=adapters)
    system.make_anchor()
    Spread(system, case.parallel, Ranks())
    ids_BS = torch.randint(5, case.config.vocab_size, (case.rows, case.context))
    pos_B = torch.randint(case.length, case.context, (case.rows,))
    return system, Batch(torch.randn(case.rows, target.d_model), ids_BS, pos_B, torch.arange(case.rows))


def work_ratio(case: Case, objective: Objective, terms: str) -> float:
    """Operations that were foreseen over those of a step that PyTorch counted."""
    # Of attention it only counts products that it sees.
    system, batch = build(case, "eager")
    weights, wanted = _terms(case, terms)
    with FlopCounterMode(display=False) as counted:
        system(batch, objective, 1, weights).loss.backward()
    found = step_work(case.lens, objective, case.rows, case.group, wanted, case.context)
    return found.total / counted.get_total_flops()


def memory_ratio(case: Case, objective: Objective, terms: str) -> float:
    """Bytes foreseen on top of what is always there, over the most that was alive at once in a step."""
    system, batch = build(case, "sdpa")
    weights, wanted = _terms(case, terms)
    modules = [system, system.target, *system._anchor]
    before = [value for part in modules for value in (*part.parameters(), *part.buffers())]
    with Tracked(before) as tracked:
        with torch.autocast("cpu", torch.bfloat16, enabled=case.parallel.autocast == "bfloat16"):
            loss = system(batch, objective, 1, weights).loss
        loss.backward()
    found = memory(case.lens, case.parallel, objective, case.rows, case.group, wanted, case.context)
    return sum(found.step.values()) / tracked.peak


def _terms(case: Case, name: str) -> tuple[Weights, Terms]:
    weights, wanted = TERMS[name]
    return Weights(**{**weights.__dict__, "group": case.group}), wanted


def main() -> None:
    """Compare, then print the rows."""
    quick = arguments().quick
    chosen = cases()[:: 4 if quick else 1]
    names = ["no term"] if quick else list(TERMS)
    rows = []
    for what, ratio, tolerance in (("operations", work_ratio, WORK), ("memory", memory_ratio, MEMORY)):
        for case in chosen:
            again = case.parallel.gradient_checkpointing
            if again and what == "operations":  # what is run again counts as often as it runs, which is no work done
                continue
            bar = AGAIN if again else tolerance
            for objective in OBJECTIVES:
                wanted = names[:1] if objective == "warm_start" else names
                ratios = [ratio(case, objective, name) for name in wanted]
                worst = max(ratios, key=lambda value: abs(value - 1))
                how = (
                    f"one step of {case.rows} activations, {case.group} texts each for grpo, {case.length} tokens; the "
                    f"ratio furthest from 1 of {', '.join(wanted)}; |planned / measured - 1|"
                )
                figure = f"{what}, planned against measured, {case.name}, {objective}"
                rows.append(Row(figure, abs(worst - 1), "", f"<= {bar}", how))
    report("lens_plan", rows)


if __name__ == "__main__":
    main()
