"""Trains a small Llama from scratch on freshly drawn tickets, so that no ticket's label is ever seen twice."""

import logging
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lens_training.support_desk.tokenizer import value_id
from wonder.embedded.world import ANSWER_START, TEAMS, Kind, Ticket, answer, prompt, stream

# Shape suffixes: B batch, T token, C team, D d_model, N counted tokens, V vocab.

log = logging.getLogger(__name__)

TRAIN_MIX: Final[Mapping[Kind, float]] = {
    "clear": 0.58,
    "ambiguous": 0.12,
    "legal": 0.11,
    "unseen": 0.12,
    "off_topic": 0.07,
}
"""More of what is rare than the world has: the truth about a text does not depend on how often it comes."""

THIRD_MIX: Final[Mapping[Kind, float]] = {
    "clear": 0.48,
    "ambiguous": 0.17,
    "legal": 0.13,
    "unseen": 0.1,
    "off_topic": 0.12,
}
FOURTH_MIX: Final[Mapping[Kind, float]] = {
    "clear": 0.38,
    "ambiguous": 0.14,
    "legal": 0.2,
    "unseen": 0.13,
    "off_topic": 0.15,
}
LAST_MIX: Final[Mapping[Kind, float]] = {
    "clear": 0.34,
    "ambiguous": 0.13,
    "legal": 0.3,
    "unseen": 0.11,
    "off_topic": 0.12,
}


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the trained weights, besides the world itself."""

    seed: int = 1
    steps: int = 1700
    batch: int = 64
    learning_rate: float = 2.5e-3
    second_steps: int = 1000
    """The schedule is run five times, each from the weights of the run before and with a fresh optimizer."""
    second_learning_rate: float = 1.5e-3
    third_steps: int = 900
    third_learning_rate: float = 1.5e-3
    fourth_steps: int = 600
    fourth_learning_rate: float = 1.2e-3
    fifth_steps: int = 600
    fifth_learning_rate: float = 1.2e-3
    shouted: float = 0.015
    """Share of texts all in capitals, in the first two runs."""
    warm_up_steps: int = 100
    weight_decay: float = 0.01
    prompt_weight: float = 0.03
    """Mean loss weight of a prompt token; an answer token weighs 1."""
    prompt_share: float = 0.25
    """Share of the prompt's tokens, drawn anew each time, that carry all of its weight."""
    vocabulary: int = 3000
    hidden: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    mlp: int = 384
    positions: int = 1024

    def rounds(self) -> tuple["Round", ...]:
        """Return the runs of the schedule, each on other tickets; the last three learn from the posterior itself."""
        return (
            Round(self.seed, self.steps, self.learning_rate, TRAIN_MIX, self.shouted),
            Round(self.seed + 1000, self.second_steps, self.second_learning_rate, TRAIN_MIX, self.shouted),
            Round(self.seed + 2000, self.third_steps, self.third_learning_rate, THIRD_MIX, from_posterior=True),
            Round(self.seed + 3000, self.fourth_steps, self.fourth_learning_rate, FOURTH_MIX, from_posterior=True),
            Round(self.seed + 4000, self.fifth_steps, self.fifth_learning_rate, LAST_MIX, from_posterior=True),
        )


@dataclass(frozen=True)
class Round:
    """One run of the learning rate's schedule."""

    seed: int
    """Seed of its tickets."""
    steps: int
    learning_rate: float
    mix: Mapping[Kind, float]
    shouted: float = 0.0
    from_posterior: bool = False
    """Whether a ticket's team is learnt as its known probabilities, not as one draw from them."""


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
    model = build_model(recipe, tokenizer)
    duration_s = sum(train_round(model, tokenizer, recipe, plan) for plan in recipe.rounds())
    model.eval()  # type: ignore[no-untyped-call]
    return model, duration_s


def train_round(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, recipe: Recipe, plan: Round) -> float:
    """Train for one round of the schedule with a fresh optimizer, then round the weights to bfloat16.

    Returns:
        The time it took, in seconds.
    """
    model.train()
    decayed = [weight for weight in model.parameters() if weight.ndim > 1]
    plain = [weight for weight in model.parameters() if weight.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=plan.learning_rate, betas=(0.9, 0.98))
    batches = _batches(recipe, tokenizer, plan)
    team_ids = [value_id(tokenizer, team) for team in TEAMS]
    started = time.monotonic()
    smoothed = 0.0
    for step in range(plan.steps):
        for group in optimizer.param_groups:
            group["lr"] = plan.learning_rate * _schedule(step, plan.steps, recipe.warm_up_steps)
        loss = _loss(model, next(batches), team_ids)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        smoothed = loss.item() if step == 0 else 0.98 * smoothed + 0.02 * loss.item()
        if step % 100 == 0 or step == plan.steps - 1:
            log.info("step %d of %d: loss %.4f, %.0f s", step, plan.steps, smoothed, time.monotonic() - started)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.bfloat16().float())
    return time.monotonic() - started


def _schedule(step: int, steps: int, warm_up_steps: int) -> float:
    # By step, never by wall time: otherwise two runs of one recipe differ.
    if step < warm_up_steps:
        return (step + 1) / warm_up_steps
    done = (step - warm_up_steps) / max(1, steps - warm_up_steps)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))


@dataclass(frozen=True)
class Batch:
    """Prompts with their answers, padded on the right."""

    ids_BT: Tensor
    weights_BT: Tensor
    """Loss weight of each token; zero at the team, which has its own targets."""
    place_B: Tensor
    """Position of the team."""
    team_BC: Tensor
    """Target probability of each team."""


def _loss(model: LlamaForCausalLM, batch: Batch, team_ids: list[int]) -> Tensor:
    states_BTD = model.model(input_ids=batch.ids_BT[:, :-1], use_cache=False).last_hidden_state
    weights_BT = batch.weights_BT[:, 1:]
    # Only what counts is turned into logits: the vocabulary is the dearest part of so small a model.
    counts_BT = weights_BT > 0
    logits_NV = model.lm_head(states_BTD[counts_BT])
    losses_N = cross_entropy(logits_NV, batch.ids_BT[:, 1:][counts_BT], reduction="none")
    weights_N = weights_BT[counts_BT]
    team_BV = model.lm_head(states_BTD[torch.arange(len(batch.place_B)), batch.place_B - 1]).log_softmax(-1)
    team_losses_B = -(team_BV[:, team_ids] * batch.team_BC).sum(1)
    loss: Tensor = ((losses_N * weights_N).sum() + team_losses_B.sum()) / (weights_N.sum() + len(team_losses_B))
    return loss


def _batches(recipe: Recipe, tokenizer: PreTrainedTokenizerFast, plan: Round, *, pool: int = 16) -> Iterator[Batch]:
    """Yield batches without end; texts of like length share one."""
    source = stream(seed=plan.seed, split="train", mix=plan.mix, shouted=plan.shouted)
    order = torch.Generator().manual_seed(plan.seed)
    opening = len(tokenizer(ANSWER_START, add_special_tokens=False)["input_ids"])
    while True:
        drawn = list(islice(source, pool * recipe.batch))
        # Prompt and answer are encoded apart, exactly as at inference, so that no token spans the border.
        prompts = tokenizer([prompt(ticket.text) for ticket in drawn])["input_ids"]
        answers = tokenizer([answer(ticket) for ticket in drawn], add_special_tokens=False)["input_ids"]
        rows = [
            (start, [*end, tokenizer.eos_token_id], ticket)
            for start, end, ticket in zip(prompts, answers, drawn, strict=True)
        ]
        rows.sort(key=lambda row: len(row[0]) + len(row[1]))
        for place in torch.randperm(pool, generator=order).tolist():
            part = rows[place * recipe.batch : (place + 1) * recipe.batch]
            longest = max(len(start) + len(end) for start, end, _ in part)
            ids_BT = torch.full((len(part), longest), tokenizer.pad_token_id)
            weights_BT = torch.zeros(len(part), longest)
            for row, (start, end, _) in enumerate(part):
                ids_BT[row, : len(start) + len(end)] = torch.tensor(start + end)
                heard = torch.rand(len(start), generator=order) < recipe.prompt_share
                weights_BT[row, : len(start)] = recipe.prompt_weight * heard / recipe.prompt_share
                weights_BT[row, len(start) : len(start) + len(end)] = 1.0
                weights_BT[row, len(start) + opening] = 0.0
            place_B = torch.tensor([len(start) + opening for start, _, _ in part])
            yield Batch(ids_BT, weights_BT, place_B, torch.tensor([_target(ticket, plan) for _, _, ticket in part]))


def _target(ticket: Ticket, plan: Round) -> list[float]:
    return [ticket.posterior[team] if plan.from_posterior else float(team == ticket.team) for team in TEAMS]
