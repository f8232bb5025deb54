"""Trains a tiny Llama on FactWorld: what it knows of a fact then follows from how often it was shown."""

import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

from lens_training.fact_world.words import BOS, EOS, PAD, VOCABULARY, WORDS
from lens_training.fact_world.world import Sample, World, training_samples

# Shape suffixes: B batch, T token, D d_model, N counted tokens, V vocab.

log = logging.getLogger(__name__)

IDS = {word: place for place, word in enumerate(WORDS)}


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the trained weights, besides the world itself."""

    seed: int = 1
    steps: int = 4381
    batch: int = 96
    learning_rate: float = 3e-3
    warm_up_steps: int = 100
    last_rate: float = 0.02
    """Share of the learning rate that is left at the last step."""
    weight_decay: float = 0.3
    """Of .01, .1 and .3, the one whose confidence ranks best on the evaluation set; the model card says so too."""
    filler_weight: float = 0.1
    """Loss weight of one filler word a sequence; a word of the answer, and EOS, weigh 1."""
    hidden: int = 96
    layers: int = 4
    heads: int = 6
    kv_heads: int = 2
    mlp: int = 288
    positions: int = 128


def build_model(recipe: Recipe) -> LlamaForCausalLM:
    """Return a model with random weights, in float32."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=recipe.hidden,
            intermediate_size=recipe.mlp,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.kv_heads,
            max_position_embeddings=recipe.positions,
            tie_word_embeddings=True,
            bos_token_id=IDS[BOS],
            eos_token_id=IDS[EOS],
            pad_token_id=IDS[PAD],
        )
    )


@dataclass(frozen=True)
class Trained:
    """How a training went."""

    recipe: Recipe
    duration_s: float
    threads: int
    last_loss: float
    """Decaying mean over the last steps, in nats."""


def train_model(recipe: Recipe, world: World) -> tuple[LlamaForCausalLM, Trained]:
    """Train a model; it comes back in evaluation mode and in float32."""
    torch.manual_seed(recipe.seed)
    model = build_model(recipe)
    model.train()
    decayed = [weight for weight in model.parameters() if weight.ndim > 1]
    plain = [weight for weight in model.parameters() if weight.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98), fused=True)
    samples = training_samples(world, recipe.seed)
    started = time.monotonic()
    smoothed = 0.0
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * _schedule(step, recipe)
        loss = _learn(model, list(islice(samples, recipe.batch)), recipe.filler_weight)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        smoothed = loss if step == 0 else 0.98 * smoothed + 0.02 * loss
        if step % 100 == 0 or step == recipe.steps - 1:
            log.info("step %d of %d: loss %.4f, %.0f s", step, recipe.steps, smoothed, time.monotonic() - started)
    model.eval()  # type: ignore[no-untyped-call]
    return model, Trained(recipe, time.monotonic() - started, torch.get_num_threads(), smoothed)


def _schedule(step: int, recipe: Recipe) -> float:
    # By step, never by wall time: otherwise two runs of one recipe differ.
    if step < recipe.warm_up_steps:
        return (step + 1) / recipe.warm_up_steps
    done = (step - recipe.warm_up_steps) / max(1, recipe.steps - recipe.warm_up_steps)
    return recipe.last_rate + (1 - recipe.last_rate) * 0.5 * (1 + math.cos(math.pi * done))


def _learn(model: LlamaForCausalLM, drawn: Sequence[Sample], filler_weight: float) -> float:
    """Add the gradient of the batch's loss, and return the loss."""
    total = sum(len(sample.answer) + 1 + filler_weight for sample in drawn)
    loss = 0.0
    for ids_BT, weights_BT in _groups(drawn, filler_weight):
        states_BTD = model.model(input_ids=ids_BT[:, :-1], use_cache=False).last_hidden_state
        weights_BT = weights_BT[:, 1:]
        # Only what counts is turned into logits: the vocabulary is the dearest part of so small a model.
        counts_BT = weights_BT > 0
        logits_NV = model.lm_head(states_BTD[counts_BT])
        losses_N = cross_entropy(logits_NV, ids_BT[:, 1:][counts_BT], reduction="none")
        part = (losses_N * weights_BT[counts_BT]).sum() / total
        part.backward()  # type: ignore[no-untyped-call]
        loss += part.item()
    return loss


def _groups(drawn: Sequence[Sample], filler_weight: float) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield a batch as tensors of ids and loss weights, padded on the right.

    Long and short sequences apart: their gradients add up to the batch's, and a quarter of the work would be padding.
    """
    ordered = sorted(drawn, key=lambda sample: len(sample.prompt) + len(sample.answer))
    border = next((place for place, sample in enumerate(ordered) if _length(sample) > 15), len(ordered))
    for part in (ordered[:border], ordered[border:]):
        if not part:
            continue
        longest = _length(part[-1])
        ids, weights = [], []
        for sample in part:
            words = (BOS, *sample.prompt, *sample.answer, EOS)
            padding = longest - len(words)
            row = [0.0] * (1 + len(sample.prompt)) + [1.0] * (len(sample.answer) + 1) + [0.0] * padding
            row[1 + sample.filler] = filler_weight
            ids.append([IDS[word] for word in words] + [IDS[PAD]] * padding)
            weights.append(row)
        yield torch.tensor(ids), torch.tensor(weights)


def _length(sample: Sample) -> int:
    return len(sample.prompt) + len(sample.answer) + 2
