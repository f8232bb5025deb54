"""Process CPU time of variants that take turns, so that ratios are taken within a turn."""

import gc
import time
from collections.abc import Callable
from statistics import median


def cpu_s(run: Callable[[], object]) -> float:
    """Process CPU seconds of a call."""
    gc.collect()
    begun = time.process_time()
    run()
    return time.process_time() - begun


def in_turns(variants: dict[str, Callable[[], object]], turns: int) -> dict[str, list[float]]:
    """CPU seconds of every variant, once per turn, in rotating order; where there are several, one more warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    names = list(variants)
    for turn in range(-1 if turns > 1 else 0, turns):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            found = cpu_s(variants[name])
            if turn >= 0:
                seconds[name].append(found)
    return seconds


def ratio(seconds: dict[str, list[float]], one: str, other: str) -> float:
    """Median of the ratios within the turns."""
    return median(a / b for a, b in zip(seconds[one], seconds[other], strict=True))
