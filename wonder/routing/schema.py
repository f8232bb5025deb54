"""What a condition may read after a given action: names, kinds, concepts, and the signals that are switched off."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from wonder.routing.kinds import ANY, Kind, of_type
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
    off: Mapping[str, str] | None = None
    """Field of the trace → what to write to have it read; fields that are read are absent."""
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
        return cls(roots, tuple(capture.run_concept_probes), switched_off(capture), action.name)


def switched_off(capture: ThoughtCapture) -> dict[str, str]:
    """Field of the trace → the setting that would fill it, for the fields these settings leave empty."""
    wanted = {
        "compute_confidence=True": (capture.compute_confidence, ("overall_confidence", "field_confidences")),
        "compute_attention_entropy=True": (
            capture.compute_attention_entropy,
            ("attention_entropy", "attention_entropy_normalized"),
        ),
        "capture_attention=True": (capture.capture_attention, ("key_attention_pairs",)),
        "capture_attention=True or compute_attention_entropy=True": (capture.reads_attention, ("attention_sink_mass",)),
        "capture_expert_routing=True": (capture.capture_expert_routing, ("expert_selections", "expert_distribution")),
        "compress_state=True": (capture.compress_state, ("compressed_state",)),
        "run_concept_probes=[…]": (bool(capture.run_concept_probes), ("active_concepts",)),
        "top_alternatives=3": (capture.top_alternatives > 0, ("top_alternatives",)),
    }
    off = {name: setting for setting, (is_on, names) in wanted.items() if not is_on for name in names}
    if not capture.enabled:
        signals = [name for _, names in wanted.values() for name in names]
        signals += ["layer_norms", "representation_shifts", "token_confidences", "logits_entropy", "token_margins"]
        off = dict.fromkeys(signals, "enabled=True")
    return off
