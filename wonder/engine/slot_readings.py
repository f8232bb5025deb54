"""Puts the readings of one request together when its answer is complete: one transfer per run of like steps."""

import math
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from wonder.engine.layout import kinds_of, reach
from wonder.engine.recorder import AttentionReadings, BatchReadings, ReadPlan
from wonder.engine.reductions import norms_and_shifts
from wonder.engine.slot_recorder import Layout, Part, RowReadings

# Shape suffixes: A attention layers of the request, F floats, I integers, K kept, L layers, N steps.


def finish(readings: RowReadings, config: Any, n_layers: int, prompt: int, vocabulary: int) -> "Collected":
    """Bring a request's numbers to the host, and do the divisions.

    Args:
        readings: Of the request.
        config: Of the text model: says which layers see only part of the keys.
        n_layers: Decoder blocks.
        prompt: Tokens of the prompt.
        vocabulary: Number of logits.
    """
    collected = Collected(readings.plan, len(readings.steps), n_layers, vocabulary)
    start = 0
    for layout, run in groupby(readings.steps, key=lambda step: step[0].layout):
        lines = list(run)
        floats_NF = torch.stack([step.floats_BF[row] for step, row in lines]).cpu()
        ints_NI = torch.stack([step.ints_BI[row] for step, row in lines]).cpu()
        collected.fill(slice(start, start + len(lines)), layout, floats_NF, ints_NI)
        start += len(lines)
    collected.normalize(config, prompt)
    collected.states = {name: states.float().cpu() for name, states in readings.states.items()}
    return collected


class Collected:
    """The numbers of one request on the host, in arrays over its steps."""

    def __init__(self, plan: ReadPlan, steps: int, n_layers: int, vocabulary: int) -> None:
        self._plan = plan
        kept = min(max(2, plan.alternatives), vocabulary)
        watched, pairs = len(plan.attention_layers), max(1, plan.pairs)
        self._floats = {
            "square": torch.zeros(steps, n_layers),
            "dot": torch.zeros(steps, n_layers - 1),
            "top": torch.zeros(steps, kept),
            "exponent": torch.zeros(steps, 1),
            "chosen": torch.zeros(steps, 1),
            "drawn": torch.full((steps, 1), float("nan")),
        }
        self._top_NK = torch.zeros(steps, kept, dtype=torch.long)
        self._entropy_NA = torch.full((steps, watched), float("nan"))
        self._normalized_NA = self._entropy_NA.clone()
        self._sink_NA = self._entropy_NA.clone()
        self._weight_NAK = torch.zeros(steps, watched, pairs)
        self._column_NAK = torch.full((steps, watched, pairs), -1, dtype=torch.long)
        self._choices: dict[str, list[Tensor]] = {}
        self._has_attention = False
        self._has_drawn = False
        self.states: dict[str, Tensor] = {}

    def fill(self, span: slice, layout: Layout, floats_NF: Tensor, ints_NI: Tensor) -> None:
        """Take the numbers of consecutive steps of one layout."""
        parts = zip(layout.floats, torch.split(floats_NF, [part.width for part in layout.floats], 1), strict=True)
        for part, values in parts:
            if part.name in self._floats:
                target = self._floats[part.name]
                target[span] = values[:, : target.shape[1]]
                self._has_drawn |= part.name == "drawn"
            else:
                self._attend(span, part, values / part.heads)
        parts = zip(layout.ints, torch.split(ints_NI, [part.width for part in layout.ints], 1), strict=True)
        for part, values in parts:
            if part.name == "top":
                self._top_NK[span] = values[:, : self._top_NK.shape[1]]
            elif part.name == "column":
                self._attend(span, part, values + 1)
            elif self._plan.routers:
                self._choices.setdefault(part.name.removeprefix("choice "), []).append(values)

    def _attend(self, span: slice, part: Part, values: Tensor) -> None:
        """Numbers of a group of layers, of which the request may want only some."""
        wanted = self._plan.attention_layers
        mine = [at for at, layer in enumerate(wanted) if layer in part.layers]
        theirs = [part.layers.index(wanted[at]) for at in mine]
        if not mine:
            return
        self._has_attention = True
        if part.name in ("entropy", "sink"):
            (self._entropy_NA if part.name == "entropy" else self._sink_NA)[span, mine] = values[:, theirs]
            return
        target = self._weight_NAK if part.name == "weight" else self._column_NAK
        values_NAK = values.reshape(len(values), len(part.layers), -1)[:, theirs, : target.shape[2]]
        target[span, mine, : values_NAK.shape[2]] = values_NAK

    def normalize(self, config: Any, prompt: int) -> None:
        """Divide attention entropies by ln(attended keys); one attended key has none to divide by."""
        steps, n_layers = self._floats["square"].shape
        kinds = kinds_of(config, n_layers)
        for at, layer in enumerate(self._plan.attention_layers):
            keys = [reach(config, kinds[layer], prompt + step) for step in range(steps)]
            logs_N = torch.tensor([math.log(count) if count > 1 else float("nan") for count in keys])
            self._normalized_NA[:, at] = self._entropy_NA[:, at] / logs_N

    def as_batch(self, experts: dict[str, int], unread: dict[str, str]) -> BatchReadings:
        """The same as the readings of a batch of one."""
        numbers = self._floats
        probability_NK = numbers["top"]
        wide = probability_NK.shape[1] > 1
        margin_N1 = probability_NK[:, :1] - probability_NK[:, 1:2] if wide else probability_NK
        norm_NL, shift_NL = norms_and_shifts(numbers["square"].t(), numbers["dot"].t())
        kept = self._plan.alternatives
        attention = None
        if self._has_attention:
            parts = (self._entropy_NA, self._normalized_NA, self._sink_NA, self._weight_NAK, self._column_NAK)
            attention = AttentionReadings(self._plan.attention_layers, *(part.unsqueeze(2) for part in parts))
        return BatchReadings(
            entropy_NB=-(probability_NK[:, :1].log() + numbers["exponent"]),
            margin_NB=margin_N1,
            chosen_NB=numbers["chosen"],
            drawn_NB=numbers["drawn"] if self._has_drawn else None,
            top_probability_NBK=probability_NK[:, None, :kept],
            top_token_NBK=self._top_NK[:, None, :kept],
            norm_NLB=norm_NL.t().unsqueeze(2),
            shift_NLB=shift_NL.t().unsqueeze(2),
            attention=attention,
            choices_NBK={key: torch.cat(parts)[:, None] for key, parts in self._choices.items()},
            experts=experts,
            unread_routers=unread,
            states_WBD={name: states.unsqueeze(1) for name, states in self.states.items()},
        )
