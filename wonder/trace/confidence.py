"""How sure the model was: from the probabilities of the emitted tokens to one number, or to a reason for none.

p_t is the probability of emitted token t under the raw logits, H_t the entropy of that whole distribution in nats, V
the size of the vocabulary.

| method | formula | over | range | high means |
|---|---|---|---|---|
| `value_probability` | Π p_t | tokens of the answer's values | 0..1 | these very values were nearly certain |
| `mean_probability` | exp(mean ln p_t) | all generated tokens | 0..1 | no token surprised the model on average |
| `min_probability` | min p_t | all generated tokens | 0..1 | there was no single guess |
| `normalized_entropy` | 1 - mean H_t / ln V | all generated tokens | 0..1 | the distributions were narrow |

`value_probability` (maximum sequence probability on the answer's span) is the default: scaffolding tokens (braces,
field names, phrasing) say nothing about whether the answer is right and drown the tokens that do. The geometric mean
is the usual perplexity score. `normalized_entropy` is not the default because its scale is useless as a threshold: k
equally likely tokens score 1 - ln k / ln V, so a pure guess between two values scores 0.94 with 128 k tokens, and
0.7 is reached only when the *average* token is a tie of more than 30.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wonder.trace.capture import ConfidenceMethod


@dataclass(frozen=True)
class Confidence:
    """A probability, or why there is none."""

    value: float | None
    reason: str | None = None


@dataclass(frozen=True)
class TokenReadings:
    """What the methods are computed from; entry t belongs to generated token t."""

    probabilities: Sequence[float | None]
    entropies: Sequence[float | None]
    """In nats."""
    vocabulary: int
    fields: Mapping[str, tuple[int, int]]
    """Dotted path of a value → first token, one past the last."""
    no_fields: str | None = None
    """Why there are no fields."""


def overall_confidence(
    method: ConfidenceMethod, readings: TokenReadings, value_fields: Sequence[str] | None = None
) -> Confidence:
    """The confidence of a whole answer.

    Args:
        method: See the module's table.
        readings: The numbers of each token.
        value_fields: Dotted paths that count for `value_probability`; a path stands for everything below it too.
            None: all values.
    """
    if not readings.probabilities:
        return Confidence(None, "no token was generated")
    if method == "value_probability":
        return _value_probability(readings, value_fields)
    numbers = readings.entropies if method == "normalized_entropy" else readings.probabilities
    known = [number for number in numbers if number is not None and math.isfinite(number)]
    if len(known) < len(numbers) or not known:
        return Confidence(None, "the model's own numbers are not finite for some tokens")
    if method == "min_probability":
        return Confidence(_clamp(min(known)))
    if method == "mean_probability":
        return Confidence(_clamp(math.exp(sum(map(_log, known)) / len(known))))
    if readings.vocabulary < 2:
        return Confidence(None, "a vocabulary of one token has no entropy")
    return Confidence(_clamp(1 - sum(known) / len(known) / math.log(readings.vocabulary)))


def field_confidence(readings: TokenReadings, tokens: tuple[int, int]) -> float | None:
    """Product of the probabilities of the tokens of one value; None where one of them is unknown."""
    return product([readings.probabilities[i] for i in range(*tokens)])


def product(probabilities: Sequence[float | None]) -> float | None:
    """Product of probabilities, taken in logarithms; None where one is unknown, not a number, or there is none."""
    logs = [_log(p) for p in probabilities if p is not None and not math.isnan(p)]
    if len(logs) < len(probabilities) or not logs:
        return None
    return _clamp(math.exp(sum(logs)))


def _value_probability(readings: TokenReadings, value_fields: Sequence[str] | None) -> Confidence:
    if not readings.fields:
        return Confidence(None, readings.no_fields or "the answer has no values")
    chosen = set(readings.fields)
    if value_fields is not None:
        chosen = set()
        for wanted in value_fields:
            below = {path for path in readings.fields if path == wanted or path.startswith(f"{wanted}.")}
            if not below:
                return Confidence(
                    None, f"the answer has no field {wanted!r}; it has {', '.join(sorted(readings.fields))[:200]}"
                )
            chosen |= below
        if not chosen:
            return Confidence(None, "no field was chosen")
    # A token that two fields share (`","`) counts once: the union of tokens, not the product of the fields.
    tokens = sorted({i for path in chosen for i in range(*readings.fields[path])})
    value = product([readings.probabilities[i] for i in tokens])
    return Confidence(value, "the probability of a value token is not a finite number" if value is None else None)


def _log(probability: float) -> float:
    return math.log(probability) if probability > 0 else -math.inf


def _clamp(value: float) -> float:
    return min(1.0, max(0.0, value))
