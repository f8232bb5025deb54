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
    log_chosen: list[float] = field(default_factory=list)
    negentropy: list[float] = field(default_factory=list)
    certainty: list[float] = field(default_factory=list)
    boosted: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    shifts: list[float] = field(default_factory=list)
    attention_entropy: list[float] = field(default_factory=list)
    attention_normalized: list[float] = field(default_factory=list)
    sink: list[float] = field(default_factory=list)
    pairs: list[list[tuple[int, int, float]]] = field(default_factory=list)
    prompt_entropy: list[float] = field(default_factory=list)
    prompt_normalized: list[float] = field(default_factory=list)
    heads: list[torch.Tensor] = field(default_factory=list)
    """Attention weights of each layer, (heads, positions, positions)."""
    experts: dict[str, list[float]] = field(default_factory=dict)
    router_entropy: dict[str, float] = field(default_factory=dict)
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
    gates: dict[int, torch.Tensor] = {}
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
            if type(module).__name__.endswith("Router"):
                handles.append(module.register_forward_pre_hook(_gating(layer, gates)))
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
        logs = logits.log_softmax(-1)
        found.log_chosen.append(float(logs[answer[step]]))
        five = p.topk(5).values / p.topk(5).values.sum()
        found.negentropy.append(1 - float(-(five * five.log()).sum()) / math.log(5))
        found.certainty.append(float(-logs.mean()) - math.log(len(logs)))
        ranked = p.topk(min(200, len(p)))
        dominant = ranked.indices[: int((ranked.values[:-1] - ranked.values[1:]).argmax()) + 1].tolist()
        found.boosted.append(float(p[dominant].sum() if answer[step] in dominant else p[answer[step]]))
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
    for layer, logits_NE in sorted(gates.items()):
        shares = logits_NE[first : first + count].double().softmax(-1)
        found.router_entropy[str(layer)] = float(torch.special.entr(shares).sum(-1).mean())
    if attention:
        for layer in range(len(blocks)):
            heads, reach = result.attentions[layer][0].double(), _reach(twin.config, layer)
            _attention(found, heads, rows, reach)
            entropies, normalized = _entropies(heads, range(len(prompt)), reach)
            found.prompt_entropy.append(sum(entropies) / len(entropies))
            found.prompt_normalized.append(sum(normalized) / len(normalized))
            found.heads.append(heads)
    return found


@dataclass
class Statistics:
    """Statistics of heads; lists over layers."""

    rauq: list[float] = field(default_factory=list)
    previous: list[float | None] = field(default_factory=list)
    own: list[float] = field(default_factory=list)
    lookback: list[float] = field(default_factory=list)


def statistics(found: Reference, prompt: int, tokens: Sequence[int], alpha: float) -> Statistics:
    """Statistics over some generated tokens, by their formulas; token t stands at position `prompt` + t.

    The row of the last generated token does not exist, because it is never fed.
    """
    made = Statistics()
    fed = [t for t in tokens if t + 1 < len(found.chosen)]
    for heads in found.heads:
        previous = torch.tensor(
            [[float(head[prompt + t, prompt + t - 1]) for t in fed if t != tokens[0]] for head in heads]
        )
        best = max(range(len(heads)), key=lambda h: float(previous[h].mean()))
        c = [found.chosen[tokens[0]]]
        for t, a in zip([t for t in fed if t != tokens[0]], previous[best].tolist(), strict=True):
            c.append(alpha * found.chosen[t] + (1 - alpha) * a * c[-1])
        made.rauq.append(-sum(math.log(value) for value in c) / len(c))
        made.previous.append(float(previous[best].mean()) if previous.shape[1] else None)
        made.own.append(sum(math.log(float(head[prompt + t, prompt + t])) for head in heads for t in fed) / len(heads))
        ratios = []
        for head in heads:
            for t in tokens:
                row = head[prompt - 1 + t]
                on_prompt, on_answer = float(row[1:prompt].sum()), float(row[prompt:].sum())
                ratios.append(on_prompt / (on_prompt + on_answer))
        made.lookback.append(sum(ratios) / len(ratios))
    return made


def _routing(layer: int, routed: dict[int, torch.Tensor]) -> Any:
    def hook(_module: Any, args: Any) -> None:
        if len(args) > 1 and not args[1].is_floating_point():
            routed[layer] = args[1]

    return hook


def _gating(layer: int, gates: dict[int, torch.Tensor]) -> Any:
    """A router's logits by its own weights, whatever it gives out."""

    def hook(module: Any, args: Any) -> None:
        states = args[0].reshape(-1, args[0].shape[-1])
        gates[layer] = torch.nn.functional.linear(states, module.weight, getattr(module, "bias", None))

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
    entropies, normalized = _entropies(heads, rows, reach)
    sinks, pairs = [], []
    for row in rows:
        mean = heads[:, row, : row + 1].mean(0)
        sinks.append(float(mean[0]))
        pairs += [(row, key, float(mean[key])) for key in range(1, row + 1)]
    found.attention_entropy.append(sum(entropies) / len(entropies))
    found.attention_normalized.append(sum(normalized) / len(normalized))
    found.sink.append(sum(sinks) / len(sinks))
    found.pairs.append(sorted(pairs, key=lambda pair: -pair[2]))


def _entropies(heads: torch.Tensor, rows: range, reach: Any) -> tuple[list[float], list[float]]:
    entropies, normalized = [], []
    for row in rows:
        p = heads[:, row, : row + 1]
        share = p / p.sum(-1, keepdim=True)
        entropy = float(torch.special.entr(share).sum(-1).mean())
        entropies.append(entropy)
        if reach(row) > 1:
            normalized.append(entropy / math.log(reach(row)))
    return entropies, normalized


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
    jobs = [engine._desk.job(request) for request in requests]
    engine._started().submit(jobs)
    found = []
    for job in jobs:
        answered = job.wait(60)
        trace, tensors = engine._desk.read(job, answered)
        assert trace.batching == "slots"
        found.append(Read(trace, tensors, job.prompt, job.row.tokens))
    # An answer is there before the engine's thread has put its taps away, and a test may go on with the model itself.
    engine._started()._executor.submit(int).result(60)
    return found


def read_padded(engine: TraceEngine, requests: Sequence[Request]) -> list[Read]:
    runtime, n_layers = engine._runtime, engine.info.n_layers
    prompts = [engine._desk.prompt(request) for request in requests]
    plan = plan_for([request.capture for request in requests], engine._desk.shelf, n_layers, engine._support)
    batch = run_batch(runtime, prompts, [request.sampling for request in requests], plan)
    assert plan is not None
    assert batch.readings is not None
    return [
        Read(
            engine._desk.assembler.trace(request, prompts[index], batch, index, plan),
            hidden_tensors(request.capture, batch.readings, plan, index, n_layers),
            prompts[index],
            batch.rows[index].tokens,
        )
        for index, request in enumerate(requests)
    ]
