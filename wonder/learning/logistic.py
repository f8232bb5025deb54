"""L2-regularised logistic regression by damped Newton steps: a few features, weighted answers, plain floats.

Small on purpose: calibration fits at most ten coefficients, and the CPU worker and the command line, which fit it,
carry no array library.
"""

import math
from collections.abc import Sequence
from operator import mul

from wonder.calibration.maps import sigmoid


def fit_logistic(
    features: Sequence[Sequence[float]],
    right: Sequence[bool],
    weights: Sequence[float],
    *,
    c: float = 1.0,
    steps: int = 50,
) -> tuple[list[float], float]:
    """Minimise the weighted log-loss plus |w|² / 2c; the bias is not penalised.

    Args:
        features: One row per answer.
        right: What is to be predicted.
        weights: Of the answers; scaled to a mean of 1, so that they do not change the strength of the penalty.
        c: Inverse strength of the penalty, > 0.
        steps: Most Newton steps taken; the descent ends earlier once a step changes nothing.

    Returns:
        Coefficients and bias.
    """
    scale = len(weights) / math.fsum(weights)
    of = [weight * scale for weight in weights]
    good = [float(is_right) for is_right in right]
    # By columns rather than by rows: sums over lists of floats are what plain Python is quickest at.
    columns = [*(list(map(float, column)) for column in zip(*features, strict=True)), [1.0] * len(good)]
    penalty = [1 / c] * (len(columns) - 1) + [1e-9]
    at = [0.0] * len(columns)
    logits = [0.0] * len(good)
    current = _objective(logits, good, of, at, penalty)
    for _ in range(steps):
        step = _newton(columns, logits, good, of, at, penalty)
        length = 1.0
        # A full Newton step can overshoot where the sigmoid is flat; halving keeps every step downhill.
        while length > 1e-6:
            trial = [value - length * move for value, move in zip(at, step, strict=True)]
            moved = _logits(columns, trial)
            found = _objective(moved, good, of, trial, penalty)
            if found <= current:
                break
            length /= 2
        else:
            break
        before, current, at, logits = current, found, trial, moved
        if before - current < 1e-10 * (1 + abs(current)):
            break
    return at[:-1], at[-1]


def _logits(columns: Sequence[Sequence[float]], at: Sequence[float]) -> list[float]:
    found = [0.0] * len(columns[0])
    for value, column in zip(at, columns, strict=True):
        found = [logit + value * x for logit, x in zip(found, column, strict=True)]
    return found


def _objective(
    logits: Sequence[float], good: Sequence[float], of: Sequence[float], at: Sequence[float], penalty: Sequence[float]
) -> float:
    log1p, exp = math.log1p, math.exp
    total = sum(
        weight * ((logit if logit > 0 else 0.0) + log1p(exp(-abs(logit))) - is_right * logit)
        for logit, is_right, weight in zip(logits, good, of, strict=True)
    )
    return total + 0.5 * sum(strength * value * value for strength, value in zip(penalty, at, strict=True))


def _newton(
    columns: Sequence[Sequence[float]],
    logits: Sequence[float],
    good: Sequence[float],
    of: Sequence[float],
    at: Sequence[float],
    penalty: Sequence[float],
) -> list[float]:
    size = len(columns)
    chances = [sigmoid(logit) for logit in logits]
    error = [weight * (chance - is_right) for weight, chance, is_right in zip(of, chances, good, strict=True)]
    bend = [weight * chance * (1 - chance) for weight, chance in zip(of, chances, strict=True)]
    gradient = [
        strength * value + sum(map(mul, error, column))
        for strength, value, column in zip(penalty, at, columns, strict=True)
    ]
    curvature = [[0.0] * size for _ in range(size)]
    for i, column in enumerate(columns):
        bent = list(map(mul, bend, column))
        for j in range(i + 1):
            curvature[i][j] = curvature[j][i] = sum(map(mul, bent, columns[j]))
        curvature[i][i] += penalty[i] + 1e-9
    return _solve(curvature, gradient)


def _solve(matrix: list[list[float]], target: list[float]) -> list[float]:
    """Solve `matrix` x = `target` for a positive definite matrix (Cholesky)."""
    size = len(target)
    lower = [[0.0] * size for _ in range(size)]
    for i in range(size):
        for j in range(i + 1):
            rest = matrix[i][j] - sum(lower[i][k] * lower[j][k] for k in range(j))
            lower[i][j] = math.sqrt(max(rest, 1e-300)) if i == j else rest / lower[j][j]
    half = [0.0] * size
    for i in range(size):
        half[i] = (target[i] - sum(lower[i][k] * half[k] for k in range(i))) / lower[i][i]
    found = [0.0] * size
    for i in reversed(range(size)):
        found[i] = (half[i] - sum(lower[k][i] * found[k] for k in range(i + 1, size))) / lower[i][i]
    return found
