"""The decode loop: a batch of padded prompts in, tokens and readings out."""

import inspect
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from wonder.anatomy import Anatomy
from wonder.engine.constrain import Constraint, masked
from wonder.engine.experts import ExpertKernels
from wonder.engine.injection_batch import NOTHING, Injected, Pushes, embedded, pushes
from wonder.engine.layout import Layout, Side, masks_by_position
from wonder.engine.lens import Lens
from wonder.engine.recorder import BatchReadings, ReadPlan, Recorder
from wonder.engine.sampling import Drawer, RowDraw
from wonder.engine.taps import Taps
from wonder.engine.text import TextStream
from wonder.trace.sampling import Sampling

# Shape suffixes: B rows, S prompt columns, T columns so far, V vocabulary.

OnLogits = Callable[[int, Tensor], None]
"""Called with the step and the raw logits (B, V) in float32; for tests and the self-check."""
OnStep = Callable[[Callable[[], list[float | None]]], None]
"""Called with what gives the probability of each row's latest token, None where nothing is read; a transfer."""


@dataclass(frozen=True)
class Runtime:
    """A loaded model with all that the loop needs to know of it."""

    model: PreTrainedModel
    anatomy: Anatomy
    taps: Taps
    experts: ExpertKernels
    tokenizer: Any
    special_ids: frozenset[int]
    end_ids: frozenset[int]
    pad_id: int
    side: Side = "left"
    additive_masks: bool = False
    own_cache: bool = False
    """The model accepts only the cache that it makes itself."""
    equal_lengths: bool = False
    """Padding would change this model's text, so only prompts of equal length share a batch."""
    lens: Lens | None = None
    """The way from a block's output to logits, where the model has one that can be walked."""

    @property
    def device(self) -> torch.device:
        """Where token ids enter the model."""
        weight: Tensor = self.model.get_input_embeddings().weight  # type: ignore[assignment]
        return weight.device

    @property
    def embed(self) -> Callable[[Tensor], Tensor]:
        """Token ids to vectors, as the model does it itself."""
        return self.model.get_input_embeddings()


class Row:
    """One request while it is being answered."""

    def __init__(self, sampling: Sampling, runtime: Runtime) -> None:
        self._sampling = sampling
        self._end_ids = runtime.end_ids
        self.stream = TextStream(runtime.tokenizer, runtime.special_ids)
        self.tokens: list[int] = []
        self.latest = ""
        """Text that became certain with the latest token."""
        self.finished: Literal["stop", "length"] | None = None
        self.cut: int | None = None
        """Where the stop string starts in the text."""
        self.finished_s = 0.0
        """Seconds from the start of the batch to the last token."""

    def push(self, token: int) -> None:
        """Take the next token, and see whether it ends the answer."""
        before = len(self.stream.text)
        self.tokens.append(token)
        self.latest = self.stream.push(token)
        text = self.stream.text
        hits = [text.find(stop, max(0, before - len(stop) + 1)) for stop in self._sampling.stop if stop]
        if found := [hit for hit in hits if hit >= 0]:
            self.cut = min(found)
        if token in self._end_ids or found:
            self.finished = "stop"
        elif len(self.tokens) >= self._sampling.max_new_tokens:
            self.finished = "length"
        if self.finished:
            self.latest += self.stream.flush()

    @property
    def answer(self) -> str:
        """The text without special tokens, up to the stop string, without spaces around it."""
        return self.stream.text[: self.cut].strip()


@dataclass(frozen=True)
class BatchResult:
    """A finished batch."""

    rows: list[Row]
    layout: Layout
    readings: BatchReadings | None
    prefill_s: float
    size: int
    """Largest number of rows that shared a forward pass."""
    batching: Literal["slots", "padded", "alone"]


@dataclass
class _Feeder:
    """Calls the model: the prompts once, then one token per row and step, with positions, masks and cache."""

    runtime: Runtime
    layout: Layout
    injections: Sequence[Injected | None]
    cache: Any = field(init=False)
    options: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        # Full storage for windowed layers as well, so that column numbers hold; recurrent states need their own kind.
        recurrent = self.runtime.anatomy.is_recurrent
        self.cache = DynamicCache(config=self.runtime.model.config) if recurrent else DynamicCache()
        self.cache = None if self.runtime.own_cache else self.cache
        accepted = inspect.signature(self.runtime.model.forward).parameters
        self.options = {"logits_to_keep": self._columns_to_keep()} if "logits_to_keep" in accepted else {}

    def _columns_to_keep(self) -> int | Tensor:
        last = self.layout.last_columns()
        return 1 if len(set(last)) == 1 else torch.tensor(sorted(set(last)), device=self.layout.ids_BS.device)

    def prefill(self) -> Tensor:
        """Feed the prompts; raw logits (B, V) after each row's last token, float32."""
        self.runtime.experts.for_prompts()
        layout = self.layout
        starts = [-column for column in layout.first_columns()]
        inputs = embedded(layout.ids_BS, self.injections, starts, self.runtime.embed)
        logits = self._call(inputs, layout.positions(), 0, self.options)
        last = layout.last_columns()
        if len(set(last)) == 1:
            return logits[:, -1 if self.options else last[0]].float()
        kept = sorted(set(last)) if self.options else list(range(layout.width))
        columns = torch.tensor([kept.index(column) for column in last], device=logits.device)
        return logits[torch.arange(len(last), device=logits.device), columns].float()

    def decode(self, tokens_B: Tensor, step: int) -> Tensor:
        """Feed the tokens generated in `step`; raw logits (B, V), float32."""
        self.runtime.experts.for_tokens()
        fed = {"input_ids": tokens_B[:, None]}
        return self._call(fed, self.layout.positions_after(step), step + 1, {})[:, -1].float()

    def pushes(self, step: int) -> Pushes:
        """What the pass that produces token `step` adds to which layer."""
        layout = self.layout
        if not any(self.injections):
            return NOTHING
        if step > 0:
            return pushes(self.injections, 1, self.runtime.device, last=[0] * len(layout.lengths))
        return pushes(
            self.injections, layout.width, self.runtime.device, last=layout.last_columns(), real_BQ=layout.real()
        )

    def _call(self, inputs: dict[str, Tensor], positions: Tensor, fed: int, options: dict[str, Any]) -> Tensor:
        output = self.runtime.model(
            **inputs,
            attention_mask=self._mask(positions, fed),
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            **options,
        )
        self.cache = output.past_key_values if self.cache is None else self.cache
        logits: Tensor = output.logits
        return logits

    def _mask(self, positions: Tensor, fed: int) -> Any:
        if not self.layout.is_padded:
            return None
        real_BS = self.layout.real()
        real_BT = torch.nn.functional.pad(real_BS, (0, fed), value=True)
        if self.layout.side == "left":
            return real_BT.long()
        keys_BT = torch.cat([self.layout.positions(), self.layout.positions_after(0, fed)], dim=1)
        additive = self.runtime.model.dtype if self.runtime.additive_masks else None
        return masks_by_position(self.runtime.anatomy.config, positions, keys_BT, real_BT, additive)


@torch.inference_mode()
def run_batch(
    runtime: Runtime,
    prompts: Sequence[Sequence[int]],
    samplings: Sequence[Sampling],
    plan: ReadPlan | None,
    *,
    constraints: Sequence[Constraint | None] | None = None,
    injections: Sequence[Injected | None] = (),
    rows: Sequence[Row] | None = None,
    draws: Sequence[RowDraw] | None = None,
    on_step: OnStep | None = None,
    on_logits: OnLogits | None = None,
) -> BatchResult:
    """Generate for a batch of prompts.

    Args:
        runtime: The model.
        prompts: Token ids; at least one each.
        samplings: How each row draws.
        plan: What to read; None: nothing.
        constraints: What each row may write; None: anything.
        injections: What is put into the model for each row; empty: nothing.
        rows: Where the tokens go; None: made here.
        draws: The random numbers of each row; None: made here.
        on_step: Called after every step; may raise to give the batch up.
        on_logits: Called with the raw logits of every step.
    """
    began = time.perf_counter()
    layout = Layout.of(prompts, runtime.pad_id, runtime.side, runtime.device)
    feeder = _Feeder(runtime, layout, injections)
    drawer = Drawer(samplings, draws)
    held = constraints or [None] * len(prompts)
    rows = list(rows) if rows is not None else [Row(sampling, runtime) for sampling in samplings]
    recorder = None if plan is None else Recorder(plan, layout, runtime.anatomy.n_layers, runtime.device)
    prefill_s = 0.0
    tokens_B = layout.ids_BS[:, -1]
    active_B = torch.ones(len(rows), dtype=torch.bool, device=layout.ids_BS.device)
    with ExitStack() as stack:
        stack.callback(runtime.experts.for_prompts)
        if plan is not None:
            stack.enter_context(runtime.taps.watch_attention(plan.attention_layers))
        for step in range(max(sampling.max_new_tokens for sampling in samplings)):
            runtime.taps.pushes = feeder.pushes(step)
            try:
                logits_BV = _forward(feeder, recorder, tokens_B, active_B, step)
            finally:
                runtime.taps.pushes = NOTHING
            if on_logits is not None:
                on_logits(step, logits_BV)
            tokens_B, drawn_B = drawer.draw(masked(logits_BV, held))
            if recorder is not None:
                recorder.after_draw(logits_BV, tokens_B, drawn_B)
            live = [not row.finished for row in rows]
            for row, token, constraint in zip(rows, tokens_B.tolist(), held, strict=True):
                if not row.finished:
                    row.push(token)
                    if constraint is not None:
                        constraint.accept(token)
                    row.finished_s = time.perf_counter() - began
            if step == 0:
                prefill_s = min(row.finished_s for row in rows)
            if on_step is not None:
                on_step(partial(_confidences, recorder, len(rows)))
            now_live = [not row.finished for row in rows]
            if not any(now_live):
                break
            if now_live != live:
                active_B = torch.tensor(now_live, device=active_B.device)
            tokens_B = tokens_B.to(layout.ids_BS.device)
    readings = None if recorder is None else recorder.finish(runtime.lens)
    batching: Literal["padded", "alone"] = "alone" if len(rows) == 1 else "padded"
    return BatchResult(rows, layout, readings, prefill_s, len(rows), batching)


def _confidences(recorder: Recorder | None, rows: int) -> list[float | None]:
    return [None] * rows if recorder is None else recorder.confidences()


def _forward(feeder: _Feeder, recorder: Recorder | None, tokens_B: Tensor, active_B: Tensor, step: int) -> Tensor:
    if recorder is None:
        return feeder.prefill() if step == 0 else feeder.decode(tokens_B, step - 1)
    taps = feeder.runtime.taps
    sink = recorder.sink(prefill=step == 0)
    with taps.step(sink):
        logits_BV = feeder.prefill() if step == 0 else feeder.decode(tokens_B, step - 1)
    recorder.after_forward(sink, taps.take_attention(), active_B, step)
    return logits_BV
