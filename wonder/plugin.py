"""`WonderPlugin`: the only set-up step of a user's own client."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import pydantic
from temporalio.plugin import SimplePlugin

from wonder.calibration.registry import CalibrationRegistry
from wonder.converter import compose
from wonder.errors import DefinitionError, WonderError
from wonder.graph.workflow import Graph
from wonder.interceptors import RunInterceptor
from wonder.names import EMBEDDED_MODEL, PLUGIN
from wonder.review.workflow import HumanReview
from wonder.sandbox import pass_through
from wonder.serving.activity import Thinking
from wonder.serving.batcher import Batcher, Engine
from wonder.serving.calibrations import Calibrations

Role = Literal["workflow", "gpu", "cpu", "train"]
ROLES: frozenset[Role] = frozenset({"workflow", "gpu", "cpu", "train"})


class WonderPlugin(SimplePlugin):
    """Teaches a Temporal client, and every worker built from it, Wonder's types.

    Always: the pydantic converter (a bad input ends the workflow with a sentence), the sandbox's pass-through, and
    Wonder's errors as workflow failures. Workflows and activities are registered for the roles that are named, and
    for no others, so that a worker never polls for work it was not meant to do:

    * `workflow`: `wonder.HumanReview`, `wonder.Graph`;
    * `gpu`: `wonder.think`, served by the engine that `engine` builds;
    * `train`: the activities in `training`, which `lens_training` brings;
    * `cpu`: nothing yet.

    Put it on `Client.connect(plugins=[WonderPlugin()])`, not on the worker as well.
    """

    def __init__(
        self,
        *,
        roles: Sequence[Role] = (),
        engine: Callable[[], Engine] | None = None,
        model: str = EMBEDDED_MODEL,
        max_batch: int = 8,
        calibrations: CalibrationRegistry | Path | str | None = None,
        search_attributes: bool = False,
        training: Sequence[Callable[..., Any]] = (),
    ) -> None:
        """Choose what workers of this client serve.

        Args:
            roles: What to register; nothing by default.
            engine: Builds the engine; called once, when a worker with the role `gpu` starts.
            model: Name of the engine's model (the one its queue is named after).
            max_batch: How many requests share a forward pass at most.
            calibrations: Registry, or its folder, whose calibrations travel with the answers (`wonder calibrate`).
            search_attributes: Reviews set Wonder's search attributes, which must then be registered in the namespace
                (`wonder init`): setting one that is not blocks a workflow for ever.
            training: What a worker with the role `train` serves.

        Raises:
            DefinitionError: An unknown role, or a role without what it serves.
        """
        if unknown := sorted(set(roles) - ROLES):
            raise DefinitionError(f"WonderPlugin has no role {', '.join(unknown)}; it has {', '.join(sorted(ROLES))}")
        if "gpu" in roles and engine is None:
            raise DefinitionError(
                "WonderPlugin(roles=['gpu']) needs the engine to serve: pass engine=lambda: TraceEngine.load('…')"
            )
        if ("train" in roles) != bool(training):
            raise DefinitionError(
                "WonderPlugin(roles=['train']) and training=[…] go together, as in `python -m lens_training worker`"
            )
        self.roles = frozenset(roles)
        self._training = list(training)
        self._engine = engine
        if isinstance(calibrations, str | Path):
            calibrations = CalibrationRegistry(calibrations)
        known = Calibrations(calibrations) if calibrations is not None else None
        self._thinking = Thinking(model, max_batch=max_batch, calibrations=known) if "gpu" in roles else None
        super().__init__(
            PLUGIN,
            data_converter=compose,
            interceptors=[RunInterceptor(search_attributes=search_attributes)],
            activities=self._activities,
            workflows=self._workflows,
            workflow_runner=pass_through,
            workflow_failure_exception_types=[WonderError, pydantic.ValidationError],
            run_context=self._serve,
        )

    def _workflows(self, existing: Sequence[type] | None) -> Sequence[type]:
        return [*(existing or ()), *((HumanReview, Graph) if "workflow" in self.roles else ())]

    def _activities(self, existing: Sequence[Callable[..., Any]] | None) -> Sequence[Callable[..., Any]]:
        return [*(existing or ()), *((self._thinking.think,) if self._thinking else ()), *self._training]

    @asynccontextmanager
    async def _serve(self) -> AsyncIterator[None]:
        """Keep the batcher running for as long as the worker does."""
        if self._thinking is None or self._engine is None:
            yield
            return
        async with Batcher(self._engine(), max_batch=self._thinking.max_batch) as batcher:
            self._thinking.batcher = batcher
            yield
