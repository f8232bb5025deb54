"""What the workflow sandbox takes from the host; the only file that touches the sandbox's interface."""

from dataclasses import replace

from temporalio.worker import WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

PASSED_THROUGH = ("wonder", "lens_training")
"""First-party modules that are pure, so that no run imports them again and error classes keep their identity.

Array libraries need not be here: nothing that a workflow imports reaches them (`tests/architecture`).
"""


def pass_through(runner: WorkflowRunner | None) -> WorkflowRunner:
    """Let workflows share Wonder's modules with the host; a runner that is no sandbox stays as it is."""
    runner = runner or SandboxedWorkflowRunner()
    if isinstance(runner, SandboxedWorkflowRunner):
        return replace(runner, restrictions=runner.restrictions.with_passthrough_modules(*PASSED_THROUGH))
    return runner
