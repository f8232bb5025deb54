"""JSON over HTTP with a bearer token, on the standard library."""

import json
import ssl
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any

from wonder.errors import LauncherUnavailable


class Rest:
    """A server that answers JSON."""

    def __init__(self, url: str, *, token: str | Path = "", ca: Path | None = None, timeout_s: float = 30.0) -> None:
        """Nothing is connected yet.

        Args:
            url: Without a slash at its end.
            token: The token, or a file that holds it and may be renewed.
            ca: Certificates that the server's is checked against; None: those of the system.
            timeout_s: Of one request.
        """
        self._url = url.rstrip("/")
        self._token = token
        self._timeout_s = timeout_s
        self._context = ssl.create_default_context(cafile=ca) if url.startswith("https:") else None

    def ask(self, method: str, path: str, body: Any = None, *, patch: bool = False) -> tuple[int, bytes]:
        """Status and content of an answer below 500.

        Raises:
            LauncherUnavailable: No answer, or one that says to come again.
        """
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if patch:
            headers["Content-Type"] = "application/merge-patch+json"
        data = None if body is None else json.dumps(body).encode()
        try:
            if token := self._token.read_text().strip() if isinstance(self._token, Path) else self._token:
                headers["Authorization"] = f"Bearer {token}"
            request = urllib.request.Request(self._url + path, data=data, headers=headers, method=method)
            with urllib.request.urlopen(request, timeout=self._timeout_s, context=self._context) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                said = error.read()
            if error.code >= 500 or error.code in {401, 429}:
                raise LauncherUnavailable(f"{method} {path}: {error.code} {said[:200].decode()}: try again") from None
            return error.code, said
        except (OSError, HTTPException) as error:  # no token, no connection, not in time, somebody else's certificate
            raise LauncherUnavailable(f"{self._url} does not answer ({error}): try again") from None
