"""Stand-ins for places that nobody has at hand: servers of this machine that speak their protocol and really run jobs.

For tests and for trying things out; a container is a process here, and its image is whatever is installed.
"""

import json
import os
import signal
import subprocess
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from lens_training.launch.processes import MARK, marked, send

Answer = tuple[int, Any]
"""HTTP status, and bytes or what becomes JSON."""
_NOT_RUN: Final = 127
_SIGNALLED: Final = 128
_PASSED_ON: Final = ("PATH", "HOME", "TMPDIR", "OMP_NUM_THREADS")


class Container:
    """A command that runs here, with an environment of its own."""

    def __init__(self, command: Sequence[str], workdir: str, env: Mapping[str, str], log: Path) -> None:
        self.log = log
        self.stopping = False
        self._mark = uuid.uuid4().hex
        self._process: subprocess.Popen[bytes] | None = None
        around = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        with log.open("ab") as out:
            try:
                self._process = subprocess.Popen(
                    list(command),
                    cwd=workdir or None,
                    env={**around, **env, MARK: self._mark},
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                out.write(f"{error}\n".encode())

    @property
    def code(self) -> int | None:
        """How it ended, 128 + n by signal n; None while it runs."""
        if self._process is None:
            return _NOT_RUN
        code = self._process.poll()
        return code if code is None or code >= 0 else _SIGNALLED - code

    def stop(self, grace_s: float) -> None:
        """SIGTERM now, SIGKILL to what is left after so many seconds."""
        if self._process is None or self.code is not None:
            return
        if not self.stopping:
            self._process.terminate()
        self.stopping = True
        threading.Thread(target=self._kill_after, args=(grace_s,), daemon=True).start()

    def kill(self) -> None:
        """End every process of it."""
        if self._process is not None:
            while left := list(marked(self._mark)):
                for process in left:
                    send(*process, signal.SIGKILL)
            self._process.wait()

    def _kill_after(self, grace_s: float) -> None:
        assert self._process is not None
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(grace_s)
        self.kill()


class FakeServer:
    """An HTTP server of this machine; what it knows survives its outages."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        """Held during each request."""
        self._port = 0
        self._serve()

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self._port}"

    def answer(
        self, method: str, path: str, query: dict[str, str], headers: Mapping[str, str], body: Any
    ) -> Answer:  # pragma: no cover - every stand-in has its own
        """What a request gets."""
        raise NotImplementedError

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Nobody listens meanwhile; jobs go on."""
        self._leave()
        try:
            yield
        finally:
            self._serve()

    def close(self) -> None:
        """End the server."""
        self._leave()

    def _serve(self) -> None:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self) -> None:
                raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                target = urlsplit(self.path)
                with fake.lock:
                    status, found = fake.answer(
                        self.command,
                        target.path,
                        dict(parse_qsl(target.query)),
                        dict(self.headers.items()),
                        json.loads(raw) if raw else None,
                    )
                content = found if isinstance(found, bytes) else json.dumps(found).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PATCH = do_DELETE = _any

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def _leave(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
