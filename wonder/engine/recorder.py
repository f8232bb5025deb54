"""Collects what a batch's taps saw, step by step, as small tensors on the device; one transfer at the end."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from wonder.engine.attention import GroupNumbers, Seen, reduce
from wonder.engine.layout import Layout
from wonder.engine.reductions import logit_numbers, norms_and_shifts, state_numbers
from wonder.engine.taps import StepSink

# Shape suffixes: A watched attention layers, B rows, D d_model, K kept, L layers, N steps, V vocabulary,
# W layers whose states are kept.


@dataclass(frozen=True)
class ReadPlan:
    """What a batch reads: the union of what its requests ask for."""

    attention_layers: tuple[int, ...] = ()
    pairs: int = 0
    """Strongest attention columns kept per step and layer."""
    state_layers: tuple[int, ...] = ()
    routers: bool = False
    alternatives: int = 0


@dataclass(frozen=True)
class AttentionReadings:
    """Attention of every step, watched layer and row."""

    layers: tuple[int, ...]
    entropy_NAB: Tensor
    normalized_NAB: Tensor
    sink_NAB: Tensor
    weight_NABK: Tensor
    column_NABK: Tensor
    """Column in the batch; -1 where fewer than K keys exist."""


@dataclass(frozen=True)
class BatchReadings:
    """Everything read from one batch, on the host; step n belongs to generated token n of each row.

    A row that finished early has numbers in later steps too: they mean nothing and are cut off by its length.
    """

    entropy_NB: Tensor
    margin_NB: Tensor
    chosen_NB: Tensor
    drawn_NB: Tensor | None
    top_probability_NBK: Tensor
    top_token_NBK: Tensor
    norm_NLB: Tensor
    shift_NLB: Tensor
    attention: AttentionReadings | None
    choices_NBK: dict[str, Tensor]
    experts: dict[str, int]
    unread_routers: dict[str, str]
    states_WBD: dict[str, Tensor]
    """Aggregation → states of `ReadPlan.state_layers`."""


class Recorder:
    """The readings of one batch while it runs."""

    def __init__(self, plan: ReadPlan, layout: Layout, n_layers: int, device: torch.device) -> None:
        self._plan = plan
        self._layout = layout
        self._n_layers = n_layers
        self._device = device
        self._first_B = torch.tensor(layout.first_columns(), device=device)
        self._logits: list[tuple[Tensor, ...]] = []
        self._drawn: list[Tensor] = []
        self._states: list[tuple[Tensor, Tensor]] = []
        self._attention: list[list[Tensor]] = []
        self._watched: tuple[int, ...] = ()
        self._choices: dict[str, list[Tensor]] = {}
        self._experts: dict[str, int] = {}
        self._unread: dict[str, str] = {}
        self._pooled: dict[str, Tensor] = {}
        self._count_B = torch.zeros(len(layout.lengths), device=device)

    def sink(self, *, prefill: bool) -> StepSink:
        """An empty sink for the next forward pass."""
        side = self._layout.side
        return StepSink(
            rows=len(self._layout.lengths),
            prefill=prefill,
            real_BS=self._layout.real() if prefill else None,
            last_columns_B=(
                torch.tensor(self._layout.last_columns(), device=self._device) if prefill and side == "right" else None
            ),
            mean_layers=frozenset(self._plan.state_layers) if prefill else frozenset(),
            routers=self._plan.routers,
        )

    def after_forward(self, sink: StepSink, seen: Iterable[Seen], active_B: Tensor, step: int) -> None:
        """Reduce what one forward pass left behind."""
        states_LBD = torch.stack([sink.states[layer].to(self._device) for layer in range(self._n_layers)])
        self._states.append(state_numbers(states_LBD))
        if self._plan.state_layers:
            self._pool(states_LBD, sink, active_B)
        if self._plan.attention_layers:
            self._attend(list(seen), sink, self._layout.width + step)
        for key, choice in sink.choices.items():
            self._choices.setdefault(key, []).append(choice)
        self._experts |= sink.experts
        self._unread |= sink.unread

    def after_draw(self, logits_BV: Tensor, tokens_B: Tensor, drawn_B: Tensor | None) -> None:
        """Reduce the raw logits, now that the emitted tokens are known."""
        numbers = logit_numbers(logits_BV, tokens_B, self._plan.alternatives)
        self._logits.append(
            (
                numbers.entropy_B,
                numbers.margin_B,
                numbers.chosen_B,
                numbers.top_probability_BK,
                numbers.top_token_BK,
            )
        )
        if drawn_B is not None:
            self._drawn.append(drawn_B)

    def finish(self) -> BatchReadings:
        """Do what is done once per request, and bring everything to the host."""
        entropy, margin, chosen, top_p, top_i = (torch.stack(parts) for parts in zip(*self._logits, strict=True))
        square_NLB, dot_NLB = (torch.stack(parts) for parts in zip(*self._states, strict=True))
        norm_LNB, shift_LNB = norms_and_shifts(square_NLB.transpose(0, 1), dot_NLB.transpose(0, 1))
        pooled = dict(self._pooled)
        if "mean_generated" in pooled:
            pooled["mean_generated"] = pooled["mean_generated"] / self._count_B[:, None]
        return BatchReadings(
            entropy_NB=entropy.cpu(),
            margin_NB=margin.cpu(),
            chosen_NB=chosen.cpu(),
            drawn_NB=torch.stack(self._drawn).cpu() if self._drawn else None,
            top_probability_NBK=top_p.cpu(),
            top_token_NBK=top_i.cpu(),
            norm_NLB=norm_LNB.transpose(0, 1).cpu(),
            shift_NLB=shift_LNB.transpose(0, 1).cpu(),
            attention=self._finish_attention(),
            choices_NBK={key: torch.stack(parts).cpu() for key, parts in self._choices.items()},
            experts=self._experts,
            unread_routers=self._unread,
            states_WBD={name: states.cpu() for name, states in pooled.items()},
        )

    def _pool(self, states_LBD: Tensor, sink: StepSink, active_B: Tensor) -> None:
        states_WBD = states_LBD[list(self._plan.state_layers)].float()
        if sink.prefill:
            means = [sink.prompt_means[layer].to(self._device) for layer in self._plan.state_layers]
            self._pooled = {
                "last_prompt": states_WBD,
                "mean_prompt": torch.stack(means),
                "mean_generated": torch.zeros_like(states_WBD),
                "last_generated": states_WBD,
            }
        # Chosen, not multiplied: a finished row may hold anything, and 0 · NaN is NaN.
        active = active_B[None, :, None]
        self._pooled["mean_generated"] += torch.where(active, states_WBD, 0.0)
        self._pooled["last_generated"] = torch.where(active, states_WBD, self._pooled["last_generated"])
        self._count_B += active_B

    def _attend(self, seen: list[Seen], sink: StepSink, total: int) -> None:
        kept = max(1, self._plan.pairs)
        groups = reduce(seen, self._first_B, sink.last_columns_B, total, kept)
        if not groups:
            return
        parts = [self._joined(list(part)) for part in zip(*(_columns(group, kept) for group in groups), strict=True)]
        order = tuple(layer for group in groups for layer in group.layers)
        self._watched = self._watched or order
        if order != self._watched:  # layers that share a mask at first may part later
            places = [order.index(layer) for layer in self._watched]
            parts = [part[places] for part in parts]
        self._attention.append(parts)

    def _joined(self, parts: list[Tensor]) -> Tensor:
        return parts[0].to(self._device) if len(parts) == 1 else torch.cat([part.to(self._device) for part in parts])

    def _finish_attention(self) -> AttentionReadings | None:
        if not self._attention:
            return None
        parts = [torch.stack(part).cpu() for part in zip(*self._attention, strict=True)]
        places = sorted(range(len(self._watched)), key=lambda at: self._watched[at])
        return AttentionReadings(tuple(self._watched[at] for at in places), *(part[:, places] for part in parts))


def _columns(group: GroupNumbers, kept: int) -> tuple[Tensor, ...]:
    """Entropy, normalised entropy, sink (L, B), weights and columns in the batch (L, B, kept) of one group."""
    numbers = group.numbers
    weight, column = numbers.weight_LBK, numbers.column_LBK
    if group.offset:
        column = column + group.offset
    if missing := kept - weight.shape[-1]:
        weight, column = pad(weight, (0, missing)), pad(column, (0, missing), value=-1)
    return numbers.entropy_LB, numbers.normalized_LB, numbers.sink_LB, weight, column
