"""`Context`: what a run knows so far; conditions read it, `act` writes it."""

import json
from contextlib import suppress
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json

from wonder.calibration.bundle import CalibrationBundle
from wonder.errors import MessageTooLarge, NoTrace
from wonder.routing import budget
from wonder.routing.budget import Usage
from wonder.routing.decision import RouteDecision
from wonder.trace.schema import TRACE_LIMIT_BYTES, AgentMessage, CompressedState, ThoughtTrace
from wonder.trace.size import encoded_bytes, fit

MESSAGE_LIMIT_BYTES: Final = 256 * 1024
"""Longest text of a message between agents; with its trace it stays far below what a history takes in one piece."""


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

    draw_key: str = ""
    """What audits are drawn with: the run's random seed, set by `act`; empty: nothing is audited."""

    calibrations: dict[str, CalibrationBundle] = Field(default_factory=dict)
    """Action → the calibration that made its latest confidence; thresholds by risk are certified from it."""

    untraced: list[Usage] = Field(default_factory=list)
    """Model calls whose traces are not in `thought_traces`: those that failed, and those that were left behind when
    the run continued as a new one."""

    prior_thought_state: CompressedState | None = None
    """The latest compressed state, for the next action to start from."""

    def trace(self, action: str) -> ThoughtTrace | None:
        """The latest trace of an action, or None if it has not run."""
        return next((trace for trace in reversed(self.thought_traces) if trace.action == action), None)

    def visits(self, action: str) -> int:
        """How often an action has run."""
        untraced = sum(usage.visits for usage in self.untraced if usage.action == action)
        return untraced + sum(trace.action == action for trace in self.thought_traces)

    def steps(self) -> list[tuple[ThoughtTrace | None, RouteDecision | None]]:
        """What happened, in order: each trace with the decision about it, and decisions about calls that left none."""
        traces = {(trace.action, visit): at for at, (trace, visit) in enumerate(self._numbered())}
        found: list[tuple[ThoughtTrace | None, RouteDecision | None]] = []
        told = 0
        for decision in self.decisions:
            at = traces.pop((decision.after, decision.visit), None)
            for waiting in range(told, told if at is None else at):
                if waiting in traces.values():
                    found.append((self.thought_traces[waiting], None))
            told = told if at is None else max(told, at + 1)
            found.append((None if at is None else self.thought_traces[at], decision))
        return [*found, *((self.thought_traces[at], None) for at in sorted(traces.values()) if at >= told)]

    def _numbered(self) -> list[tuple[ThoughtTrace, int]]:
        """Each trace with the visit it belongs to: those left behind came first, those that failed have numbers."""
        found = []
        next_visit: dict[str, int] = {}
        failed = {(usage.action, usage.visit) for usage in self.untraced if usage.visit}
        for trace in self.thought_traces:
            earlier = sum(usage.visits for usage in self.untraced if usage.action == trace.action and not usage.visit)
            visit = next_visit.get(trace.action, earlier + 1)
            while (trace.action, visit) in failed:
                visit += 1
            found.append((trace, visit))
            next_visit[trace.action] = visit + 1
        return found

    def use(self, usage: Usage) -> None:
        """Note a call that leaves no trace in `thought_traces`."""
        self.untraced = budget.merged([*self.untraced, usage])

    def used(self) -> list[Usage]:
        """What every model call of the run has used."""
        return [*self.untraced, *(budget.of_trace(trace) for trace in self.thought_traces)]

    def message(self, action: str, text: str | None = None) -> AgentMessage:
        """What another agent is told of an action: the words, and what was read while they were thought.

        Args:
            action: One that has run or whose message was received.
            text: The words; None: the action's answer, as JSON where it is not text.

        Raises:
            NoTrace: The action has not run.
            MessageTooLarge: The text has more than 256 KB.
        """
        trace = self.trace(action)
        if trace is None:
            ran = ", ".join(dict.fromkeys(item.action for item in self.thought_traces)) or "none"
            raise NoTrace(f"there is no trace of action {action!r} to send (ran so far: {ran}): run it first")
        if text is None:
            answer = self.outputs.get(action, "")
            text = answer if isinstance(answer, str) else to_json(answer).decode()
        size = len(text.encode())
        if size > MESSAGE_LIMIT_BYTES:
            raise MessageTooLarge(
                f"the message of {action!r} has {size} bytes of text, and {MESSAGE_LIMIT_BYTES} is the most: "
                "put the text into an artifact store and send its reference"
            )
        # Claims and calibrations were added since the worker cut the trace to size.
        if encoded_bytes(trace) > TRACE_LIMIT_BYTES:
            trace, _ = fit(trace, TRACE_LIMIT_BYTES, "left behind by the sender")
        return AgentMessage(text=text, thought_trace=trace)

    def receive(self, message: AgentMessage, *, sender: str) -> None:
        """File what another agent said as if an action called `sender` had run here: a table can then decide on it.

        The text becomes `outputs[sender]`, read as JSON where it is. A message without a trace has an unknown
        confidence; what a trace says is as trustworthy as whoever sent it.

        Args:
            message: From another workflow.
            sender: What the table of this workflow calls it (`from_`).
        """
        trace = message.thought_trace or ThoughtTrace(
            action=sender, model="", confidence_reason="the sender sent no trace"
        )
        self.thought_traces.append(trace.model_copy(update={"action": sender}))
        self.outputs[sender] = message.text
        with suppress(json.JSONDecodeError):
            self.outputs[sender] = json.loads(message.text)
