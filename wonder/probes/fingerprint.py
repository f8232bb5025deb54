"""The fingerprint of a model's weights, by which a bundle knows the model it belongs to."""

import hashlib
import struct
from typing import Final

import torch
from torch import nn

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
        flat = weight.detach().reshape(-1)
        last = max(flat.numel() - 1, 0)
        places = torch.tensor([place * last // (SAMPLES - 1) for place in range(SAMPLES)], device=flat.device)
        values = flat[places].to(torch.bfloat16).cpu() if flat.numel() else torch.empty(0, dtype=torch.bfloat16)
        digest.update(f"{name}{list(weight.shape)}".encode())
        digest.update(struct.pack(f"<{len(values)}h", *values.view(torch.int16).tolist()))
    return digest.hexdigest()
