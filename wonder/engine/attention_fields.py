"""The attention fields of one request's trace, from the readings of its batch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from torch import Tensor

from wonder.engine.demand import attention_layers
from wonder.engine.head_statistics import HeadRequest, explain, head_fields
from wonder.engine.loop import BatchResult
from wonder.engine.numbers import NOT_FINITE, inside
from wonder.engine.pairs import key_pairs
from wonder.engine.request import EngineRequest
from wonder.engine.text import TokenNames
from wonder.trace.readings import value_tokens

ENTROPY: Final = ("attention_entropy", "attention_entropy_normalized", "attention_sink_mass")
PROMPT: Final = ("prompt_attention_entropy", "prompt_attention_entropy_normalized")
STATISTICS: Final = ("rauq", "rauq_layers", "attention_score", "previous_token_attention", "lookback_ratio")


@dataclass(frozen=True)
class Watched:
    """A request and what was read of it."""

    request: EngineRequest
    prompt: Sequence[int]
    batch: BatchResult
    index: int
    n_layers: int
    unsupported: str | None
    """Why this model's attention cannot be read."""

    @property
    def layers(self) -> list[int]:
        """Layers whose attention the request asked for."""
        return attention_layers(self.request.capture, self.n_layers)

    @property
    def count(self) -> int:
        """Generated tokens."""
        return len(self.batch.rows[self.index].tokens)


def attention_fields(watched: Watched, names: TokenNames, missing: dict[str, str]) -> dict[str, Any]:
    """Entropies, sink mass and key pairs."""
    capture = watched.request.capture
    wanted: tuple[str, ...] = ENTROPY if capture.compute_attention_entropy else ()
    wanted += PROMPT if capture.attention_rows == "all" else ()
    wanted += ("key_attention_pairs",) if capture.capture_attention else ()
    readings = watched.batch.readings
    if not wanted or readings is None:
        return {}
    if readings.attention is None:
        missing |= dict.fromkeys(wanted, watched.unsupported or "no attention was seen in the watched layers")
        return {}
    seen = readings.attention
    sources: dict[str, tuple[dict[int, Tensor], float]] = {
        "attention_entropy": (_columns(seen.layers, seen.entropy_NAB, watched), math.inf),
        "attention_entropy_normalized": (_columns(seen.layers, seen.normalized_NAB, watched), 1.0),
        "attention_sink_mass": (_columns(seen.layers, seen.sink_NAB, watched), 1.0),
    }
    if readings.prompt is not None:
        sources |= {
            "prompt_attention_entropy": (_places(readings.prompt.entropy_B, watched), math.inf),
            "prompt_attention_entropy_normalized": (_places(readings.prompt.normalized_B, watched), 1.0),
        }
    fields: dict[str, Any] = {}
    for name in (*ENTROPY, *PROMPT):
        if name in wanted and name in sources:
            fields[name] = _means(name, *sources[name], watched, missing)
        elif name in wanted:
            missing[name] = "no attention was seen in the watched layers while the prompt was fed"
    if capture.capture_attention:
        kept = capture.key_pairs_per_layer
        fields["key_attention_pairs"] = key_pairs(
            seen, watched.batch, watched.index, watched.prompt, watched.layers, kept, names
        )
        if not fields["key_attention_pairs"]:
            missing["key_attention_pairs"] = "no finite attention outside the first position"
    return fields


def statistics_fields(watched: Watched, fields: dict[str, Any], missing: dict[str, str]) -> dict[str, Any]:
    """Statistics of heads over the answer's values; over all its tokens where it has none.

    Args:
        watched: The request.
        fields: Of its trace so far, of which the token probabilities and the values are needed.
        missing: Takes the reasons for what is undefined.
    """
    capture, readings = watched.request.capture, watched.batch.readings
    if not capture.compute_attention_statistics or readings is None:
        return {}
    if readings.heads is None:
        missing |= dict.fromkeys(STATISTICS, watched.unsupported or "no attention was seen in the watched layers")
        return {}
    values = value_tokens(fields.get("field_confidences", {}), capture.value_fields)
    request = HeadRequest(
        index=watched.index,
        prompt=len(watched.prompt),
        probabilities=fields["token_confidences"],
        tokens=range(watched.count) if isinstance(values, str) else values,
        layers=watched.layers,
        alpha=capture.rauq_alpha,
    )
    found = head_fields(readings.heads, request, watched.n_layers)
    missing |= explain(found, request, watched.n_layers)
    return found


def _columns(layers: Sequence[int], values_NAB: Tensor, watched: Watched) -> dict[int, Tensor]:
    return {layer: values_NAB[: watched.count, at, watched.index] for at, layer in enumerate(layers)}


def _places(values_B: dict[int, Tensor], watched: Watched) -> dict[int, Tensor]:
    return {layer: values[watched.index : watched.index + 1] for layer, values in values_B.items()}


def _means(
    name: str, columns: dict[int, Tensor], high: float, watched: Watched, missing: dict[str, str]
) -> list[float | None]:
    """Per layer the mean over steps."""
    layers = watched.layers
    values: list[float | None] = [None] * watched.n_layers
    for layer in layers:
        if layer in columns:
            column = columns[layer].double()
            # Undefined only where a single key was attended to: such steps say nothing about the layer.
            mean = column.nanmean() if name.endswith("normalized") else column.mean()
            values[layer] = inside(float(mean), 0, high)
    if broken := [layer for layer in layers if values[layer] is None]:
        missing[name] = f"{NOT_FINITE}, or undefined with one key: layers {', '.join(map(str, broken))}"
    elif len(layers) < watched.n_layers:
        missing[name] = f"read in layers {', '.join(map(str, layers))} only (attention_layers)"
    return values
