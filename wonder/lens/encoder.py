"""`Encoder`: a short text back into an activation; the target's first blocks, and a head that begins as identity."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from wonder.anatomy import examine
from wonder.errors import SettingNotSupported

# Shape suffixes: B texts, T tokens of a text, D d_model.


class Encoder(nn.Module):
    """Reads texts. Untrained, it gives the very state that the target would have after `left` and the text."""

    def __init__(self, model: PreTrainedModel, layer: int, *, left: Sequence[int]) -> None:
        """Take a copy of the target over and cut it after block `layer`.

        Args:
            model: A copy of the target; trained, and shortened.
            layer: The lens's layer.
            left: Token ids before the text, such as the first token of every sequence.

        Raises:
            SettingNotSupported: The model has no such block.
        """
        super().__init__()
        anatomy = examine(model)
        if not 0 <= layer < anatomy.n_layers:
            raise SettingNotSupported(f"layer {layer}: the model has blocks 0 to {anatomy.n_layers - 1}")
        base, name = _holder(model, anatomy.blocks[0])
        setattr(base, name, nn.ModuleList(anatomy.blocks[: layer + 1]))
        anatomy.config.num_hidden_layers = layer + 1
        for listed in ("layer_types", "mlp_layer_types", "no_rope_layers"):
            # One entry per block: a configuration that lists more of them than it has blocks does not load again.
            if isinstance(kinds := getattr(anatomy.config, listed, None), list):
                setattr(anatomy.config, listed, kinds[: layer + 1])
        self.base = base
        # In a list: they are parts of `base`, and a part that is registered twice is saved twice.
        self._parts = [model.get_input_embeddings(), anatomy.blocks[layer]]
        self._blocks = anatomy.blocks[: layer + 1]
        self.head = nn.Linear(anatomy.d_model, anatomy.d_model)
        nn.init.eye_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.register_buffer("left_P", torch.tensor(list(left), dtype=torch.long))

    @property
    def blocks(self) -> list[nn.Module]:
        """The blocks that are run."""
        return self._blocks[:]

    @property
    def embedding(self) -> nn.Embedding:
        """The table of token embeddings."""
        return cast(nn.Embedding, self._parts[0])

    def embed(self, ids_BT: Tensor) -> Tensor:
        """The embeddings of a text, which `forward` reads: (B, T, D)."""
        return cast(Tensor, self.embedding(ids_BT))

    def forward(self, embeds_BTD: Tensor) -> Tensor:
        """The activation that a text stands for, (B, D) float32; gradients flow to the embeddings."""
        left = self.embedding(cast(Tensor, self.left_P)).expand(embeds_BTD.shape[0], -1, -1)
        seen: list[Tensor] = []

        def watch(module: nn.Module, args: Any, output: Any) -> None:  # noqa: ARG001 - the signature of a hook
            seen.append(output[0] if isinstance(output, tuple) else output)

        handle = self._parts[1].register_forward_hook(watch)
        try:
            self.base(inputs_embeds=torch.cat([left, embeds_BTD.to(left.dtype)], 1), use_cache=False)
        finally:
            handle.remove()
        return cast(Tensor, self.head(seen[0][:, -1].float()))


def _holder(model: nn.Module, block: nn.Module) -> tuple[nn.Module, str]:
    """The module that holds the list of blocks, and its name there."""
    for part in model.modules():
        for name, child in part.named_children():
            if isinstance(child, nn.ModuleList) and len(child) and child[0] is block:
                return part, name
    raise AssertionError("the blocks were found in this model")
