"""Puts what does not travel into an artifact, and cuts the trace to what does."""

import json
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from wonder.engine.demand import hidden_layers
from wonder.engine.recorder import BatchReadings, ReadPlan
from wonder.trace.artifacts import ArtifactRef, TensorSpec
from wonder.trace.capture import ThoughtCapture
from wonder.trace.detail import binned
from wonder.trace.schema import TRACE_LIMIT_BYTES, ThoughtTrace
from wonder.trace.size import Moved, fit, strip_to_scalars
from wonder.trace.store import ArtifactStore

# Shape suffixes: B rows, D d_model, W layers whose states are kept.

RESERVED_BYTES = 2048
"""Left free for the references of the artifacts, which are known only once the trace has been cut."""
DTYPES = {torch.float32: "F32", torch.int64: "I64", torch.uint8: "U8"}


def hidden_tensors(
    capture: ThoughtCapture, readings: BatchReadings, plan: ReadPlan, index: int, n_layers: int
) -> dict[str, Tensor]:
    """The states of one row that go to the artifact: `hidden.layers` and `hidden.<aggregation>` (layers, D)."""
    layers = hidden_layers(capture, n_layers)
    if not layers:
        return {}
    at = [plan.state_layers.index(layer) for layer in layers]
    tensors = {f"hidden.{name}": states_WBD[at, index].clone() for name, states_WBD in readings.states_WBD.items()}
    return {"hidden.layers": torch.tensor(layers), **tensors}


def keep(
    trace: ThoughtTrace, capture: ThoughtCapture, tensors: dict[str, Tensor], store: ArtifactStore | None
) -> ThoughtTrace:
    """Store what has to be stored, and give the trace that travels; it is never larger than the limit."""
    refs: list[ArtifactRef] = []
    if store is not None and tensors:
        refs.append(_put(store, tensors, "hidden states"))
    if store is not None and capture.enabled and capture.store_in != "context":
        whole = trace.model_copy(update={"artifacts": refs}).model_dump_json().encode()
        refs.append(store.put(whole, format="json", content="the whole trace"))
        if capture.store_in == "artifact":
            trace = strip_to_scalars(trace, "are in the artifact")
    if trace.time_bins is not None:
        trace = binned(trace)
    destination = "dropped, because there is no artifact store" if store is None else "moved to the artifact"
    small, moved = fit(trace, TRACE_LIMIT_BYTES - RESERVED_BYTES, destination)
    if moved and store is not None and capture.store_in == "context":
        refs.append(_put(store, moved_tensors(moved), "what was too long for the trace"))
    # A second cut: an unusual store may have addresses longer than what was left free.
    return fit(small.model_copy(update={"artifacts": refs}), TRACE_LIMIT_BYTES, "dropped")[0]


def moved_tensors(moved: Moved) -> dict[str, Tensor]:
    """Arrays as tensors: numbers as F32 with NaN for unknown, everything else as the bytes of its JSON."""
    tensors = {}
    for name, values in moved.items():
        if all(value is None or isinstance(value, int | float) for value in values):
            numbers = [float("nan") if value is None else float(value) for value in values]
            tensors[f"moved.{name}"] = torch.tensor(numbers, dtype=torch.float32)
        else:
            data = bytearray(json.dumps(values, ensure_ascii=False).encode())
            tensors[f"moved.{name}.json"] = torch.frombuffer(data, dtype=torch.uint8)
    return tensors


def _put(store: ArtifactStore, tensors: dict[str, Tensor], content: str) -> ArtifactRef:
    specs: dict[str, Any] = {
        name: TensorSpec(dtype=DTYPES[tensor.dtype], shape=list(tensor.shape)) for name, tensor in tensors.items()
    }
    data = save({name: tensor.contiguous() for name, tensor in tensors.items()})
    return store.put(data, tensors=specs, content=content)
