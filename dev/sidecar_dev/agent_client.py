"""Calls that the demo's agents make, with the headers that came in. Standard library only."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from functools import lru_cache
from http.client import HTTPResponse
from pathlib import Path
from typing import Any, Final

from sidecar_dev.agent_server import Incoming, Outgoing

TIMEOUT_S: Final = 10
SESSION_FIELD: Final = "Mcp-Session-Id"
_FORWARDED: Final = ("authorization", "traceparent", "tracestate")


def call(
    url: str,
    method: str,
    incoming: Incoming,
    body: dict[str, Any] | None = None,
    fields: Mapping[str, str] | None = None,
) -> Outgoing:
    """Call another service on behalf of our own caller, with the extra header ``fields``."""
    headers = {name: value for name, value in incoming.headers.items() if name in _FORWARDED}
    payload = None if body is None else json.dumps(body).encode()
    if payload is not None:
        headers["content-type"] = "application/json"
    request = urllib.request.Request(url, data=payload, headers={**headers, **(fields or {})}, method=method)  # noqa: S310
    try:
        with opener().open(request, timeout=TIMEOUT_S) as response:
            # Only the session's field is kept: an agent that forwards the answer sets the length itself.
            session = response.headers.get(SESSION_FIELD)
            fields = {} if session is None else {SESSION_FIELD: session}
            return Outgoing(response.status, _body_of(response), fields=fields)
    except urllib.error.HTTPError as error:
        with error:
            return Outgoing(error.code, json.loads(error.read() or b"{}"))


def _body_of(response: HTTPResponse) -> dict[str, Any]:
    """Read an answer: JSON, or the last event of a stream that ends with it."""
    body = response.read()
    if response.headers.get_content_type() == "text/event-stream":
        events = [line.removeprefix(b"data:") for line in body.splitlines() if line.startswith(b"data:")]
        body = events[-1].strip() if events else b""
    found: dict[str, Any] = json.loads(body or b"{}")
    return found


def opener() -> urllib.request.OpenerDirector:
    """Return a cached opener, rebuilt when the CA file changes, since building parses the whole file."""
    return _make(_changed_at(os.environ.get("SSL_CERT_FILE")))


@lru_cache(maxsize=1)
def _make(_authorities: int) -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _changed_at(file: str | None) -> int:
    try:
        return 0 if file is None else Path(file).stat().st_mtime_ns
    except OSError:
        return 0
