"""What wraps every workflow of a worker: its input is counted, and it is told how the namespace is set up."""

import inspect
from typing import Any, ClassVar

from temporalio.exceptions import ApplicationError
from temporalio.worker import (
    ExecuteWorkflowInput,
    Interceptor,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
)

from wonder.converter import INPUT_ERROR
from wonder.review import attributes


class RunInterceptor(Interceptor):
    """A run that was started with too few or too many inputs fails at once, with what it takes.

    Otherwise a missing input fails the workflow *task*, which Temporal repeats for ever.
    """

    def __init__(self, *, search_attributes: bool) -> None:
        """`search_attributes`: whether reviews that these workflows open set them."""
        self._inbound: type[_Run] = type("RunInbound", (_Run,), {"search_attributes": search_attributes})

    def workflow_interceptor_class(self, input: WorkflowInterceptorClassInput) -> type[WorkflowInboundInterceptor]:  # noqa: ARG002
        """The part that runs inside the workflow."""
        return self._inbound


class _Run(WorkflowInboundInterceptor):
    search_attributes: ClassVar[bool] = False

    async def execute_workflow(self, input: ExecuteWorkflowInput) -> Any:
        attributes.enabled.set(self.search_attributes)
        taken = list(inspect.signature(input.run_fn).parameters.values())[1:]
        needed = sum(parameter.default is parameter.empty for parameter in taken)
        if not needed <= len(input.args) <= len(taken):
            kinds = (getattr(found.annotation, "__name__", found.annotation) for found in taken)
            names = ", ".join(f"{found.name}: {kind}" for found, kind in zip(taken, kinds, strict=True))
            raise ApplicationError(
                f"{input.type.__name__} takes ({names}) and was started with {len(input.args)} inputs: "
                "give each as JSON, for example `temporal workflow start --input '{…}'`",
                type=INPUT_ERROR,
                non_retryable=True,
            )
        return await super().execute_workflow(input)
