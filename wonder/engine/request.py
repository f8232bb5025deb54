"""What the engine is asked: one prompt, how to draw, and what to read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from torch import Tensor

from wonder.trace.capture import ThoughtCapture
from wonder.trace.injection import SteeringMode
from wonder.trace.sampling import Sampling
from wonder.trace.schema import CompressedState

# Shape suffixes: D d_model, K soft tokens.


class EngineRequest(Protocol):
    """What the engine needs of a request; `wonder.actions.contracts.ThinkRequest` is one.

    A request may also have an `answer_schema`, a `prior_state` and an `injection` (see `Request`); one without the
    attribute asks for none of it.
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


@dataclass(frozen=True, eq=False)
class SoftPrompt:
    """Vectors that stand before a prompt's words, after the tokenizer's own first token, as if they were tokens."""

    vectors: Tensor | Sequence[Sequence[float]]
    """(K, D), used as they are: give them the length that the model's embeddings have."""


@dataclass(frozen=True, eq=False)
class Steering:
    """A direction that is added to the output of one decoder block, in proportion to each token's own state."""

    layer: int
    vector: Tensor | Sequence[float]
    """(D,); only its direction counts. A vector of zeros changes nothing."""
    strength: float
    """Length of what is added as a share of the state's own; clamped to −1 … 1."""
    mode: SteeringMode = "generated"
    """See `wonder.trace.injection.Injection`."""


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
    prior_state: CompressedState | None = None
    """What `capture.inject` puts into the model."""
    injection: SoftPrompt | Steering | None = None
    """A vector of one's own, in place of one made of a prior state."""
