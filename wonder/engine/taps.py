"""The hooks on a model: each keeps one reference per layer; the arithmetic happens elsewhere, once per step."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from wonder.anatomy import Anatomy, Router
from wonder.engine.attention import TAP, WAITING_BYTES, AttentionTap, Seen
from wonder.engine.injection_batch import NOTHING, Pushes
from wonder.engine.reductions import masked_mean

# Shape suffixes: B rows, D d_model, E experts, K experts per token, S columns being fed.


@dataclass
class StepSink:
    """What the hooks leave behind in one forward pass."""

    states: dict[int, Tensor] = field(default_factory=dict)
    """Layer → state (B, D) that produces the next token."""
    prompt_means: dict[int, Tensor] = field(default_factory=dict)
    """Layer → mean over the prompt (B, D), float32; prefill only, layers in `mean_layers`."""
    choices: dict[str, Tensor] = field(default_factory=dict)
    """Router → experts chosen (B, K) for the token being fed last."""
    gates: dict[str, Tensor] = field(default_factory=dict)
    """Router → its raw logits (B, E) for that token."""
    experts: dict[str, int] = field(default_factory=dict)
    """Router → number of experts."""
    unread: dict[str, str] = field(default_factory=dict)
    """Router → why its choice is unknown."""
    calls: dict[int, int] = field(default_factory=dict)
    """Layer → how often its block ran."""

    rows: int = 0
    prefill: bool = False
    """Said by the loop, because a prompt may have one token."""
    real_BS: Tensor | None = None
    """Prefill: where prompt tokens stand; None: everywhere."""
    last_columns_B: Tensor | None = None
    """Prefill with padding on the right: each row's last prompt column."""
    mean_layers: frozenset[int] = frozenset()
    clones: bool = False
    """Copy states instead of referring to them, for models that change them in place later."""
    routers: bool = True
    all_rows: bool = False
    """Prefill: read the attention of every query, not only of the last one."""


class Taps:
    """All hooks of one model; idle until a sink is opened."""

    def __init__(self, anatomy: Anatomy) -> None:
        self._anatomy = anatomy
        self._sink: StepSink | None = None
        self._attention: list[AttentionTap] = []
        self._waiting_bytes = 0.0
        self.attention_modules: dict[int, nn.Module] = {}
        """Layer → the module whose attention calls are watched; found by the self-check."""
        self.clones = False
        self.pushes: Pushes = NOTHING
        """What is added to the states of which layers in the forward pass under way; set and taken back by the loop."""
        self._handles = [
            block.register_forward_hook(self._block_hook(layer)) for layer, block in enumerate(anatomy.blocks)
        ]
        self._handles += [router.module.register_forward_hook(self._router_hook(router)) for router in anatomy.routers]

    def close(self) -> None:
        """Take all hooks off."""
        for handle in self._handles:
            handle.remove()

    @contextmanager
    def watch_attention(self, layers: Sequence[int]) -> Iterator[None]:
        """Read the attention of these layers while the block runs."""
        self.watch(layers)
        try:
            yield
        finally:
            self.watch(())

    def watch(self, layers: Sequence[int]) -> None:
        """Read the attention of these layers, and of no others, from now on."""
        wanted = tuple(layer for layer in layers if layer in self.attention_modules)
        if wanted == tuple(tap.layer for tap in self._attention):
            return
        for tap in self._attention:
            self.attention_modules[tap.layer].__dict__.pop(TAP, None)
        self._attention = [AttentionTap(layer) for layer in wanted]
        if wanted:
            weight = next(self.attention_modules[wanted[0]].parameters(), None)
            on_cpu = weight is not None and weight.device.type == "cpu"
            self._waiting_bytes = WAITING_BYTES / len(wanted) if on_cpu else math.inf
        for tap in self._attention:
            self.attention_modules[tap.layer].__dict__[TAP] = tap

    @contextmanager
    def step(self, sink: StepSink) -> Iterator[None]:
        """Let the hooks fill this sink during one forward pass."""
        sink.clones = sink.clones or self.clones
        for tap in self._attention:
            tap.seen.clear()
            tap.last_columns_B = sink.last_columns_B
            tap.waiting_bytes = 0.0 if sink.prefill else self._waiting_bytes
            tap.all_rows = sink.prefill and sink.all_rows
        self._sink = sink
        try:
            yield
        finally:
            self._sink = None

    def take_attention(self) -> list[Seen]:
        """What the attention taps saw in the last step; the references are handed over."""
        seen = [item for tap in self._attention for item in tap.seen]
        for tap in self._attention:
            tap.seen.clear()
        return seen

    def _block_hook(self, layer: int) -> Any:
        def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
            push = self.pushes.get(layer) if self.pushes else None
            if push is None:
                read(output if isinstance(output, Tensor) else output[0])
                return None
            # One hook for both, so that what is read is what the next layer gets.
            states_BSD = push.apply(output if isinstance(output, Tensor) else output[0])
            read(states_BSD)
            return states_BSD if isinstance(output, Tensor) else (states_BSD, *output[1:])

        def read(states_BSD: Tensor) -> None:
            sink = self._sink
            if sink is None:
                return
            sink.calls[layer] = sink.calls.get(layer, 0) + 1
            if not sink.prefill:
                state = states_BSD[:, -1]
                sink.states[layer] = state.clone() if sink.clones else state
                return
            # A clone: a view of the last column would keep the whole prompt's states alive.
            sink.states[layer] = _last_column(states_BSD, sink.last_columns_B).clone()
            if layer in sink.mean_layers:
                real_BS = sink.real_BS
                sink.prompt_means[layer] = (
                    states_BSD.mean(1, dtype=torch.float32)
                    if real_BS is None
                    else masked_mean(states_BSD, real_BS.to(states_BSD.device))
                )

        return hook

    def _router_hook(self, router: Router) -> Any:
        def hook(module: nn.Module, _args: Any, output: Any) -> None:
            sink = self._sink
            if sink is None or not sink.routers:
                return
            found = choice_of(module, output, router.index)
            if isinstance(found, str):
                sink.unread[router.key] = found
                return
            for part, kept in zip(found, (sink.choices, sink.gates), strict=True):
                last = _last_column(part.reshape(sink.rows, -1, part.shape[-1]), sink.last_columns_B)
                kept[router.key] = last.clone() if sink.prefill or sink.clones else last
            sink.experts[router.key] = int(found[1].shape[-1])

        return hook


def choice_of(module: nn.Module, output: Any, index: int) -> tuple[Tensor, Tensor] | str:
    """The experts that a router really chose, (tokens, K), and its raw logits, (tokens, E); or why they are not known.

    The largest router logits are not the choice where a correction bias or groups take part, so the indices are
    taken from the router's own output.
    """
    parts = [part for part in (output if isinstance(output, tuple | list) else [output]) if isinstance(part, Tensor)]
    if not isinstance(output, tuple | list) or index >= len(output) or not isinstance(output[index], Tensor):
        return "the router does not give out its choice"
    experts = int(output[index].shape[-1])
    chosen = [part for part in parts if not part.is_floating_point() and part.ndim >= 2 and part.shape[-1] <= experts]
    if len(chosen) == 1:
        return chosen[0], output[index]
    top_k = getattr(module, "top_k", None)
    others = [part for at, part in enumerate(output) if at != index and isinstance(part, Tensor)]
    if not chosen and len(others) == 1 and others[0].shape == output[index].shape and isinstance(top_k, int):
        # Llama 4: scores that are 0 for every expert that was not chosen.
        return others[0].topk(top_k, -1).indices, output[index]
    return "the router does not give out its choice"


def _last_column(states_BSX: Tensor, columns_B: Tensor | None) -> Tensor:
    if columns_B is None or states_BSX.shape[1] == 1:
        return states_BSX[:, -1]
    rows_B = torch.arange(states_BSX.shape[0], device=states_BSX.device)
    return states_BSX[rows_B, columns_B.to(states_BSX.device)]
