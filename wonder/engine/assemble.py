"""Builds one request's `ThoughtTrace` from the readings of its batch."""

import math
from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

from wonder.engine.attention_fields import Watched, attention_fields, statistics_fields
from wonder.engine.compress import compress
from wonder.engine.concepts import ProbeShelf, read
from wonder.engine.demand import attention_layers, lens_layers, probes_of
from wonder.engine.info import EngineInfo
from wonder.engine.lens_trace import lens_trace
from wonder.engine.loop import BatchResult, Row
from wonder.engine.numbers import NOT_FINITE, inside
from wonder.engine.recorder import BatchReadings, ReadPlan
from wonder.engine.request import EngineRequest
from wonder.engine.selfcheck import Support
from wonder.engine.text import TokenNames
from wonder.trace.bins import bin_span
from wonder.trace.capture import ThoughtCapture
from wonder.trace.confidence import product
from wonder.trace.detail import time_bins
from wonder.trace.schema import FieldConfidence, ThoughtTrace, Timings, TokenAlternative
from wonder.trace.signals import read_signal, read_signals
from wonder.trace.spans import tokens_of, value_spans

# Shape suffixes: B rows, E experts, K kept, L layers, N tokens.

INFINITE: Final = "infinite where the model itself gives a token no probability at all"
OFF: Final = "capture is off (thought_capture.enabled=False)"


class Assembler:
    """What stays the same over all traces of one engine."""

    def __init__(self, info: EngineInfo, support: Support, shelf: ProbeShelf, names: TokenNames) -> None:
        self._info = info
        self._support = support
        self._shelf = shelf
        self._names = names

    def trace(
        self,
        request: EngineRequest,
        prompt: Sequence[int],
        batch: BatchResult,
        index: int,
        plan: ReadPlan | None,
        queue_s: float = 0.0,
    ) -> ThoughtTrace:
        """The trace of row `index`, complete and not yet cut to size."""
        row = batch.rows[index]
        fields: dict[str, Any] = {
            "action": request.action,
            "model": self._info.model,
            "model_revision": self._info.revision,
            "model_fingerprint": self._info.fingerprint,
            "dtype": self._info.dtype,
            "batch_size": batch.size,
            "batching": batch.batching,
            "vocabulary_size": self._info.vocabulary,
            "prompt_tokens": len(prompt),
            "finish_reason": row.finished or "length",
            "tokens": row.stream.pieces,
            "confidence_method": request.capture.confidence_method,
            "timings": Timings(
                queue_s=round(queue_s, 6),
                prefill_s=round(batch.prefill_s, 6),
                decode_s=round(row.finished_s - batch.prefill_s, 6),
                total_s=round(queue_s + row.finished_s, 6),
            ),
        }
        if not request.capture.enabled or batch.readings is None or plan is None:
            return ThoughtTrace(**fields, confidence_reason=OFF, missing={"trace": OFF})
        missing: dict[str, str] = {}
        fields |= self._token_fields(request, row, batch.readings, index, missing)
        fields |= self._layer_fields(batch.readings, index, len(row.tokens), missing)
        watched = Watched(request, prompt, batch, index, self._info.n_layers, self._support.attention)
        fields |= attention_fields(watched, self._names, missing)
        fields |= statistics_fields(watched, fields, missing)
        fields |= self._expert_fields(request, batch.readings, index, len(row.tokens), missing)
        fields |= self._concept_fields(request, batch.readings, plan, index, missing)
        if wanted := lens_layers(request.capture, self._info.n_layers):
            if batch.readings.lens is None:
                missing["logit_lens"] = self._support.lens or "the states were not kept"
            else:
                values = fields.get("field_confidences", {})
                fields["logit_lens"] = lens_trace(
                    batch.readings.lens, index, wanted, len(row.tokens), values, self._names
                )
                if any(layer.log_probability is None for layer in fields["logit_lens"]):
                    missing["logit_lens"] = NOT_FINITE
        if request.capture.compress_state:
            state = compress(request.capture, self._shelf.compressors, batch.readings, plan, index)
            if isinstance(state, str):
                missing["compressed_state"] = state
            else:
                fields |= {
                    "compressed_state": state,
                    "bundles": fields["bundles"] | {"compressed_state": state.basis},
                }
        trace = with_confidence(ThoughtTrace(**fields, missing=missing), request.capture)
        if request.capture.detail == "full":
            return trace
        layers = self._binned_layers(request, batch.readings, index, len(row.tokens))
        return trace.model_copy(update={"time_bins": time_bins(trace, request.capture.time_bins, layers)})

    def _binned_layers(
        self, request: EngineRequest, readings: BatchReadings, index: int, count: int
    ) -> dict[str, dict[str, list[float | None]]]:
        """Table → layer → mean of each stretch of the answer."""
        bins = min(request.capture.time_bins, count)
        every = tuple(range(self._info.n_layers))
        sources = [
            ("layer_norms", readings.norm_NLB, every, math.inf),
            ("representation_shifts", readings.shift_NLB, every[:-1], 2.0),
        ]
        if request.capture.compute_attention_entropy and readings.attention is not None:
            sources.append(("attention_entropy", readings.attention.entropy_NAB, readings.attention.layers, math.inf))
        wanted = {"attention_entropy": set(attention_layers(request.capture, self._info.n_layers))}
        tables: dict[str, dict[str, list[float | None]]] = {}
        for name, values_NLB, layers, high in sources:
            spans = [bin_span(count, bins, at) for at in range(bins)]
            means_LX = torch.stack([values_NLB[span.start : span.stop, :, index].double().mean(0) for span in spans], 1)
            tables[name] = {
                str(layer): _numbers(means_X, 0, high)
                for layer, means_X in zip(layers, means_LX, strict=True)
                if layer in wanted.get(name, every)
            }
        return tables

    def _token_fields(
        self, request: EngineRequest, row: Row, readings: BatchReadings, index: int, missing: dict[str, str]
    ) -> dict[str, Any]:
        count = len(row.tokens)
        logits = readings.logits
        chosen = _numbers(logits.chosen[:count, index], 0, 1)
        entropy = _numbers(logits.entropy[:count, index], 0, math.inf)
        fields: dict[str, Any] = {
            "token_confidences": chosen,
            "token_log_probs": _numbers(logits.log_chosen[:count, index], -math.inf, 0),
            "logits_entropy": entropy,
            "token_margins": _numbers(logits.margin[:count, index], 0, 1),
            "top5_negentropy": _numbers(logits.negentropy[:count, index], 0, 1),
            "self_certainty": _numbers(logits.certainty[:count, index], 0, math.inf),
            "generation_probs": None,
            "boosted_probs": None,
        }
        if request.capture.boosted_probability and logits.boosted is not None:
            fields["boosted_probs"] = _numbers(logits.boosted[:count, index], 0, 1)
        if request.sampling.temperature > 0 and readings.drawn_NB is not None:
            fields["generation_probs"] = _numbers(readings.drawn_NB[:count, index], 0, 1)
        for name, values in list(fields.items()):
            if values and None in values:
                missing[name] = NOT_FINITE if None in chosen else INFINITE
        kept = request.capture.top_alternatives
        fields["top_alternatives"] = [
            [
                TokenAlternative(token=self._names(token), probability=min(1.0, probability))
                for token, probability in zip(tokens, probabilities, strict=True)
                if math.isfinite(probability)
            ]
            for tokens, probabilities in zip(
                readings.top_token_NBK[:count, index, :kept].tolist(),
                logits.probability[:count, index, :kept].tolist(),
                strict=True,
            )
        ]
        if not kept:
            fields["top_alternatives"] = []
        elif "token_confidences" in missing:
            missing["top_alternatives"] = NOT_FINITE
        return fields | self._value_fields(row, request, chosen, missing)

    def _value_fields(
        self, row: Row, request: EngineRequest, chosen: list[float | None], missing: dict[str, str]
    ) -> dict[str, Any]:
        if not request.capture.compute_confidence:
            return {}
        spans = value_spans(row.stream.text[: row.cut], request.answer_format)
        found = {path: tokens_of(span, row.stream.spans) for path, span in spans.values.items()}
        tokens = {path: item for path, item in found.items() if item is not None}
        if not tokens:
            reason = spans.reason or "the answer has no values"
            if row.finished == "length":
                reason = f"{reason} (generation was cut off at {len(row.tokens)} tokens)"
            missing["field_confidences"] = reason
        return {
            "field_confidences": {
                path: FieldConfidence(start=at[0], stop=at[1], confidence=product(chosen[slice(*at)]))
                for path, at in tokens.items()
            }
        }

    def _layer_fields(self, readings: BatchReadings, index: int, count: int, missing: dict[str, str]) -> dict[str, Any]:
        fields = {
            "layer_norms": _numbers(readings.norm_NLB[:count, :, index].double().mean(0), 0, math.inf),
            "representation_shifts": _numbers(readings.shift_NLB[:count, :, index].double().mean(0), 0, 2),
        }
        missing |= {name: NOT_FINITE for name, values in fields.items() if None in values}
        return fields

    def _expert_fields(
        self, request: EngineRequest, readings: BatchReadings, index: int, count: int, missing: dict[str, str]
    ) -> dict[str, Any]:
        if not request.capture.capture_expert_routing:
            return {}
        unread = self._support.routers | readings.unread_routers
        entropy: dict[str, float] = {}
        selections: dict[str, list[int]] = {}
        distribution: dict[str, list[float]] = {}
        for key, choices_NBK in readings.choices_NBK.items():
            if key in unread:
                continue
            experts = readings.experts[key]
            counts_E = choices_NBK[:count, index].flatten().long().bincount(minlength=experts)
            total = int(counts_E.sum())
            order = counts_E.argsort(descending=True, stable=True).tolist()
            selections[key] = [expert for expert in order if counts_E[expert] > 0]
            distribution[key] = [int(number) / total for number in counts_E]
            mean = inside(float(readings.router_entropy_NB[key][:count, index].double().mean()), 0, math.inf)
            if mean is None:
                missing["router_entropy"] = NOT_FINITE
            else:
                entropy[key] = mean
        reason = "; ".join(f"router {key}: {why}" for key, why in sorted(unread.items()))
        if not selections and not reason:
            reason = "this model has no routers"
        if reason:
            missing |= dict.fromkeys(("expert_selections", "expert_distribution", "router_entropy"), reason)
        return {
            "expert_selections": selections,
            "expert_distribution": distribution,
            "router_entropy": entropy,
            "shared_experts": self._info.shared_experts,
        }

    def _concept_fields(
        self, request: EngineRequest, readings: BatchReadings, plan: ReadPlan, index: int, missing: dict[str, str]
    ) -> dict[str, Any]:
        active: dict[str, float] = {}
        bundles: dict[str, str] = {}
        sites: dict[str, str] = {}
        for name, bundle in probes_of(request.capture, self._shelf).items():
            point = bundle.manifest.hook_point
            states_WBD = readings.states_WBD[point.aggregation]
            value = read(bundle, states_WBD[plan.state_layers.index(point.layer), index])
            bundles[name] = bundle.id
            sites[name] = point.aggregation
            if value is None:
                missing[f"active_concepts.{name}"] = NOT_FINITE
            else:
                active[name] = value
        return {"active_concepts": active, "concept_sites": sites, "bundles": bundles}


def with_confidence(trace: ThoughtTrace, capture: ThoughtCapture) -> ThoughtTrace:
    """The trace with its signals, one of which is the confidence."""
    if not capture.enabled:
        return trace
    if not capture.compute_confidence:
        return trace.model_copy(update={"confidence_reason": "not asked for (compute_confidence=False)"})
    trace = trace.model_copy(update={"signals": {}})
    signals = read_signals(trace, capture.value_fields)
    overall = read_signal(capture.confidence_method, trace, capture.value_fields)
    return trace.model_copy(
        update={
            "signals": signals,
            "overall_confidence": overall.value,
            "confidence_status": "unknown" if overall.value is None else "uncalibrated",
            "confidence_reason": overall.reason,
        }
    )


def _numbers(values: Tensor, low: float, high: float) -> list[float | None]:
    return [inside(value, low, high) for value in values.tolist()]
