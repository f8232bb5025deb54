"""Where the tokens of a padded batch lie: columns, positions, and the masks that follow from them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

# Shape suffixes: B rows, S columns of the prompt, T columns so far, Q columns being fed.

Side = Literal["left", "right"]


@dataclass(frozen=True)
class Layout:
    """A batch of prompts, padded to one width; generated tokens follow in the columns after it.

    With padding on the right a row's generated tokens stand apart from its prompt, and only the position ids and the
    masks built from them keep its attention right.
    """

    ids_BS: Tensor
    lengths: list[int]
    side: Side

    @classmethod
    def of(cls, prompts: Sequence[Sequence[int]], pad_id: int, side: Side, device: torch.device) -> "Layout":
        """Pad prompts of token ids."""
        width = max(map(len, prompts))
        rows = []
        for prompt in prompts:
            padding = [pad_id] * (width - len(prompt))
            rows.append([*padding, *prompt] if side == "left" else [*prompt, *padding])
        return cls(torch.tensor(rows, device=device), [len(prompt) for prompt in prompts], side)

    @cached_property
    def lengths_B(self) -> Tensor:  # noqa: N802 — the suffix names the shape
        """Prompt tokens of each row."""
        return torch.tensor(self.lengths, device=self.ids_BS.device)

    @property
    def width(self) -> int:
        """Columns of the padded prompts."""
        return int(self.ids_BS.shape[1])

    @property
    def is_padded(self) -> bool:
        """Whether any row is shorter than the widest."""
        return min(self.lengths) < self.width

    def first_columns(self) -> list[int]:
        """Column of each row's first token."""
        return [self.width - length if self.side == "left" else 0 for length in self.lengths]

    def last_columns(self) -> list[int]:
        """Column of each row's last prompt token."""
        return [self.width - 1 if self.side == "left" else length - 1 for length in self.lengths]

    def head_columns(self, fed: int) -> list[list[tuple[int, int, int, int]]]:
        """Where the ranges of `head_numbers` begin, and where they end, after `fed` generated tokens have been fed."""
        bounds = []
        for first, last in zip(self.first_columns(), self.last_columns(), strict=True):
            own = last if fed == 0 else self.width + fed - 1
            # Padding on the right stands between the prompt and the first generated token.
            before = last if fed == 1 else own - 1
            before = before if before >= first else first - 1
            answer = (self.width, self.width + fed)
            bounds.append(((before, before + 1), (own, own + 1), (first + 1, last + 1), answer))
        low, high = ([tuple(pair[at] for pair in row) for row in bounds] for at in (0, 1))
        return [low, high]  # type: ignore[list-item]

    def position(self, row: int, column: int) -> int | None:
        """Position of a column in its row's text, or None for padding."""
        length = self.lengths[row]
        if column >= self.width:
            return length + column - self.width
        position = column - (self.width - length if self.side == "left" else 0)
        return position if 0 <= position < length else None

    def real(self) -> Tensor:
        """True where a prompt token stands."""
        columns_S = torch.arange(self.width, device=self.ids_BS.device)
        if self.side == "left":
            return columns_S >= (self.width - self.lengths_B)[:, None]
        return columns_S < self.lengths_B[:, None]

    def positions(self) -> Tensor:
        """Position ids of the prompt columns; padding has 0."""
        return (self.real().long().cumsum(-1) - 1).clamp_min(0)

    def positions_after(self, step: int, count: int = 1) -> Tensor:
        """Position ids (B, count) of the tokens generated from this step on, counted from 0."""
        return self.lengths_B[:, None] + torch.arange(step, step + count, device=self.ids_BS.device)


def masks_by_position(
    config: Any, query_BQ: Tensor, key_BT: Tensor, real_BT: Tensor | None, additive: torch.dtype | None
) -> Tensor | dict[str, Tensor]:
    """Attention masks from positions, for columns whose order is not the order of the text.

    Args:
        config: Of the text model; declares windows, chunks and layer types.
        query_BQ: Positions of the tokens being fed.
        key_BT: Positions of all columns.
        real_BT: False for padding; None: there is none.
        additive: Floating type of a mask of 0 and -inf for eager attention, which would add a boolean mask as 0 and
            1; None: boolean.

    Returns:
        (B, 1, Q, T), or one such mask per layer type where the model has several.
    """
    query, key = query_BQ[:, :, None], key_BT[:, None, :]
    seen = key <= query
    if real_BT is not None:
        seen = seen & real_BT[:, None, :]
    window, chunk = getattr(config, "sliding_window", None), getattr(config, "attention_chunk_size", None)
    made = {"full_attention": seen}
    if window:
        made["sliding_attention"] = seen & (key > query - window)
    if chunk:
        made["chunked_attention"] = seen & (key // chunk == query // chunk)
    made = {kind: _encoded(mask, additive) for kind, mask in made.items()}
    kinds = set(getattr(config, "layer_types", None) or ())
    if kinds - {"full_attention"}:
        return made
    # Models that window every layer without declaring layer types: Mistral, Mixtral, Phi-3, Starcoder2.
    return made["sliding_attention"] if window and not kinds else made["full_attention"]


def kinds_of(config: Any, n_layers: int) -> list[str]:
    """Each layer's kind of attention, as far as it limits which keys are seen."""
    kinds = getattr(config, "layer_types", None)
    if kinds:
        return [str(kind) for kind in kinds]
    return ["sliding_attention" if getattr(config, "sliding_window", None) else "full_attention"] * n_layers


def reach(config: Any, kind: str, length: int) -> int:
    """How many of the first `length` keys the last of them sees, itself included."""
    if kind == "sliding_attention" and config.sliding_window:
        return min(length, int(config.sliding_window))
    if kind == "chunked_attention" and config.attention_chunk_size:
        return (length - 1) % int(config.attention_chunk_size) + 1
    return length


def _encoded(mask_BQT: Tensor, additive: torch.dtype | None) -> Tensor:
    mask = mask_BQT[:, None]
    if additive is None:
        return mask
    return torch.zeros(mask.shape, dtype=additive, device=mask.device).masked_fill(~mask, torch.finfo(additive).min)
