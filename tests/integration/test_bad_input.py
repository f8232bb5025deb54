"""What people and programs get wrong: each ends with a sentence, none hangs, none is retried for ever."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import ApplicationError

from tests.integration.shell import run
from tests.integration.workflows import Ask, AskWorkflow
from wonder.connect import connect
from wonder.errors import ServerNotReachable
from wonder.names import WORKFLOW_QUEUE

pytestmark = pytest.mark.usefixtures("workers")


async def failure_of(client: Client, unique: str, ask: Ask) -> ApplicationError:
    with pytest.raises(WorkflowFailureError) as caught:
        await client.execute_workflow(
            AskWorkflow.run, ask, id=unique, task_queue=WORKFLOW_QUEUE, execution_timeout=timedelta(seconds=60)
        )
    assert isinstance(caught.value.cause, ApplicationError), caught.value.cause
    return caught.value.cause


@pytest.mark.parametrize(
    "given",
    ['{"text": 5, "times": "x"}', '{"how": "text"}', '"just a string"', "[]", "null"],
)
async def test_an_input_that_does_not_fit_fails_the_workflow_with_the_list_of_problems(
    client: Client, temporal_cli: Path, address: str, unique: str, given: str
) -> None:
    started = await run(
        *(temporal_cli, "workflow", "start", "--address", address, "--type", "TestAsk"),
        *("--task-queue", WORKFLOW_QUEUE, "--workflow-id", unique, "--input", given),
    )
    assert started.code == 0, started.err
    with pytest.raises(WorkflowFailureError) as caught:
        await client.get_workflow_handle(unique).result(rpc_timeout=timedelta(seconds=20))
    cause = caught.value.cause
    assert isinstance(cause, ApplicationError)
    assert cause.type == "PayloadValidationError"
    assert cause.non_retryable
    assert "this JSON is not a Ask" in cause.message
    problems = cause.details[0]
    assert json.loads(json.dumps(problems)) == problems
    assert {"type", "loc", "msg"} <= set(problems[0])


async def test_no_input_at_all_fails_the_workflow(
    client: Client, temporal_cli: Path, address: str, unique: str
) -> None:
    started = await run(
        *(temporal_cli, "workflow", "start", "--address", address, "--type", "TestAsk"),
        *("--task-queue", WORKFLOW_QUEUE, "--workflow-id", unique),
    )
    assert started.code == 0, started.err
    with pytest.raises(WorkflowFailureError) as caught:
        await client.get_workflow_handle(unique).result(rpc_timeout=timedelta(seconds=20))
    assert isinstance(caught.value.cause, ApplicationError)


async def test_a_queue_that_nobody_polls_is_said_within_the_limit(client: Client, unique: str) -> None:
    cause = await failure_of(client, unique, Ask(text="x", how="nobody_serves"))
    assert cause.type == "WorkerMissing"
    assert "wonder-gpu.no-such-model" in cause.message
    assert "within 2 s" in cause.message
    assert "wonder-gpu-worker --model no-such-model" in cause.message


async def test_a_request_for_another_model_is_refused_by_the_worker(client: Client, unique: str) -> None:
    cause = await failure_of(client, unique, Ask(text="x", how="wrong_queue"))
    assert cause.type == "SettingNotSupported"
    assert "'support-desk' loaded" in cause.message


async def test_a_prompt_longer_than_the_context_is_refused_with_the_numbers(client: Client, unique: str) -> None:
    cause = await failure_of(client, unique, Ask(text="parcel " * 2000, how="text"))
    assert cause.type == "PromptTooLong"
    assert "1024" in cause.message


async def test_an_unknown_probe_is_refused_with_a_suggestion(client: Client, unique: str) -> None:
    cause = await failure_of(client, unique, Ask(text="x", how="unknown_probe"))
    assert cause.type == "UnknownProbe"
    assert "legal_risk" in cause.message


async def test_a_missing_template_variable_fails_the_run_and_names_it(client: Client, unique: str) -> None:
    cause = await failure_of(client, unique, Ask(text="x", how="missing_variable"))
    assert cause.type == "PromptError"
    assert "tone" in cause.message


async def test_an_answer_that_does_not_parse_fails_the_run_unless_it_is_caught(client: Client, unique: str) -> None:
    cause = await failure_of(client, unique, Ask(text="My invoice is wrong.", how="mistyped"))
    assert cause.type == "AnswerDoesNotParse"
    assert "is not a Verdict" in cause.message


async def test_a_server_that_does_not_answer_is_said_in_one_sentence() -> None:
    with pytest.raises(ServerNotReachable, match=r"no Temporal server answers at 127\.0\.0\.1:9 .*wonder dev"):
        await connect("127.0.0.1:9", timeout_s=2)
