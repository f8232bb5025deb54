"""The logit lens: what the model would have written had it ended after a lower layer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from wonder.anatomy import Anatomy

# Shape suffixes: B rows, D d_model, N steps, R rows of a chunk, S columns, V vocabulary, W layers of the lens.

CHUNK: Final = 64
"""States put through the head at once: V numbers exist for so many, never for all layers and tokens."""
TOLERANCE: Final = 1e-3
"""How near the lens of the last layer must be to the model's own logits, relative to the largest of them."""
COARSE: Final = 3e-2
"""The same in less than 32 bits."""


@dataclass(frozen=True)
class Lens:
    """The way from the last block's output to the logits, found and checked on the loaded model."""

    norm: nn.Module | None
    """Final norm; None: there is none."""
    head: nn.Module
    scale: float = 1.0
    """What the head's output is multiplied by."""
    softcap: float | None = None

    def logits(self, states_RD: Tensor) -> Tensor:
        """Logits (R, V), float32, of states of any layer."""
        first = next((self.norm or self.head).parameters(), states_RD)
        states_RD = states_RD.to(first.device)
        return self.finish(self.head(states_RD if self.norm is None else self.norm(states_RD)))

    def finish(self, head_RV: Tensor) -> Tensor:
        """From the head's output to logits."""
        logits_RV = head_RV.float() * self.scale
        return logits_RV if self.softcap is None else (logits_RV / self.softcap).tanh() * self.softcap


@dataclass(frozen=True)
class LensReadings:
    """What each layer says of each emitted token, on the host."""

    layers: tuple[int, ...]
    log_prob_NWB: Tensor
    """ln p of the emitted token, in nats."""
    is_first_NWB: Tensor
    """Whether no token is likelier."""
    top_NWB: Tensor
    """The layer's likeliest token."""


def find_lens(model: PreTrainedModel, anatomy: Anatomy, ids_1S: Tensor) -> Lens | str:
    """Look for the norm and the head by what flows through them, and check that they give the model's own logits.

    Returns:
        The lens, or why there is none.
    """
    head: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if not isinstance(head, nn.Module):
        return "this model has no output embeddings that can be called"
    seen: dict[str, Tensor] = {}
    passed: list[tuple[nn.Module, Tensor, Tensor]] = []

    def keep(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if args and isinstance(args[0], Tensor) and isinstance(output, Tensor) and args[0].shape == output.shape:
            passed.append((module, args[0], output))

    def of_block(_module: nn.Module, _args: Any, output: Any) -> None:
        seen["state"] = output if isinstance(output, Tensor) else output[0]

    inside = {part for block in anatomy.blocks for part in block.modules()}
    outside = [module for module in model.modules() if module not in inside and not list(module.children())]
    handles = [module.register_forward_hook(keep) for module in outside if module is not head]
    handles.append(anatomy.blocks[-1].register_forward_hook(of_block))
    handles.append(head.register_forward_hook(lambda _m, args, out: seen.update({"into": args[0], "out": out})))
    try:
        with torch.inference_mode():
            logits = model(input_ids=ids_1S, use_cache=False).logits
    finally:
        for handle in handles:
            handle.remove()
    if "into" not in seen or "state" not in seen:
        return "this model does not call its output embeddings"
    norms: list[nn.Module | None] = [
        module for module, before, after in passed if _equal(before, seen["state"]) and _equal(after, seen["into"])
    ]
    norms += [None] if _equal(seen["state"], seen["into"]) else []
    if not norms:
        return "there is more than one norm between the last block of this model and its output embeddings"
    tolerance = TOLERANCE if logits.dtype == torch.float32 else COARSE
    for scale, softcap in _endings(anatomy.config):
        lens = Lens(norms[0], head, scale, softcap)
        if _near(lens.finish(seen["out"]), logits, tolerance):
            with torch.inference_mode():
                again = lens.logits(seen["state"][0])
            return lens if _near(again, logits[0], tolerance) else "its head gives other numbers when called alone"
    return "this model changes its logits, after its output embeddings, in a way that is not known"


@torch.inference_mode()
def read_lens(lens: Lens, layers: tuple[int, ...], states_NWBD: Tensor, tokens_NB: Tensor) -> LensReadings:
    """Put the states of some layers through norm and head, a chunk at a time.

    Args:
        lens: Of the model.
        layers: Their numbers.
        states_NWBD: States that produced the tokens.
        tokens_NB: Emitted tokens.
    """
    shape_NWB = states_NWBD.shape[:3]
    tokens = tokens_NB[:, None].expand(shape_NWB).flatten()
    parts = []
    for start in range(0, tokens.numel(), CHUNK):
        logits_RV = lens.logits(states_NWBD.flatten(0, 2)[start : start + CHUNK])
        chosen_R1 = logits_RV.gather(-1, tokens[start : start + CHUNK, None].to(logits_RV.device))
        best = logits_RV.max(-1)
        log_prob_R = chosen_R1[:, 0] - logits_RV.logsumexp(-1)
        parts.append((log_prob_R, chosen_R1[:, 0] >= best.values, best.indices))
    found = (torch.cat(part).reshape(shape_NWB).cpu() for part in zip(*parts, strict=True))
    return LensReadings(layers, *found)


def row_states(steps: Sequence[tuple[tuple[int, ...], Tensor, int]], layers: Sequence[int]) -> Tensor:
    """States (N, W, 1, D) of one row's layers, from what each step kept: its layers, (W', B, D), and the row."""
    return torch.stack([kept[[there.index(layer) for layer in layers], at] for there, kept, at in steps])[:, :, None]


def _endings(config: Any) -> Iterator[tuple[float, float | None]]:
    """Scale and soft cap that families put after their heads."""
    yield 1.0, None
    if cap := getattr(config, "final_logit_softcapping", None):
        yield 1.0, float(cap)
    if scale := getattr(config, "logit_scale", None):
        yield float(scale), None
    if divisor := getattr(config, "logits_scaling", None):
        yield 1 / float(divisor), None
    if factor := getattr(config, "lm_head_multiplier", None):
        yield float(factor), None


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one.cpu(), other.cpu())


def _near(one: Tensor, other: Tensor, tolerance: float) -> bool:
    if one.shape != other.shape:
        return False
    one, other = one.float().cpu(), other.float().cpu()
    return bool((one - other).abs().max() <= tolerance * other.abs().max())
