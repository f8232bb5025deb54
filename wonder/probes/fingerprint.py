"""The fingerprint of a model's weights, by which a bundle knows the model it belongs to."""

import hashlib
import struct
from typing import Final, cast

import torch
from torch import Tensor, nn

SAMPLES: Final = 64


def model_fingerprint(model: nn.Module) -> str:
    """Hash every parameter's name, shape and 64 evenly spaced values, each cast to bfloat16.

    Weights that are stored in bfloat16 give the same fingerprint on every device and when loaded as bfloat16 or
    float32. Weights stored more finely may differ between load dtypes where a value lies on a rounding border, and
    quantised weights are other weights: fingerprint a model the way it is served. Tied parameters count once.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, weight in sorted(model.named_parameters(), key=lambda pair: pair[0]):
        flat = _values(model, name, weight.detach()).reshape(-1)
        last = max(flat.numel() - 1, 0)
        places = torch.tensor([place * last // (SAMPLES - 1) for place in range(SAMPLES)], device=flat.device)
        values = flat[places].to(torch.bfloat16).cpu() if flat.numel() else torch.empty(0, dtype=torch.bfloat16)
        digest.update(f"{name}{list(weight.shape)}".encode())
        digest.update(struct.pack(f"<{len(values)}h", *values.view(torch.int16).tolist()))
    return digest.hexdigest()


def _values(model: nn.Module, name: str, weight: Tensor) -> Tensor:
    """The numbers of a parameter, wherever they are kept."""
    if weight.device.type == "meta":
        # Offloaded by accelerate: the numbers are on disk or in memory, and come only for a pass.
        owner, _, own = name.rpartition(".")
        stored = getattr(getattr(model.get_submodule(owner), "_hf_hook", None), "weights_map", None)
        return weight if stored is None else stored[own]
    if hasattr(weight, "full_tensor"):
        # Sharded over several processes, all of which come here.
        return cast("Tensor", weight.full_tensor())
    if hasattr(weight, "__tensor_flatten__"):
        # A tensor made of others, such as a quantised one, knows few operations.
        parts = [getattr(weight, inner).detach() for inner in weight.__tensor_flatten__()[0]]
        return torch.cat([part.reshape(-1).float() for part in parts])
    return weight
