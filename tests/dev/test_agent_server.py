"""The demo's agents end like a well-behaved server: they finish their requests."""

from __future__ import annotations

import http.client
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from sidecar_dev.agent_server import AgentServer, Incoming, Outgoing


class Slow:
    """A script in the middle of its work until it is released."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self, incoming: Incoming) -> Outgoing:
        if incoming.path == "/slow":
            self.begun.set()
            self.go_on.wait(10)
        return Outgoing(200, {"path": incoming.path})


@pytest.fixture
def script() -> Slow:
    return Slow()


@pytest.fixture
def server(script: Slow) -> Iterator[AgentServer]:
    with AgentServer(script, "127.0.0.1", 0) as server:
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        yield server
        script.go_on.set()
        server.stop()
        serving.join(10)


def connected(server: AgentServer) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)


def test_a_request_that_has_begun_is_answered_and_told_that_it_was_the_last(server: AgentServer, script: Slow) -> None:
    connection = connected(server)
    connection.request("GET", "/slow")
    assert script.begun.wait(10)
    server.stop()
    script.go_on.set()
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Connection"]) == (200, "close")
    answer.read()
    connection.close()


def test_a_connection_on_which_nothing_happens_is_ended(server: AgentServer) -> None:
    connection = connected(server)
    connection.request("GET", "/")
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Connection"]) == (200, None)
    answer.read()
    assert connection.sock is not None
    server.stop()
    assert connection.sock.recv(1) == b""
    connection.close()


def test_the_process_ends_by_sigterm_of_its_own_accord_and_its_log_goes_to_standard_output() -> None:
    command = [sys.executable, "-m", "sidecar_dev.agents", "crm", "--listen", "127.0.0.1:0", "--access-log", "-"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None
    port = int(running.stderr.readline().rpartition(":")[2])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/customers/42")
    assert connection.getresponse().read()
    running.send_signal(signal.SIGTERM)
    said, _ = running.communicate(timeout=10)
    connection.close()
    assert (running.returncode, '"GET /customers/42 HTTP/1.1" 200' in said) == (0, True)


@pytest.mark.parametrize("body", [b"[]", b"{", b"1", b"\xff"])
def test_a_body_that_is_no_json_object_reaches_no_script(server: AgentServer, script: Slow, body: bytes) -> None:
    connection = connected(server)
    connection.request("POST", "/", body)
    answer = connection.getresponse()
    assert (answer.status, b"path" in answer.read()) == (400, False)
    connection.request("POST", "/", b"{}")
    assert connection.getresponse().status == 200
    connection.close()


def test_a_question_after_its_health_reaches_no_script(server: AgentServer, script: Slow) -> None:
    connection = connected(server)
    connection.request("GET", "/healthz")
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (200, b"{}")
    connection.close()


def test_head_and_body_of_an_answer_leave_together(server: AgentServer) -> None:
    """Two small writes on a kept connection cost 40 ms: the second waits for a delayed acknowledgement."""
    with socket.create_connection(("127.0.0.1", server.server_address[1]), timeout=10) as connection:
        for _ in range(20):
            connection.sendall(b"GET /fast HTTP/1.1\r\nHost: agent\r\n\r\n")
            assert connection.recv(65536).endswith(b'{"path": "/fast"}')
