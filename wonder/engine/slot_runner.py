"""Forward passes over the slot cache: prompts in pieces, then one token of every row, whatever their lengths."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from wonder.engine.attention import Seen
from wonder.engine.constrain import Constraint, masked
from wonder.engine.injection_batch import NOTHING, DecodePushes, Injected, Pushes, embedded, pushes
from wonder.engine.layout import kinds_of, masks_by_position
from wonder.engine.logits import confidences
from wonder.engine.loop import Runtime
from wonder.engine.recorder import ReadPlan
from wonder.engine.reductions import HEAD_COLUMNS
from wonder.engine.sampling import RowDraw, draw
from wonder.engine.slot_recorder import Place, RowReadings, SlotRecorder, StepNumbers, join
from wonder.engine.slots import Feed, SlotCache
from wonder.engine.taps import StepSink
from wonder.trace.layers import quarter

# Shape suffixes: B rows, D d_model, L layers, Q tokens fed per row, T key columns, V vocabulary.

Bounds = list[list[tuple[int, int, int, int]]]
"""First columns of each row's ranges, and one past their last ones."""


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
        at = sum(part.width for part in self.numbers.layout.floats[: names.index("best")])
        return confidences(self.numbers.floats_BF[:, at : at + 3])


class SlotRunner:
    """The model with its slot cache. Rows are numbered by the caller, who keeps the rows in use together."""

    def __init__(self, runtime: Runtime, rows: int) -> None:
        self.runtime = runtime
        self.cache = SlotCache(runtime.anatomy.n_layers, quarter(runtime.anatomy.n_layers))
        self.recorder = SlotRecorder(runtime.anatomy, rows, runtime.device)
        self._decode_pushes = DecodePushes()
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
        injections: Sequence[Injected | None] = (),
    ) -> Pass | None:
        """Feed pieces of prompts into rows that lie side by side.

        Args:
            first: First row.
            pieces: Token ids. Whole prompts may differ in length: the shorter ones are padded on the right, where no
                token of theirs sees it.
            start: Column of their first tokens.
            readings: What is read for each row.
            draws: How to draw the first token; None: more pieces will follow.
            constraints: What each row may write; empty: anything.
            injections: What is put into the model for each row; empty: nothing.
        """
        self.runtime.experts.for_prompts()
        count, width = len(pieces), max(map(len, pieces))
        device = self.runtime.device
        ids = torch.tensor([[*piece, *[self.runtime.pad_id] * (width - len(piece))] for piece in pieces], device=device)
        real_BQ, last_B = _padding(pieces, width, device)
        positions = torch.arange(start, start + width, device=device)[None].expand(count, -1)
        # From the beginning of a prompt the model makes its own causal masks, which its kernels know.
        mask = None if start == 0 else self._mask(positions[:1], start + width)
        plan = join(frozenset(item.plan for item in readings if item)) if any(readings) else None
        sink = None
        if plan is not None and (draws is not None or plan.state_layers or plan.prompt_rows):
            means = frozenset(plan.state_layers)
            sink = StepSink(
                rows=count, prefill=True, mean_layers=means, routers=plan.routers, all_rows=plan.prompt_rows
            )
            sink.real_BS, sink.last_columns_B = real_BQ, last_B
        watched = plan.attention_layers if plan is not None and (draws is not None or plan.prompt_rows) else ()
        feed = Feed(first, count, (start,) * count, start + width, real_BQ=real_BQ)
        inputs, pushed = {"input_ids": ids}, NOTHING
        if any(injections):
            inputs = embedded(ids, injections, [start] * count, self.runtime.embed)
            last = None if draws is None else [len(piece) - 1 for piece in pieces]
            pushed = pushes(injections, width, device, last=last, real_BQ=real_BQ)
        with self._only(last_B):
            options = self._last_only if last_B is None else {}
            logits_BV = self._forward(feed, sink, watched, inputs, pushed, positions, mask, options, last_B)
        self.cache.stack_keys()
        seen = self.runtime.taps.take_attention()
        self.recorder.add_prompt_rows(seen, readings, real_BQ)
        if plan is not None and plan.state_layers and sink is not None:
            self._pool(sink, plan, readings, start, width)
        if draws is None:
            return None
        fed = [start + len(piece) for piece in pieces]
        for item, length in zip(readings, fed, strict=True):
            if item is not None:
                item.prompt = length
        bounds_2BK = None
        if plan is not None and plan.heads:
            bounds_2BK = torch.tensor(_head_columns([length - 1 for length in fed], readings), device=device)
        place = Place(feed, (), bounds_2BK)
        done = self._read(logits_BV, plan, sink, seen, place, readings, draws, constraints)
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
        injections: Sequence[Injected | None] = (),
    ) -> Pass:
        """Feed one token per row.

        Args:
            first: First row.
            tokens: The latest token of each row.
            lengths: How many tokens each row holds, which is where its token goes.
            readings: What is read for each row.
            draws: How to draw the next one.
            constraints: What each row may write; empty: anything.
            injections: What is put into the model for each row; empty: nothing.
        """
        self.runtime.experts.for_tokens()
        device = self.runtime.device
        plan = join(frozenset(item.plan for item in readings if item)) if any(readings) else None
        heads = plan is not None and plan.heads
        bounds: Bounds = _head_columns(lengths, readings) if heads else []
        # One transfer for everything that the host knows of this step.
        numbers = torch.tensor([*tokens, *lengths, *_flat(bounds)], device=device)
        fed = numbers[: 2 * len(tokens)].view(2, -1)
        bounds_2BK = numbers[2 * len(tokens) :].view(2, len(tokens), HEAD_COLUMNS) if heads else None
        longest = max(lengths) + 1
        even = min(lengths) == max(lengths)
        positions = fed[1][:, None]
        needed = not even or self.runtime.additive_masks or (self._short is not None and longest > self._short)
        mask = self._mask(positions, longest) if needed else None
        sink = None if plan is None else StepSink(rows=len(tokens), routers=plan.routers)
        feed = Feed(first, len(tokens), tuple(lengths), longest, None if even else fed[1])
        layers = () if plan is None else plan.attention_layers
        pushed = self._decode_pushes(injections, device)
        logits_BV = self._forward(feed, sink, layers, {"input_ids": fed[0][:, None]}, pushed, positions, mask, {})
        seen = self.runtime.taps.take_attention()
        place = Place(feed, self.cache.stacks, bounds_2BK)
        done = self._read(logits_BV, plan, sink, seen, place, readings, draws, constraints)
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
        inputs: dict[str, Tensor],
        pushed: Pushes,
        positions: Tensor,
        mask: Any,
        options: dict[str, Any],
        last_B: Tensor | None = None,
    ) -> Tensor:
        """Raw logits (B, V) after each row's last token, float32; `last_B` is its column, None: the last one."""
        taps = self.runtime.taps
        arguments = {
            **inputs,
            "attention_mask": mask,
            "position_ids": positions,
            "past_key_values": self.cache,
            "use_cache": True,
            **options,
        }
        taps.watch(watched)
        taps.pushes = pushed
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
            taps.pushes = NOTHING
        logits_BQV: Tensor = output.logits
        if last_B is None or logits_BQV.shape[1] == 1:
            return logits_BQV[:, -1].float()
        return logits_BQV[torch.arange(len(last_B), device=logits_BQV.device), last_B.to(logits_BQV.device)].float()

    @contextmanager
    def _only(self, columns_B: Tensor | None) -> Iterator[None]:
        """Let the output embedding see one column of each row, so that the logits of the others never exist."""
        head: nn.Module | None = self.runtime.model.get_output_embeddings()  # type: ignore[no-untyped-call]
        if columns_B is None or head is None:
            yield
            return

        def pick(_module: nn.Module, args: tuple[Any, ...]) -> Any:
            states_BQD = args[0]
            at_B = columns_B.to(states_BQD.device)
            return states_BQD[torch.arange(len(at_B), device=at_B.device), at_B][:, None], *args[1:]

        handle = head.register_forward_pre_hook(pick)
        try:
            yield
        finally:
            handle.remove()

    def _read(
        self,
        logits_BV: Tensor,
        plan: ReadPlan | None,
        sink: StepSink | None,
        seen: Sequence[Seen],
        place: Place,
        readings: Sequence[RowReadings | None],
        draws: Sequence[RowDraw],
        constraints: Sequence[Constraint | None],
    ) -> Pass:
        tokens_B, drawn_B = draw(masked(logits_BV, constraints), draws)
        if plan is None or sink is None:
            return Pass(logits_BV, tokens_B, None)
        numbers, states_LBD = self.recorder.read(plan, sink, seen, (logits_BV, tokens_B, drawn_B), place)
        layers = plan.step_layers
        kept_WBD = states_LBD[list(layers)] if layers else None
        for at, item in enumerate(readings):
            if item is not None:
                if kept_WBD is not None and item.plan.step_layers:
                    item.kept.append((layers, kept_WBD, at))
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


def _padding(pieces: Sequence[Sequence[int]], width: int, device: torch.device) -> tuple[Tensor | None, Tensor | None]:
    """Where tokens stand (B, Q), and the column of each row's last one; None where there is no padding."""
    if min(map(len, pieces)) == width:
        return None, None
    last_B = torch.tensor([len(piece) - 1 for piece in pieces], device=device)
    return torch.arange(width, device=device)[None] <= last_B[:, None], last_B


def _head_columns(lengths: Sequence[int], readings: Sequence[RowReadings | None]) -> Bounds:
    """Where the ranges of `head_numbers` begin, and where they end, with each row's token in column `length`."""
    prompts = [0 if item is None else item.prompt for item in readings]
    low = [(length - 1, length, 1, prompt) for length, prompt in zip(lengths, prompts, strict=True)]
    high = [(length, length + 1, prompt, length + 1) for length, prompt in zip(lengths, prompts, strict=True)]
    return [low, high]


def _flat(bounds: Bounds) -> list[int]:
    return [number for kind in bounds for row in kind for number in row]
