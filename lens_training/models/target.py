"""`TargetModel`: the frozen model, its activation at one layer, and its next token with another activation put in.

An *activation* is `resid_post` of block `layer` (the block's output, before any final norm) at one position.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from wonder.anatomy import Anatomy, examine
from wonder.errors import ModelNotUsable, SettingNotSupported

# Shape suffixes: B rows, S tokens of the context, D d_model, V vocabulary, H heads, K head size.


@dataclass(frozen=True)
class Captured:
    """What one forward pass of the target gives."""

    activation_BD: Tensor
    final_BD: Tensor
    """The state that the head reads at the same position: `head(final)` are the original logits."""


@dataclass(frozen=True)
class Prefix:
    """Keys and values of a context in the blocks above the layer, so that one token can be run on top of it."""

    keys: Sequence[Tensor]
    """Per block above the layer: (B, H, S, K)."""
    values: Sequence[Tensor]
    final_BSD: Tensor


class TargetModel(nn.Module):
    """A frozen causal language model, read and replaced at one layer."""

    def __init__(self, model: PreTrainedModel, layer: int) -> None:
        """Take a model over; its parameters stop asking for gradients.

        Raises:
            ModelNotUsable: Its blocks, or the state its head reads, cannot be found.
            SettingNotSupported: There is no such layer.
        """
        super().__init__()
        self.model = model
        model.train(False).requires_grad_(False)
        self.anatomy: Anatomy = examine(model)
        if not 0 <= layer < self.anatomy.n_layers - 1:
            raise SettingNotSupported(
                f"layer {layer}: the model has blocks 0 to {self.anatomy.n_layers - 1}, and at least one must come "
                f"after the lens, so 0 to {self.anatomy.n_layers - 2} can be read"
            )
        self.layer = layer
        head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
        if not isinstance(head, nn.Module):
            raise ModelNotUsable(f"{type(model).__name__} has no output embedding, so there is no head to read")
        self.head = head
        # By structure: `base_model` of some families is the model itself. In a list, so as not to be a part twice.
        self._base = [
            part
            for part in model.modules()
            if any(isinstance(c, nn.ModuleList) and [*c][:1] == self.anatomy.blocks[:1] for c in part.children())
        ]
        self.d_model = self.anatomy.d_model
        self.vocabulary = self.anatomy.vocabulary

    @property
    def base(self) -> nn.Module:
        """The model without its head: what holds the blocks."""
        return self._base[0]

    @property
    def embedding(self) -> nn.Module:
        """The table of token embeddings."""
        return self.model.get_input_embeddings()

    @property
    def can_use_suffix(self) -> bool:
        """Whether one token can be run on top of stored keys and values: not where a block keeps a running state."""
        return not self.anatomy.is_recurrent

    @torch.no_grad()
    def capture(self, ids_BS: Tensor, pos_B: Tensor) -> Captured:
        """The activation at a position of each row, and the state its head reads there.

        Args:
            ids_BS: Token ids without padding before `pos`; what follows a position does not matter.
            pos_B: Position of each row.
        """
        rows = torch.arange(len(pos_B), device=ids_BS.device)
        with self._watched() as seen:
            final_BSD = self.base(input_ids=ids_BS, use_cache=False)[0]
        return Captured(seen[0][rows, pos_B], final_BSD[rows, pos_B])

    def logits(self, final: Tensor) -> Tensor:
        """Next-token logits of states that the head reads, float32, shape (…, V)."""
        logits = self.head(final)
        scale = getattr(self.anatomy.config, "logit_scale", None)
        logits = logits if scale is None else logits * scale
        cap = getattr(self.anatomy.config, "final_logit_softcapping", None)
        return cast(Tensor, logits if cap is None else torch.tanh(logits / cap) * cap).float()

    def logits_with_replacement(
        self,
        ids_BS: Tensor,
        pos_B: Tensor,
        replacement_BD: Tensor,
        mode: Literal["full", "suffix"] = "suffix",
        prefix: Prefix | None = None,
    ) -> Tensor:
        """Next-token logits at each row's position with its activation replaced, float32 (B, V).

        Only the rows' own positions are replaced; gradients flow to `replacement_BD`.

        Args:
            ids_BS: Token ids.
            pos_B: Position of each row.
            replacement_BD: What is put there.
            mode: `full` runs every block over every token; `suffix` runs one token through the blocks above the layer
                against stored keys and values. Both are the same function.
            prefix: What `prefix` gave for these ids; made here if it is None and needed.
        """
        if mode == "full":
            return self._full(ids_BS, pos_B, replacement_BD)
        return self._suffix(self.prefix(ids_BS) if prefix is None else prefix, pos_B, replacement_BD)

    @torch.no_grad()
    def prefix(self, ids_BS: Tensor) -> Prefix:
        """Keys and values of every token in the blocks above the layer.

        Raises:
            SettingNotSupported: The model keeps running states, which no position can be taken out of.
        """
        if not self.can_use_suffix:
            raise SettingNotSupported("this model keeps running states: use mode='full' for replacements")
        scale = getattr(self.anatomy.config, "floor_scale", None)
        if scale and getattr(self.anatomy.config, "attn_temperature_tuning", False) and ids_BS.shape[1] >= scale:
            raise SettingNotSupported(
                f"this model scales attention by position from {scale} tokens on: use mode='full', or shorter contexts"
            )
        cache = _Recording(self.anatomy.n_layers)
        final_BSD = self.base(input_ids=ids_BS, past_key_values=cache, use_cache=True)[0]
        above = range(self.layer + 1, self.anatomy.n_layers)
        return Prefix([cache.keys[at] for at in above], [cache.values[at] for at in above], final_BSD)

    def _full(self, ids_BS: Tensor, pos_B: Tensor, replacement_BD: Tensor) -> Tensor:
        rows = torch.arange(len(pos_B), device=ids_BS.device)

        def replace(module: nn.Module, args: Any, output: Any) -> Any:  # noqa: ARG001 - the signature of a hook
            states = output[0] if isinstance(output, tuple) else output
            changed = states.clone()
            changed[rows, pos_B] = replacement_BD.to(states.dtype)
            return (changed, *output[1:]) if isinstance(output, tuple) else changed

        handle = self.anatomy.blocks[self.layer].register_forward_hook(replace)
        try:
            final_BSD = self.base(input_ids=ids_BS, use_cache=False)[0]
        finally:
            handle.remove()
        return self.logits(final_BSD[rows, pos_B])

    def _suffix(self, prefix: Prefix, pos_B: Tensor, replacement_BD: Tensor) -> Tensor:
        length = prefix.keys[0].shape[2]
        cache = _OnTop(self.anatomy.n_layers, self.layer + 1, prefix)
        token_B1D = replacement_BD[:, None].to(prefix.final_BSD.dtype)
        with self._replaced(token_B1D):
            final_B1D = self.base(
                inputs_embeds=token_B1D,
                position_ids=pos_B[:, None],
                attention_mask=self._masks(pos_B, length),
                past_key_values=cache,
                use_cache=True,
            )[0]
        return self.logits(final_B1D[:, 0])

    def _masks(self, pos_B: Tensor, length: int) -> Tensor | dict[str, Tensor]:
        """Which keys the one token sees: those before its position, and its own, which stands last."""
        key = torch.arange(length + 1, device=pos_B.device)[None]
        at = pos_B[:, None]
        own = key == length
        config = self.anatomy.config
        window = getattr(config, "sliding_window", None)
        chunk = getattr(config, "attention_chunk_size", None)
        seen = key < at
        masks = {"full_attention": seen}
        if window:
            masks["sliding_attention"] = seen & (key > at - window)
        if chunk:
            masks["chunked_attention"] = seen & (key // chunk == at // chunk)
        finished = {kind: self._additive((mask | own)[:, None, None]) for kind, mask in masks.items()}
        kinds = set(getattr(config, "layer_types", None) or ())
        if len(kinds) > 1:
            return finished
        (kind,) = kinds or {"sliding_attention" if window and len(masks) == 2 else "full_attention"}
        return finished.get(kind, finished["full_attention"])

    def _additive(self, mask: Tensor) -> Tensor:
        # An eager implementation adds what it is given, so a boolean mask would be wrong there.
        dtype = self.model.dtype
        return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)

    @contextmanager
    def _watched(self) -> Iterator[list[Tensor]]:
        seen: list[Tensor] = []

        def watch(module: nn.Module, args: Any, output: Any) -> None:  # noqa: ARG001 - the signature of a hook
            seen.append(output[0] if isinstance(output, tuple) else output)

        handle = self.anatomy.blocks[self.layer].register_forward_hook(watch)
        try:
            yield seen
        finally:
            handle.remove()

    @contextmanager
    def _replaced(self, token_B1D: Tensor) -> Iterator[None]:
        """The blocks up to the layer compute nothing, and the layer's own gives the replacement.

        The model's own forward then does everything else (positions, rotations, masks, norm), for every architecture.
        """
        with ExitStack() as stack:
            for block in self.anatomy.blocks[: self.layer + 1]:
                stack.enter_context(_giving(block, token_B1D))
            yield


@contextmanager
def _giving(block: nn.Module, states: Tensor) -> Iterator[None]:
    def forward(*args: Any, **kwargs: Any) -> Tensor:  # noqa: ARG001 - stands in for the block's own
        return states

    before = block.__dict__.get("forward")
    block.__dict__["forward"] = forward
    try:
        yield
    finally:
        if before is None:
            del block.__dict__["forward"]
        else:
            block.__dict__["forward"] = before


class _Layers(Cache):
    """A cache that is no container of layers: `update` is all that the blocks need."""

    def __init__(self, count: int) -> None:
        super().__init__(layers=[])
        self.count = count

    def __len__(self) -> int:
        return self.count

    def get_seq_length(self, layer_idx: int = 0) -> int:  # noqa: ARG002
        return 0

    def get_query_offset(self, layer_idx: int = 0) -> int:  # noqa: ARG002
        return 0


class _Recording(_Layers):
    """Keeps the keys and values of a whole context."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        layer_idx: int,
        *args: Any,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> tuple[Tensor, Tensor]:
        self.keys[layer_idx], self.values[layer_idx] = key_states, value_states
        return key_states, value_states

    def get_mask_sizes(self, query_length: Any, layer_idx: int = 0) -> tuple[int, int]:  # noqa: ARG002
        return (query_length if isinstance(query_length, int) else len(query_length)), 0


class _OnTop(_Layers):
    """Gives back what is stored with the one new token after it, and stores nothing."""

    def __init__(self, count: int, first: int, prefix: Prefix) -> None:
        super().__init__(count)
        self.first = first
        self.prefix = prefix

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        layer_idx: int,
        *args: Any,  # noqa: ARG002
        **kwargs: Any,  # noqa: ARG002
    ) -> tuple[Tensor, Tensor]:
        at = layer_idx - self.first
        return (
            torch.cat([self.prefix.keys[at], key_states], 2),
            torch.cat([self.prefix.values[at], value_states], 2),
        )

    def get_mask_sizes(self, query_length: Any, layer_idx: int = 0) -> tuple[int, int]:  # noqa: ARG002
        return self.prefix.keys[0].shape[2] + 1, 0
