"""What signals are computed from: a trace, the tokens that count, and why a number cannot be had."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from wonder.trace.confidence import product
from wonder.trace.schema import FieldConfidence, LensLayer, SampleSummary, ThoughtTrace

NOT_FINITE: Final = "the model's own numbers are not finite for some tokens"


@dataclass(frozen=True)
class Answer:
    """A trace, and the tokens that count."""

    trace: ThoughtTrace
    tokens: tuple[int, ...] | str
    """The tokens of the values in order, or why there are none."""

    def values(self, field: str) -> list[float]:
        """A per-token list over the answer's values."""
        if isinstance(self.tokens, str):
            raise UnknownError(self.tokens)
        numbers = self._list(field)
        return _finite([numbers[t] for t in self.tokens])

    def every(self, field: str) -> list[float]:
        """A per-token or per-layer list, whole."""
        return _finite(self._list(field))

    def _list(self, field: str) -> Sequence[float | None]:
        numbers: Sequence[float | None] = getattr(self.trace, field)
        if not numbers:
            raise UnknownError(self.trace.missing.get(field) or f"the trace has no {field}")
        return numbers


class UnknownError(Exception):
    """The signal cannot be had; says why."""


def value_tokens(
    fields: Mapping[str, FieldConfidence], value_fields: Collection[str] | None = None
) -> tuple[int, ...] | str:
    """The tokens of the answer's values in order, or why there are none.

    Args:
        fields: A trace's `field_confidences`.
        value_fields: Dotted paths of those that count; a path stands for everything below it too. None: all.
    """
    if not fields:
        return "the answer has no values"
    chosen = set(fields)
    if value_fields is not None:
        chosen = set()
        for wanted in value_fields:
            below = {path for path in fields if path == wanted or path.startswith(f"{wanted}.")}
            if not below:
                return f"the answer has no field {wanted!r}; it has {', '.join(sorted(fields))[:200]}"
            chosen |= below
        if not chosen:
            return "no field was chosen"
    # A token that two fields share (`","`) counts once: the union of tokens, not the product of the fields.
    return tuple(sorted({t for path in chosen for t in range(fields[path].start, fields[path].stop)}))


def answer_tokens(trace: ThoughtTrace, value_fields: Collection[str] | None) -> tuple[int, ...] | str:
    """The tokens of the values that count, in order, or why there are none."""
    fields = trace.field_confidences
    if not fields and "field_confidences" in trace.missing:
        return trace.missing["field_confidences"]
    return value_tokens(fields, value_fields)


def _finite(numbers: Iterable[float | None]) -> list[float]:
    known = [number for number in numbers if number is not None and math.isfinite(number)]
    if not known or len(known) < len(list(numbers)):
        raise UnknownError(NOT_FINITE)
    return known


def value_probability(answer: Answer) -> float:
    """The product of the probabilities of the values' tokens."""
    return _known(product(answer.values("token_confidences")))


def normalized_entropy(answer: Answer) -> float:
    """1 - mean entropy / ln(vocabulary), over all tokens."""
    vocabulary = answer.trace.vocabulary_size
    if vocabulary < 2:
        raise UnknownError("the size of the vocabulary is not known, or one token has no entropy")
    return 1 - mean(answer.every("logits_entropy")) / math.log(vocabulary)


def relative_margin(answer: Answer) -> float:
    """The smallest (largest - second largest) / largest over the values' tokens."""
    margins = answer.values("token_margins")
    likeliest = [_likeliest(answer.trace, t) for t in answer.tokens if isinstance(t, int)]
    return min(1.0 if p <= 0 else margin / p for margin, p in zip(margins, likeliest, strict=True))


def _likeliest(trace: ThoughtTrace, token: int) -> float:
    """The probability of the likeliest token at a step: the emitted one's, where the likeliest is always taken."""
    options = trace.top_alternatives[token] if token < len(trace.top_alternatives) else []
    if options:
        return options[0].probability
    if trace.generation_probs is not None:
        raise UnknownError("the likeliest token of a drawn answer is not known (top_alternatives=0)")
    return _known(trace.token_confidences[token] if token < len(trace.token_confidences) else None)


def number(answer: Answer, field: str) -> float:
    """A single number of the trace."""
    value: float | None = getattr(answer.trace, field)
    if value is None:
        raise UnknownError(answer.trace.missing.get(field) or f"the trace has no {field}")
    return value


def watched(answer: Answer, field: str) -> list[float]:
    """The layers of a per-layer list that were watched."""
    known = [value for value in getattr(answer.trace, field) if value is not None]
    if not known:
        raise UnknownError(answer.trace.missing.get(field) or f"the trace has no {field}")
    return known


def lens(answer: Answer, read: Callable[[LensLayer], float | None]) -> float:
    """The mean of a number over the layers that were put through the head."""
    found = [value for layer in answer.trace.logit_lens if (value := read(layer)) is not None]
    if not found:
        raise UnknownError(answer.trace.missing.get("logit_lens") or "no layer was put through the head")
    return mean(found)


def _known(value: float | None) -> float:
    if value is None:
        raise UnknownError(NOT_FINITE)
    return value


def mean(numbers: Sequence[float]) -> float:
    """The mean."""
    return math.fsum(numbers) / len(numbers)


def unit(number: float) -> float:
    """0..infinity to 0..1, in order."""
    return number / (1 + number)


def samples(answer: Answer) -> SampleSummary:
    """What further answers said."""
    if answer.trace.samples is None:
        raise UnknownError(answer.trace.missing.get("samples") or "no samples were drawn (samples=0)")
    return answer.trace.samples
