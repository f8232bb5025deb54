"""Checks, once per loaded model, that watching changes nothing and sees everything; what fails is never reported."""

import inspect
from dataclasses import dataclass, field, replace
from typing import Any, Final

import torch
from torch import Tensor, nn

from wonder.anatomy import Router
from wonder.engine import attention
from wonder.engine.attention import TAP, AttentionTap
from wonder.engine.layout import Layout, Side, kinds_of
from wonder.engine.lens import find_lens
from wonder.engine.loop import Runtime, run_batch
from wonder.engine.recorder import ReadPlan
from wonder.engine.sampling import RowDraw
from wonder.engine.slot_runner import SlotRunner
from wonder.engine.taps import StepSink, choice_of
from wonder.errors import ModelNotUsable, OutOfMemory
from wonder.trace.sampling import Sampling

# Shape suffixes: B rows, S columns, V vocabulary.

ATTENTION_FIELDS: Final = (
    "attention_entropy",
    "attention_entropy_normalized",
    "attention_sink_mass",
    "prompt_attention_entropy",
    "prompt_attention_entropy_normalized",
    "rauq",
    "rauq_layers",
    "attention_score",
    "previous_token_attention",
    "lookback_ratio",
    "key_attention_pairs",
)
STEPS = 2
PROMPT_TOKENS = 4
ROUTED_TOKENS = 24
"""Enough that a router which chooses by itself does not choose the same experts for all."""
KINDS = {"full_attention", "sliding_attention", "chunked_attention"}
"""What masks can be made for."""
FAILURES = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, NotImplementedError, AssertionError)
"""What a model raises that was called in a way it does not understand."""


@dataclass(frozen=True)
class Support:
    """Which signals this model gives; a reason where it does not."""

    attention: str | None = None
    routers: dict[str, str] = field(default_factory=dict)
    """Router → why its choice cannot be read."""
    padding: str | None = None
    """What is special about its batches."""
    slots: str | None = None
    """Why the slot cache cannot hold its state."""
    soft_prompt: str | None = None
    """Why it takes no vectors in place of tokens."""
    lens: str | None = None
    """Why its states cannot be put through its final norm and head."""

    @property
    def unsupported(self) -> dict[str, str]:
        """Signal → why this model does not give it."""
        reasons = dict.fromkeys(ATTENTION_FIELDS, self.attention) | {
            "padding": self.padding,
            "slots": self.slots,
            "soft_prompt": self.soft_prompt,
            "logit_lens": self.lens,
        }
        reasons |= {f"expert_distribution.{key}": why for key, why in self.routers.items()}
        return {signal: why for signal, why in reasons.items() if why}


def prepare(runtime: Runtime) -> tuple[Runtime, Support]:
    """Install the attention tap, find the modules it sees, and compare generation with and without reading.

    Returns:
        The runtime with what was found out about caches and padding, and the signals this model gives.

    Raises:
        ModelNotUsable: The model does not run on a few tokens, or reading would change its text.
    """
    runtime, plain = _first_run(runtime)
    exact = _same(plain, _logits(runtime, None), exact=True)
    implementation = str(runtime.model.config._attn_implementation)
    reason = attention.install(runtime.model, runtime.anatomy)
    if reason is None:
        reason = _find_attention(runtime)
        if not _same(plain, _logits(runtime, None), exact):
            reason = "watching the attention function changes the text of this model"
        if reason is not None:
            runtime.taps.attention_modules.clear()
            runtime.model.set_attn_implementation(implementation)
    runtime = replace(runtime, additive_masks=attention.is_additive(runtime.model))
    routers = _check_hooks(runtime)
    layers = tuple(range(runtime.anatomy.n_layers)) if reason is None else ()
    if not _same(plain, _logits(runtime, ReadPlan(layers, 1, (0,), True, 1, heads=True, prompt_rows=True)), exact):
        if reason is not None or not _same(plain, _logits(runtime, ReadPlan((), 0, (0,), True, 1)), exact):
            raise ModelNotUsable(f"reading {type(runtime.model).__name__} changes its text: please report the model")
        reason = "reading the attention changes the text of this model"
        runtime.taps.attention_modules.clear()
    runtime, padding = _check_padding(runtime)
    runtime, lens = _check_lens(runtime)
    support = Support(reason, routers, padding, _check_slots(runtime), _check_vectors(runtime, exact), lens)
    runtime.experts.for_prompts()
    return runtime, support


def few_logits(runtime: Runtime) -> list[Tensor]:
    """Raw logits (1, V) of the steps of the self-check, with nothing read; for a comparison with what comes later."""
    return _logits(runtime, None)


def _check_lens(runtime: Runtime) -> tuple[Runtime, str | None]:
    try:
        layout = Layout.of([_prompt(runtime)], runtime.pad_id, "left", runtime.device)
        found = find_lens(runtime.model, runtime.anatomy, layout.ids_BS)
    except FAILURES as error:
        found = f"its norm and head do not run alone ({type(error).__name__}: {str(error)[:200]})"
    return (runtime, found) if isinstance(found, str) else (replace(runtime, lens=found), None)


def _first_run(runtime: Runtime) -> tuple[Runtime, list[Tensor]]:
    try:
        return runtime, _logits(runtime, None)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise OutOfMemory(f"the model fits, but a prompt of {PROMPT_TOKENS} tokens does not ({error})") from error
    except FAILURES as error:
        try:
            own = replace(runtime, own_cache=True, equal_lengths=True)
            return own, _logits(own, None)
        except FAILURES:
            raise ModelNotUsable(
                f"{type(runtime.model).__name__} loads but does not generate ({type(error).__name__}: {error}): "
                "it needs another way of being called than a decoder-only causal language model"
            ) from error


def _check_padding(runtime: Runtime) -> tuple[Runtime, str | None]:
    """A padded row must come out as it does alone; a model for which it does not is never padded that way."""
    if runtime.equal_lengths:
        return runtime, "only prompts of equal length share a batch, because this model keeps a running state"
    short = _prompt(runtime)[: PROMPT_TOKENS // 2]
    alone = _logits(runtime, None, [short])
    # In bfloat16 another batch makes noise, which may even send a token to another expert.
    tolerance = 1e-3 if runtime.model.dtype == torch.float32 else 0.2
    sides: list[Side] = ["right", "left"] if runtime.side == "right" else ["left"]
    for side in sides:
        sided = replace(runtime, side=side)
        try:
            padded = _logits(sided, None, [3 * _prompt(runtime), short])
        except FAILURES:
            continue
        if all(_near(one[0], other[1], tolerance) for one, other in zip(alone, padded, strict=True)):
            return sided, None if side == runtime.side else "this model takes padding on the left only"
    reason = "only prompts of equal length share a batch, because padding changes the text of this model"
    return replace(runtime, side="left", equal_lengths=True), reason


def _check_slots(runtime: Runtime) -> str | None:
    """Two rows of the slot cache, fed in pieces or together with padding, must give what each prompt gives alone."""
    config = runtime.anatomy.config
    if runtime.own_cache or runtime.anatomy.is_recurrent:
        return "this model keeps a state that is no key-value cache, or insists on a cache of its own"
    if "flash" in str(runtime.model.config._attn_implementation):
        return "flash attention takes no masks of single rows; load it with sdpa attention"
    unknown = set(kinds_of(config, runtime.anatomy.n_layers)) - KINDS
    if unknown or "local" in (getattr(config, "attention_layers", None) or ()):
        return "this model's attention is limited in a way that the slot cache does not know"
    long, short = 3 * _prompt(runtime), _prompt(runtime)[: PROMPT_TOKENS // 2]
    try:
        found = _slot_logits(runtime, long, short)
        together = _padded_logits(runtime, long, short)
    except FAILURES as error:
        return f"this model does not run with the slot cache ({type(error).__name__}: {str(error)[:200]})"
    tolerance = 1e-3 if runtime.model.dtype == torch.float32 else 0.2
    alone = [_logits(runtime, None, [prompt]) for prompt in (long, short)]
    pairs = [pair for row in (0, 1) for pair in zip(alone[row], found[row], strict=True)]
    pairs += [(alone[row][0], together[row]) for row in (0, 1)]
    if all(_near(one_BV[0], other_V, tolerance) for one_BV, other_V in pairs):
        return None
    return "this model gives other numbers with the slot cache"


@torch.inference_mode()
def _check_vectors(runtime: Runtime, exact: bool) -> str | None:
    """A prompt given as embeddings must come out as the same prompt given as ids."""
    if "inputs_embeds" not in inspect.signature(runtime.model.forward).parameters:
        return "this model takes token ids only"
    ids_BS = torch.tensor([_prompt(runtime)], device=runtime.device)
    try:
        by_id, by_vector = (
            runtime.model(**inputs, use_cache=False).logits[:, -1].float()
            for inputs in ({"input_ids": ids_BS}, {"inputs_embeds": runtime.embed(ids_BS)})
        )
    except FAILURES as error:
        return f"this model does not run on vectors ({type(error).__name__}: {str(error)[:200]})"
    if _same([by_id], [by_vector], exact):
        return None
    return "this model uses token ids beyond its embedding, so vectors give other numbers"


@torch.inference_mode()
def _slot_logits(runtime: Runtime, long: list[int], short: list[int]) -> tuple[list[Tensor], list[Tensor]]:
    """Raw logits (V,) of `STEPS` steps of two rows that are fed and advanced together."""
    runner = SlotRunner(runtime, 2)
    runner.cache.reserve(2, len(long) + STEPS, 0, 2 * (len(long) + STEPS))
    draws = [RowDraw(Sampling()) for _ in range(2)]
    cut = len(long) // 2
    runner.prefill(0, [long[:cut]], 0, [None], None)
    passes = [
        runner.prefill(0, [long[cut:]], cut, [None], draws[:1]),
        runner.prefill(1, [short], 0, [None], draws[1:]),
    ]
    rows = tuple([done.logits_BV[0].clone()] for done in passes if done is not None)
    tokens = [done.tokens[0] for done in passes if done is not None]
    lengths = [len(long), len(short)]
    for _ in range(STEPS - 1):
        done = runner.decode(0, tokens, lengths, [None, None], draws)
        for row, logits_V in zip(rows, done.logits_BV, strict=True):
            row.append(logits_V.clone())
        tokens, lengths = done.tokens, [length + 1 for length in lengths]
    return rows[0], rows[1]


@torch.inference_mode()
def _padded_logits(runtime: Runtime, long: list[int], short: list[int]) -> Tensor:
    """Raw logits (2, V) of the first step of two prompts that are fed in one pass."""
    runner = SlotRunner(runtime, 2)
    runner.cache.reserve(2, len(long), 0, 2 * len(long))
    done = runner.prefill(0, [long, short], 0, [None, None], [RowDraw(Sampling()) for _ in range(2)])
    assert done is not None
    return done.logits_BV


def _near(one_V: Tensor, other_V: Tensor, tolerance: float) -> bool:
    difference = (one_V - other_V).nan_to_num(posinf=0.0, neginf=0.0).norm()
    return bool(difference <= tolerance * one_V.nan_to_num(posinf=0.0, neginf=0.0).norm())


def _stuck_routers(runtime: Runtime) -> set[str]:
    """Routers whose choice is the same for many tokens although their logits prefer different experts.

    A kernel that routes by itself leaves such indices behind (zeros, usually) where the router's own should be.
    """
    found: dict[str, tuple[Tensor, Tensor]] = {}

    def hook(router: Router) -> Any:
        def keep(module: nn.Module, _args: Any, output: Any) -> None:
            choice = choice_of(module, output, router.index)
            if not isinstance(choice, str):
                found[router.key] = choice

        return keep

    handles = [router.module.register_forward_hook(hook(router)) for router in runtime.anatomy.routers]
    try:
        layout = Layout.of([_prompt(runtime, ROUTED_TOKENS)], runtime.pad_id, "left", runtime.device)
        with torch.inference_mode():
            runtime.model(input_ids=layout.ids_BS, position_ids=layout.positions(), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    biased = {router.key for router in runtime.anatomy.routers if _is_corrected(router.module)}
    return {
        key
        for key, (chosen_NK, logits_NE) in found.items()
        if key not in biased and _is_constant(chosen_NK.sort(-1).values) and not _is_constant(logits_NE.argmax(-1))
    }


def _is_corrected(module: nn.Module) -> bool:
    """Whether a correction bias takes part in the choice: it may prefer the same experts for every token."""
    return any("correction" in name for name in module.state_dict())


def _is_constant(values_N: Tensor) -> bool:
    return bool((values_N == values_N[:1]).all())


def _prompt(runtime: Runtime, count: int = PROMPT_TOKENS) -> list[int]:
    allowed = [token for token in range(min(4096, runtime.anatomy.vocabulary)) if token not in runtime.special_ids] or [
        0
    ]
    return [allowed[(7 * i + len(allowed) // 2) % len(allowed)] for i in range(count)]


def _logits(runtime: Runtime, plan: ReadPlan | None, prompts: list[list[int]] | None = None) -> list[Tensor]:
    """Raw logits of every step, (B, V) each; the end token is ignored."""
    kept: list[Tensor] = []
    prompts = prompts or [_prompt(runtime)]
    run_batch(
        replace(runtime, end_ids=frozenset()),
        prompts,
        [Sampling(max_new_tokens=STEPS)] * len(prompts),
        plan,
        on_logits=lambda _step, logits_BV: kept.append(logits_BV.clone()),
    )
    return kept


def _same(one: list[Tensor], other: list[Tensor], exact: bool) -> bool:
    """Equal to the bit (NaN equals NaN), or close where the model's own kernels already differ between two runs."""
    if len(one) != len(other):
        return False
    if exact:
        pairs = zip(one, other, strict=True)
        return all(torch.equal(a.view(torch.int32), b.view(torch.int32)) for a, b in pairs)
    return all(torch.allclose(a, b, atol=1e-2, rtol=1e-2, equal_nan=True) for a, b in zip(one, other, strict=True))


@torch.inference_mode()
def _pass(runtime: Runtime, sink: StepSink) -> None:
    layout = Layout.of([_prompt(runtime)], runtime.pad_id, "left", runtime.device)
    sink.rows, sink.prefill, sink.real_BS = 1, True, layout.real()
    with runtime.taps.step(sink):
        runtime.model(input_ids=layout.ids_BS, position_ids=layout.positions(), use_cache=False)


def _find_attention(runtime: Runtime) -> str | None:
    """Put a tap on every part of every block and keep those that the attention function really names, one a layer."""
    taps = {}
    for layer, block in enumerate(runtime.anatomy.blocks):
        for module in block.modules():
            taps[module] = module.__dict__[TAP] = AttentionTap(layer)
    try:
        _pass(runtime, StepSink())
    finally:
        for module in taps:
            module.__dict__.pop(TAP, None)
    called = [(tap.layer, module) for module, tap in taps.items() if tap.seen]
    if not called:
        return f"{type(runtime.model).__name__} does not call its attention through an interface that can be watched"
    if any(len(tap.seen) > 1 for tap in taps.values()) or len({layer for layer, _ in called}) < len(called):
        return "a block of this model calls its attention more than once"
    if any(hasattr(weight, "full_tensor") for weight in runtime.model.parameters()):
        return "the heads of this model are shared out over several processes, and each sees its own only"
    if any(seen.has_sinks and seen.weights is None for tap in taps.values() for seen in tap.seen):
        return "this model's attention sinks cannot be read beside a fused kernel; load it with eager attention"
    runtime.taps.attention_modules = dict(called)
    return None


def _check_hooks(runtime: Runtime) -> dict[str, str]:
    """Every block and router must fire exactly once, and no block's state may be changed after it was read."""
    kept, copied = StepSink(), StepSink(clones=True)
    for sink in (kept, copied):
        layout = Layout.of([_prompt(runtime)[:1]], runtime.pad_id, "left", runtime.device)
        with torch.inference_mode(), runtime.taps.step(sink):
            sink.rows = 1
            runtime.model(input_ids=layout.ids_BS, position_ids=layout.positions(), use_cache=False)
    blocks = range(runtime.anatomy.n_layers)
    shapes = {tuple(state.shape) for state in kept.states.values()}
    if shapes != {(1, runtime.anatomy.d_model)}:
        raise ModelNotUsable(
            f"the blocks of {type(runtime.model).__name__} give states of shape {sorted(shapes)}, wanted one vector of "
            f"{runtime.anatomy.d_model} per token: its states cannot be read"
        )
    if any(kept.calls.get(layer) != 1 for layer in blocks):
        raise ModelNotUsable(
            f"the blocks of {type(runtime.model).__name__} ran {dict(kept.calls)} times in one pass, wanted once each: "
            "its states cannot be read"
        )
    runtime.taps.clones = any(
        not torch.equal(kept.states[layer].nan_to_num(), copied.states[layer].nan_to_num()) for layer in blocks
    )
    reasons = dict(kept.unread)
    stuck = _stuck_routers(runtime) if runtime.anatomy.routers else set()
    for router in runtime.anatomy.routers:
        chosen = kept.choices.get(router.key)
        if router.key in reasons:
            continue
        if chosen is None:
            reasons[router.key] = "the router did not run as a module of its own (a fused kernel took its place)"
        elif chosen.shape[-1] > 1 and any(len(set(row)) < len(row) for row in chosen.tolist()):
            reasons[router.key] = "the router gives out indices that are no choice (the same expert twice)"
        elif router.key in stuck:
            reasons[router.key] = "the router gives out the same experts for every token, whatever its logits"
    return reasons
