"""Whoever speaks and reads in an evaluation: the lens, piece by piece, and encoders that are trained as controls."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lens_training.batch import RowSource
from lens_training.models.target import TargetModel
from lens_training.objectives.losses import entropy, relative_error
from wonder.lens.decoder import Decoder
from wonder.lens.encoder import Encoder

# Shape suffixes: N rows, B rows of a piece, T tokens, D d_model.

PIECE = 256


@torch.no_grad()
def speak(decoder: Decoder, activation_ND: Tensor, length: int, seed: int | None = None) -> Tensor:
    """Texts, (N, T) on the CPU; the likeliest tokens, or those drawn with a seed."""
    place, found, first = decoder.embedding.weight.device, [], 0
    for piece_BD in torch.split(activation_ND, PIECE):
        found.append(decoder.rollout(piece_BD.to(place), length, seed=seed, first=first).ids_BT.cpu())
        first += len(piece_BD)
    return torch.cat(found)


@torch.no_grad()
def read(encoder: Encoder, ids_NT: Tensor) -> Tensor:
    """What an encoder reads in texts, (N, D) float32 on the CPU."""
    place = encoder.embedding.weight.device
    return torch.cat([encoder(encoder.embed(ids_BT.to(place))).float().cpu() for ids_BT in torch.split(ids_NT, PIECE)])


@torch.no_grad()
def read_untrained(target: TargetModel, ids_NT: Tensor, left: Sequence[int]) -> Tensor:
    """What an encoder reads before its first step: the target's own state after `left` and the text, (N, D)."""
    place, found = next(target.model.parameters()).device, []
    for ids_BT in torch.split(ids_NT, PIECE):
        before_BP = torch.tensor(list(left), dtype=torch.long).expand(len(ids_BT), -1)
        whole_BS = torch.cat([before_BP, ids_BT], 1).to(place)
        last_B = torch.full((len(ids_BT),), whole_BS.shape[1] - 1, device=place)
        found.append(target.capture(whole_BS, last_B).activation_BD.float().cpu())
    return torch.cat(found)


@torch.no_grad()
def mean_entropy(decoder: Decoder, activation_ND: Tensor, ids_NT: Tensor) -> float:
    """Mean entropy, in nats, of the decoder's next token along texts."""
    place, total = decoder.embedding.weight.device, 0.0
    for piece_BD, ids_BT in zip(torch.split(activation_ND, PIECE), torch.split(ids_NT, PIECE), strict=True):
        total += float(entropy(decoder.token_logits(piece_BD.to(place), ids_BT.to(place))).double().mean(1).sum())
    return total / len(ids_NT)


def train_reader(
    encoder: Encoder,
    texts: Callable[[int, Tensor, Tensor], Tensor],
    rows: RowSource,
    variance: float,
    *,
    steps: int,
    batch: int,
    length: int,
    rate: float = 5e-4,
    seed: int = 0,
) -> Encoder:
    """Train an encoder by squared error on texts that do not learn along.

    Args:
        encoder: Untrained; trained in place.
        texts: From step, activations (B, D) and the true last words (B, T) to the texts it is to read.
        rows: Training rows.
        variance: Of the training rows.
        steps: How many.
        batch: Rows of each.
        length: Tokens of a text.
        rate: Of AdamW, reached after 20 steps, then falling linearly to a tenth.
        seed: Of the order of the rows.
    """
    place = encoder.embedding.weight.device
    encoder.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.0)
    for step in range(steps):
        found = rows.shuffled(batch, seed, step).to(place)
        ids_BT = texts(step, found.activation_BD, found.tail(length))
        optimizer.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / 20) * (0.1 + 0.9 * (1 - step / steps))
        error = relative_error(encoder(encoder.embed(ids_BT)), found.activation_BD, variance).mean()
        optimizer.zero_grad(set_to_none=True)
        error.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
    encoder.train(False)
    return encoder
