"""Collects what a batch's taps saw, step by step, as small tensors on the device; one transfer at the end."""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor
from torch.nn.functional import pad

from wonder.engine.attention import GroupNumbers, Seen, reduce
from wonder.engine.layout import Layout
from wonder.engine.lens import Lens, LensReadings, read_lens
from wonder.engine.logits import MANY, LogitNumbers, LogitSums, confidences, logit_numbers, logit_sums
from wonder.engine.prompt_rows import row_sums
from wonder.engine.reductions import norms_and_shifts, router_entropy, state_numbers
from wonder.engine.taps import StepSink

# Shape suffixes: A watched attention layers, B rows, D d_model, E experts, K kept, L layers, N steps, V vocabulary,
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
    boosted: bool = False
    """Whether the boosted probability is wanted, which needs many ranks of each step."""
    lens_layers: tuple[int, ...] = ()
    """Layers whose states are kept at every step, for the logit lens."""
    heads: bool = False
    """Statistics of single heads, in the watched layers."""
    prompt_rows: bool = False
    """Attention entropy of every row of the prompt, not only of generating ones, in the watched layers."""
    explain_layers: tuple[int, ...] = ()
    """Layers whose states are kept at every step, to be put into words."""

    @property
    def step_layers(self) -> tuple[int, ...]:
        """Layers whose states are kept at every step, for whatever."""
        return tuple(sorted({*self.lens_layers, *self.explain_layers}))

    @property
    def ranks(self) -> int:
        """Likeliest tokens needed of each step, at least."""
        return max(self.alternatives, MANY if self.boosted else 0)


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
class HeadReadings:
    """Statistics of heads at every step and row, by watched layer; of step n, the token that was fed in it."""

    previous_NBH: dict[int, Tensor]
    """Attention of each head on the token before."""
    own_NB: dict[int, Tensor]
    """ln of the attention on itself, mean over heads."""
    lookback_NB: dict[int, Tensor]
    """Attention on the prompt over that on prompt and answer, the first token left out, mean over heads."""


@dataclass(frozen=True)
class PromptReadings:
    """Attention of the rows of the prompt, by watched layer."""

    entropy_B: dict[int, Tensor]
    """Mean over rows and heads, in nats."""
    normalized_B: dict[int, Tensor]
    """Each row's divided by ln(keys it sees), mean over rows that see several; NaN where none does."""


@dataclass(frozen=True)
class BatchReadings:
    """Everything read from one batch, on the host; step n belongs to generated token n of each row.

    A row that finished early has numbers in later steps too: they mean nothing and are cut off by its length.
    """

    logits: LogitNumbers
    """Shapes (N, B) and (N, B, K)."""
    drawn_NB: Tensor | None
    top_token_NBK: Tensor
    norm_NLB: Tensor
    shift_NLB: Tensor
    attention: AttentionReadings | None
    choices_NBK: dict[str, Tensor]
    router_entropy_NB: dict[str, Tensor]
    """Nats."""
    experts: dict[str, int]
    unread_routers: dict[str, str]
    states_WBD: dict[str, Tensor]
    """Aggregation → states of `ReadPlan.state_layers`."""
    lens: LensReadings | None = None
    heads: HeadReadings | None = None
    prompt: PromptReadings | None = None
    states_NBD: dict[int, Tensor] = field(default_factory=dict)
    """Layer of `ReadPlan.explain_layers` → the states that produced the tokens."""


class Recorder:
    """The readings of one batch while it runs."""

    def __init__(self, plan: ReadPlan, layout: Layout, n_layers: int, device: torch.device) -> None:
        self._plan = plan
        self._layout = layout
        self._n_layers = n_layers
        self._device = device
        self._first_B = torch.tensor(layout.first_columns(), device=device)
        self._logits: list[tuple[LogitSums, Tensor]] = []
        self._vocabulary = 0
        self._steps_WBD: list[Tensor] = []
        self._tokens_B: list[Tensor] = []
        self._drawn: list[Tensor] = []
        self._states: list[tuple[Tensor, Tensor]] = []
        self._attention: list[list[Tensor]] = []
        self._watched: tuple[int, ...] = ()
        self._heads: dict[int, list[tuple[Tensor, Tensor, Tensor]]] = {}
        self._prompt: dict[int, Tensor] = {}
        self._choices: dict[str, list[Tensor]] = {}
        self._gates: dict[str, list[Tensor]] = {}
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
            all_rows=self._plan.prompt_rows,
        )

    def after_forward(self, sink: StepSink, seen: Iterable[Seen], active_B: Tensor, step: int) -> None:
        """Reduce what one forward pass left behind."""
        states_LBD = torch.stack([sink.states[layer].to(self._device) for layer in range(self._n_layers)])
        self._states.append(state_numbers(states_LBD))
        if self._plan.step_layers:
            self._steps_WBD.append(states_LBD[list(self._plan.step_layers)])
        if self._plan.state_layers:
            self._pool(states_LBD, sink, active_B)
        if self._plan.attention_layers:
            self._attend(list(seen), sink, self._layout.width + step)
        for key, choice in sink.choices.items():
            self._choices.setdefault(key, []).append(choice)
        for key, gate_BE in sink.gates.items():
            self._gates.setdefault(key, []).append(router_entropy([gate_BE])[0])
        self._experts |= sink.experts
        self._unread |= sink.unread

    def after_draw(self, logits_BV: Tensor, tokens_B: Tensor, drawn_B: Tensor | None) -> None:
        """Reduce the raw logits, now that the emitted tokens are known."""
        self._vocabulary = logits_BV.shape[-1]
        if self._plan.lens_layers:
            self._tokens_B.append(tokens_B)
        sums, index_BK = logit_sums(logits_BV, tokens_B, self._plan.ranks)
        self._logits.append((sums, index_BK[:, : self._plan.alternatives]))
        if drawn_B is not None:
            self._drawn.append(drawn_B)

    def confidences(self) -> list[float | None]:
        """Probability of each row's latest token; a transfer, for those who stream."""
        sums, _ = self._logits[-1]
        return confidences(torch.cat([sums.best, sums.chosen, sums.top[:, :1]], 1))

    def finish(self, lens: Lens | None = None) -> BatchReadings:
        """Do what is done once per request, and bring everything to the host.

        Args:
            lens: Of the model; None: it has none.
        """
        through = None
        there, kept = self._plan.step_layers, torch.stack(self._steps_WBD) if self._steps_WBD else None
        if lens is not None and kept is not None and self._plan.lens_layers:
            layers = self._plan.lens_layers
            states_NWBD = kept[:, [there.index(layer) for layer in layers]]
            through = read_lens(lens, layers, states_NWBD, torch.stack(self._tokens_B))
        explained = {}
        if kept is not None:
            explained = {layer: kept[:, there.index(layer)].cpu() for layer in self._plan.explain_layers}
        names = [field.name for field in fields(LogitSums)]
        sums = LogitSums(*(torch.stack([getattr(part, name) for part, _ in self._logits]).cpu() for name in names))
        square_NLB, dot_NLB = (torch.stack(parts) for parts in zip(*self._states, strict=True))
        norm_LNB, shift_LNB = norms_and_shifts(square_NLB.transpose(0, 1), dot_NLB.transpose(0, 1))
        pooled = dict(self._pooled)
        if "mean_generated" in pooled:
            pooled["mean_generated"] = pooled["mean_generated"] / self._count_B[:, None]
        return BatchReadings(
            logits=logit_numbers(sums, self._vocabulary, boosted=self._plan.boosted),
            drawn_NB=torch.stack(self._drawn).cpu() if self._drawn else None,
            top_token_NBK=torch.stack([index_BK for _, index_BK in self._logits]).cpu(),
            norm_NLB=norm_LNB.transpose(0, 1).cpu(),
            shift_NLB=shift_LNB.transpose(0, 1).cpu(),
            attention=self._finish_attention(),
            choices_NBK={key: torch.stack(parts).cpu() for key, parts in self._choices.items()},
            router_entropy_NB={key: torch.stack(parts).cpu() for key, parts in self._gates.items()},
            experts=self._experts,
            unread_routers=self._unread,
            states_WBD={name: states.cpu() for name, states in pooled.items()},
            lens=through,
            heads=self._finish_heads(),
            prompt=self._finish_prompt(),
            states_NBD=explained,
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
        bounds_2BK = None
        if self._plan.heads:
            bounds_2BK = torch.tensor(self._layout.head_columns(total - self._layout.width), device=self._device)
        groups = reduce(seen, self._first_B, sink.last_columns_B, total, kept, bounds_2BK)
        if not groups:
            return
        for group in groups:
            self._keep_heads(group)
        for item in seen:
            if item.rows is not None:
                real_BS = None if sink.real_BS is None else sink.real_BS.to(item.device)
                self._prompt[item.layer] = row_sums(item.rows, real_BS)
        parts = [self._joined(list(part)) for part in zip(*(_columns(group, kept) for group in groups), strict=True)]
        order = tuple(layer for group in groups for layer in group.layers)
        self._watched = self._watched or order
        if order != self._watched:  # layers that share a mask at first may part later
            places = [order.index(layer) for layer in self._watched]
            parts = [part[places] for part in parts]
        self._attention.append(parts)

    def _keep_heads(self, group: GroupNumbers) -> None:
        if group.heads is None:
            return
        numbers = group.heads
        for at, layer in enumerate(group.layers):
            parts = (numbers.previous_BAH[:, at], numbers.own_BA[:, at], numbers.lookback_BA[:, at])
            self._heads.setdefault(layer, []).append(parts)

    def _finish_heads(self) -> HeadReadings | None:
        if not self._heads:
            return None
        kinds: tuple[dict[int, Tensor], ...] = ({}, {}, {})
        for layer, steps in sorted(self._heads.items()):
            for kind, parts in zip(kinds, zip(*steps, strict=True), strict=True):
                kind[layer] = torch.stack(parts).cpu()
        return HeadReadings(*kinds)

    def _finish_prompt(self) -> PromptReadings | None:
        if not self._prompt:
            return None
        sums = {layer: sums_3B.cpu() for layer, sums_3B in sorted(self._prompt.items())}
        return prompt_readings(sums, self._layout.lengths_B.cpu())

    def _joined(self, parts: list[Tensor]) -> Tensor:
        return parts[0].to(self._device) if len(parts) == 1 else torch.cat([part.to(self._device) for part in parts])

    def _finish_attention(self) -> AttentionReadings | None:
        if not self._attention:
            return None
        parts = [torch.stack(part).cpu() for part in zip(*self._attention, strict=True)]
        places = sorted(range(len(self._watched)), key=lambda at: self._watched[at])
        return AttentionReadings(tuple(self._watched[at] for at in places), *(part[:, places] for part in parts))


def prompt_readings(sums_3B: dict[int, Tensor], lengths_B: Tensor) -> PromptReadings:
    """From the sums over the rows of each prompt, by layer, to their means."""
    return PromptReadings(
        {layer: sums[0] / lengths_B for layer, sums in sums_3B.items()},
        {layer: sums[1] / sums[2] for layer, sums in sums_3B.items()},
    )


def _columns(group: GroupNumbers, kept: int) -> tuple[Tensor, ...]:
    """Entropy, normalised entropy, sink (L, B), weights and columns in the batch (L, B, kept) of one group."""
    numbers = group.numbers
    weight, column = numbers.weight_LBK, numbers.column_LBK
    if group.offset:
        column = column + group.offset
    if missing := kept - weight.shape[-1]:
        weight, column = pad(weight, (0, missing)), pad(column, (0, missing), value=-1)
    return numbers.entropy_LB, numbers.normalized_LB, numbers.sink_LB, weight, column
