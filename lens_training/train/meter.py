"""`Meter`: where the time of training goes, and at what rate."""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from lens_training.train.flops import peak


class Meter:
    """Counts between two readings."""

    def __init__(self, device: torch.device, processes: int) -> None:
        """`device` is this process's; as many more like it take part as there are processes."""
        self._device = device
        best = peak(device)
        self._peak = None if best is None else best * processes
        self._clear()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What happens inside counts under this name."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - began

    def count(self, activations: int, tokens: int, flops: float) -> None:
        """A step of all processes."""
        self._activations += activations
        self._tokens += tokens
        self._flops += flops

    def waited(self) -> float:
        """Seconds since the last reading."""
        return time.perf_counter() - self._began

    def read(self) -> dict[str, Any]:
        """Rates since the last reading, as a report holds them."""
        passed = max(self.waited(), 1e-9)
        found = {
            "activations_per_s": self._activations / passed,
            "tokens_per_s": self._tokens / passed,
            "mfu": None if self._peak is None else self._flops / passed / self._peak,
            "memory_peak_bytes": self._memory(),
            "seconds": {**self._seconds, "other": max(0.0, passed - sum(self._seconds.values()))},
        }
        self._clear()
        return found

    def _clear(self) -> None:
        self._began = time.perf_counter()
        self._seconds: dict[str, float] = {}
        self._activations = self._tokens = 0
        self._flops = 0.0

    def _memory(self) -> int:
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
