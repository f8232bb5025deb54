"""Trains the soft-prompt map of the embedded model: answer a follow-up as if the ticket stood there (see `--help`)."""

import argparse
import hashlib
import json
import logging
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from lens_training.support_desk.__main__ import load_model
from lens_training.support_desk.follow_ups import NEW_FOLLOW_UPS, follow_ups
from lens_training.support_desk.tokenizer import value_id
from wonder.compression.soft_prompt import SoftPromptMap, save_soft_prompt, soft_vectors
from wonder.compression.soft_prompt_manifest import RecallMetrics, SoftPromptManifest
from wonder.embedded import EMBEDDED, SUPPORT_DESK
from wonder.embedded.world import ANSWER_END, ANSWER_MIDDLE, ANSWER_START, TEAMS, URGENCIES, Ticket, prompt, tickets
from wonder.engine.engine import TraceEngine
from wonder.engine.request import Request
from wonder.errors import WonderError
from wonder.trace.capture import ThoughtCapture
from wonder.trace.sampling import Sampling
from wonder.trace.schema import ThoughtTrace

# Shape suffixes: N tickets, A tokens of an answer, C numbers of a code, K soft tokens, D d_model, V vocabulary, W the
# words of one field of an answer.

log = logging.getLogger(__name__)

NAME: Final = "soft_prompt"
TRAIN_SEED, TRAIN_TICKETS = 31, 3000
HELD_OUT_SEED, HELD_OUT_TICKETS = 32, 400
MOST_TOKENS: Final = 24
ALTERNATIVES: Final = 20
"""Likeliest words of a field that are compared; there are six teams."""


@dataclass(frozen=True)
class Recipe:
    """How the map is trained."""

    dims: int = 64
    tokens: int = 8
    steps: int = 500
    batch: int = 32
    """Tickets of each of the two follow-ups of a step."""
    rate: float = 3e-3
    warm_up: int = 30
    seed: int = 1


@dataclass(frozen=True)
class Seen:
    """What the model made of tickets that it was shown: its states, and what it answered."""

    codes_NC: Tensor
    answers_NA: Tensor
    """Token ids of the greedy answers, which all have one length."""
    team_NW: Tensor
    """Probability of each team, in the order of `TEAMS`."""
    urgency_NW: Tensor
    """Probability of each urgency after that team, in the order of `URGENCIES`."""
    basis: str
    """Id of the compressor."""

    def __len__(self) -> int:
        return len(self.codes_NC)


class Reader:
    """The frozen model, and where in an answer its two values stand."""

    def __init__(self, folder: Path) -> None:
        self.model: LlamaForCausalLM
        self.tokenizer: PreTrainedTokenizerFast
        self.model, self.tokenizer = load_model(folder)
        self.model.requires_grad_(False)
        opening, middle = self.plain(ANSWER_START), self.plain(ANSWER_MIDDLE)
        self.length = len(opening) + len(middle) + len(self.plain(ANSWER_END)) + 3
        """Tokens of an answer: two values and the end besides what surrounds them."""
        self.team_at = len(opening)
        self.urgency_at = len(opening) + 1 + len(middle)
        self.team_ids = [value_id(self.tokenizer, team) for team in TEAMS]
        self.urgency_ids = [value_id(self.tokenizer, urgency) for urgency in URGENCIES]

    def plain(self, text: str) -> list[int]:
        """Token ids without BOS."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def answer_logs(self, follow_up: str, answers_NA: Tensor, vectors_NKD: Tensor | None) -> Tensor:
        """Log-probabilities (N, A, V) of the tokens of answers to a follow-up with soft tokens after BOS."""
        embed: nn.Module = self.model.get_input_embeddings()
        ids = torch.tensor(self.tokenizer(prompt(follow_up))["input_ids"])
        asked_ND = embed(ids).expand(len(answers_NA), -1, -1)
        parts = [asked_ND[:, :1], asked_ND[:, 1:], embed(answers_NA)]
        if vectors_NKD is not None:
            parts.insert(1, vectors_NKD)
        kept = answers_NA.shape[1] + 1
        logits = self.model(inputs_embeds=torch.cat(parts, 1), use_cache=False, logits_to_keep=kept).logits
        logs_NAV: Tensor = logits[:, :-1].float().log_softmax(-1)
        return logs_NAV

    def norms(self, texts: Sequence[str]) -> tuple[float, float]:
        """Median norms over tokens: of the input of layer 0, and of what the embedding has to give for that."""
        kept: list[Tensor] = []
        first_block = self.model.model.layers[0]
        handle = first_block.register_forward_pre_hook(lambda _, given: kept.append(given[0][0]))
        ratios = []
        with torch.inference_mode():
            for text in texts:
                ids = torch.tensor([self.tokenizer(prompt(text))["input_ids"]])
                self.model.model(input_ids=ids, use_cache=False)
                ratios.append(self.model.get_input_embeddings()(ids)[0].norm(dim=-1) / kept[-1].norm(dim=-1))
        handle.remove()
        layer0 = float(torch.cat([states.norm(dim=-1) for states in kept]).median())
        return layer0, layer0 * float(torch.cat(ratios).median())


def train_soft_prompt(
    folder: Path,
    *,
    train: Sequence[Ticket],
    held_out: Sequence[Ticket],
    recipe: Recipe | None = None,
) -> SoftPromptMap:
    """Train, measure and save `compressors/soft_prompt` of the model in `folder`; one that is there is replaced.

    The model answers a ticket and leaves its compressed state. The map learns to make vectors of that state with which
    the same, frozen model gives a follow-up that says nothing of the ticket the answer it gave the ticket: the loss is
    the cross-entropy with the probabilities of that answer.
    """
    recipe = recipe or Recipe()
    reader = Reader(folder)
    engine = TraceEngine.load(folder, device="cpu", compressors=folder / "compressors", max_batch=64)
    known, fresh = see(engine, reader, train, recipe.dims), see(engine, reader, held_out, recipe.dims)
    info = engine.info
    engine.close()
    layer0_norm, embedding_norm = reader.norms([ticket.text for ticket in train[:200]])
    tensors = _train(reader, known, recipe, embedding_norm)
    digest = hashlib.sha256(json.dumps([ticket.text for ticket in [*train, *held_out]], ensure_ascii=False).encode())
    manifest = SoftPromptManifest(
        name=NAME,
        model=SUPPORT_DESK,
        revision=info.fingerprint[:12],
        model_fingerprint=info.fingerprint,
        dtype=info.dtype,
        compressor=known.basis,
        dims=recipe.dims,
        tokens=recipe.tokens,
        hidden=0,
        d_model=info.d_model,
        layer0_norm=layer0_norm,
        embedding_norm=embedding_norm,
        data_sha256=digest.hexdigest(),
        train_count=len(known),
        held_out_count=len(fresh),
        metrics=measure_recall(reader, fresh, tensors, recipe.tokens, embedding_norm),
        created=datetime.now(UTC).date(),
    )
    target = folder / "compressors" / NAME
    shutil.rmtree(target, ignore_errors=True)
    return save_soft_prompt(target, manifest, tensors)


def see(engine: TraceEngine, reader: Reader, shown: Sequence[Ticket], dims: int) -> Seen:
    """Have tickets answered, and keep states and answers as traces tell them; a malformed answer is left out."""
    capture = ThoughtCapture(compress_state=True, compression_dims=dims, top_alternatives=ALTERNATIVES)
    asked = [
        Request(prompt=prompt(ticket.text), capture=capture, sampling=Sampling(max_new_tokens=MOST_TOKENS))
        for ticket in shown
    ]
    codes, answers, team, urgency, basis = [], [], [], [], ""
    for message in engine.generate(asked):
        if isinstance(message, WonderError):
            raise message
        trace = message.thought_trace or ThoughtTrace(action="", model="")
        ids = [*reader.plain(f" {message.text}"), reader.tokenizer.eos_token_id]
        if trace.compressed_state is None or len(ids) != reader.length or len(trace.tokens) != reader.length:
            continue
        codes.append(trace.compressed_state.values)
        answers.append(ids)
        team.append(_words(trace, reader.team_at, TEAMS))
        urgency.append(_words(trace, reader.urgency_at, URGENCIES))
        basis = trace.compressed_state.basis
    return Seen(torch.tensor(codes), torch.tensor(answers), torch.tensor(team), torch.tensor(urgency), basis)


@torch.inference_mode()
def measure_recall(
    reader: Reader, seen: Seen, tensors: Mapping[str, Tensor], tokens: int, norm: float
) -> list[RecallMetrics]:
    """Compare the answers to follow-ups, none of them trained with, with those to the tickets themselves."""
    vectors_NKD = soft_vectors(seen.codes_NC, tensors, tokens, norm)
    given = {
        "nothing": None,
        "the soft prompt of its own state": vectors_NKD,
        "the soft prompt of another text's state": vectors_NKD.roll(len(seen) // 2, 0),
    }
    found = []
    for name, vectors in given.items():
        kl, same = [], []
        for follow_up in NEW_FOLLOW_UPS:
            logs_NAV = reader.answer_logs(follow_up, seen.answers_NA, vectors)
            team_NW = logs_NAV[:, reader.team_at, reader.team_ids]
            urgency_NW = logs_NAV[:, reader.urgency_at, reader.urgency_ids]
            kl.append(_kl(seen.team_NW, team_NW) + _kl(seen.urgency_NW, urgency_NW))
            same.append(
                (team_NW.argmax(1) == seen.team_NW.argmax(1)) & (urgency_NW.argmax(1) == seen.urgency_NW.argmax(1))
            )
        found.append(
            RecallMetrics(
                given=name,
                kl_nats=max(0.0, float(torch.cat(kl).mean())),
                agreement=float(torch.cat(same).double().mean()),
            )
        )
    return found


def _words(trace: ThoughtTrace, at: int, words: Sequence[str]) -> list[float]:
    """Probabilities of the words that may stand at a token, which sum to one."""
    found = {item.token: item.probability for item in trace.top_alternatives[at]}
    shares = [found.get(word, 0.0) for word in words]
    total = sum(shares)
    return [share / total for share in shares] if total > 0 else [1 / len(words)] * len(words)


def _kl(wanted_NW: Tensor, logs_NW: Tensor) -> Tensor:
    return (wanted_NW * (wanted_NW.clamp_min(1e-12).log() - logs_NW)).sum(1)


def _train(reader: Reader, known: Seen, recipe: Recipe, norm: float) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(recipe.seed)
    says = follow_ups(recipe.seed)
    made = recipe.tokens * reader.model.config.hidden_size
    weight = torch.randn(made, recipe.dims, generator=generator) / math.sqrt(recipe.dims)
    bias = torch.randn(made, generator=generator)
    learned = {"weight": weight.requires_grad_(), "bias": bias.requires_grad_()}
    fixed = {"mean": known.codes_NC.mean(0), "scale": known.codes_NC.std(0).clamp_min(1e-6)}
    optimizer = torch.optim.AdamW(learned.values(), lr=recipe.rate, weight_decay=0.01)
    began_s = time.process_time()
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            share = 0.5 + 0.5 * math.cos(math.pi * step / recipe.steps)
            group["lr"] = recipe.rate * min(1.0, (step + 1) / recipe.warm_up) * share
        optimizer.zero_grad()
        for follow_up in (next(says), next(says)):
            rows_N = torch.randint(len(known), (recipe.batch,), generator=generator)
            vectors_NKD = soft_vectors(known.codes_NC[rows_N], fixed | learned, recipe.tokens, norm)
            logs_NAV = reader.answer_logs(follow_up, known.answers_NA[rows_N], vectors_NKD)
            loss = _loss(reader, logs_NAV, known, rows_N)
            loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if (step + 1) % 50 == 0:
            log.info(
                "step %d: loss %.3f after %.0f processor seconds", step + 1, loss.item(), time.process_time() - began_s
            )
    return fixed | {name: tensor.detach() for name, tensor in learned.items()}


def _loss(reader: Reader, logs_NAV: Tensor, known: Seen, rows_N: Tensor) -> Tensor:
    """Cross-entropy per answer: with the probabilities of the words at the values, with the words elsewhere."""
    logs_NA = logs_NAV.gather(2, known.answers_NA[rows_N][:, :, None])[:, :, 0]
    form = [at for at in range(logs_NA.shape[1]) if at not in (reader.team_at, reader.urgency_at)]
    team_N = (known.team_NW[rows_N] * logs_NAV[:, reader.team_at, reader.team_ids]).sum(1)
    urgency_N = (known.urgency_NW[rows_N] * logs_NAV[:, reader.urgency_at, reader.urgency_ids]).sum(1)
    return -(logs_NA[:, form].sum(1) + team_N + urgency_N).mean()


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and measure the map of the stored model; its compressor is read, not changed."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--model", type=Path, default=EMBEDDED[SUPPORT_DESK], help="folder of the model")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    made = train_soft_prompt(
        options.model,
        train=tickets(TRAIN_TICKETS, seed=TRAIN_SEED, split="train"),
        held_out=tickets(HELD_OUT_TICKETS, seed=HELD_OUT_SEED, split="held_out"),
    )
    log.info("%s: %d vectors of %d numbers", made.id, made.manifest.tokens, made.manifest.dims)
    for row in made.manifest.metrics:
        log.info("%s", row.model_dump_json())


if __name__ == "__main__":
    main()
