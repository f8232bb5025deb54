"""The optimizers of decoder and encoder, and their states by the names of what they move."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from lens_training.run_spec import ParallelSpec, Run
from lens_training.train.checkpoint import Checkpoint
from wonder.errors import ExtraMissing, SpecError

Named = Mapping[str, nn.Parameter]


def make_optimizer(named: Named, run: Run, spec: ParallelSpec) -> Optimizer:
    """Adam with decoupled weight decay; its rate is set before every step.

    Raises:
        ExtraMissing: 8-bit moments are asked for and bitsandbytes is not installed.
        SpecError: They cannot be had here.
    """
    settings: dict[str, Any] = {"lr": 0.0, "betas": (0.9, 0.95), "weight_decay": run.weight_decay}
    if not spec.eight_bit_adam:
        return torch.optim.AdamW(named.values(), **settings)
    if any(value.device.type != "cuda" for value in named.values()):
        raise SpecError("parallel.eight_bit_adam needs a GPU: run on one, or leave it out")
    if spec.kind == "fsdp2":
        raise SpecError("parallel.eight_bit_adam and fsdp2: its moments cannot be sharded; use ddp, or leave it out")
    try:
        from bitsandbytes import optim  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ExtraMissing(
            "parallel.eight_bit_adam needs the package bitsandbytes: pip install 'wonder-temporal[quant]'"
        ) from error
    eight_bit: Any = optim
    found: Optimizer = eight_bit.AdamW8bit(named.values(), **settings)
    return found


def moments(optimizer: Optimizer, named: Named) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state of an optimizer as named tensors, and what of it is plain."""
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    for name, parameter in named.items():
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"{name}:{key}"] = value
            else:
                plain[f"{name}:{key}"] = value
    return tensors, plain


@torch.no_grad()
def restore_moments(
    optimizer: Optimizer, named: Named, found: Checkpoint, prefix: str, plain: Mapping[str, Any]
) -> None:
    """Put back what `moments` gave, in whatever division over processes it is needed now."""
    optimizer.state.clear()
    stored = {name.removeprefix(prefix) for name in found.names if name.startswith(prefix)}
    for name in sorted(stored):
        where, _, key = name.rpartition(":")
        parameter = named[where]
        if key == "step":
            value = found.tensor(prefix + name)
        else:
            value = copied_like(parameter, found.like(prefix + name, parameter))
        optimizer.state[parameter][key] = value
    for name, number in plain.items():
        where, _, key = name.rpartition(":")
        optimizer.state[named[where]][key] = number


def copied_like(parameter: Tensor, own: Tensor) -> Tensor:
    """This process's part of a tensor as one that is spread, and placed, as a parameter is."""
    own = own.to(parameter.device)
    if not isinstance(parameter, DTensor):
        return own
    mesh, placements = parameter.device_mesh, parameter.placements
    return DTensor.from_local(own, mesh, placements, shape=parameter.shape, stride=parameter.stride())
