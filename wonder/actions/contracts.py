"""The contract between workflows and GPU workers: one activity, its request and its answer."""

from typing import Any, Literal

from temporalio import activity

from wonder.names import THINK
from wonder.trace.capture import ThoughtCapture
from wonder.trace.sampling import Sampling
from wonder.trace.schema import AgentMessage
from wonder.wire import WireModel


class ThinkRequest(WireModel):
    """One model call."""

    action: str
    model: str
    prompt: str
    """Rendered; the worker adds nothing to it."""
    sampling: Sampling = Sampling()
    capture: ThoughtCapture = ThoughtCapture()
    answer_format: Literal["json", "text"] = "text"
    """Where the values of the answer are: in a JSON document inside the text, or the whole text is one value."""
    answer_schema: dict[str, Any] | None = None
    """JSON schema that the answer is held to while it is written; None: the model writes what it likes."""


@activity.defn(name=THINK)
async def think(request: ThinkRequest) -> AgentMessage:
    """Generate, and read the model meanwhile (GPU queue of the model).

    Heartbeats while it runs. Fails without retries, under the error's own name, on a request that can never succeed.
    """
    raise NotImplementedError("implemented by workers.gpu")
