"""What single heads looked at while an answer was written: RAUQ, attention score, lookback ratio of one request.

Token t is *fed* in the step after the one that produced it, so its own row of attention exists for every token but the
last one generated: an answer that ends with it loses that one row, not its meaning.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wonder.engine.numbers import NOT_FINITE, inside
from wonder.engine.recorder import HeadReadings
from wonder.trace.layers import middle_third, nearest_to_middle

# Shape suffixes: H heads, N tokens of the answer that have a row of their own.


@dataclass(frozen=True)
class HeadRequest:
    """Of what the statistics are taken."""

    index: int
    """Row in the batch."""
    prompt: int
    """Tokens of the prompt."""
    probabilities: Sequence[float | None]
    """Of each generated token."""
    tokens: Sequence[int]
    """Generated tokens that count, in order: the answer's values, or all."""
    layers: Sequence[int]
    """Watched layers that the request asked for."""
    alpha: float


def head_fields(readings: HeadReadings, request: HeadRequest, n_layers: int) -> dict[str, Any]:
    """The fields of a trace; None where something is undefined."""
    layers = [layer for layer in request.layers if layer in readings.previous_NBH]
    fields: dict[str, Any] = {
        name: [None] * n_layers for name in ("rauq_layers", "previous_token_attention", "lookback_ratio")
    }
    for layer in layers:
        score, attention = _rauq(readings, request, layer)
        fields["rauq_layers"][layer], fields["previous_token_attention"][layer] = score, attention
        fields["lookback_ratio"][layer] = _lookback(readings, request, layer)
    third = middle_third(n_layers)
    middle = [fields["rauq_layers"][layer] for layer in layers if layer in third]
    fields["rauq"] = None if not middle or None in middle else max(middle)
    fields["attention_score"] = _attention_score(readings, request, nearest_to_middle(layers, n_layers))
    return fields


def explain(fields: dict[str, Any], request: HeadRequest, n_layers: int) -> dict[str, str]:
    """Why entries of these fields are empty."""
    fed = [t for t in request.tokens if t + 1 < len(request.probabilities)]
    third = middle_third(n_layers)
    outside = f"no layer of the middle third ({third[0]}..{third[-1]}) is watched: add one to attention_layers"
    undefined = {
        "rauq": NOT_FINITE if set(request.layers) & set(third) else outside,
        "rauq_layers": NOT_FINITE,
        "attention_score": NOT_FINITE if fed else "no token of the answer was fed to the model after it was generated",
        "previous_token_attention": (
            NOT_FINITE if [t for t in fed if t != request.tokens[0]] else "the answer's values are a single token"
        ),
        "lookback_ratio": NOT_FINITE if request.prompt > 1 else "the prompt is one token, which is left out",
    }
    reasons = {}
    for name, value in fields.items():
        if value is None or (isinstance(value, list) and any(value[layer] is None for layer in request.layers)):
            reasons[name] = undefined[name]
        elif isinstance(value, list) and len(request.layers) < n_layers:
            reasons[name] = f"read in layers {', '.join(map(str, request.layers))} only (attention_layers)"
    return reasons


def rauq_score(probabilities: Sequence[float], attention: Sequence[float], alpha: float) -> float | None:
    """Mean of -ln c_t, in nats: c_1 = p_1, c_t = α·p_t + (1 - α)·a_t·c_(t-1) (Vazhentsev et al. 2025).

    Args:
        probabilities: p_1 … p_n.
        attention: a_2 … a_n, of each token on the one before it.
        alpha: Weight of a token's own probability.

    Returns:
        None where a c_t is 0 or not a number.
    """
    c = probabilities[0]
    certain = [c]
    for p, a in zip(probabilities[1:], attention, strict=True):
        c = alpha * p + (1 - alpha) * a * c
        certain.append(c)
    if not all(c > 0 and math.isfinite(c) for c in certain):
        return None
    return max(0.0, -math.fsum(map(math.log, certain)) / len(certain))


def _rauq(readings: HeadReadings, request: HeadRequest, layer: int) -> tuple[float | None, float | None]:
    """Score of a layer, and the attention on the previous token of the head that pays most."""
    first, *rest = request.tokens
    rest = [t for t in rest if t + 1 < len(request.probabilities)]
    known = [request.probabilities[t] for t in (first, *rest)]
    attention_NH = readings.previous_NBH[layer][[t + 1 for t in rest], request.index].double()
    best: list[float] = []
    if rest:
        best = attention_NH[:, int(attention_NH.mean(0).argmax())].tolist()
    mean = math.fsum(best) / len(best) if best else math.nan
    probabilities = [p for p in known if p is not None]
    score = rauq_score(probabilities, best, request.alpha) if len(probabilities) == len(known) else None
    return score, inside(mean, 0, 1)


def _attention_score(readings: HeadReadings, request: HeadRequest, layer: int) -> float | None:
    fed = [t + 1 for t in request.tokens if t + 1 < len(request.probabilities)]
    score = float(readings.own_NB[layer][fed, request.index].double().sum()) if fed else math.nan
    return inside(score, -math.inf, 0)


def _lookback(readings: HeadReadings, request: HeadRequest, layer: int) -> float | None:
    if request.prompt < 2:
        return None
    ratio = float(readings.lookback_NB[layer][list(request.tokens), request.index].double().mean())
    return inside(ratio, 0, 1)
