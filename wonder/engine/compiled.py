"""Gives the parts of a model that nobody watches to `torch.compile`, and keeps count of whether it took them."""

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch._dynamo import lookup_backend
from torch._dynamo.utils import counters

from wonder.engine.loop import Runtime
from wonder.engine.selfcheck import Support, few_logits, prepare
from wonder.errors import SettingNotSupported

BACKEND: Final = "inductor"
TOLERANCE: Final = 1e-3
"""How far compiled logits may be from those of the model as it is, relative to their norm, in float32."""
ROUGH_TOLERANCE: Final = 0.2
"""The same for shorter numbers, as the self-check has it for batches."""


class CompiledParts:
    """Norms and feed-forward networks inside the blocks, compiled in place.

    A hook inside a compiled graph is a part of it, and every setting of it makes a new version. So nothing is
    compiled that has a hook, or has a module with a hook inside it: blocks, attentions, routers and whatever holds
    them run as they are. A single matrix product is left alone too, because there is nothing to gain.
    """

    def __init__(self, runtime: Runtime, backend: str) -> None:
        self.backend = backend
        self.graphs = 0
        """Versions that were compiled so far."""
        self.parts = [part for block in runtime.anatomy.blocks for part in _unwatched(block, _watched(runtime))]
        self._failed_before = _failed()
        run = self._counted(lookup_backend(backend))
        for part in self.parts:
            part.compile(backend=run, dynamic=True)

    @property
    def given_up(self) -> int:
        """How often torch gave a part up: there, and for such shapes from then on, the model runs as it is.

        Torch counts for the whole process, so that what else is compiled in it counts too.
        """
        return max(0, _failed() - self._failed_before)

    def __str__(self) -> str:
        said = f"{len(self.parts)} parts of the blocks by {self.backend}, {self.graphs} versions so far"
        if self.given_up:
            said += f"; {self.given_up} times torch gave up, and that part runs uncompiled (its log says why)"
        return said

    def undo(self) -> None:
        """Let the model run as it is."""
        for part in self.parts:
            part._compiled_call_impl = None

    def _counted(self, compiler: Callable[..., Any]) -> Callable[..., Any]:
        def compile_graph(graph: Any, inputs: Any, **options: Any) -> Any:
            self.graphs += 1
            return compiler(graph, inputs, **options)

        return compile_graph


def compiled(runtime: Runtime, support: Support, backend: str = BACKEND) -> CompiledParts:
    """Compile what nobody watches, and do the self-check once more on what came of it.

    Args:
        runtime: A model that has passed the self-check, with its hooks on.
        support: What the self-check found.
        backend: A backend of `torch.compile`.

    Raises:
        SettingNotSupported: It cannot be compiled, or gives other numbers or fewer signals then; it is as it was.
    """
    if backend not in torch.compiler.list_backends(exclude_tags=()):
        names = ", ".join(torch.compiler.list_backends())
        raise SettingNotSupported(f"compile={backend!r} is no backend of torch.compile: use True, or one of {names}")
    plain = few_logits(runtime)
    done = CompiledParts(runtime, backend)
    try:
        reason = _doubt(runtime, support, plain, done)
    except Exception as error:  # compilers fail in many ways
        reason = f"it failed ({type(error).__name__}: {' '.join(str(error).split())[:300]})"
    if reason is not None:
        done.undo()
        raise SettingNotSupported(f"{type(runtime.model).__name__} cannot be compiled by {backend}: {reason}")
    return done


def _doubt(runtime: Runtime, support: Support, plain: list[Tensor], done: CompiledParts) -> str | None:
    """Why the compiled model is not to be trusted."""
    if not done.parts:
        return "all of its parts are watched, or single products"
    tolerance = TOLERANCE if runtime.model.dtype == torch.float32 else ROUGH_TOLERANCE
    for one_BV, other_BV in zip(plain, few_logits(runtime), strict=True):
        if not float((one_BV - other_BV).norm()) <= tolerance * float(one_BV.norm()):
            return "its logits are others then"
    _, found = prepare(runtime)
    if found != support:
        lost = found.unsupported.items() - support.unsupported.items()
        return f"the self-check finds other signals then ({', '.join(f'{name}: {why}' for name, why in sorted(lost))})"
    if done.graphs == 0:
        return "torch took none of its parts, and all would run uncompiled"
    return None


def _watched(runtime: Runtime) -> set[nn.Module]:
    routers = {router.module for router in runtime.anatomy.routers}
    return routers | set(runtime.taps.attention_modules.values()) | set(runtime.anatomy.blocks)


def _unwatched(module: nn.Module, watched: set[nn.Module]) -> list[nn.Module]:
    """The largest parts inside that have weights and more than one operation, and nothing that is watched."""
    found = []
    for child in module.children():
        if any(part in watched or part._forward_hooks or part._forward_pre_hooks for part in child.modules()):
            found += _unwatched(child, watched)
        elif any(True for _ in child.parameters()) and not type(child).__module__.startswith("torch.nn."):
            found.append(child)
    return found


def _failed() -> int:
    """Frames that torch could not compile in this process so far, for want of understanding or of patience."""
    return int(counters["frames"]["total"] - counters["frames"]["ok"])
