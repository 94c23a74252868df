"""A web server on loopback that records what it is sent, and redirects where a test asks for it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Recorder:
    """``redirects`` maps the target of a request to the URL that it is redirected to."""

    port: int = 0
    requests: list[tuple[str, Message]] = field(default_factory=list)
    redirects: dict[str, str] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def handles(self) -> list[list[str] | None]:
        """Return the handles of each request, None for a request without one."""
        return [fields.get_all("delegation-handle") for _, fields in self.requests]


@contextmanager
def recording() -> Iterator[Recorder]:
    """Run a recorder until the block ends."""
    recorder = Recorder()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            recorder.requests.append((self.path, self.headers))
            to = recorder.redirects.get(self.path)
            self.send_response(302 if to else 200)
            if to:
                self.send_header("Location", to)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Write nothing."""

    class Server(ThreadingHTTPServer):
        request_queue_size = 256
        daemon_threads = True  # they wait on kept connections
        block_on_close = False

    with Server(("127.0.0.1", 0), Handler) as server:
        recorder.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield recorder
        finally:
            server.shutdown()
            thread.join()
