"""`Spread`: a lens as the processes of a run compute it: wrapped, sharded, in bfloat16, with less memory, compiled."""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    FSDPModule,
    MixedPrecisionPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from lens_training.run_spec import ParallelSpec
from lens_training.system import LensSystem
from lens_training.train.ranks import Ranks
from wonder.errors import SpecError


class Spread:
    """The forward pass of a system by one of its processes, so that gradients are those of the whole batch."""

    def __init__(self, system: LensSystem, spec: ParallelSpec, ranks: Ranks) -> None:
        """Prepare the system in place; optimizers are made afterwards.

        Raises:
            SpecError: The specification asks for what cannot be had here.
        """
        self.system, self.spec, self.ranks = system, spec, ranks
        self.kind = spec.kind if ranks.count > 1 else "none"
        self.device = next(system.parameters()).device
        if ranks.count > 1 and self.kind == "none":
            raise SpecError(f"parallel.kind is none and {ranks.count} processes were started: use ddp or fsdp2")
        if self.kind == "fsdp2" and system.adapters is not None:
            raise SpecError(
                "parallel.kind is fsdp2 and lens.adapters are set: adapters are small and one base serves for all, so "
                "that each process can hold them: use ddp"
            )
        anchor = system.anchor
        for decoder in (system.decoder, *([] if anchor is None else [anchor])):
            decoder.one_pass = self.kind == "fsdp2" or spec.gradient_checkpointing or spec.compile_blocks
        if spec.gradient_checkpointing or spec.compile_blocks:
            for block in _blocks(system):
                _prepare(block, spec, system)
        if self.kind == "fsdp2":
            self._shard()
        self.trained = system.trained()
        self.module: Callable[..., Any] = system
        self._wanted: frozenset[str] | None = None

    def train_only(self, parts: frozenset[str]) -> None:
        """Which of `decoder` and `encoder` get gradients from now on."""
        if parts == self._wanted or self.kind == "fsdp2":  # which fixes at its start what has a gradient
            return
        self._wanted = parts
        for part, named in self.trained.items():
            for parameter in named.values():
                parameter.requires_grad_(part in parts)
        if self.kind != "ddp":
            return
        # A wrapper waits for every parameter that had a gradient when it was made, so each set has its own.
        self.module = self.system
        gc.collect()  # the old one's hooks go with it
        if parts:
            self.module = DistributedDataParallel(
                self.system,
                init_sync=False,
                forward_sync_buffers=False,
                gradient_as_bucket_view=True,
                find_unused_parameters=bool(self.system.decoder.anatomy.routers),
            )

    def autocast(self) -> AbstractContextManager[Any]:
        """In which precision forward passes compute; what is trained stays as it is."""
        if self.spec.autocast == "none":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    @contextmanager
    def piece(self, *, last: bool) -> Iterator[None]:
        """Around forward and backward pass of a piece of the batch: gradients are shared with the last one."""
        if isinstance(self.module, DistributedDataParallel):
            with nullcontext() if last else self.module.no_sync():
                yield
            return
        if self.kind == "fsdp2":
            cast(FSDPModule, self.system).set_requires_gradient_sync(last)
        yield

    def _shard(self) -> None:
        mesh = init_device_mesh(self.device.type, (self.ranks.count,))
        half = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        policy = half if self.spec.autocast == "bfloat16" else MixedPrecisionPolicy()
        anchor = self.system.anchor
        roots = [self.system] if anchor is None else [self.system, anchor]
        for block in _blocks(self.system):
            fully_shard(block, mesh=mesh, mp_policy=policy)
        for root in roots:
            # Embeddings, maps and heads in full precision: autocast rounds where a product is taken.
            fully_shard(root, mesh=mesh)
        if anchor is not None:
            register_fsdp_forward_method(anchor, "token_logits")
        sharded = [part for part in self.system.decoder.modules() if isinstance(part, FSDPModule)]
        self.system.gathered = lambda: _gathered(sharded)


@contextmanager
def _gathered(parts: Sequence[FSDPModule]) -> Iterator[None]:
    """Bring parameters together once for all tokens of a rollout, instead of once for each."""
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(True, recurse=False)
            part.reshard()


def _blocks(system: LensSystem) -> list[nn.Module]:
    """Every block that is trained or held on to, once."""
    anchor = system.anchor
    found = [*system.decoder.anatomy.blocks, *system.encoder.blocks, *(anchor.anatomy.blocks if anchor else [])]
    return list(dict.fromkeys(found))


def _prepare(block: nn.Module, spec: ParallelSpec, system: LensSystem) -> None:
    """Compile a block, or have it computed again for its gradient, in the passes that are differentiated.

    Rollouts stay as they are: their caches grow, and nothing of them is kept for a gradient.
    """
    plain = block.forward
    fast = torch.compile(plain, dynamic=False) if spec.compile_blocks else plain

    def forward(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled() or kwargs.get("past_key_values") is not None:
            return plain(*args, **kwargs)
        if not spec.gradient_checkpointing:
            return fast(*args, **kwargs)
        adapters = system.adapters
        name = None if adapters is None else adapters.active

        def again(*inputs: Any, **options: Any) -> Any:
            with nullcontext() if adapters is None else adapters.on(name):  # as it was when it ran first
                return fast(*inputs, **options)

        return checkpoint(again, *args, use_reentrant=False, **kwargs)

    block.__dict__["forward"] = forward
