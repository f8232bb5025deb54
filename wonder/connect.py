"""Reaching a Temporal server: the standard `TEMPORAL_*` environment, one clear sentence when nobody answers."""

import asyncio
from collections.abc import Sequence
from typing import Any

from temporalio.client import Client, Plugin
from temporalio.envconfig import ClientConfigProfile
from temporalio.runtime import Runtime

from wonder.errors import ServerNotReachable

DEFAULT_ADDRESS = "localhost:7233"
DEFAULT_NAMESPACE = "default"


async def connect(
    address: str | None = None,
    *,
    namespace: str | None = None,
    plugins: Sequence[Plugin] = (),
    timeout_s: float = 10.0,
    runtime: Runtime | None = None,
) -> Client:
    """A connected client.

    What is not given is read from the standard environment (`TEMPORAL_ADDRESS`, `TEMPORAL_NAMESPACE`,
    `TEMPORAL_API_KEY`, `TEMPORAL_TLS…`, or the profile of a `temporal.toml`), else `localhost:7233`, `default`.

    Raises:
        ServerNotReachable: Nobody answered within the time.
    """
    options: dict[str, Any] = dict(ClientConfigProfile.load().to_client_connect_config())
    target = address or options.pop("target_host", None) or DEFAULT_ADDRESS
    options.pop("target_host", None)
    options["namespace"] = namespace or options.get("namespace") or DEFAULT_NAMESPACE
    try:
        return await asyncio.wait_for(
            Client.connect(target, plugins=list(plugins), runtime=runtime, **options), timeout_s
        )
    except (RuntimeError, TimeoutError) as error:
        raise ServerNotReachable(
            f"no Temporal server answers at {target} (namespace {options['namespace']!r}): "
            "start one with `wonder dev`, or name another with --address or TEMPORAL_ADDRESS"
        ) from error
