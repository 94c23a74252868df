"""A server of ClickHouse's HTTP interface, as far as its client uses it, before chdb in this process."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

# Parameters of a request that are no settings of its statement.
_OTHERS: Final = re.compile(r"query|database|query_id|session_id|wait_end_of_query|client_protocol_version|param_.*")
_INSERT: Final = re.compile(r"INSERT INTO (\S+)\s.*FORMAT (\w+)\s*", re.DOTALL)


def _answer(session: Any, given: dict[str, str], body: bytes) -> bytes:
    """Run the statement of a request: its body, or of an INSERT its parameter, with the data as body."""
    for name, value in given.items():
        if not _OTHERS.fullmatch(name):
            session.query(f"SET {name} = '{value}'")
    insert = _INSERT.fullmatch(given.get("query", ""))
    if insert is None:
        values = {name.removeprefix("param_"): value for name, value in given.items() if name.startswith("param_")}
        return bytes(session.query(body.decode(), "TabSeparated", params=values).bytes())
    with tempfile.NamedTemporaryFile() as data:
        Path(data.name).write_bytes(body)
        return bytes(session.query(f"INSERT INTO {insert[1]} SELECT * FROM file('{data.name}', {insert[2]})").bytes())


@contextlib.contextmanager
def served(callers: set[str]) -> Iterator[int]:
    """Serve on a port of the loopback address. ``callers`` gets the credentials that were shown."""
    from chdb.session import Session

    session, lock = Session(), Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            callers.add(self.headers["Authorization"])
            given = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
            body = self.rfile.read(int(self.headers["Content-Length"]))
            try:
                with lock:
                    status, answer = 200, _answer(session, given, body)
            except RuntimeError as error:
                status, answer = 500, str(error).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Write nothing to standard error."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
