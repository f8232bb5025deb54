"""`Guard`: tells a loss that has left its usual range for good from one that jumps."""

import statistics
from collections.abc import Sequence
from typing import Final

WINDOW: Final = 100
"""Steps whose losses are what is usual."""
LEAST: Final = 50
"""Steps of a phase before anything is judged: its first losses may be far from its later ones."""
FACTOR: Final = 10.0
"""Spreads (median distance from the median) above the median, from which a loss is too high."""
MARGIN: Final = 1.0
"""By how much more it must be above the median: a loss that is nearly constant has no spread."""
PATIENCE: Final = 20
"""Steps in a row that must be too high."""


class Guard:
    """Follows the losses of a phase; losses that are too high do not become usual."""

    def __init__(self) -> None:
        self._usual: list[float] = []
        self._high = 0
        self._phase = -1

    def __call__(self, phase: int, loss: float) -> str:
        """Take note of a finite loss; gives what is wrong, or nothing."""
        if phase != self._phase:
            self._usual, self._high, self._phase = [], 0, phase
        if len(self._usual) >= LEAST:
            middle = statistics.median(self._usual)
            spread = statistics.median([abs(value - middle) for value in self._usual])
            if loss > middle + FACTOR * spread + MARGIN:
                self._high += 1
                if self._high < PATIENCE:
                    return ""
                return f"the loss was far above its usual {middle:.4g} for {PATIENCE} steps and is {loss:.4g}"
        self._high = 0
        self._usual = [*self._usual[1 - WINDOW :], loss]
        return ""

    def state(self) -> list[float]:
        """What it remembers."""
        return [float(self._phase), float(self._high), *self._usual]

    def restore(self, state: Sequence[float]) -> None:
        """Put back what `state` gave."""
        self._phase, self._high, self._usual = int(state[0]), int(state[1]), list(state[2:])
