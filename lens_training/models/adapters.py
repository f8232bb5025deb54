"""Low-rank adapters: decoder and encoder as two small sets of weights on the one frozen model they share.

With no adapter on, which is how the blocks are found whenever nobody has asked otherwise, the model is the target.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lens_training.run_spec import LoraSpec
from wonder.anatomy import examine
from wonder.errors import ExtraMissing, SpecError
from wonder.lens.decoder import Decoder
from wonder.lens.encoder import Encoder

ANCHOR: Final = "anchor"


class Adapters:
    """All adapters in the blocks of one model."""

    def __init__(self, model: PreTrainedModel, spec: LoraSpec) -> None:
        """Take a frozen model, in which adapters will be put.

        Raises:
            ExtraMissing: The package is not installed.
        """
        try:
            import peft  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise ExtraMissing("lens.adapters needs the package peft: pip install 'wonder-temporal[lora]'") from error
        self._peft: Any = peft
        self.model, self.spec = model, spec
        self.active: str | None = None
        """The adapter that is on."""
        self._adapted: list[Any] = []

    def put(self, name: str, blocks: int) -> None:
        """An adapter that changes nothing yet into the first blocks; in float32, whatever the model is in.

        Raises:
            SpecError: No linear map has a name that was asked for.
        """
        maps = self._maps(blocks)
        settings = self._peft.LoraConfig(
            r=self.spec.rank,
            lora_alpha=self.spec.alpha,
            target_modules=list(maps),
            fan_in_fan_out=any(isinstance(part, Conv1D) for part in maps.values()),
        )
        self._peft.inject_adapter_in_model(settings, self.model, adapter_name=name)
        del self.model.peft_config  # kept for who loads and saves by peft, and a warning at the next adapter
        self._adapted = self._layers()
        for layer in self._adapted:
            for part in layer.adapter_layer_names:
                for weights in getattr(layer, part).values():
                    weights.float()
                    weights.requires_grad_(True)
        self._set(self.active)

    @contextmanager
    def on(self, name: str | None) -> Iterator[None]:
        """Compute with an adapter, or with none."""
        before = self.active
        self._set(name)
        try:
            yield
        finally:
            self._set(before)

    @torch.no_grad()
    def merged(self, name: str) -> PreTrainedModel:
        """A plain copy of the model that computes without adapters what it computes with this one.

        In a model of 16 bits the sum is rounded to them.
        """
        found = copy.deepcopy(self.model)
        parts = dict(found.named_modules())
        kind = self._peft.tuners.tuners_utils.BaseTunerLayer
        for path, layer in parts.items():
            if isinstance(layer, kind):
                adapted: Any = layer
                adapted.__dict__["_disable_adapters"] = False
                if name in adapted.lora_A:
                    adapted.merge(adapter_names=[name])
                holder, _, own = path.rpartition(".")
                setattr(parts[holder], own, adapted.get_base_layer())
        return found

    def owner(self, parameter: str) -> str | None:
        """To which adapter a parameter of this name belongs."""
        _, found, rest = parameter.partition(".lora_")
        return rest.split(".")[1] if found else None

    def _set(self, name: str | None) -> None:
        # Not by `set_adapter`, which takes the gradients away from all others: decoder and encoder are both trained.
        self.active = name
        for layer in self._adapted:
            layer.__dict__["_disable_adapters"] = name is None
            layer.__dict__["_active_adapter"] = [] if name is None else [name]

    def _layers(self) -> list[Any]:
        kind = self._peft.tuners.tuners_utils.BaseTunerLayer
        return [part for part in self.model.modules() if isinstance(part, kind)]

    def _maps(self, blocks: int) -> dict[str, nn.Module]:
        """The linear maps of the first blocks by their full names."""
        paths = {id(part): name for name, part in self.model.named_modules()}
        every: dict[str, nn.Module] = {}
        for block in examine(self.model).blocks[:blocks]:
            for name, part in block.named_modules():
                inner = getattr(part, "base_layer", part)
                if isinstance(inner, nn.Linear | Conv1D) and "base_layer" not in name and ".lora_" not in name:
                    every[f"{paths[id(block)]}.{name}"] = cast(nn.Module, inner)
        last = {name: name.rpartition(".")[2] for name in every}
        asked = self.spec.modules or tuple(last.values())
        if missing := sorted(set(asked) - set(last.values())) or (not every and ["any"]):
            raise SpecError(
                f"lens.adapters.modules: the blocks have no linear map {', '.join(missing)}; there are "
                f"{', '.join(sorted(set(last.values())))}"
            )
        return {name: part for name, part in every.items() if last[name] in asked}


class AdaptedDecoder(Decoder):
    """A decoder that is an adapter on a shared model, with maps of its own for the activation."""

    def __init__(self, adapters: Adapters, mean_D: Tensor, scale: float, **options: Any) -> None:
        """As `Decoder`, with the adapter `decoder` for a model."""
        super().__init__(adapters.model, mean_D, scale, **options)
        self.adapter = "decoder"
        self._adapters = [adapters]
        adapters.put(self.adapter, self.anatomy.n_layers)

    def anchored(self) -> "AdaptedDecoder":
        """A copy that stays as it is: an adapter more on the same model."""
        adapters = self._adapters[0]
        adapters.put(ANCHOR, self.anatomy.n_layers)
        shared: list[Any] = [self.model, adapters, self.anatomy]
        found = copy.deepcopy(self, {id(part): part for part in shared})
        found.adapter = ANCHOR
        for name, parameter in self.model.named_parameters():
            if adapters.owner(name) == ANCHOR:
                parameter.requires_grad_(False)
        found.maps.requires_grad_(False)
        return found

    def plain(self) -> Decoder:
        """The same as a model of its own."""
        model, left, right, bias_V = self._adapters[0].merged(self.adapter), self.left_P, self.right_P, self.bias_V
        found = Decoder(
            model,
            cast(Tensor, self.mean_D),
            float(cast(Tensor, self.scale)),
            left=cast(Tensor, left).tolist(),
            right=cast(Tensor, right).tolist(),
            forbidden=cast(Tensor, bias_V).nonzero()[:, 0].tolist(),
            injection=self.injection,
            written_blocks=max(1, len(self.maps)),
        )
        found.maps.load_state_dict(self.maps.state_dict())
        return found.to(cast(Tensor, self.mean_D).device).train(False)

    def _forward(self, embeds: Tensor, cache: DynamicCache | None = None, *, keep: int) -> Tensor:
        with self._adapters[0].on(self.adapter):
            return super()._forward(embeds, cache, keep=keep)


class AdaptedEncoder(Encoder):
    """An encoder that is an adapter on the first blocks of a shared model; the others are never run."""

    def __init__(self, adapters: Adapters, layer: int, *, left: Sequence[int]) -> None:
        """As `Encoder`, with the adapter `encoder` for a model."""
        adapters.put("encoder", layer + 1)
        super().__init__(_view(adapters.model), layer, left=left)
        self._adapters, self._layer = [adapters], layer

    def plain(self) -> Encoder:
        """The same as a model of its own."""
        left: list[int] = cast(Tensor, self.left_P).tolist()
        found = Encoder(self._adapters[0].merged("encoder"), self._layer, left=left)
        found.head.load_state_dict(self.head.state_dict())
        return found.to(cast(Tensor, self.left_P).device).train(False)

    def forward(self, embeds_BTD: Tensor) -> Tensor:
        """As `Encoder.forward`."""
        with self._adapters[0].on("encoder"):
            return super().forward(embeds_BTD)


def _view(model: PreTrainedModel) -> PreTrainedModel:
    """A model that can be cut without harm to the other: what holds the blocks is copied, all else is the same."""
    first = examine(model).blocks[0]
    copied: list[nn.Module] = [part for part in model.modules() if any(first is inner for inner in part.modules())]
    copied = [part for part in copied if part is not first]
    shared: list[Any] = [part for part in model.modules() if not any(part is other for other in copied)]
    shared += [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(part): part for part in shared})
