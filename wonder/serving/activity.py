"""The engine as a Temporal activity: `wonder.think`."""

import asyncio
import logging
from contextlib import suppress

from temporalio import activity
from temporalio.exceptions import ApplicationError

from wonder.actions.contracts import ThinkAnswer, ThinkRequest
from wonder.errors import EngineFailed, SettingNotSupported, WonderError
from wonder.names import THINK, model_slug
from wonder.serving.batcher import Batcher
from wonder.serving.calibrations import Calibrations
from wonder.trace.schema import AgentMessage

LOG = logging.getLogger(__name__)


class Thinking:
    """The activities of a worker that has one model loaded."""

    def __init__(self, model: str, *, max_batch: int = 8, calibrations: Calibrations | None = None) -> None:
        """`model` is the name whose queue is polled; a request for another model is refused."""
        self.model = model
        self.calibrations = calibrations
        self.max_batch = max_batch
        self.batcher: Batcher | None = None
        """Set while the worker runs."""

    @activity.defn(name=THINK)
    async def think(self, request: ThinkRequest) -> ThinkAnswer:
        """Generate, and read the model meanwhile; see `wonder.actions.contracts.think`."""
        beat = asyncio.create_task(_heartbeat())
        try:
            if self.batcher is None:
                raise EngineFailed("the worker is not running its engine")
            if model_slug(request.model) != model_slug(self.model):
                raise SettingNotSupported(
                    f"this worker has {self.model!r} loaded, and the request is for {request.model!r}: "
                    f"start a worker with `wonder-gpu-worker --model {request.model}`"
                )
            return await self._with_calibration(await self.batcher.submit(request))
        except WonderError as error:
            if error.__cause__ is not None:
                LOG.warning("a request failed", exc_info=error)
            # The message is the whole payload. With the engine's stack below it, a server replaces a failure that is
            # to be retried by "Failure exceeds size limit", and the type is gone.
            raise ApplicationError(str(error), type=type(error).__name__, non_retryable=not error.retryable) from None
        finally:
            beat.cancel()
            with suppress(asyncio.CancelledError):
                await beat

    async def _with_calibration(self, message: AgentMessage) -> ThinkAnswer:
        """The answer, with the calibration in force for its action."""
        trace = message.thought_trace
        answer = ThinkAnswer(text=message.text, thought_trace=trace)
        if self.calibrations is None or trace is None:
            return answer
        bundle, reason = await self.calibrations.for_trace(trace)
        return answer.model_copy(update={"calibration": bundle, "calibration_reason": reason})


async def _heartbeat() -> None:
    """Tell the server that the request is alive, and learn of its cancellation."""
    limit = activity.info().heartbeat_timeout
    every_s = max(0.2, limit.total_seconds() / 3) if limit else 10.0
    while True:
        activity.heartbeat()
        await asyncio.sleep(every_s)
