"""The engine as a Temporal activity: `wonder.think`."""

import asyncio
from contextlib import suppress

from temporalio import activity
from temporalio.exceptions import ApplicationError

from wonder.actions.contracts import ThinkRequest
from wonder.errors import EngineFailed, SettingNotSupported, WonderError
from wonder.names import THINK, model_slug
from wonder.serving.batcher import Batcher
from wonder.trace.schema import AgentMessage


class Thinking:
    """The activities of a worker that has one model loaded."""

    def __init__(self, model: str, *, max_batch: int = 8) -> None:
        """`model` is the name whose queue is polled; a request for another model is refused."""
        self.model = model
        self.max_batch = max_batch
        self.batcher: Batcher | None = None
        """Set while the worker runs."""

    @activity.defn(name=THINK)
    async def think(self, request: ThinkRequest) -> AgentMessage:
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
            return await self.batcher.submit(request)
        except WonderError as error:
            raise ApplicationError(str(error), type=type(error).__name__, non_retryable=not error.retryable) from error
        finally:
            beat.cancel()
            with suppress(asyncio.CancelledError):
                await beat


async def _heartbeat() -> None:
    """Tell the server that the request is alive, and learn of its cancellation."""
    limit = activity.info().heartbeat_timeout
    every_s = max(0.2, limit.total_seconds() / 3) if limit else 10.0
    while True:
        activity.heartbeat()
        await asyncio.sleep(every_s)
