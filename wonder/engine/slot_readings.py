"""Puts the readings of one request together when its answer is complete: one transfer per run of like steps."""

import math
from dataclasses import fields
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from wonder.engine.layout import kinds_of, reach
from wonder.engine.logits import FEW, LogitSums, logit_numbers
from wonder.engine.recorder import (
    AttentionReadings,
    BatchReadings,
    HeadReadings,
    PromptReadings,
    ReadPlan,
    prompt_readings,
)
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
    collected.prompt = prompt_of(readings)
    collected.states = {name: states.float().cpu() for name, states in readings.states.items()}
    return collected


def prompt_of(readings: RowReadings) -> PromptReadings | None:
    """What was read of the rows of the prompt; one transfer."""
    if not readings.prompt_sums:
        return None
    layers = sorted(readings.prompt_sums)
    sums_A3 = torch.stack([readings.prompt_sums[layer].to(readings.prompt_sums[layers[0]].device) for layer in layers])
    by_layer = dict(zip(layers, sums_A3.cpu().unsqueeze(-1), strict=True))
    return prompt_readings(by_layer, torch.tensor([readings.prompt]))


class Collected:
    """The numbers of one request on the host, in arrays over its steps."""

    def __init__(self, plan: ReadPlan, steps: int, n_layers: int, vocabulary: int) -> None:
        self._plan = plan
        kept = min(max(FEW, plan.ranks), vocabulary)
        self._vocabulary = vocabulary
        watched, pairs = len(plan.attention_layers), max(1, plan.pairs)
        self._floats = {
            "square": torch.zeros(steps, n_layers),
            "dot": torch.zeros(steps, n_layers - 1),
            "best": torch.zeros(steps, 1),
            "chosen": torch.zeros(steps, 1),
            "top": torch.zeros(steps, kept),
            "exponent": torch.zeros(steps, 1),
            "mean": torch.zeros(steps, 1),
            "drawn": torch.full((steps, 1), float("nan")),
        }
        self._top_NK = torch.zeros(steps, min(max(1, plan.alternatives), vocabulary), dtype=torch.long)
        self._entropy_NA = torch.full((steps, watched), float("nan"))
        self._normalized_NA = self._entropy_NA.clone()
        self._sink_NA = self._entropy_NA.clone()
        self._weight_NAK = torch.zeros(steps, watched, pairs)
        self._column_NAK = torch.full((steps, watched, pairs), -1, dtype=torch.long)
        self._choices: dict[str, list[Tensor]] = {}
        self._gates: dict[str, list[Tensor]] = {}
        self._has_attention = False
        self._has_drawn = False
        self._heads: dict[str, dict[int, list[Tensor]]] = {name: {} for name in ("previous", "own", "lookback")}
        self.prompt: PromptReadings | None = None
        self.states: dict[str, Tensor] = {}

    def fill(self, span: slice, layout: Layout, floats_NF: Tensor, ints_NI: Tensor) -> None:
        """Take the numbers of consecutive steps of one layout."""
        parts = zip(layout.floats, torch.split(floats_NF, [part.width for part in layout.floats], 1), strict=True)
        for part, values in parts:
            if part.name in self._floats:
                target = self._floats[part.name]
                target[span] = values[:, : target.shape[1]]
                self._has_drawn |= part.name == "drawn"
            elif part.name == "router":
                if self._plan.routers:
                    for key, entropy_N in zip(part.routers, values.unbind(1), strict=True):
                        self._gates.setdefault(key, []).append(entropy_N)
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
        if part.name in self._heads:
            if self._plan.heads:
                for layer, values_NX in zip(
                    part.layers, values.reshape(len(values), len(part.layers), -1).unbind(1), strict=True
                ):
                    self._heads[part.name].setdefault(layer, []).append(values_NX)
            return
        if part.name == "negentropy":
            self._entropy_NA[span, mine] = -values[:, theirs]
            return
        if part.name == "sink":
            self._sink_NA[span, mine] = values[:, theirs]
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
        sums = LogitSums(**{field.name: numbers[field.name][:, None] for field in fields(LogitSums)})
        norm_NL, shift_NL = norms_and_shifts(numbers["square"].t(), numbers["dot"].t())
        kept = self._plan.alternatives
        attention = None
        if self._has_attention:
            parts = (self._entropy_NA, self._normalized_NA, self._sink_NA, self._weight_NAK, self._column_NAK)
            attention = AttentionReadings(self._plan.attention_layers, *(part.unsqueeze(2) for part in parts))
        return BatchReadings(
            logits=logit_numbers(sums, self._vocabulary, boosted=self._plan.boosted),
            drawn_NB=numbers["drawn"] if self._has_drawn else None,
            top_token_NBK=self._top_NK[:, None, :kept],
            norm_NLB=norm_NL.t().unsqueeze(2),
            shift_NLB=shift_NL.t().unsqueeze(2),
            attention=attention,
            choices_NBK={key: torch.cat(parts)[:, None] for key, parts in self._choices.items()},
            router_entropy_NB={key: torch.cat(parts)[:, None] for key, parts in self._gates.items()},
            experts=experts,
            unread_routers=unread,
            states_WBD={name: states.unsqueeze(1) for name, states in self.states.items()},
            heads=self._head_readings(),
            prompt=self.prompt,
        )

    def _head_readings(self) -> HeadReadings | None:
        if not self._heads["previous"]:
            return None
        layers = [layer for layer in self._plan.attention_layers if layer in self._heads["previous"]]
        whole = {name: {layer: torch.cat(parts[layer]) for layer in layers} for name, parts in self._heads.items()}
        return HeadReadings(
            {layer: values_NH[:, None] for layer, values_NH in whole["previous"].items()},
            whole["own"],
            whole["lookback"],
        )
