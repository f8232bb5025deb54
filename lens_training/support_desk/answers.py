"""What the model answers to tickets: the probability of every team and urgency, read off in batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from lens_training.support_desk.tokenizer import value_id
from wonder.embedded.world import ANSWER_END, ANSWER_MIDDLE, ANSWER_START, TEAMS, URGENCIES, Ticket, prompt

# Shape suffixes: N tickets, B batch, T token, C team, U urgency, V vocab.


@dataclass(frozen=True)
class Answers:
    """Probabilities over the whole vocabulary, so that a row need not sum to one over the values."""

    team_NC: Tensor
    """Probability of each team, in the order of `TEAMS`."""
    urgency_NU: Tensor
    """Probability of each urgency after the likeliest team, in the order of `URGENCIES`."""
    well_formed_N: Tensor
    """Whether greedy decoding spells exactly the JSON of the likeliest team and urgency, then ends."""

    def confidence(self) -> Tensor:
        """Return the product over both fields of the probability of the greedy value."""
        return self.team_NC.max(1).values * self.urgency_NU.max(1).values

    def correct(self, tickets: Sequence[Ticket]) -> Tensor:
        """Return whether both greedy values are the ticket's."""
        team_N = torch.tensor([TEAMS.index(ticket.team) for ticket in tickets])
        urgency_N = torch.tensor([URGENCIES.index(ticket.urgency) for ticket in tickets])
        right_N = (self.team_NC.argmax(1) == team_N) & (self.urgency_NU.argmax(1) == urgency_N)
        return right_N & self.well_formed_N


@torch.inference_mode()
def read_answers(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], *, batch: int = 128
) -> Answers:
    """Return what the model says to each text.

    Greedy decoding is followed exactly, but in two forward passes: the values are read where they fall, and
    `well_formed_N` says whether everything between them is what greedy decoding writes.
    """
    teams, urgencies, formed = [], [], []
    for start in range(0, len(texts), batch):
        prompts = tokenizer([prompt(text) for text in texts[start : start + batch]])["input_ids"]
        team_BC, urgency_BU, formed_B = _read(model, tokenizer, prompts)
        teams.append(team_BC)
        urgencies.append(urgency_BU)
        formed.append(formed_B)
    return Answers(torch.cat(teams), torch.cat(urgencies), torch.cat(formed))


def _read(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, prompts: list[list[int]]
) -> tuple[Tensor, Tensor, Tensor]:
    opening, middle, end = (_plain(tokenizer, part) for part in (ANSWER_START, ANSWER_MIDDLE, ANSWER_END))
    # `"` closes a value and `", "` opens the next, so the pieces are tokenised as they stand in the whole answer.
    team_ids = [value_id(tokenizer, team) for team in TEAMS]
    urgency_ids = [value_id(tokenizer, urgency) for urgency in URGENCIES]
    first = [row + opening for row in prompts]
    team_BC = torch.stack([logits[-1].softmax(-1)[team_ids] for logits in _logits(model, first)])
    chosen = [team_ids[place] for place in team_BC.argmax(1).tolist()]
    second = [[*row, team, *middle] for row, team in zip(first, chosen, strict=True)]
    urgency_BU = torch.stack([logits[-1].softmax(-1)[urgency_ids] for logits in _logits(model, second)])
    tails = [[urgency_ids[place], *end, tokenizer.eos_token_id] for place in urgency_BU.argmax(1).tolist()]
    whole = [row + tail for row, tail in zip(second, tails, strict=True)]
    formed = []
    for row, logits_TV, start in zip(whole, _logits(model, whole), prompts, strict=True):
        greedy = logits_TV[len(start) - 1 : -1].argmax(-1).tolist()
        formed.append(greedy == row[len(start) :])
    return team_BC, urgency_BU, torch.tensor(formed)


def _logits(model: LlamaForCausalLM, rows: list[list[int]]) -> Iterator[Tensor]:
    """Yield the logits of each row alone, (T, V); rows are padded on the right, which causal attention never sees."""
    longest = max(map(len, rows))
    ids_BT = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    logits_BTV = model(input_ids=ids_BT, use_cache=False).logits.float()
    for row, logits_TV in zip(rows, logits_BTV, strict=True):
        yield logits_TV[: len(row)]


def _plain(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False))
