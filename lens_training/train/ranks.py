"""The processes of a run: which of them this one is, which rows are its own, and what all of them agree on."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import torch
from torch import distributed

from wonder.errors import SpecError

TIMEOUT: Final = timedelta(minutes=30)
"""After which a process that waits for a lost one gives up; torchrun ends it sooner."""


@dataclass(frozen=True)
class Ranks:
    """The processes of a run, seen from one of them; one alone needs no start."""

    rank: int = 0
    count: int = 1
    numbers: Any = None
    """Group over which losses and wishes are agreed on: always in host memory, so that no kernel is waited for."""
    files: Any = None
    """Group of the threads that write checkpoints: on a shared one their calls and training's would be mixed up."""

    @classmethod
    def join(cls, device: str) -> "Ranks":
        """Meet the processes that torchrun started; alone where it started none.

        Args:
            device: Kind of device that the models are on.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        distributed.init_process_group("cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo", timeout=TIMEOUT)
        groups = [distributed.new_group(backend="gloo", timeout=TIMEOUT) for _ in range(2)]
        return cls(distributed.get_rank(), distributed.get_world_size(), *groups)

    def leave(self) -> None:
        """Take leave of the others."""
        if self.count > 1:
            distributed.destroy_process_group()

    def part(self, rows: int) -> tuple[int, int]:
        """This process's rows of so many, from and to before; all parts together are all rows, once.

        Raises:
            SpecError: There are fewer rows than processes.
        """
        if rows < self.count:
            raise SpecError(f"a batch of {rows} rows cannot be shared by {self.count} processes: raise batch")
        return self.rank * rows // self.count, (self.rank + 1) * rows // self.count

    def sums(self, values: Mapping[str, float]) -> dict[str, float]:
        """The sums over all processes; every process gives the same names."""
        if self.count == 1:
            return dict(values)
        names = sorted(values)
        found = torch.tensor([values[name] for name in names], dtype=torch.float64)
        distributed.all_reduce(found, group=self.numbers)
        return dict(zip(names, found.tolist(), strict=True))

    def any(self, flag: bool) -> bool:
        """Whether one process at least says so."""
        if self.count == 1:
            return flag
        found = torch.tensor(int(flag))
        distributed.all_reduce(found, distributed.ReduceOp.MAX, group=self.numbers)
        return bool(found)

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            distributed.barrier(group=self.numbers)
