"""What the engine is asked: one prompt, how to draw, and what to read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from wonder.trace.capture import ThoughtCapture
from wonder.trace.sampling import Sampling


class EngineRequest(Protocol):
    """What the engine needs of a request; `wonder.actions.contracts.ThinkRequest` is one.

    A request may also have an `answer_schema` (see `Request`); one without the attribute asks for no constraint.
    """

    @property
    def action(self) -> str:
        """Name of the action, for the trace."""
        ...

    @property
    def prompt(self) -> str:
        """The whole prompt; nothing is added to it but the tokenizer's own first token."""
        ...

    @property
    def sampling(self) -> Sampling:
        """How tokens are drawn."""
        ...

    @property
    def capture(self) -> ThoughtCapture:
        """What is read."""
        ...

    @property
    def answer_format(self) -> Literal["json", "text"]:
        """Where the values of the answer are."""
        ...


@dataclass(frozen=True)
class Request:
    """A request for use in process, without a workflow."""

    prompt: str
    action: str = "generate"
    sampling: Sampling = field(default_factory=Sampling)
    capture: ThoughtCapture = field(default_factory=ThoughtCapture)
    answer_format: Literal["json", "text"] = "text"
    answer_schema: Mapping[str, Any] | None = None
    """JSON schema that the answer is held to while it is written; None: the model writes what it likes."""
