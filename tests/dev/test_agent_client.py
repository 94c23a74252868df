from __future__ import annotations

import os
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from sidecar_dev import agent_client
from sidecar_dev.agent_server import Incoming


class Target(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        for name, value in (("Content-Length", "2"), ("Mcp-Session-Id", "7"), ("Delegation-Reason", "x")):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


def test_an_answer_that_is_passed_on_states_its_length_once() -> None:
    with HTTPServer(("127.0.0.1", 0), Target) as server:
        Thread(target=server.handle_request, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        answer = agent_client.call(url, "GET", Incoming("GET", "/", {}, {}))
    assert (answer.status, answer.body, answer.fields) == (200, {}, {"Mcp-Session-Id": "7"})


def test_authorities_that_change_are_read_anew_and_only_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("")
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    first = agent_client.opener()
    assert agent_client.opener() is first
    os.utime(file, (1, 1))
    assert agent_client.opener() is not first
