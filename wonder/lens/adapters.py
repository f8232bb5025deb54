"""Lenses that are low-rank additions to the model that is served: its weights are shared, and it stays as it is."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from wonder.errors import CorruptBundle, LensMismatch, SettingNotSupported

ADAPTER_FILE: Final = "adapter.safetensors"
"""In a bundle's folders `decoder` and `encoder`: `<map>.down` (rank, in), `<map>.up` (out, rank), `<map>.scale` ()."""


class LowRank(nn.Module):
    """A linear map, and the low-rank one that was trained beside it."""

    def __init__(self, base: nn.Module, down_RI: Tensor, up_OR: Tensor, scale: float) -> None:
        super().__init__()
        self.base = base
        self.register_buffer("down_RI", down_RI)
        self.register_buffer("up_OR", up_OR)
        self.scale = scale

    @property
    def weight(self) -> Any:
        """Of the map that is added to: some models look at its dtype."""
        return self.base.weight

    def forward(self, x: Tensor) -> Tensor:
        """Both, in the dtype of the map that is added to."""
        down_RI: Any = self.down_RI
        up_OR: Any = self.up_OR
        found: Tensor = self.base(x)
        small = nn.functional.linear(nn.functional.linear(x.to(down_RI.dtype), down_RI), up_OR) * self.scale
        return (found + small).to(found.dtype)


def bare_copy(model: PreTrainedModel) -> PreTrainedModel:
    """The same model once more, without hooks and wrappers; parameters and buffers are those of the first.

    Raises:
        SettingNotSupported: It is quantised, or lies on several devices.
    """
    devices = {parameter.device for parameter in model.parameters()}
    if getattr(model, "is_quantized", False) or len(devices) != 1 or torch.device("meta") in devices:
        raise SettingNotSupported(
            "a lens of adapters shares the weights of the model it is served with, which must be whole, on one device "
            "and not quantised: serve it so, or give a lens with weights of its own"
        )
    # Built from its own description: a copy of the object would copy the hooks and what they write to.
    config = type(model.config).from_dict(model.config.to_dict())
    with torch.device("meta"):
        made: Any = type(model)(config)
    for kind, named in (("_parameters", "named_parameters"), ("_buffers", "named_buffers")):
        live = dict(getattr(model, named)(remove_duplicate=False))
        for name, wanted in getattr(made, named)(remove_duplicate=False):
            found = live.get(name)
            if found is None or found.shape != wanted.shape:
                raise LensMismatch(f"the served {type(model).__name__} has no {name} of shape {tuple(wanted.shape)}")
            owner, _, own = name.rpartition(".")
            getattr(made.get_submodule(owner), kind)[own] = found
    found_model: PreTrainedModel = made.eval()
    return found_model


def add(model: PreTrainedModel, tensors: Mapping[str, Tensor], where: Path) -> None:
    """Put low-rank maps beside the linear maps of a model of ours.

    Raises:
        CorruptBundle: The tensors do not fit the model's maps.
    """
    paths = sorted({name.rpartition(".")[0] for name in tensors})
    for path in paths:
        down, up, scale = (tensors.get(f"{path}.{part}") for part in ("down", "up", "scale"))
        try:
            base = model.get_submodule(path)
        except AttributeError:
            base = None
        if down is None or up is None or scale is None or not isinstance(base, nn.Linear | Conv1D):
            raise CorruptBundle(
                f"{where} has an adapter for {path!r}, where the model has no linear map: export it again"
            )
        shape = tuple(base.weight.shape) if isinstance(base, nn.Linear) else tuple(base.weight.shape)[::-1]
        fits = down.ndim == up.ndim == 2 and down.shape[0] == up.shape[1] and (up.shape[0], down.shape[1]) == shape
        if not fits or scale.numel() != 1 or not all(bool(part.isfinite().all()) for part in (down, up, scale)):
            raise CorruptBundle(
                f"{where} has {tuple(up.shape)} × {tuple(down.shape)} for {path!r}, wanted finite numbers for a map of "
                f"shape {shape}: export it again"
            )
        owner, _, own = path.rpartition(".")
        place = base.weight.device
        setattr(model.get_submodule(owner), own, LowRank(base, down.to(place), up.to(place), float(scale)))
    if not paths:
        raise CorruptBundle(f"{where} holds no adapter: export it again")


def factors(model: nn.Module, adapter: str) -> dict[str, Tensor]:
    """The tensors of one adapter of a model in which peft has put some.

    Raises:
        SettingNotSupported: It is of a kind that is more than two maps and a scale.
    """
    found: dict[str, Tensor] = {}
    for path, part in model.named_modules():
        layer: Any = part
        if adapter not in getattr(layer, "lora_A", {}):
            continue
        if adapter in getattr(layer, "lora_variant", {}) or layer.lora_B[adapter].bias is not None:
            raise SettingNotSupported(f"the adapter of {path} is not plain LoRA: train it without variants")
        clean = re.sub(r"\.base_layer$", "", path)
        found[f"{clean}.down"] = layer.lora_A[adapter].weight.detach()
        found[f"{clean}.up"] = layer.lora_B[adapter].weight.detach()
        found[f"{clean}.scale"] = torch.tensor(float(layer.scaling[adapter]), dtype=torch.float64)
    return found
