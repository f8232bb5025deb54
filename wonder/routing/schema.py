"""What a condition may read after a given action: names, kinds, concepts, and the signals that are switched off."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from wonder.routing.kinds import ANY, Kind, of_type
from wonder.routing.syntax import Step
from wonder.trace.capture import ThoughtCapture
from wonder.trace.schema import ThoughtTrace

ROOTS = ("thought_trace", "output", "state", "visits")
"""`thought_trace`: the latest trace of the action. `output`: its parsed answer. `state`: what the workflow keeps.
`visits`: how often the action has run, at least 1."""


class Action(Protocol):
    """What routing needs to know of an action; `wonder.actions.definition.ActionDef` is one."""

    @property
    def name(self) -> str: ...

    @property
    def thought_capture(self) -> ThoughtCapture: ...

    @property
    def output(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class Schema:
    """What the checks know; the default knows the fields of `ThoughtTrace` and nothing of output and state."""

    roots: Mapping[str, Kind]
    concepts: tuple[str, ...] | None = None
    """The concepts the action probes; None: not known, any name goes."""
    off: Mapping[str, str] = field(default_factory=dict)
    """Field of the trace → what to write to have it read; fields that are read are absent."""
    capture: ThoughtCapture | None = None
    """What the action reads; None: not known."""
    claims: tuple[str, ...] | None = None
    """The claims the action makes; None: not known, any name goes."""
    action: str = ""

    @classmethod
    def of(cls, action: Action | None = None, *, output: Any = None, state: Any = None) -> "Schema":
        """The schema of the conditions that follow an action.

        Args:
            action: Its output type, probes and switches are used.
            output: The type of the answer, where there is no action; None: unchecked.
            state: The type of `Context.state`; None: unchecked.
        """
        answer = action.output if action else output
        roots = {
            "thought_trace": Kind("object", model=ThoughtTrace),
            "output": ANY if answer is None else of_type(answer),
            "state": ANY if state is None else of_type(state),
            "visits": Kind("number", low=1, whole=True),
        }
        if action is None:
            return cls(roots)
        capture = action.thought_capture
        claims = tuple(claim.name for claim in getattr(action, "claims", ()))
        return cls(roots, tuple(capture.run_concept_probes), switched_off(capture), capture, claims, action.name)


_PER_TOKEN = (
    "tokens",
    "token_confidences",
    "token_log_probs",
    "generation_probs",
    "logits_entropy",
    "token_margins",
    "top5_negentropy",
    "self_certainty",
    "boosted_probs",
    "top_alternatives",
)
_PER_LAYER = ("layer_norms", "representation_shifts")
_ATTENTION = ("attention_entropy", "attention_entropy_normalized", "attention_sink_mass")
_PROMPT = ("prompt_attention_entropy", "prompt_attention_entropy_normalized")
_HEADS = ("rauq_layers", "previous_token_attention", "lookback_ratio")
_EXPERTS = ("expert_selections", "expert_distribution")
_ROUTERS = ("router_entropy", "shared_experts")


def switched_off(capture: ThoughtCapture) -> dict[str, str]:
    """Field of the trace → the setting that would fill it, for the fields these settings leave empty."""
    wanted = {
        "compute_confidence=True": (capture.compute_confidence, ("overall_confidence", "field_confidences", "signals")),
        "compute_attention_entropy=True": (capture.compute_attention_entropy, _ATTENTION),
        "attention_rows='all'": (capture.attention_rows == "all", _PROMPT),
        "compute_attention_statistics=True": (
            capture.compute_attention_statistics,
            ("rauq", "attention_score", *_HEADS),
        ),
        "capture_attention=True": (capture.capture_attention, ("key_attention_pairs",)),
        "capture_expert_routing=True": (capture.capture_expert_routing, (*_EXPERTS, *_ROUTERS)),
        "compress_state=True": (capture.compress_state, ("compressed_state",)),
        "run_concept_probes=[…]": (bool(capture.run_concept_probes), ("active_concepts", "concept_sites")),
        "boosted_probability=True": (capture.boosted_probability, ("boosted_probs",)),
        "logit_lens=True": (capture.logit_lens is not False, ("logit_lens",)),
        'explain="last"': (capture.explain is not None, ("explanations",)),
        'detail="binned"': (capture.detail == "binned", ("time_bins", "least_certain")),
        "top_alternatives=3": (capture.top_alternatives > 0, ("top_alternatives",)),
    }
    # What was put in is told whether or not anything is read.
    plain = {} if capture.inject is not None else {"injection": "inject=Injection(…)"}
    off = plain | {name: setting for setting, (is_on, names) in wanted.items() if not is_on for name in names}
    if not capture.enabled:
        signals = [name for _, names in wanted.values() for name in names]
        return plain | dict.fromkeys((*signals, *_PER_LAYER, *_PER_TOKEN[1:]), "enabled=True")
    if capture.store_in == "artifact":
        stored = (
            *_PER_TOKEN,
            *_PER_LAYER,
            *_ATTENTION,
            *_PROMPT,
            *_HEADS,
            *_EXPERTS,
            *_ROUTERS,
            "key_attention_pairs",
            "explanations",
            "logit_lens",
            "time_bins",
            "least_certain",
        )
        return {**dict.fromkeys(stored, 'store_in="both"'), **off}
    if capture.detail == "binned":
        return {**dict.fromkeys((*_PER_TOKEN, *_EXPERTS, "key_attention_pairs"), 'detail="full"'), **off}
    return off


def unread_layer(capture: ThoughtCapture, name: Step, layer: Step) -> str | None:
    """The setting that would have the attention of a layer read, if these settings leave it out."""
    if name not in (*_ATTENTION, *_PROMPT, *_HEADS) or not isinstance(layer, int) or capture.attention_layers == "all":
        return None
    if capture.attention_layers == "quarter":
        # A model of fewer than four layers has its last one read, so the first three cannot be refused.
        left_out = layer > 3 and layer % 4 != 3
    else:
        left_out = layer not in capture.attention_layers
    return f"attention_layers=[{layer}]" if left_out else None
