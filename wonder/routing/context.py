"""`Context`: what a run knows so far; conditions read it, `act` writes it."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from wonder.routing.decision import RouteDecision
from wonder.trace.schema import CompressedState, ThoughtTrace


class Context(BaseModel):
    """The memory of one run: plain data, so that it can be carried through continue-as-new."""

    model_config = ConfigDict(extra="forbid")

    state: dict[str, Any] = Field(default_factory=dict)
    """What the workflow's author keeps; conditions read it as `state.…`."""

    thought_traces: list[ThoughtTrace] = Field(default_factory=list)
    """One per action that ran, in order."""

    outputs: dict[str, Any] = Field(default_factory=dict)
    """Action → its latest parsed answer; conditions read the deciding action's as `output.…`."""

    decisions: list[RouteDecision] = Field(default_factory=list)
    """Every routing decision of the run, in order."""

    reviews: dict[str, int] = Field(default_factory=dict)
    """Action → how many reviews it has had; numbers the next one."""

    prior_thought_state: CompressedState | None = None
    """The latest compressed state, for the next action to start from."""

    def trace(self, action: str) -> ThoughtTrace | None:
        """The latest trace of an action, or None if it has not run."""
        return next((trace for trace in reversed(self.thought_traces) if trace.action == action), None)

    def visits(self, action: str) -> int:
        """How often an action has run."""
        return sum(trace.action == action for trace in self.thought_traces)
