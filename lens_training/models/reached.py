"""Which parameters a value is computed from: those that nothing reaches have no gradient to wait for, or to keep."""

import torch
from torch import Tensor

from wonder.lens.encoder import Encoder


def freeze_unreached(encoder: Encoder) -> None:
    """No gradient for what no text passes through, such as the final norm of a model that was cut before it."""
    with torch.enable_grad():
        text = torch.zeros(1, 1, dtype=torch.long, device=next(encoder.parameters()).device)
        reached = _leaves(encoder(encoder.embed(text)))
    # A block's parameters may be passed by this text and met by the next: experts.
    inside = {id(parameter) for block in encoder.blocks for parameter in block.parameters()}
    for parameter in encoder.parameters():
        if id(parameter) not in inside and id(parameter) not in reached:
            parameter.requires_grad_(False)


def _leaves(output: Tensor) -> set[int]:
    """Ids of the parameters that a value was computed from."""
    found, seen, waiting = set(), set(), [output.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if (variable := getattr(node, "variable", None)) is not None:
            found.add(id(variable))
        waiting += [other for other, _ in node.next_functions]
    return found
