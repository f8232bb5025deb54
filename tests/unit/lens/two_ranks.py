"""What two processes of a run find out, as each of them: `torchrun … -m tests.unit.lens.two_ranks FOLDER`."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch.distributed.fsdp._fully_shard import _fsdp_param_group as fsdp
from torch.distributed.tensor import DTensor

from lens_training.batch import Batch
from lens_training.run_spec import LoraSpec, ParallelSpec, Phase, Run
from lens_training.train.checkpoint import open_checkpoint
from lens_training.train.loop import Trainer
from lens_training.train.ranks import Ranks
from tests.unit.lens.systems import system
from wonder.errors import CorruptCheckpoint, Diverged, LeaseLost, SpecError, WonderError

LORA = LoraSpec(rank=4, alpha=8)
ROWS = 5
"""Of a batch: one process has two of them, the other three."""
OBJECTIVES = ("warm_start", "grpo", "ste_parallel")
KINDS: dict[str, tuple[str, LoraSpec | None]] = {"ddp": ("ddp", None), "fsdp2": ("fsdp2", None), "lora": ("ddp", LORA)}
RATES = {"decoder_rate": "1e-4", "encoder_rate": "1e-4"}
LATER = {"decoder_rate": "1e-4", "encoder_rate": "0 for 2s then 1e-4"}
RUN = Run(
    phases=(
        Phase(objective="warm_start", steps=5, batch=5, **RATES),
        Phase(objective="grpo", steps=7, batch=3, anchor="0.1", entropy="0.1", **LATER),
    ),
    average=0.9,
    checkpoint_every=100,
    accumulate=2,
)


def one_step(objective: Any, pieces: int = 1) -> Run:
    phase = Phase(
        objective=objective, steps=1, batch=ROWS, decoder_rate="1e-9", encoder_rate="1e-9", kl="0.1", lm="0.1"
    )
    return Run(phases=(phase,), accumulate=pieces, clip=1e9)


def gradients(trainer: Trainer) -> dict[str, torch.Tensor]:
    found = {}
    for named in trainer.trained.values():
        for name, parameter in named.items():
            grad = parameter.grad
            assert grad is not None, name
            found[name] = (grad.full_tensor() if isinstance(grad, DTensor) else grad).detach().clone()
    return found


def losses(trainer: Trainer, until: int | None = None) -> list[float]:
    """Of the steps up to one."""
    found: list[float] = []
    take = trainer._take_step

    def noted() -> Any:
        step = take()
        found.append(step.loss)
        return step

    trainer._take_step = noted  # type: ignore[method-assign]
    trainer.train(until=until)
    return found


def trainer(kind: str, run: Run, ranks: Ranks, folder: Path | None = None, **options: Any) -> Trainer:
    parallel, adapters = KINDS.get(kind, ("none", None))
    made, data = system(adapters=adapters)
    spec = ParallelSpec(kind=parallel)  # type: ignore[arg-type]
    return Trainer(made, options.pop("data", data), run, folder, parallel=spec, ranks=ranks, **options)


def main(folder: Path) -> None:
    ranks = Ranks.join("cpu")
    told: dict[str, Any] = {}
    for kind in KINDS:
        for objective in OBJECTIVES:
            made = trainer(kind, one_step(objective, pieces=2 if objective == "grpo" else 1), ranks)
            made.train()
            found = gradients(made)
            if ranks.rank == 0:
                save_file(found, folder / f"{kind}-{objective}.safetensors")
    made = trainer("ddp", one_step("warm_start"), ranks)
    wrapped = made._spread.train_only

    def bypassed(parts: frozenset[str]) -> None:
        wrapped(parts)
        made._spread.module = made.system

    made._spread.train_only = bypassed  # type: ignore[method-assign]
    made.train()
    if ranks.rank == 0:
        save_file(gradients(made), folder / "bypassed.safetensors")

    for kind in KINDS:
        told[f"losses {kind}"] = losses(trainer(kind, RUN, ranks))

    # One process began; two go on by DDP, then by FSDP2; one will end it.
    for kind, until in (("ddp", 6), ("fsdp2", 9)):
        made = trainer(kind, RUN, ranks, folder / "chain")
        assert made.resume()
        told[f"chain {kind}"] = losses(made, until)

    # The wish of one process ends all of them at one step.
    made = trainer("ddp", RUN, ranks, folder / "stopped")
    calls = iter([False, False, ranks.rank == 1])
    made.train(stop=lambda: next(calls))
    told["stopped"] = made.step

    told["gathers"] = [gathers(ranks, length) for length in (3, 6)]
    told |= {name: refused(ranks, folder, name) for name in ("diverged", "lease", "corrupt", "few rows", "alone")}
    every: list[Any] = [None, None]
    torch.distributed.all_gather_object(every, told)
    if ranks.rank == 0:
        (folder / "told.json").write_text(json.dumps(every))
    ranks.leave()


def gathers(ranks: Ranks, length: int) -> int:
    """How often parameters are brought together in a step with texts of so many tokens."""
    made = trainer("fsdp2", one_step("grpo"), ranks)
    made.system.length = length
    count, gather = 0, fsdp.foreach_all_gather

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        return gather(*args, **kwargs)

    fsdp.foreach_all_gather = counted
    made.train()
    fsdp.foreach_all_gather = gather
    return count


def refused(ranks: Ranks, folder: Path, what: str) -> str:
    """The error that this process ends with."""
    place = folder / what.replace(" ", "-")
    try:
        if what == "diverged":
            _, data = system()
            broken = data.activation_BD.clone()
            broken[:] = float("nan") if ranks.rank else broken
            data = Batch(broken, data.ids_BS, data.pos_B, data.document_B)
            trainer("ddp", RUN, ranks, place, data=data).train()
        elif what == "lease":
            trainer("ddp", RUN, ranks, place, may_publish=lost).train(until=2)
        elif what == "corrupt":
            open_checkpoint(folder / "half", ranks)
        elif what == "few rows":
            trainer("ddp", Run(phases=(Phase(objective="warm_start", steps=1, batch=1),)), ranks)
        else:
            trainer("none", RUN, ranks)
    except (Diverged, LeaseLost, CorruptCheckpoint, SpecError) as error:
        return f"{type(error).__name__}: {error}"
    except WonderError as error:
        return f"unexpected {type(error).__name__}"
    return "nothing"


def lost() -> None:
    raise LeaseLost("another attempt has taken it over")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
