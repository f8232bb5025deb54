"""Keeps a trace small: rounds its numbers and moves what is too long away, so that it fits into a history."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from wonder.trace.injection import InjectionRecord
from wonder.trace.schema import TRACE_LIMIT_BYTES, KeyAttentionPair, Quantiles, ThoughtTrace

Moved = dict[str, list[Any]]
"""Field, or `field.key` of a mapping → the values that left the trace, one entry per token, layer or expert."""

DIGITS: Final = {
    "token_confidences": 6,
    "token_log_probs": 6,
    "top5_negentropy": 6,
    "self_certainty": 6,
    "boosted_probs": 6,
    "generation_probs": 5,
    "layer_norms": 5,
    "representation_shifts": 5,
}
"""Significant digits kept per field; 4 elsewhere."""
PER_TOKEN: Final = (
    "top_alternatives",
    "boosted_probs",
    "self_certainty",
    "top5_negentropy",
    "generation_probs",
    "token_margins",
    "logits_entropy",
    "token_log_probs",
    "token_confidences",
    "tokens",
)
"""In the order in which they go."""
TOKEN_NUMBERS: Final = PER_TOKEN[1:-1]
PER_LAYER: Final = (
    "previous_token_attention",
    "lookback_ratio",
    "rauq_layers",
    "prompt_attention_entropy",
    "prompt_attention_entropy_normalized",
    "attention_sink_mass",
    "attention_entropy",
    "attention_entropy_normalized",
    "representation_shifts",
    "layer_norms",
)
DOUBTFUL: Final = 32
"""How many of the least confident tokens keep their alternatives."""
NAME_LIMIT: Final = 200
"""Longest text that is left of a name or a reason when nothing else helps."""


def encoded_bytes(trace: ThoughtTrace) -> int:
    """How many bytes the trace takes as JSON."""
    return len(trace.model_dump_json().encode())


def fit(
    trace: ThoughtTrace, limit: int = TRACE_LIMIT_BYTES, destination: str = "moved to the artifact"
) -> tuple[ThoughtTrace, Moved]:
    """Round the numbers of a trace, and move parts away until it fits.

    In order: alternatives outside the values and the 32 least confident tokens, the weaker attention pairs, per-token
    arrays, expert tables, per-layer arrays, details of fields. Numeric arrays leave `quantiles`, and everything that
    went leaves an entry in `missing`.

    Args:
        trace: As read; not changed.
        limit: Encoded bytes that the result does not exceed; at least 4096.
        destination: What `missing` says has become of the values.

    Returns:
        The trace that fits, and the values that left it (whole fields as they were before).
    """
    original, trace = trace, rounded(trace)
    moved: Moved = {}
    for step in _steps():
        if encoded_bytes(trace) <= limit:
            break
        trace = step(trace, original, moved, destination)
    return trace, moved


def rounded(trace: ThoughtTrace) -> ThoughtTrace:
    """The trace with numbers cut to 4-6 significant digits; sums and products were taken before."""
    update: dict[str, Any] = {
        name: None if values is None else [_round(value, DIGITS.get(name, 4)) for value in values]
        for name in (*TOKEN_NUMBERS, *PER_LAYER)
        for values in [getattr(trace, name)]
    }
    update["top_alternatives"] = [
        [item.model_copy(update={"probability": _round(item.probability, 4)}) for item in items]
        for items in trace.top_alternatives
    ]
    update["key_attention_pairs"] = [
        pair.model_copy(update={"weight": _round(pair.weight, 4)}) for pair in trace.key_attention_pairs
    ]
    update["expert_distribution"] = {
        key: [_round(value, 4) for value in values] for key, values in trace.expert_distribution.items()
    }
    update["logit_lens"] = [
        item.model_copy(
            update={
                "log_probability": _round(item.log_probability, 6),
                "first_share": _round(item.first_share, 6),
            }
        )
        for item in trace.logit_lens
    ]
    update["explanations"] = [
        item.model_copy(update={"reconstruction": _round(item.reconstruction, 4)}) for item in trace.explanations
    ]
    update["router_entropy"] = {key: _round(value, 6) for key, value in trace.router_entropy.items()}
    update["field_confidences"] = {
        key: value.model_copy(update={"confidence": _round(value.confidence, 6)})
        for key, value in trace.field_confidences.items()
    }
    update["least_certain"] = [
        doubt.model_copy(
            update={
                "confidence": _round(doubt.confidence, 4),
                "alternatives": [
                    item.model_copy(update={"probability": _round(item.probability, 4)}) for item in doubt.alternatives
                ],
            }
        )
        for doubt in trace.least_certain
    ]
    update["active_concepts"] = {key: _round(value, 6) for key, value in trace.active_concepts.items()}
    update["signals"] = {key: _round(value, 6) for key, value in trace.signals.items()}
    for name in ("overall_confidence", "rauq", "attention_score"):
        update[name] = _round(getattr(trace, name), 6)
    if trace.compressed_state is not None:
        # Its maker has rounded it already, and a probe's coordinates to all that float32 has.
        values = [_round(value, 7) for value in trace.compressed_state.values]
        update["compressed_state"] = trace.compressed_state.model_copy(update={"values": values})
    return trace.model_copy(update=update)


def quantiles(values: Iterable[float | None]) -> Quantiles | None:
    """Summary of the finite values; None where there is none."""
    known = sorted(value for value in values if value is not None and math.isfinite(value))
    if not known:
        return None

    def at(share: float) -> float:
        return float(_round(known[round(share * (len(known) - 1))], 5) or 0.0)

    return Quantiles(count=len(known), min=at(0), p10=at(0.1), median=at(0.5), p90=at(0.9), max=at(1))


def strip_to_scalars(trace: ThoughtTrace, destination: str) -> ThoughtTrace:
    """The trace without its arrays: what travels when the whole trace is stored as an artifact."""
    original, trace = trace, rounded(trace)
    moved: Moved = {}
    for field in ("top_alternatives", "key_attention_pairs", "logit_lens", "explanations", *PER_TOKEN[1:], *PER_LAYER):
        trace = _move_list(trace, original, moved, field, destination)
    for field in ("expert_selections", "expert_distribution", "router_entropy", "shared_experts"):
        trace = _move_mapping(trace, original, moved, field, destination)
    return trace.model_copy(update={"time_bins": None, "least_certain": []})


Step = Callable[[ThoughtTrace, ThoughtTrace, Moved, str], ThoughtTrace]


def _steps() -> list[Step]:
    def listed(field: str) -> Step:
        return lambda trace, original, moved, where: _move_list(trace, original, moved, field, where)

    def mapped(field: str) -> Step:
        return lambda trace, original, moved, where: _move_mapping(trace, original, moved, field, where)

    return [
        _thin_alternatives,
        _thin_pairs,
        *map(listed, PER_TOKEN),
        mapped("expert_distribution"),
        mapped("expert_selections"),
        mapped("router_entropy"),
        mapped("shared_experts"),
        listed("key_attention_pairs"),
        listed("logit_lens"),
        listed("explanations"),
        listed("least_certain"),
        _drop_bins,
        *map(listed, PER_LAYER),
        _drop_state,
        _thin_fields,
        _shorten_texts,
        _bare,
    ]


def _thin_alternatives(trace: ThoughtTrace, original: ThoughtTrace, moved: Moved, destination: str) -> ThoughtTrace:
    if not any(trace.top_alternatives):
        return trace
    keep = {i for value in trace.field_confidences.values() for i in range(value.start, value.stop)}
    ranked = sorted(
        range(len(trace.top_alternatives)),
        key=lambda i: -1.0 if i >= len(trace.token_confidences) else trace.token_confidences[i] or 0.0,
    )
    keep.update(ranked[:DOUBTFUL])
    moved["top_alternatives"] = _plain(original.top_alternatives)
    thin = [items if i in keep else [] for i, items in enumerate(trace.top_alternatives)]
    note = f"kept for value tokens and the {DOUBTFUL} least confident ones; the others {destination}"
    return trace.model_copy(update={"top_alternatives": thin, "missing": trace.missing | {"top_alternatives": note}})


def _thin_pairs(trace: ThoughtTrace, original: ThoughtTrace, moved: Moved, destination: str) -> ThoughtTrace:
    strongest: dict[int, KeyAttentionPair] = {}
    for pair in trace.key_attention_pairs:
        if pair.layer not in strongest or pair.weight > strongest[pair.layer].weight:
            strongest[pair.layer] = pair
    kept = sorted(strongest.values(), key=lambda pair: -pair.weight)[:DOUBTFUL]
    if len(kept) == len(trace.key_attention_pairs):
        return trace
    moved["key_attention_pairs"] = _plain(original.key_attention_pairs)
    note = f"only the strongest pair of each layer was kept; the others {destination}"
    update = {
        "key_attention_pairs": sorted(kept, key=lambda pair: pair.layer),
        "missing": trace.missing | {"key_attention_pairs": note},
    }
    return trace.model_copy(update=update)


def _move_list(trace: ThoughtTrace, original: ThoughtTrace, moved: Moved, field: str, destination: str) -> ThoughtTrace:
    if not getattr(trace, field):
        return trace
    whole = getattr(original, field)
    moved[field] = _plain(whole)
    update: dict[str, Any] = {
        field: None if ThoughtTrace.model_fields[field].default is None else [],
        "missing": trace.missing | {field: f"{len(whole)} entries {destination}, to keep the trace small"},
    }
    if field in DIGITS or field in TOKEN_NUMBERS or field in PER_LAYER:
        summary = quantiles(whole)
        if summary is not None:
            update["quantiles"] = trace.quantiles | {field: summary}
    return trace.model_copy(update=update)


def _move_mapping(
    trace: ThoughtTrace, original: ThoughtTrace, moved: Moved, field: str, destination: str
) -> ThoughtTrace:
    whole: Mapping[str, Any] = getattr(original, field)
    if not getattr(trace, field):
        return trace
    tables = {key: values if isinstance(values, list) else [values] for key, values in whole.items()}
    moved.update({f"{field}.{key}": list(values) for key, values in tables.items()})
    note = f"{len(whole)} tables {destination}, to keep the trace small"
    return trace.model_copy(update={field: {}, "missing": trace.missing | {field: note}})


def _drop_bins(trace: ThoughtTrace, original: ThoughtTrace, moved: Moved, destination: str) -> ThoughtTrace:
    if original.time_bins is None:
        return trace
    moved["time_bins"] = [original.time_bins.model_dump()]
    note = f"{len(original.time_bins.tables)} tables {destination}, to keep the trace small"
    return trace.model_copy(update={"time_bins": None, "missing": trace.missing | {"time_bins": note}})


def _drop_state(trace: ThoughtTrace, original: ThoughtTrace, moved: Moved, destination: str) -> ThoughtTrace:
    if original.compressed_state is None:
        return trace
    moved["compressed_state"] = list(original.compressed_state.values)
    note = f"{len(original.compressed_state.values)} numbers {destination}, to keep the trace small"
    return trace.model_copy(update={"compressed_state": None, "missing": trace.missing | {"compressed_state": note}})


def _thin_fields(trace: ThoughtTrace, original: ThoughtTrace, moved: Moved, destination: str) -> ThoughtTrace:
    """Keep the least confident fields with names of sane length: they are the ones that anybody asks for."""
    whole = original.field_confidences
    doubt = sorted(
        ((name, value) for name, value in trace.field_confidences.items() if len(name) <= NAME_LIMIT),
        key=lambda item: -1.0 if item[1].confidence is None else item[1].confidence,
    )
    if len(doubt[:DOUBTFUL]) == len(whole):
        return trace
    moved["field_confidences"] = [[name, value.start, value.stop, value.confidence] for name, value in whole.items()]
    note = f"the {DOUBTFUL} least confident of {len(whole)} fields were kept; the others {destination}"
    return trace.model_copy(
        update={"field_confidences": dict(doubt[:DOUBTFUL]), "missing": trace.missing | {"field_confidences": note}}
    )


def _shorten_texts(trace: ThoughtTrace, original: ThoughtTrace, moved: Moved, destination: str) -> ThoughtTrace:  # noqa: ARG001 — every step has the same signature
    def short(values: Mapping[str, str]) -> dict[str, str]:
        return {key[:NAME_LIMIT]: value[:NAME_LIMIT] for key, value in list(values.items())[:DOUBTFUL]}

    return trace.model_copy(
        update={
            **{name: getattr(trace, name)[:NAME_LIMIT] for name in ("action", "model", "model_revision", "dtype")},
            "model_fingerprint": trace.model_fingerprint[:NAME_LIMIT],
            "confidence_reason": None if trace.confidence_reason is None else trace.confidence_reason[:NAME_LIMIT],
            "missing": short(trace.missing),
            "bundles": short(trace.bundles),
            "claims": {},
            "signals": dict(list(trace.signals.items())[: 2 * DOUBTFUL]),
            "injection": _short_record(trace),
            "artifacts": [item.model_copy(update={"tensors": {}}) for item in trace.artifacts[:8]],
            "active_concepts": dict(list(trace.active_concepts.items())[: 2 * DOUBTFUL]),
        }
    )


def _bare(trace: ThoughtTrace, original: ThoughtTrace, moved: Moved, destination: str) -> ThoughtTrace:  # noqa: ARG001 — every step has the same signature
    """The last resort: the numbers that are one each, and nothing whose length anybody else decides."""
    return ThoughtTrace(
        action=trace.action[:40],
        model=trace.model[:40],
        model_fingerprint=trace.model_fingerprint[:64],
        dtype=trace.dtype[:20],
        batch_size=trace.batch_size,
        batching=trace.batching,
        prompt_tokens=trace.prompt_tokens,
        finish_reason=trace.finish_reason,
        overall_confidence=trace.overall_confidence,
        rauq=trace.rauq,
        attention_score=trace.attention_score,
        confidence_method=trace.confidence_method,
        confidence_status=trace.confidence_status,
        confidence_reason=None if trace.confidence_reason is None else trace.confidence_reason[:40],
        injection=_short_record(trace),
        missing={"trace": f"names and reasons were too long; all else {destination}"[:NAME_LIMIT]},
        timings=trace.timings,
    )


def _short_record(trace: ThoughtTrace) -> InjectionRecord | None:
    """What was put into the model is kept to the last, under a name of sane length."""
    record = trace.injection
    if record is None or record.bundle is None:
        return record
    return record.model_copy(update={"bundle": record.bundle[:NAME_LIMIT]})


def _plain(values: Iterable[Any]) -> list[Any]:
    return [_plain(v) if isinstance(v, list) else v.model_dump() if hasattr(v, "model_dump") else v for v in values]


def _round(value: float | None, digits: int) -> float | None:
    if value is None or value == 0 or not math.isfinite(value):
        return value
    return float(f"{value:.{digits}g}")
