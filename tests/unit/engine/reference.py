"""Every number of a trace by its definition: one eager pass over prompt and answer, everything materialised."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers as hf

from wonder.engine.demand import plan_for
from wonder.engine.engine import TraceEngine
from wonder.engine.keep import hidden_tensors
from wonder.engine.loop import run_batch
from wonder.engine.request import Request
from wonder.trace.schema import ThoughtTrace


@dataclass
class Reference:
    """Numbers of one answer; lists over tokens and layers as in a trace."""

    greedy: list[int] = field(default_factory=list)
    chosen: list[float] = field(default_factory=list)
    entropy: list[float] = field(default_factory=list)
    margin: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    shifts: list[float] = field(default_factory=list)
    attention_entropy: list[float] = field(default_factory=list)
    attention_normalized: list[float] = field(default_factory=list)
    sink: list[float] = field(default_factory=list)
    pairs: list[list[tuple[int, int, float]]] = field(default_factory=list)
    experts: dict[str, list[float]] = field(default_factory=dict)
    states: dict[str, torch.Tensor] = field(default_factory=dict)


def eager_twin(model: Any) -> Any:
    """A second model with the same weights whose attention is materialised."""
    config = type(model.config)(**{k: v for k, v in model.config.to_dict().items() if k != "transformers_version"})
    twin = hf.AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=model.dtype)
    twin.load_state_dict(model.state_dict())
    return twin.eval()


@torch.inference_mode()
def reference(twin: Any, prompt: Sequence[int], answer: Sequence[int], attention: bool = True) -> Reference:
    """Teacher-force the answer through the twin."""
    blocks = [module for module in twin.modules() if isinstance(module, torch.nn.ModuleList)]
    blocks = list(max(blocks, key=lambda b: len(b) == twin.config.num_hidden_layers))
    outputs: dict[int, torch.Tensor] = {}
    routed: dict[int, torch.Tensor] = {}
    handles = []
    for layer, block in enumerate(blocks):
        handles.append(
            block.register_forward_hook(
                lambda _m, _a, out, layer=layer: outputs.update({layer: (out if torch.is_tensor(out) else out[0])[0]})
            )
        )
        for name, module in block.named_modules():
            if name.endswith("experts") and hasattr(module, "gate_up_proj"):
                handles.append(module.register_forward_pre_hook(_routing(layer, routed)))
            if type(module).__name__ == "Llama4Router":
                handles.append(
                    module.register_forward_hook(
                        lambda _m, _a, out, layer=layer: routed.update({layer: out[1].topk(1, -1).indices})
                    )
                )
    ids = torch.tensor([[*prompt, *answer[:-1]]])
    result = twin(input_ids=ids, output_attentions=attention, use_cache=False)
    for handle in handles:
        handle.remove()
    first, count = len(prompt) - 1, len(answer)
    rows = range(first, first + count)
    found = Reference()
    for step, row in enumerate(rows):
        logits = result.logits[0, row].double()
        p = logits.softmax(-1)
        found.greedy.append(int(logits.argmax()))
        found.chosen.append(float(p[answer[step]]))
        found.entropy.append(float(-(p * logits.log_softmax(-1)).sum()))
        top = p.topk(2).values
        found.margin.append(float(top[0] - top[1]))
    states = torch.stack([outputs[layer] for layer in range(len(blocks))]).double()
    generating = states[:, first : first + count]
    found.norms = generating.norm(dim=-1).mean(-1).tolist()
    cosine = torch.cosine_similarity(generating[1:], generating[:-1], dim=-1)
    found.shifts = (1 - cosine).mean(-1).tolist()
    found.states = {
        "last_prompt": states[:, first],
        "mean_prompt": states[:, : first + 1].mean(1),
        "mean_generated": generating.mean(1),
        "last_generated": generating[:, -1],
    }
    for layer, indices in sorted(routed.items()):
        experts = getattr(twin.config, "num_local_experts", None) or twin.config.num_experts
        counts = indices[first : first + count].flatten().bincount(minlength=experts).double()
        found.experts[str(layer)] = (counts / counts.sum()).tolist()
    if attention:
        for layer in range(len(blocks)):
            _attention(found, result.attentions[layer][0].double(), rows, _reach(twin.config, layer))
    return found


def _routing(layer: int, routed: dict[int, torch.Tensor]) -> Any:
    def hook(_module: Any, args: Any) -> None:
        if len(args) > 1 and not args[1].is_floating_point():
            routed[layer] = args[1]

    return hook


def _reach(config: Any, layer: int) -> Any:
    """Number of keys that a position attends to in this layer."""
    kinds = getattr(config, "layer_types", None)
    kind = kinds[layer] if kinds else "sliding_attention" if getattr(config, "sliding_window", None) else "full"
    if kind == "sliding_attention":
        return lambda at: min(at + 1, config.sliding_window)
    if kind == "chunked_attention":
        return lambda at: at % config.attention_chunk_size + 1
    return lambda at: at + 1


def _attention(found: Reference, heads: torch.Tensor, rows: range, reach: Any) -> None:
    entropies, normalized, sinks, pairs = [], [], [], []
    for row in rows:
        p = heads[:, row, : row + 1]
        share = p / p.sum(-1, keepdim=True)
        entropy = float(torch.special.entr(share).sum(-1).mean())
        entropies.append(entropy)
        if reach(row) > 1:
            normalized.append(entropy / math.log(reach(row)))
        mean = p.mean(0)
        sinks.append(float(mean[0]))
        pairs += [(row, key, float(mean[key])) for key in range(1, row + 1)]
    found.attention_entropy.append(sum(entropies) / len(entropies))
    found.attention_normalized.append(sum(normalized) / len(normalized))
    found.sink.append(sum(sinks) / len(sinks))
    found.pairs.append(sorted(pairs, key=lambda pair: -pair[2]))


@dataclass
class Read:
    """One row of a batch, in full precision."""

    trace: ThoughtTrace
    tensors: dict[str, torch.Tensor]
    prompt: list[int]
    answer: list[int]


def read(engine: TraceEngine, requests: Sequence[Request], path: str = "padded") -> list[Read]:
    """Answer requests together, through one padded batch or through the slot cache, and keep the token ids."""
    return read_slots(engine, requests) if path == "slots" else read_padded(engine, requests)


def read_slots(engine: TraceEngine, requests: Sequence[Request]) -> list[Read]:
    assert engine._support.slots is None, engine._support.slots
    jobs = [engine._job(request, 0, None) for request in requests]
    engine._started().submit(jobs)
    found = []
    for job in jobs:
        answered = job.wait(60)
        trace, tensors = engine._read(job, answered)
        assert trace.batching == "slots"
        found.append(Read(trace, tensors, job.prompt, job.row.tokens))
    return found


def read_padded(engine: TraceEngine, requests: Sequence[Request]) -> list[Read]:
    runtime, n_layers = engine._runtime, engine.info.n_layers
    prompts = [engine._prepare(request) for request in requests]
    plan = plan_for([request.capture for request in requests], engine._shelf, n_layers, engine._support)
    batch = run_batch(runtime, prompts, [request.sampling for request in requests], plan)
    assert plan is not None
    assert batch.readings is not None
    return [
        Read(
            engine._assembler.trace(request, prompts[index], batch, index, plan),
            hidden_tensors(request.capture, batch.readings, plan, index, n_layers),
            prompts[index],
            batch.rows[index].tokens,
        )
        for index, request in enumerate(requests)
    ]
