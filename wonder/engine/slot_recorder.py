"""Reads the steps of the slot loop: a few kernels per step whatever the depth; divisions come once per request."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from wonder.anatomy import Anatomy
from wonder.engine.attention import Seen
from wonder.engine.logits import logit_sums
from wonder.engine.prompt_rows import row_sums
from wonder.engine.recorder import ReadPlan
from wonder.engine.reductions import head_numbers, router_entropy, state_numbers
from wonder.engine.slots import Feed, KeyStack
from wonder.engine.step_attention import step_attention
from wonder.engine.taps import StepSink

# Shape suffixes: A attention layers of a group, B rows, D d_model, E experts, F floats, I integers, K kept, L layers,
# R rows of the storage or routers of a group, T key columns, V vocabulary.


@dataclass(frozen=True)
class Part:
    """What some columns of a step's numbers are."""

    name: str
    width: int
    """Columns in all."""
    layers: tuple[int, ...] = ()
    heads: int = 1
    """What attention weights have yet to be divided by."""
    routers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """What the columns of a step's numbers are."""

    floats: tuple[Part, ...]
    ints: tuple[Part, ...]


@dataclass(frozen=True)
class StepNumbers:
    """All numbers of one forward pass, one line per row."""

    layout: Layout
    floats_BF: Tensor
    ints_BI: Tensor


@dataclass(frozen=True)
class Place:
    """Where the rows of a forward pass stand in the cache."""

    feed: Feed
    stacks: Sequence[KeyStack]
    bounds_2BK: Tensor | None = None
    """Where the columns of `head_numbers` begin and end; None: they are not wanted."""


@dataclass
class RowReadings:
    """What has been read for one request so far: references, nothing of it on the host."""

    plan: ReadPlan
    steps: list[tuple[StepNumbers, int]] = field(default_factory=list)
    """Numbers of each step, and the request's line in them."""
    states: dict[str, Tensor] = field(default_factory=dict)
    """Aggregation → states (W, D) of the plan's layers."""
    last_states: tuple[Tensor, int] | None = None
    """States (L, B, D) of the latest step, and the request's row in them."""
    kept: list[tuple[tuple[int, ...], Tensor, int]] = field(default_factory=list)
    """Each step's layers whose states are kept, the states (W, B, D), and the request's row in them."""
    prompt: int = 0
    """Tokens of its prompt, once that is fed."""
    prompt_sums: dict[int, Tensor] = field(default_factory=dict)
    """Watched layer → sums over the prompt's rows so far (3,), as `row_sums` makes them."""


@lru_cache(maxsize=1024)
def join(plans: frozenset[ReadPlan]) -> ReadPlan:
    """The least plan that reads what each of these reads."""
    return ReadPlan(
        attention_layers=tuple(sorted({layer for plan in plans for layer in plan.attention_layers})),
        pairs=max(plan.pairs for plan in plans),
        state_layers=tuple(sorted({layer for plan in plans for layer in plan.state_layers})),
        routers=any(plan.routers for plan in plans),
        alternatives=max(plan.alternatives for plan in plans),
        boosted=any(plan.boosted for plan in plans),
        lens_layers=tuple(sorted({layer for plan in plans for layer in plan.lens_layers})),
        heads=any(plan.heads for plan in plans),
        prompt_rows=any(plan.prompt_rows for plan in plans),
        explain_layers=tuple(sorted({layer for plan in plans for layer in plan.explain_layers})),
    )


class SlotRecorder:
    """The reductions of one slot loop, and the running sums of its rows."""

    def __init__(self, anatomy: Anatomy, rows: int, device: torch.device) -> None:
        self._n_layers = anatomy.n_layers
        self._d_model = anatomy.d_model
        self._rows = rows
        self._device = device
        self._sums_LRD: Tensor | None = None
        self._layout: Layout | None = None
        self.experts: dict[str, int] = {}
        self.unread: dict[str, str] = {}

    def read(
        self,
        plan: ReadPlan,
        sink: StepSink,
        seen: Sequence[Seen],
        draws: tuple[Tensor, Tensor, Tensor | None],
        place: Place,
    ) -> tuple[StepNumbers, Tensor]:
        """Reduce what one forward pass left behind.

        Args:
            plan: What its rows want together.
            sink: What the hooks kept.
            seen: What the attention taps kept.
            draws: Raw logits (B, V), emitted tokens (B,), and the probabilities they were drawn with.
            place: Where its rows stand.

        Returns:
            The numbers, and the states (L, B, D).
        """
        logits_BV, tokens_B, drawn_B = draws
        floats: list[tuple[Part, Tensor]] = []
        ints: list[tuple[Part, Tensor]] = []

        def keep(name: str, values: Tensor, to: list[tuple[Part, Tensor]], *about: Any) -> None:
            to.append((Part(name, values.shape[1], *about), values.to(self._device)))

        states_LBD = torch.stack([sink.states[layer].to(self._device) for layer in range(self._n_layers)])
        square_LB, dot_LB = state_numbers(states_LBD)
        keep("square", square_LB.t(), floats)
        keep("dot", dot_LB.t(), floats)
        sums, index_BK = logit_sums(logits_BV, tokens_B, plan.ranks)
        for part in fields(sums):
            keep(part.name, getattr(sums, part.name), floats)
        keep("top", index_BK[:, : max(1, plan.alternatives)], ints)
        if drawn_B is not None:
            keep("drawn", drawn_B[:, None], floats)
        for group in step_attention(seen, place.stacks, place.feed, sink.last_columns_B):
            layers, heads = group.layers, group.share_BAHT.shape[2]
            weight_BAT = group.share_BAHT.sum(2)
            kept = min(max(1, plan.pairs), weight_BAT.shape[-1] - 1)
            # The first position soaks up idle attention: it is a number of its own, and no pair.
            weight_BAK, column_BAK = weight_BAT[..., 1:].topk(kept, -1)
            keep("negentropy", group.negentropy_BA, floats, layers)
            keep("sink", weight_BAT[..., 0], floats, layers, heads)
            keep("weight", weight_BAK.flatten(1), floats, layers, heads)
            keep("column", column_BAK.flatten(1), ints, layers)
            if place.bounds_2BK is not None:
                numbers = head_numbers(group.share_BAHT, place.bounds_2BK.to(weight_BAT.device))
                keep("previous", numbers.previous_BAH.flatten(1), floats, layers)
                keep("own", numbers.own_BA, floats, layers)
                keep("lookback", numbers.lookback_BA, floats, layers)
        for key, choice_BK in sink.choices.items():
            keep(f"choice {key}", choice_BK.long(), ints)
        for routers, entropy_RB in gate_entropies(sink.gates):
            keep("router", entropy_RB.t(), floats, (), 1, routers)
        self.experts |= sink.experts
        self.unread |= sink.unread
        layout = Layout(tuple(part for part, _ in floats), tuple(part for part, _ in ints))
        self._layout = self._layout if self._layout == layout else layout  # one object, so that runs are found fast
        joined = [torch.cat([values for _, values in kind], 1) for kind in (floats, ints)]
        assert self._layout is not None
        return StepNumbers(self._layout, *joined), states_LBD

    def add_prompt_rows(
        self, seen: Sequence[Seen], readings: Sequence[RowReadings | None], real_BQ: Tensor | None
    ) -> None:
        """Add the rows of one more piece of each prompt; `real_BQ` is False for padding, None where there is none."""
        for item in seen:
            if item.rows is None:
                continue
            sums_3B = row_sums(item.rows, None if real_BQ is None else real_BQ.to(item.device))
            for at, reading in enumerate(readings):
                if reading is not None and reading.plan.prompt_rows and item.layer in reading.plan.attention_layers:
                    before = reading.prompt_sums.get(item.layer, 0.0)
                    reading.prompt_sums[item.layer] = before + sums_3B[:, at]

    def start_sums(self, first: int, states_LBD: Tensor) -> None:
        """Begin the running sums of rows whose prompt has been fed."""
        if self._sums_LRD is None:
            self._sums_LRD = torch.zeros(self._n_layers, self._rows, self._d_model, device=self._device)
        self._sums_LRD[:, first : first + states_LBD.shape[1]] = states_LBD

    def add_to_sums(self, first: int, states_LBD: Tensor) -> None:
        """Go on with them."""
        if self._sums_LRD is not None:
            self._sums_LRD[:, first : first + states_LBD.shape[1]] += states_LBD

    def sums(self, row: int) -> Tensor:
        """The sums of a row, (L, D), float32."""
        assert self._sums_LRD is not None
        return self._sums_LRD[:, row]

    def move(self, source: int, target: int) -> None:
        """Let a row take the place of another one."""
        if self._sums_LRD is not None:
            self._sums_LRD[:, target] = self._sums_LRD[:, source]


def gate_entropies(gates: Mapping[str, Tensor]) -> list[tuple[tuple[str, ...], Tensor]]:
    """Routers that are reduced together, and their entropies (R, B)."""
    groups: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for key, gate_BE in gates.items():
        groups[(gate_BE.shape, gate_BE.dtype, gate_BE.device)].append(key)
    return [(tuple(keys), router_entropy([gates[key] for key in keys])) for keys in groups.values()]
