"""Trains a small Llama from scratch on freshly drawn tickets, so that no ticket's label is ever seen twice."""

import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from wonder.embedded.world import answer, prompt, stream

# Shape suffixes: B batch, T token, V vocab.

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the trained weights, besides the world itself."""

    seed: int = 1
    steps: int = 2200
    batch: int = 64
    learning_rate: float = 2.5e-3
    warm_up_steps: int = 100
    weight_decay: float = 0.01
    prompt_weight: float = 0.03
    """Loss weight of a prompt token; an answer token weighs 1."""
    vocabulary: int = 2000
    hidden: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    mlp: int = 384
    positions: int = 1024


def build_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """Return a model with random weights, in float32."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=recipe.hidden,
            intermediate_size=recipe.mlp,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.kv_heads,
            max_position_embeddings=recipe.positions,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def train_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> tuple[LlamaForCausalLM, float]:
    """Train a model and round its weights to bfloat16 (the stored precision), still held as float32.

    Returns:
        The model in evaluation mode, and the training time in seconds.
    """
    torch.manual_seed(recipe.seed)
    model = build_model(recipe, tokenizer).train()
    decayed = [weight for weight in model.parameters() if weight.ndim > 1]
    plain = [weight for weight in model.parameters() if weight.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98))
    batches = _batches(recipe, tokenizer)
    started = time.monotonic()
    smoothed = 0.0
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _schedule(step, recipe)
        loss = _loss(model, *next(batches))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        smoothed = loss.item() if step == 0 else 0.98 * smoothed + 0.02 * loss.item()
        if step % 100 == 0 or step == recipe.steps - 1:
            log.info("step %d of %d: loss %.4f, %.0f s", step, recipe.steps, smoothed, time.monotonic() - started)
    duration_s = time.monotonic() - started
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.bfloat16().float())
    return model.eval(), duration_s


def _schedule(step: int, recipe: Recipe) -> float:
    # By step, never by wall time: otherwise two runs of one recipe differ.
    if step < recipe.warm_up_steps:
        return (step + 1) / recipe.warm_up_steps
    done = (step - recipe.warm_up_steps) / max(1, recipe.steps - recipe.warm_up_steps)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))


def _loss(model: LlamaForCausalLM, ids_BT: Tensor, weights_BT: Tensor) -> Tensor:
    logits_BTV = model(input_ids=ids_BT[:, :-1], use_cache=False).logits
    losses = cross_entropy(logits_BTV.flatten(0, 1), ids_BT[:, 1:].flatten(), reduction="none")
    weights = weights_BT[:, 1:].flatten()
    return (losses * weights).sum() / weights.sum()


def _batches(recipe: Recipe, tokenizer: PreTrainedTokenizerFast, pool: int = 16) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield ids and loss weights, both (B, T) and padded on the right; texts of like length share a batch."""
    source = stream(seed=recipe.seed, split="train")
    order = torch.Generator().manual_seed(recipe.seed)
    pad = tokenizer.pad_token_id
    eos = tokenizer.eos_token_id
    while True:
        drawn = list(islice(source, pool * recipe.batch))
        # Prompt and answer are encoded apart, exactly as at inference, so that no token spans the border.
        prompts = tokenizer([prompt(ticket.text) for ticket in drawn])["input_ids"]
        answers = tokenizer([answer(ticket) for ticket in drawn], add_special_tokens=False)["input_ids"]
        rows = [(start, [*end, eos]) for start, end in zip(prompts, answers, strict=True)]
        rows.sort(key=lambda row: len(row[0]) + len(row[1]))
        for place in torch.randperm(pool, generator=order).tolist():
            part = rows[place * recipe.batch : (place + 1) * recipe.batch]
            longest = max(len(start) + len(end) for start, end in part)
            ids_BT = torch.full((len(part), longest), pad)
            weights_BT = torch.zeros(len(part), longest)
            for row, (start, end) in enumerate(part):
                ids_BT[row, : len(start) + len(end)] = torch.tensor(start + end)
                weights_BT[row, : len(start)] = recipe.prompt_weight
                weights_BT[row, len(start) : len(start) + len(end)] = 1.0
            yield ids_BT, weights_BT
