"""The HTTP server of the development agents, in place of a web framework. Standard library only.

On SIGTERM it accepts no more connections, closes idle ones, finishes the requests in flight, and exits.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

HEALTH: Final = "/healthz"  # says that it listens; not logged


@dataclass(frozen=True)
class Incoming:
    """One request, as the agent receives it."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]


@dataclass(frozen=True)
class Outgoing:
    """The agent's answer."""

    status: int
    body: dict[str, Any] = field(default_factory=dict)
    empty: bool = False  # the answer has no body at all
    fields: Mapping[str, str] = field(default_factory=dict)


Script = Callable[[Incoming], Outgoing]


class AgentServer(ThreadingHTTPServer):
    """Runs a script, a thread for each connection.

    ``seen`` names a file that keeps the headers of the last request, ``access_log`` a log in the common log format,
    with the bearer token's user, as web frameworks log; ``-`` is standard output.
    """

    request_queue_size = 128  # the default is 5: the kernel would refuse some of 64 concurrent callers
    daemon_threads = False  # closing waits for requests in flight

    def __init__(
        self, script: Script, host: str, port: int, *, seen: str | None = None, access_log: str | None = None
    ) -> None:
        self.script, self.seen, self.access_log = script, seen, access_log
        self.stopping = False
        self._idle: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__((host, port), _Handler)

    def stop(self) -> None:
        """Stop accepting and close idle connections. Call it from any thread except the serving one."""
        self.shutdown()
        with self._lock:
            self.stopping = True
            for connection in self._idle:
                _read_no_more(connection)

    def waits(self, connection: socket.socket) -> None:
        """Mark a connection as idle."""
        with self._lock:
            self._idle.add(connection)
            if self.stopping:
                _read_no_more(connection)

    def works(self, connection: socket.socket) -> None:
        """Mark a connection as busy, or forget it."""
        with self._lock:
            self._idle.discard(connection)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one write for head and body: the second of two would wait up to 40 ms for a delayed ACK (Nagle)
    server: AgentServer
    connection: socket.socket

    def handle_one_request(self) -> None:
        self.server.waits(self.connection)
        try:
            super().handle_one_request()
        finally:
            self.server.works(self.connection)

    def _serve(self) -> None:
        self.server.works(self.connection)
        length = int(self.headers.get("content-length") or 0)
        raw = self.rfile.read(length) if length else b""
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = _object(raw)
        if body is None:
            self._answer(Outgoing(400, {"error": "the body is not a JSON object"}))
            return
        incoming = Incoming(self.command, self.path, headers, body)
        if (incoming.method, incoming.path) == ("GET", HEALTH):
            self._answer(Outgoing(200))
            return
        if self.server.seen is not None:
            _keep(self.server.seen, incoming)
        self._answer(self.server.script(incoming), incoming)

    def _answer(self, outgoing: Outgoing, incoming: Incoming | None = None) -> None:
        body = b"" if outgoing.empty else json.dumps(outgoing.body).encode()
        self.send_response(outgoing.status)
        if body:
            self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in outgoing.fields.items():
            self.send_header(name, value)
        if self.server.stopping:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.server.access_log is not None and incoming is not None:
            line = _line(self.client_address[0], incoming, self.requestline, outgoing.status, len(body))
            _log(self.server.access_log, line)
        self.wfile.write(body)

    do_GET = do_POST = do_DELETE = _serve  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Discard the library's log: the access log is written above."""


def serve(script: Script, host: str, port: int, *, seen: str | None = None, access_log: str | None = None) -> None:
    """Run a script until SIGTERM, which must be handled: the first process of a container ignores unhandled signals."""
    with AgentServer(script, host, port, seen=seen, access_log=access_log) as server:
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.stop).start())
        sys.stderr.write(f"listening on {host}:{server.server_address[1]}\n")
        server.serve_forever(poll_interval=0.1)


def main(scripts: Mapping[str, Script]) -> int:
    """Run one agent until it is stopped: ``python -m MODULE writer --listen 127.0.0.1:8080``."""
    parser = argparse.ArgumentParser(prog="agent")
    parser.add_argument("name", choices=sorted(scripts))
    parser.add_argument("--listen", required=True, metavar="HOST:PORT")
    parser.add_argument("--access-log", metavar="FILE", help="write an access log here; - is standard output")
    parser.add_argument("--seen", metavar="FILE", help="keep the headers of the last request here")
    arguments = parser.parse_args()
    host, _, port = arguments.listen.rpartition(":")
    serve(scripts[arguments.name], host, int(port), seen=arguments.seen, access_log=arguments.access_log)
    return 0


def _object(raw: bytes) -> dict[str, Any] | None:
    """Read a body; None if it is anything but one JSON object."""
    try:
        body = json.loads(raw) if raw else {}
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


def _read_no_more(connection: socket.socket) -> None:
    """Shut down the reading side: buffered bytes are still read, then the connection reports end of file."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RD)


def _keep(path: str, incoming: Incoming) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump({"method": incoming.method, "path": incoming.path, "headers": incoming.headers}, file)


def _log(path: str, line: str) -> None:
    if path == "-":
        sys.stdout.write(line)
        sys.stdout.flush()
        return
    with open(path, "a") as file:  # noqa: PTH123 - nothing but plain words in here
        file.write(line)


def _line(address: str, incoming: Incoming, line: str, status: int, size: int) -> str:
    now = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime())
    return f'{address} - {_user_of(incoming)} [{now}] "{line}" {status} {size}\n'


def _user_of(incoming: Incoming) -> str:
    """Return the user that a bearer token names; "-" if it is not a JWT."""
    parts = incoming.headers.get("authorization", "").removeprefix("Bearer ").split(".")
    if len(parts) != 3:
        return "-"
    return str(json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))).get("sub", "-"))
