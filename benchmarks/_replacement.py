"""What the short way to a replaced activation's next token costs beside the long one, and that both are the same."""

import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks._results import Row
from lens_training.models.target import TargetModel

ROWS, CONTEXT, WIDTH, BLOCKS, ABOVE = 16, 128, 256, 12, 4


def replacement_rows(*, quick: bool) -> list[Row]:
    """The figures."""
    torch.manual_seed(0)
    made = LlamaConfig(
        vocab_size=512,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=BLOCKS,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=WIDTH**-0.5,
    )
    target = TargetModel(LlamaForCausalLM(made), BLOCKS - ABOVE - 1)
    ids_BS = torch.randint(0, 512, (ROWS, CONTEXT))
    pos_B = torch.randint(CONTEXT // 4, CONTEXT, (ROWS,))
    replacement_BD = target.capture(ids_BS, pos_B).activation_BD + torch.randn(ROWS, WIDTH)
    prefix = target.prefix(ids_BS)

    def way(mode: str) -> tuple[Tensor, Tensor]:
        x_BD = replacement_BD.clone().requires_grad_()
        stored = prefix if mode == "suffix" else None
        logits = target.logits_with_replacement(ids_BS, pos_B, x_BD, mode, stored)  # type: ignore[arg-type]
        (gradient,) = torch.autograd.grad(logits.log_softmax(-1)[:, 0].sum(), x_BD)
        return logits.detach(), gradient

    (long, long_gradient), (short, short_gradient) = way("full"), way("suffix")
    timed = [(cpu_s(lambda: way("full")), cpu_s(lambda: way("suffix"))) for _ in range(3 if quick else 15)]
    shape = f"{BLOCKS} blocks of width {WIDTH}, {ABOVE} above the lens, {ROWS} rows of {CONTEXT} tokens, float32"
    return [
        Row("replacement by the short way: largest difference of a logit", float((long - short).abs().max()), "",
            "<= 1e-5", f"random positions; {shape}"),
        Row("replacement by the short way: largest difference of a gradient",
            float((long_gradient - short_gradient).abs().max()), "", "<= 1e-5", shape),
        Row("replacement by the short way: times less processor time", median(one / other for one, other in timed), "x",
            ">= 20", f"forward and backward pass of the full way over those of the short one, median of {len(timed)}; "
            f"keys and values of the context are made once for all positions and texts; {shape}"),
    ]  # fmt: skip


def cpu_s(work: Callable[[], object]) -> float:
    """Processor seconds it takes."""
    begun = time.process_time()
    work()
    return time.process_time() - begun
