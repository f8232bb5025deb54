"""Builds one request's `ThoughtTrace` from the readings of its batch."""

import math
from collections.abc import Sequence
from typing import Any, Final

from torch import Tensor

from wonder.engine.compress import compress
from wonder.engine.concepts import ProbeShelf, read
from wonder.engine.demand import attention_layers, probes_of
from wonder.engine.info import EngineInfo
from wonder.engine.loop import BatchResult, Row
from wonder.engine.pairs import key_pairs
from wonder.engine.recorder import BatchReadings, ReadPlan
from wonder.engine.request import EngineRequest
from wonder.engine.selfcheck import Support
from wonder.engine.text import TokenNames
from wonder.trace.confidence import TokenReadings, field_confidence, overall_confidence
from wonder.trace.schema import FieldConfidence, ThoughtTrace, Timings, TokenAlternative
from wonder.trace.spans import tokens_of, value_spans

# Shape suffixes: B rows, E experts, K kept, L layers, N tokens.

NOT_FINITE: Final = "the model's own numbers are not finite here"
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
        fields |= self._attention_fields(request, prompt, batch, index, missing)
        fields |= self._expert_fields(request, batch.readings, index, len(row.tokens), missing)
        fields |= self._concept_fields(request, batch.readings, plan, index, missing)
        if request.capture.compress_state:
            state = compress(request.capture, self._shelf.compressors, batch.readings, plan, index)
            if isinstance(state, str):
                missing["compressed_state"] = state
            else:
                fields |= {
                    "compressed_state": state,
                    "bundles": fields["bundles"] | {"compressed_state": state.basis},
                }
        return ThoughtTrace(**fields, missing=missing)

    def _token_fields(
        self, request: EngineRequest, row: Row, readings: BatchReadings, index: int, missing: dict[str, str]
    ) -> dict[str, Any]:
        count = len(row.tokens)
        chosen = _numbers(readings.chosen_NB[:count, index], 0, 1)
        entropy = _numbers(readings.entropy_NB[:count, index], 0, math.inf)
        fields: dict[str, Any] = {
            "token_confidences": chosen,
            "logits_entropy": entropy,
            "token_margins": _numbers(readings.margin_NB[:count, index], 0, 1),
            "generation_probs": None,
        }
        if request.sampling.temperature > 0 and readings.drawn_NB is not None:
            fields["generation_probs"] = _numbers(readings.drawn_NB[:count, index], 0, 1)
        for name, values in list(fields.items()):
            if values and None in values:
                missing[name] = NOT_FINITE
        kept = request.capture.top_alternatives
        fields["top_alternatives"] = [
            [
                TokenAlternative(token=self._names(token), probability=min(1.0, probability))
                for token, probability in zip(tokens[:kept], probabilities[:kept], strict=True)
                if math.isfinite(probability)
            ]
            for tokens, probabilities in zip(
                readings.top_token_NBK[:count, index].tolist(),
                readings.top_probability_NBK[:count, index].tolist(),
                strict=True,
            )
        ]
        if not kept:
            fields["top_alternatives"] = []
        elif "token_confidences" in missing:
            missing["top_alternatives"] = NOT_FINITE
        if request.capture.compute_confidence:
            return fields | self._confidence_fields(request, row, chosen, entropy)
        return fields | {"confidence_reason": "not asked for (compute_confidence=False)"}

    def _confidence_fields(
        self, request: EngineRequest, row: Row, chosen: list[float | None], entropy: list[float | None]
    ) -> dict[str, Any]:
        spans = value_spans(row.stream.text[: row.cut], request.answer_format)
        found = {path: tokens_of(span, row.stream.spans) for path, span in spans.values.items()}
        tokens = {path: item for path, item in found.items() if item is not None}
        reason = spans.reason
        if reason and row.finished == "length":
            reason = f"{reason} (generation was cut off at {len(row.tokens)} tokens)"
        readings = TokenReadings(chosen, entropy, self._info.vocabulary, tokens, reason)
        overall = overall_confidence(request.capture.confidence_method, readings, request.capture.value_fields)
        return {
            "field_confidences": {
                path: FieldConfidence(start=at[0], stop=at[1], confidence=field_confidence(readings, at))
                for path, at in tokens.items()
            },
            "overall_confidence": overall.value,
            "confidence_status": "unknown" if overall.value is None else "uncalibrated",
            "confidence_reason": overall.reason,
        }

    def _layer_fields(self, readings: BatchReadings, index: int, count: int, missing: dict[str, str]) -> dict[str, Any]:
        fields = {
            "layer_norms": _numbers(readings.norm_NLB[:count, :, index].double().mean(0), 0, math.inf),
            "representation_shifts": _numbers(readings.shift_NLB[:count, :, index].double().mean(0), 0, 2),
        }
        missing |= {name: NOT_FINITE for name, values in fields.items() if None in values}
        return fields

    def _attention_fields(
        self,
        request: EngineRequest,
        prompt: Sequence[int],
        batch: BatchResult,
        index: int,
        missing: dict[str, str],
    ) -> dict[str, Any]:
        capture = request.capture
        names = ["attention_entropy", "attention_entropy_normalized", "attention_sink_mass"]
        names = names if capture.compute_attention_entropy else []
        wanted = [*names, "key_attention_pairs"] if capture.capture_attention else names
        readings = batch.readings
        if not wanted or readings is None:
            return {}
        if readings.attention is None:
            missing |= dict.fromkeys(wanted, self._support.attention or "no attention was seen in the watched layers")
            return {}
        layers = attention_layers(capture, self._info.n_layers)
        count = len(batch.rows[index].tokens)
        fields: dict[str, Any] = {}
        sources = {
            "attention_entropy": (readings.attention.entropy_NAB, math.inf),
            "attention_entropy_normalized": (readings.attention.normalized_NAB, 1.0),
            "attention_sink_mass": (readings.attention.sink_NAB, 1.0),
        }
        for name in names:
            values_NAB, high = sources[name]
            values: list[float | None] = [None] * self._info.n_layers
            for at, layer in enumerate(readings.attention.layers):
                if layer in layers:
                    column = values_NAB[:count, at, index].double()
                    # Undefined only where a single key was attended to: such steps say nothing about the layer.
                    mean = column.nanmean() if name == "attention_entropy_normalized" else column.mean()
                    values[layer] = _number(float(mean), 0, high)
            fields[name] = values
            if broken := [layer for layer in layers if values[layer] is None]:
                missing[name] = f"{NOT_FINITE}, or undefined with one key: layers {', '.join(map(str, broken))}"
            elif len(layers) < self._info.n_layers:
                missing[name] = f"read in layers {', '.join(map(str, layers))} only (attention_layers)"
        if capture.capture_attention:
            fields["key_attention_pairs"] = key_pairs(
                readings.attention, batch, index, prompt, layers, capture.key_pairs_per_layer, self._names
            )
            if not fields["key_attention_pairs"]:
                missing["key_attention_pairs"] = "no finite attention outside the first position"
        return fields

    def _expert_fields(
        self, request: EngineRequest, readings: BatchReadings, index: int, count: int, missing: dict[str, str]
    ) -> dict[str, Any]:
        if not request.capture.capture_expert_routing:
            return {}
        unread = self._support.routers | readings.unread_routers
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
        reason = "; ".join(f"router {key}: {why}" for key, why in sorted(unread.items()))
        if not selections and not reason:
            reason = "this model has no routers"
        if reason:
            missing |= {"expert_selections": reason, "expert_distribution": reason}
        return {"expert_selections": selections, "expert_distribution": distribution}

    def _concept_fields(
        self, request: EngineRequest, readings: BatchReadings, plan: ReadPlan, index: int, missing: dict[str, str]
    ) -> dict[str, Any]:
        active: dict[str, float] = {}
        bundles: dict[str, str] = {}
        for name, bundle in probes_of(request.capture, self._shelf).items():
            point = bundle.manifest.hook_point
            states_WBD = readings.states_WBD[point.aggregation]
            value = read(bundle, states_WBD[plan.state_layers.index(point.layer), index])
            bundles[name] = bundle.id
            if value is None:
                missing[f"active_concepts.{name}"] = NOT_FINITE
            else:
                active[name] = value
        return {"active_concepts": active, "bundles": bundles}


def _numbers(values: Tensor, low: float, high: float) -> list[float | None]:
    return [_number(value, low, high) for value in values.tolist()]


def _number(value: float, low: float, high: float) -> float | None:
    """A finite number inside its range (rounding may leave it by an epsilon), or None."""
    return min(high, max(low, value)) if math.isfinite(value) else None
