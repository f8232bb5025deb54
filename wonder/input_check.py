"""A run that was started with too few or too many inputs fails at once, with what it takes."""

import inspect
from typing import Any

from temporalio.exceptions import ApplicationError
from temporalio.worker import (
    ExecuteWorkflowInput,
    Interceptor,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
)

from wonder.converter import INPUT_ERROR


class InputCheck(Interceptor):
    """Without it, a missing input fails the workflow *task*, which Temporal repeats for ever."""

    def workflow_interceptor_class(self, input: WorkflowInterceptorClassInput) -> type[WorkflowInboundInterceptor]:  # noqa: ARG002
        """The part that runs inside the workflow."""
        return _Check


class _Check(WorkflowInboundInterceptor):
    async def execute_workflow(self, input: ExecuteWorkflowInput) -> Any:
        taken = list(inspect.signature(input.run_fn).parameters.values())[1:]
        needed = sum(parameter.default is parameter.empty for parameter in taken)
        if not needed <= len(input.args) <= len(taken):
            names = ", ".join(
                f"{found.name}: {getattr(found.annotation, '__name__', found.annotation)}" for found in taken
            )
            raise ApplicationError(
                f"{input.type.__name__} takes ({names}) and was started with {len(input.args)} inputs: "
                "give each as JSON, for example `temporal workflow start --input '{…}'`",
                type=INPUT_ERROR,
                non_retryable=True,
            )
        return await super().execute_workflow(input)
