"""Puts the injections of a batch into one forward pass; rows without one are not touched, to the bit."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from wonder.trace.injection import InjectionRecord

# Shape suffixes: B rows, Q tokens fed per row, D d_model, K soft tokens.


@dataclass(frozen=True, eq=False)
class Injected:
    """One request's injection, ready to be used."""

    record: InjectionRecord
    soft_KD: Tensor | None = None
    """Vectors as the embedding module would give them, float32, where token ids enter the model."""
    soft_at: int = 0
    """Their first position in the prompt."""
    layer: int = 0
    push_D: Tensor | None = None
    """Strength × unit vector, float32, on the host; None where there is nothing to add."""
    everywhere: bool = False
    """The whole prompt is steered too."""


@dataclass(frozen=True)
class Push:
    """What is added to one layer's states in one forward pass."""

    where_BQ1: Tensor
    """True for the positions that are steered."""
    push_B1D: Tensor
    """Strength × unit vector of each row, float32."""

    def apply(self, states_BQD: Tensor) -> Tensor:
        """`h + α · ‖h‖ · v̂`, relative to each token's own state, as a new tensor in the dtype of the states.

        A state that is not steered is chosen, not added to: 0 times a norm that is not finite would spoil it.
        """
        where_BQ1, push_B1D = self.where_BQ1.to(states_BQD.device), self.push_B1D.to(states_BQD.device)
        added_BQD = states_BQD.float().norm(dim=-1, keepdim=True) * push_B1D
        return torch.where(where_BQ1, states_BQD + added_BQD.to(states_BQD.dtype), states_BQD)


Pushes = dict[int, Push]
"""Layer → what is added to its states."""

NOTHING: Final[Pushes] = {}


def pushes(
    injections: Sequence[Injected | None],
    width: int,
    device: torch.device,
    *,
    last: Sequence[int] | None,
    real_BQ: Tensor | None = None,
) -> Pushes:
    """What a pass adds to which layer.

    Args:
        injections: Of each row.
        width: Tokens fed per row.
        device: Where it is used first.
        last: Column whose state produces a token, for each row; None: no token is produced in this pass.
        real_BQ: False for padding; None: there is none.
    """
    steered = [(row, item) for row, item in enumerate(injections) if item is not None and item.push_D is not None]
    found: Pushes = {}
    for layer in sorted({item.layer for _, item in steered}):
        rows = [(row, item) for row, item in steered if item.layer == layer]
        assert rows[0][1].push_D is not None
        where_BQ = torch.zeros(len(injections), width, dtype=torch.bool)
        push_BD = torch.zeros(len(injections), len(rows[0][1].push_D))
        for row, item in rows:
            assert item.push_D is not None
            push_BD[row] = item.push_D
            if item.everywhere:
                where_BQ[row] = True if real_BQ is None else real_BQ[row].cpu()
            elif last is not None:
                where_BQ[row, last[row]] = True
        if bool(where_BQ.any()):
            found[layer] = Push(where_BQ[:, :, None].to(device), push_BD[:, None].to(device))
    return found


class DecodePushes:
    """Those of decode steps, in which every row is fed one token: made anew only when the rows change."""

    def __init__(self) -> None:
        self._of: list[Injected | None] = []
        self._pushes: Pushes = NOTHING

    def __call__(self, injections: Sequence[Injected | None], device: torch.device) -> Pushes:
        """What a step adds to which layer."""
        if not any(injections):
            return NOTHING
        # Injections are compared by identity: each belongs to one request.
        if self._of != list(injections):
            self._pushes = pushes(injections, 1, device, last=[0] * len(injections))
            self._of = list(injections)
        return self._pushes


def embedded(
    ids_BQ: Tensor,
    injections: Sequence[Injected | None],
    starts: Sequence[int],
    embed: Callable[[Tensor], Tensor],
) -> dict[str, Tensor]:
    """What to feed: token ids, or their embeddings where a soft token is among them.

    Args:
        ids_BQ: Token ids; below 0 at the places of soft tokens.
        injections: Of each row.
        starts: Position in its prompt of each row's first column; below 0 where padding stands before it.
        embed: The model's own embedding.
    """
    width = ids_BQ.shape[1]
    spans = []
    for row, item in enumerate(injections):
        if item is None or item.soft_KD is None:
            continue
        first, stop = item.soft_at, item.soft_at + len(item.soft_KD)
        low, high = max(first, starts[row]), min(stop, starts[row] + width)
        if low < high:
            spans.append((row, low - starts[row], high - starts[row], item.soft_KD[low - first : high - first]))
    if not spans:
        return {"input_ids": ids_BQ}
    vectors_BQD = embed(ids_BQ.clamp_min(0)).clone()
    for row, low, high, soft_KD in spans:
        vectors_BQD[row, low:high] = soft_KD.to(vectors_BQD)
    return {"inputs_embeds": vectors_BQD}
