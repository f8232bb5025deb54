"""Forward passes over the slot cache: prompts in pieces, then one token of every row, whatever their lengths."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from wonder.engine.constrain import Constraint, masked
from wonder.engine.layout import kinds_of, masks_by_position
from wonder.engine.loop import Runtime
from wonder.engine.recorder import ReadPlan
from wonder.engine.sampling import RowDraw, draw
from wonder.engine.slot_recorder import RowReadings, SlotRecorder, StepNumbers, join
from wonder.engine.slots import Feed, SlotCache
from wonder.engine.taps import StepSink

# Shape suffixes: B rows, D d_model, L layers, Q tokens fed per row, T key columns, V vocabulary.


class Pass:
    """What a forward pass gave each of its rows."""

    def __init__(self, logits_BV: Tensor, tokens_B: Tensor, numbers: StepNumbers | None) -> None:
        self.logits_BV = logits_BV
        self.tokens = [int(token) for token in tokens_B.tolist()]
        self.numbers = numbers

    def confidences(self) -> list[float | None]:
        """Probability of each row's token; a transfer, for those who stream."""
        if self.numbers is None:
            return [None] * len(self.tokens)
        names = [part.name for part in self.numbers.layout.floats]
        at = sum(part.width for part in self.numbers.layout.floats[: names.index("chosen")])
        values = self.numbers.floats_BF[:, at].tolist()
        return [min(1.0, value) if value == value else None for value in values]


class SlotRunner:
    """The model with its slot cache. Rows are numbered by the caller, who keeps the rows in use together."""

    def __init__(self, runtime: Runtime, rows: int) -> None:
        self.runtime = runtime
        self.cache = SlotCache(runtime.anatomy.n_layers)
        self.recorder = SlotRecorder(runtime.anatomy, rows, runtime.device)
        accepted = inspect.signature(runtime.model.forward).parameters
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        config = runtime.anatomy.config
        kinds = set(kinds_of(config, runtime.anatomy.n_layers))
        limits = [
            getattr(config, name, None) or None
            for name, kind in (("sliding_window", "sliding_attention"), ("attention_chunk_size", "chunked_attention"))
            if kind in kinds
        ]
        self._short = min((int(limit) for limit in limits if limit), default=None)
        """Up to so many keys no layer sees less than all of them; None: always."""

    def prefill(
        self,
        first: int,
        pieces: Sequence[Sequence[int]],
        start: int,
        readings: Sequence[RowReadings | None],
        draws: Sequence[RowDraw] | None,
        constraints: Sequence[Constraint | None] = (),
    ) -> Pass | None:
        """Feed pieces of prompts, all of one length, into rows that lie side by side.

        Args:
            first: First row.
            pieces: Token ids.
            start: Column of their first tokens.
            readings: What is read for each row.
            draws: How to draw the first token; None: more pieces will follow.
            constraints: What each row may write; empty: anything.
        """
        count, width = len(pieces), len(pieces[0])
        device = self.runtime.device
        ids = torch.tensor([list(piece) for piece in pieces], device=device)
        positions = torch.arange(start, start + width, device=device)[None].expand(count, -1)
        # From the beginning of a prompt the model makes its own causal masks, which its kernels know.
        mask = None if start == 0 else self._mask(positions[:1], start + width)
        plan = join(frozenset(item.plan for item in readings if item)) if any(readings) else None
        sink = None
        if plan is not None and (draws is not None or plan.state_layers):
            means = frozenset(plan.state_layers)
            sink = StepSink(rows=count, prefill=True, mean_layers=means, routers=plan.routers)
        watched = plan.attention_layers if plan is not None and draws is not None else ()
        feed = Feed(first, count, (start,) * count, start + width)
        logits_BV = self._forward(feed, sink, watched, ids, positions, mask, self._last_only)
        if plan is not None and plan.state_layers and sink is not None:
            self._pool(sink, plan, readings, start, width)
        if draws is None:
            return None
        done = self._read(logits_BV, plan, sink, readings, draws, constraints)
        if plan is not None and plan.state_layers:
            states_LBD = self._last_states(readings)
            self.recorder.start_sums(first, states_LBD)
            for at, item in enumerate(readings):
                if item is not None:
                    item.states["last_prompt"] = states_LBD[list(item.plan.state_layers), at].float()
        return done

    def decode(
        self,
        first: int,
        tokens: Sequence[int],
        lengths: Sequence[int],
        readings: Sequence[RowReadings | None],
        draws: Sequence[RowDraw],
        constraints: Sequence[Constraint | None] = (),
    ) -> Pass:
        """Feed one token per row.

        Args:
            first: First row.
            tokens: The latest token of each row.
            lengths: How many tokens each row holds, which is where its token goes.
            readings: What is read for each row.
            draws: How to draw the next one.
            constraints: What each row may write; empty: anything.
        """
        device = self.runtime.device
        fed = torch.tensor([tokens, lengths], device=device)
        longest = max(lengths) + 1
        even = min(lengths) == max(lengths)
        positions = fed[1][:, None]
        needed = not even or self.runtime.additive_masks or (self._short is not None and longest > self._short)
        mask = self._mask(positions, longest) if needed else None
        plan = join(frozenset(item.plan for item in readings if item)) if any(readings) else None
        sink = None if plan is None else StepSink(rows=len(tokens), routers=plan.routers)
        feed = Feed(first, len(tokens), tuple(lengths), longest, None if even else fed[1])
        layers = () if plan is None else plan.attention_layers
        logits_BV = self._forward(feed, sink, layers, fed[0][:, None], positions, mask, {})
        done = self._read(logits_BV, plan, sink, readings, draws, constraints)
        if plan is not None and plan.state_layers:
            self.recorder.add_to_sums(first, self._last_states(readings))
        return done

    def aggregates(self, readings: RowReadings, row: int) -> None:
        """Complete the states of a request that is about to leave its row."""
        layers = list(readings.plan.state_layers)
        if layers and readings.last_states is not None:
            states_LBD, at = readings.last_states
            readings.states["mean_generated"] = self.recorder.sums(row)[layers] / len(readings.steps)
            readings.states["last_generated"] = states_LBD[layers, at].float()

    def move(self, source: int, target: int, length: int, old_length: int) -> None:
        """Let a row take the place of one that has left."""
        self.cache.move(source, target, length, old_length)
        self.recorder.move(source, target)

    def _forward(
        self,
        feed: Feed,
        sink: StepSink | None,
        watched: Sequence[int],
        ids: Tensor,
        positions: Tensor,
        mask: Any,
        options: dict[str, Any],
    ) -> Tensor:
        """Raw logits (B, V) after each row's last token, float32."""
        taps = self.runtime.taps
        arguments = {
            "input_ids": ids,
            "attention_mask": mask,
            "position_ids": positions,
            "past_key_values": self.cache,
            "use_cache": True,
            **options,
        }
        taps.watch(watched)
        self.cache.feed = feed
        try:
            if sink is None:
                output = self.runtime.model(**arguments)
            else:
                with taps.step(sink):
                    output = self.runtime.model(**arguments)
        except BaseException:
            taps.watch(())
            raise
        finally:
            self.cache.feed = None
        logits: Tensor = output.logits[:, -1].float()
        return logits

    def _read(
        self,
        logits_BV: Tensor,
        plan: ReadPlan | None,
        sink: StepSink | None,
        readings: Sequence[RowReadings | None],
        draws: Sequence[RowDraw],
        constraints: Sequence[Constraint | None],
    ) -> Pass:
        tokens_B, drawn_B = draw(masked(logits_BV, constraints), draws)
        if plan is None or sink is None:
            return Pass(logits_BV, tokens_B, None)
        seen = self.runtime.taps.take_attention()
        numbers, states_LBD = self.recorder.read(plan, sink, seen, (logits_BV, tokens_B, drawn_B))
        for at, item in enumerate(readings):
            if item is not None:
                item.steps.append((numbers, at))
                item.last_states = (states_LBD, at)
        return Pass(logits_BV, tokens_B, numbers)

    def _last_states(self, readings: Sequence[RowReadings | None]) -> Tensor:
        return next(item.last_states[0] for item in readings if item is not None and item.last_states is not None)

    def _pool(
        self, sink: StepSink, plan: ReadPlan, readings: Sequence[RowReadings | None], start: int, width: int
    ) -> None:
        """Mean over the prompt so far, after one more piece of it."""
        device = self.runtime.device
        means_WBD = torch.stack([sink.prompt_means[layer].to(device) for layer in plan.state_layers])
        for at, item in enumerate(readings):
            if item is None or not item.plan.state_layers:
                continue
            places = [plan.state_layers.index(layer) for layer in item.plan.state_layers]
            mean_WD = means_WBD[places, at]
            before = item.states.get("mean_prompt")
            if before is not None and start > 0:
                mean_WD = (before * start + mean_WD * width) / (start + width)
            item.states["mean_prompt"] = mean_WD

    def _mask(self, positions_BQ: Tensor, columns: int) -> Any:
        keys_1T = torch.arange(columns, device=positions_BQ.device)[None]
        additive = self.runtime.model.dtype if self.runtime.additive_masks else None
        return masks_by_position(self.runtime.anatomy.config, positions_BQ, keys_1T, None, additive)
