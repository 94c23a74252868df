from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from sidecar_dev.card_check import card_of, stray_addresses, warnings

OURS = "http://127.0.0.1:43393/agent/"


@pytest.mark.parametrize(
    ("card", "strays"),
    [
        ({"supportedInterfaces": [{"url": "http://127.0.0.1:8080/"}, {"url": OURS}]}, ["http://127.0.0.1:8080/"]),
        ({"url": OURS.rstrip("/"), "additionalInterfaces": [{"url": "h:9"}]}, ["h:9"]),
        ({"url": f"{OURS}a2a", "additionalInterfaces": None}, []),
        ({"url": "http://127.0.0.1:43393/agents"}, ["http://127.0.0.1:43393/agents"]),
        ({"url": 7, "supportedInterfaces": ["x"]}, []),
        ([], []),
    ],
)
def test_addresses_that_are_not_the_sidecars_are_found(card: object, strays: list[str]) -> None:
    assert stray_addresses(json.dumps(card).encode(), OURS) == strays


def test_what_is_no_json_has_no_address() -> None:
    assert stray_addresses(b"<html>", OURS) == []


@contextmanager
def serving(paths: dict[str, Any]) -> Iterator[int]:
    """Serve documents by path on loopback; yield the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(paths.get(self.path)).encode()
            self.send_response(200 if self.path in paths else 404)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_card_that_leads_past_the_mesh_is_told_unless_the_sidecar_rewrites_it() -> None:
    with serving({"/.well-known/agent.json": {"url": "http://127.0.0.1:8080/"}}) as port:
        told = warnings(port, OURS, rewritten=False)
        assert "http://127.0.0.1:8080/" in told[0]
        assert OURS in told[1]
        assert warnings(port, OURS, rewritten=True) == []
    with serving({"/.well-known/agent-card.json": {"url": OURS}}) as port:
        assert warnings(port, OURS, rewritten=False) == []


def test_a_program_without_a_card_is_no_matter() -> None:
    with serving({}) as port:
        assert card_of(port) is None
        assert warnings(port, OURS, rewritten=False) == []
    assert card_of(port) is None


def test_a_program_that_answers_in_http2_is_told_of_the_option_for_grpc() -> None:
    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"\0\0\0\4\0\0\0\0\0" + b"\0\0\0\4\1\0\0\0\0\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer)
        thread.start()
        (told,) = warnings(listener.getsockname()[1], OURS, rewritten=False)
        thread.join()
    assert "add --grpc agent" in told
