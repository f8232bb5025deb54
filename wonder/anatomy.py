"""Finds the parts of a model that are read (blocks, routers, sizes) by structure and declaration, never by name."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from torch import nn
from transformers import PreTrainedModel

from wonder.errors import ModelNotUsable

RECURRENT: Final = ("linear", "mamba", "conv", "recurrent", "hybrid", "ssm")
"""Parts of the layer types whose state is not a key-value cache, so that padding would enter it."""


@dataclass(frozen=True)
class Router:
    """A module that chooses experts."""

    key: str
    """Name in the trace: the layer's number, with the module's name where a layer has several."""
    layer: int
    module: nn.Module
    index: int
    """Where its logits stand among its outputs."""
    shared: int = 0
    """Experts beside it that run for every token."""


@dataclass(frozen=True)
class Anatomy:
    """What the engine knows of a loaded model."""

    config: Any
    """Of the text model."""
    blocks: list[nn.Module]
    """Decoder blocks, in order."""
    routers: list[Router]
    d_model: int
    vocabulary: int
    context_length: int | None
    is_recurrent: bool
    """Whether some layer keeps a running state, so that only prompts of equal length share a batch."""

    @property
    def n_layers(self) -> int:
        """Number of decoder blocks."""
        return len(self.blocks)


def examine(model: PreTrainedModel) -> Anatomy:
    """Look a model over.

    Raises:
        ModelNotUsable: It has no stack of decoder blocks.
    """
    config = model.config.get_text_config(decoder=True)
    name, blocks = _blocks(model, int(config.num_hidden_layers))
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    weight = getattr(head, "weight", None)
    kinds = [str(kind) for kind in getattr(config, "layer_types", None) or ()]
    return Anatomy(
        config=config,
        blocks=blocks,
        routers=list(_routers(model, name)),
        d_model=int(config.hidden_size),
        vocabulary=int(weight.shape[0]) if weight is not None and weight.ndim == 2 else int(config.vocab_size),
        context_length=_context_length(config),
        is_recurrent=bool(getattr(model, "_is_stateful", False))
        or any(part in kind for kind in kinds for part in RECURRENT),
    )


def _blocks(model: nn.Module, count: int) -> tuple[str, list[nn.Module]]:
    found = [
        (name, list(module))
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count
    ]
    if not found:
        raise ModelNotUsable(
            f"{type(model).__name__} has no list of {count} decoder blocks, so its states cannot be read: "
            "use a decoder-only causal language model"
        )
    # Lists of experts may have the same length, but they lie deeper.
    return min(found, key=lambda item: item[0].count("."))


def _context_length(config: Any) -> int | None:
    for name in ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx"):
        value = getattr(config, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return None


def _routers(model: PreTrainedModel, blocks_name: str) -> Iterator[Router]:
    declared: list[tuple[type[nn.Module], int]] = []
    for part in model.modules():
        if not isinstance(part, PreTrainedModel):
            continue
        recorders = (getattr(part, "_can_record_outputs", None) or {}).get("router_logits") or []
        for recorder in recorders if isinstance(recorders, list | tuple) else [recorders]:
            target = getattr(recorder, "target_class", recorder)
            if isinstance(target, type) and (target, getattr(recorder, "index", 0)) not in declared:
                declared.append((target, getattr(recorder, "index", 0)))
    found = []
    for name, module in model.named_modules():
        for target, index in declared:
            if isinstance(module, target) and name.startswith(f"{blocks_name}."):
                number, _, rest = name[len(blocks_name) + 1 :].partition(".")
                found.append((int(number), rest, module, index))
                break
    layers = [number for number, *_ in found]
    for number, rest, module, index in found:
        key = str(number) if layers.count(number) == 1 else f"{number}.{rest}"
        around = model.get_submodule(f"{blocks_name}.{number}.{rest}".rpartition(".")[0])
        yield Router(key, number, module, index, _shared(around, model.config.get_text_config(decoder=True)))


def _shared(around: nn.Module, config: Any) -> int:
    """How many experts beside a router run for every token; a model has one module for all of them."""
    # There is no declaration to go by: the name is the family's habit (shared_expert, shared_experts, shared_mlp).
    parts = [part for name, part in around.named_children() if name.startswith("shared") and any(part.children())]
    if not parts:
        return 0
    counts = (
        getattr(config, name, None) for name in ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts")
    )
    return next((count for count in counts if isinstance(count, int) and count > 0), len(parts))
