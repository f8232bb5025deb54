"""Rows to look at: the best, the middle, the worst and some at random, with what the target says next."""

import unicodedata
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from lens_training.batch import Batch
from lens_training.evaluate.record import NextToken, Sample
from lens_training.models.target import TargetModel

# Shape suffixes: N rows, V vocabulary.

CONTEXT = 24
"""Tokens of a context that are shown."""
LIKELIEST = 3

Kind = Literal["best", "median", "worst", "random"]


def chosen(error_N: Tensor, count: int, seed: int) -> list[tuple[Kind, int]]:
    """Which rows are shown: a quarter each, none twice."""
    order = error_N.argsort().tolist()
    each = max(1, min(count, len(order)) // 4) if count else 0
    middle = (len(order) - each) // 2
    drawn = torch.randperm(len(order), generator=torch.Generator().manual_seed(seed)).tolist()
    wanted: list[tuple[Kind, Sequence[int]]] = [
        ("random", drawn[: 4 * each]),
        ("best", order[:each]),
        ("median", order[middle : middle + each]),
        ("worst", order[::-1][:each]),
    ]
    found: list[tuple[Kind, int]] = []
    seen: set[int] = set()
    for kind, rows in wanted[1:] + wanted[:1]:
        fresh = [row for row in rows if row not in seen][:each]
        seen.update(fresh)
        found += [(kind, row) for row in fresh]
    return found


@torch.no_grad()
def samples(
    target: TargetModel,
    tokenizer: Any,
    batch: Batch,
    rows: Sequence[tuple[Kind, int]],
    predicted_ND: Tensor,
    greedy_NT: Tensor,
    drawn_NT: Tensor,
    error_N: Tensor,
    kl_N: Tensor,
) -> list[Sample]:
    """Put rows down as a reader wants them; `error_N` is relative to the variance."""
    if not rows:
        return []
    index = torch.tensor([row for _, row in rows])
    place = next(target.model.parameters()).device
    piece = batch.rows(index).to(place)
    own_NV = target.logits(target.capture(piece.ids_BS, piece.pos_B).final_BD)
    mode: Literal["full", "suffix"] = "suffix" if target.can_use_suffix else "full"
    other_NV = target.logits_with_replacement(piece.ids_BS, piece.pos_B, predicted_ND[index].to(place), mode)
    own, other = _likeliest(tokenizer, own_NV), _likeliest(tokenizer, other_NV)
    found = []
    for at, (kind, row) in enumerate(rows):
        pos = int(batch.pos_B[row])
        context, current = _context(tokenizer, batch.ids_BS[row, max(0, pos + 1 - CONTEXT) : pos + 1].tolist())
        found.append(
            Sample(
                kind=kind,
                document=int(batch.document_B[row]),
                position=pos,
                context=context,
                current=current,
                text=words(tokenizer, greedy_NT[row].tolist()),
                drawn=words(tokenizer, drawn_NT[row].tolist()),
                error=float(error_N[row]),
                kl_nats=max(0.0, float(kl_N[row])),
                own_next=own[at],
                replaced_next=other[at],
            )
        )
    return found


def words(tokenizer: Any, ids: Sequence[int]) -> str:
    """Tokens as a reader sees them: line breaks and what steers a display are made visible."""
    text = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return "".join(_visible(character) for character in text)


def _context(tokenizer: Any, ids: Sequence[int]) -> tuple[str, str]:
    """All but the last token, and the last one with the space it brings."""
    whole, before = words(tokenizer, ids), words(tokenizer, ids[:-1])
    return (before, whole[len(before) :]) if whole.startswith(before) else (before, words(tokenizer, ids[-1:]))


def _visible(character: str) -> str:
    if character in "\n\r\t":
        return {"\n": "↵", "\r": "␍", "\t": "⇥"}[character]
    # Cc controls, Cf direction marks and the like, Cs halves of a character: none may steer the page.
    return "�" if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Co"} else character


def _likeliest(tokenizer: Any, logits_NV: Tensor) -> list[list[NextToken]]:
    top = logits_NV.softmax(-1).topk(LIKELIEST)
    return [
        [
            NextToken(token=words(tokenizer, [token]), probability=min(1.0, share))
            for share, token in zip(*pair, strict=True)
        ]
        for pair in zip(top.values.tolist(), top.indices.tolist(), strict=True)
    ]
