"""Reads the steps of the slot loop: a few kernels per step whatever the depth; divisions come once per request."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from wonder.engine.anatomy import Anatomy
from wonder.engine.attention import Seen, row_mask
from wonder.engine.recorder import ReadPlan
from wonder.engine.reductions import attention_from_weights, attention_sums, logit_sums, state_numbers
from wonder.engine.taps import StepSink

# Shape suffixes: A attention layers of a group, B rows, D d_model, F floats, I integers, K kept, L layers, R rows of
# the storage, T key columns, V vocabulary.


@dataclass(frozen=True)
class Part:
    """What some columns of a step's numbers are."""

    name: str
    width: int
    """Columns in all."""
    layers: tuple[int, ...] = ()
    heads: int = 1
    """What attention weights have yet to be divided by."""


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


@lru_cache(maxsize=1024)
def join(plans: frozenset[ReadPlan]) -> ReadPlan:
    """The least plan that reads what each of these reads."""
    return ReadPlan(
        attention_layers=tuple(sorted({layer for plan in plans for layer in plan.attention_layers})),
        pairs=max(plan.pairs for plan in plans),
        state_layers=tuple(sorted({layer for plan in plans for layer in plan.state_layers})),
        routers=any(plan.routers for plan in plans),
        alternatives=max(plan.alternatives for plan in plans),
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
        self, plan: ReadPlan, sink: StepSink, seen: Sequence[Seen], draws: tuple[Tensor, Tensor, Tensor | None]
    ) -> tuple[StepNumbers, Tensor]:
        """Reduce what one forward pass left behind.

        Args:
            plan: What its rows want together.
            sink: What the hooks kept.
            seen: What the attention taps kept.
            draws: Raw logits (B, V), emitted tokens (B,), and the probabilities they were drawn with.

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
        sums = logit_sums(logits_BV, tokens_B, plan.alternatives)
        keep("top", sums.top_BK, floats)
        keep("exponent", sums.exponent_B1, floats)
        keep("chosen", sums.chosen_B1, floats)
        keep("top", sums.index_BK, ints)
        if drawn_B is not None:
            keep("drawn", drawn_B[:, None], floats)
        for layers, heads, entropy_AB, weight_ABT in _attention(seen):
            kept = min(max(1, plan.pairs), weight_ABT.shape[-1] - 1)
            # The first position soaks up idle attention: it is a number of its own, and no pair.
            weight_BAK, column_BAK = weight_ABT[..., 1:].transpose(0, 1).topk(kept, -1)
            keep("entropy", entropy_AB.t(), floats, layers)
            keep("sink", weight_ABT[..., 0].t(), floats, layers, heads)
            keep("weight", weight_BAK.flatten(1), floats, layers, heads)
            keep("column", column_BAK.flatten(1), ints, layers)
        for key, choice_BK in sink.choices.items():
            keep(f"choice {key}", choice_BK.long(), ints)
        self.experts |= sink.experts
        self.unread |= sink.unread
        layout = Layout(tuple(part for part, _ in floats), tuple(part for part, _ in ints))
        self._layout = self._layout if self._layout == layout else layout  # one object, so that runs are found fast
        joined = [torch.cat([values for _, values in kind], 1) for kind in (floats, ints)]
        assert self._layout is not None
        return StepNumbers(self._layout, *joined), states_LBD

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


def _attention(seen: Sequence[Seen]) -> list[tuple[tuple[int, ...], int, Tensor, Tensor]]:
    """Per group of layers that are reduced together: layers, heads, entropy (A, B), weights over heads (A, B, T)."""
    groups: dict[tuple[Any, ...], list[Seen]] = defaultdict(list)
    for item in seen:
        tensor = item.weights if item.product is None else item.product
        assert tensor is not None
        groups[(tensor.shape, tensor.device, item.scaling, item.softcap, item.window, id(item.mask))].append(item)
    result = []
    for group in groups.values():
        first, layers = group[0], tuple(item.layer for item in group)
        if first.product is None:
            weights = torch.stack([item.weights for item in group if item.weights is not None])
            entropy_AB, mean_ABT, _ = attention_from_weights(weights, None)
            result.append((layers, 1, entropy_AB, mean_ABT))
            continue
        products = [item.product for item in group if item.product is not None]
        keys, heads = int(first.product.shape[3]), int(first.product.shape[1] * first.product.shape[2])
        mask = row_mask(first, keys, None)
        result.append((layers, heads, *attention_sums(products, first.scaling, first.softcap, mask)))
    return result
