"""The demo's agents: plain HTTP programs that know nothing of tokens, identities or sidecars.

Each does what ordinary agents do: take a request, call the next service at a configured base URL, forward the
``Authorization`` and tracing headers it was given, and return the answer. Standard library only.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

_FORWARDED: Final = ("authorization", "traceparent", "tracestate")
_TIMEOUT_S: Final = 10

CUSTOMERS: Final = {
    "42": {"name": "Globex", "contact": "hank@globex.example", "renewal": "2027-01-31"},
    "43": {"name": "Initech", "contact": "bill@initech.example", "renewal": "2026-12-15"},
}


@dataclass(frozen=True)
class Incoming:
    """One request as the agent sees it."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]


@dataclass(frozen=True)
class Outgoing:
    """The agent's answer."""

    status: int
    body: dict[str, Any] = field(default_factory=dict)


Script = Callable[[Incoming], Outgoing]


def call(base_url: str, method: str, path: str, incoming: Incoming, body: dict[str, Any] | None = None) -> Outgoing:
    """Call the next service with the headers that came in."""
    headers = {name: value for name, value in incoming.headers.items() if name in _FORWARDED}
    payload = None if body is None else json.dumps(body).encode()
    if payload is not None:
        headers["content-type"] = "application/json"
    request = urllib.request.Request(base_url + path, data=payload, headers=headers, method=method)  # noqa: S310
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=_TIMEOUT_S) as response:
            return Outgoing(response.status, json.loads(response.read() or b"{}"))
    except urllib.error.HTTPError as error:
        with error:
            return Outgoing(error.code, json.loads(error.read() or b"{}"))


def front(incoming: Incoming) -> Outgoing:
    """The app where alice is logged in: hands her question to the planner."""
    return call(os.environ["PLANNER_URL"], "POST", "/plan", incoming, incoming.body)


def planner(incoming: Incoming) -> Outgoing:
    """Plans the work and gives the writing to the writer."""
    if incoming.path == "/plan":
        step = {"write": f"an answer to: {incoming.body.get('question', '')}", **incoming.body}
        return call(os.environ["WRITER_URL"], "POST", "/draft", incoming, step)
    return Outgoing(404)


def writer(incoming: Incoming) -> Outgoing:
    """Looks the customer up and writes a draft."""
    if incoming.path != "/draft":
        return Outgoing(404)
    customer = str(incoming.body.get("customer", "42"))
    found = call(os.environ["CRM_URL"], "GET", f"/customers/{customer}", incoming)
    if found.status != 200:
        return found
    return Outgoing(200, {"draft": f"{found.body['name']} renews on {found.body['renewal']}."})


def crm(incoming: Incoming) -> Outgoing:
    """The tool at the end: reads one customer, or exports them all."""
    if incoming.method == "POST" and incoming.path == "/export":
        return Outgoing(200, {"exported": list(CUSTOMERS.values())})
    customer = CUSTOMERS.get(incoming.path.removeprefix("/customers/"))
    return Outgoing(404) if customer is None else Outgoing(200, dict(customer))


SCRIPTS: Final[dict[str, Script]] = {"front": front, "planner": planner, "writer": writer, "crm": crm}


def server(script: Script, host: str, port: int, *, seen: str | None = None) -> ThreadingHTTPServer:
    """An HTTP server that runs a script. ``seen`` names a file that keeps the headers of the last request."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            raw = self.rfile.read(length) if length else b""
            incoming = Incoming(
                self.command,
                self.path,
                {name.lower(): value for name, value in self.headers.items()},
                json.loads(raw) if raw else {},
            )
            if seen is not None:
                _keep(seen, incoming)
            outgoing = script(incoming)
            body = json.dumps(outgoing.body).encode()
            self.send_response(outgoing.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = _serve  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """An agent of the demo keeps no log."""

    return ThreadingHTTPServer((host, port), Handler)


def _keep(path: str, incoming: Incoming) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump({"method": incoming.method, "path": incoming.path, "headers": incoming.headers}, file)


def main() -> int:
    """Run one agent until it is stopped: ``python -m sidecar.dev.agents writer --listen 127.0.0.1:8080``."""
    parser = argparse.ArgumentParser(prog="agent")
    parser.add_argument("name", choices=sorted(SCRIPTS))
    parser.add_argument("--listen", required=True, metavar="HOST:PORT")
    parser.add_argument("--seen", metavar="FILE", help="keep the headers of the last request here")
    arguments = parser.parse_args()
    host, _, port = arguments.listen.rpartition(":")
    with server(SCRIPTS[arguments.name], host, int(port), seen=arguments.seen) as running:
        running.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
