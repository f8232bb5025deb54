"""The contract between workflows and GPU workers: one activity, its request and its answer."""

from typing import Any, Literal

from temporalio import activity

from wonder.calibration.bundle import CalibrationBundle
from wonder.names import THINK
from wonder.trace.capture import ThoughtCapture
from wonder.trace.sampling import Sampling
from wonder.trace.schema import AgentMessage, CompressedState
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
    prior_state: CompressedState | None = None
    """What `capture.inject` puts into the model; sent only where it is asked for."""


class ThinkAnswer(AgentMessage):
    """What the model wrote, its trace, and the calibration in force for it: so the history holds what was used."""

    calibration: CalibrationBundle | None = None
    calibration_reason: str = ""
    """Why none is in force where one was: it has drifted, or cannot be read."""


@activity.defn(name=THINK)
async def think(request: ThinkRequest) -> ThinkAnswer:
    """Generate, and read the model meanwhile (GPU queue of the model).

    Heartbeats while it runs. Fails without retries, under the error's own name, on a request that can never succeed.
    """
    raise NotImplementedError("implemented by workers.gpu")
