"""What a step costs in floating-point operations, and the most that a card can do: model FLOP utilisation (MFU)."""

from typing import Final, cast

import torch
from torch import Tensor, nn

from lens_training.run_spec import Objective
from lens_training.system import LensSystem, Weights

PEAKS: Final = (
    ("B200", 2250e12),
    ("H200", 989e12),
    ("GH200", 989e12),
    ("H100 PCIe", 756e12),
    ("H100 NVL", 835e12),
    ("H100", 989e12),
    ("A100", 312e12),
    ("L40S", 362e12),
    ("L40", 181e12),
    ("L4", 121e12),
    ("A10G", 70e12),
    ("A10", 125e12),
    ("A30", 165e12),
    ("RTX 4090", 165e12),
)
"""Dense bfloat16 operations per second by the makers' data sheets; the first name found in a card's own counts."""


def peak(device: torch.device) -> float | None:
    """Of a card; None where it is not known, and for processors."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((value for part, value in PEAKS if part in name), None)


class Cost:
    """FLOPs of one activation; 2 per weight and token forward, twice that for the gradients of states and weights."""

    def __init__(self, system: LensSystem) -> None:
        """Before anything is sharded."""
        own, anatomy = system.target, system.target.anatomy
        self._target = _weights(*anatomy.blocks)
        self._above = _weights(*anatomy.blocks[own.layer + 1 :])
        self._decoder = _weights(*system.decoder.anatomy.blocks)
        self._encoder = _weights(*system.encoder.blocks)
        self._head = own.d_model * own.vocabulary
        self._length = system.length
        self._before = 1 + sum(
            int(cast(Tensor, part).numel()) for part in (system.decoder.left_P, system.decoder.right_P)
        )
        self._left = int(cast(Tensor, system.encoder.left_P).numel())
        # Gradients of states and weights, or of states alone where the weights are frozen under adapters.
        self._pass = 2 if system.adapters is not None else 3

    def __call__(self, objective: Objective, weights: Weights, context: int) -> float:
        """Of one activation.

        Args:
            objective: Of the phase.
            weights: Of the terms.
            context: Tokens of a row's context.
        """
        length = self._length
        speak = 2 * self._decoder * (self._before + length) + 2 * self._head * length
        read = 2 * self._encoder * (self._left + length)
        texts = weights.group if objective == "grpo" else 1
        rollout = speak if objective in {"grpo", "ste_parallel"} else 0
        total = texts * (rollout + self._pass * (speak + read))
        if objective == "warm_start":
            return float(total)
        if weights.kl:
            total += 2 * self._target * context + 4 * (self._above + self._head) + 2 * self._head
        if weights.lm:
            total += texts * (2 * self._target + 2 * self._head) * length
        if weights.anchor:
            total += texts * speak
        return float(total)


def _weights(*modules: nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())
