from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sidecar.status.client import NoAnswerError, ask
from tests.status.documents import status
from tests.status.socket import serving

pytestmark = pytest.mark.integration


def test_what_the_socket_tells_is_read(path: Path) -> None:
    with serving(path, status()):
        assert ask(path, "/status", member="settings") == status()


def test_a_socket_that_a_killed_sidecar_left_is_told_as_such(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with pytest.raises(NoAnswerError, match="nobody listens at"):
        ask(path, "/status", member="settings")


@pytest.mark.parametrize("document", [{}, {"ready": True}], ids=["empty", "of-something-else"])
def test_another_programs_socket_is_no_sidecars(path: Path, document: dict[str, Any]) -> None:
    with serving(path, document), pytest.raises(NoAnswerError, match="not the admin socket of a sidecar"):
        ask(path, "/status", member="settings")


@pytest.mark.parametrize(
    "body", [b"no JSON", b"[" * 5000, b'{"settings": ' * 5000, b"\xff"], ids=["text", "deep list", "deep", "bytes"]
)
def test_what_is_no_document_is_no_sidecars(path: Path, body: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as listening, ThreadPoolExecutor(1) as pool:
        listening.bind(str(path))
        listening.listen(1)
        answered = pool.submit(_answer_once, listening, b"HTTP/1.1 200 OK\r\n\r\n" + body)
        with pytest.raises(NoAnswerError, match="not the admin socket of a sidecar"):
            ask(path, "/status", member="settings")
        answered.result(5)


def _answer_once(listening: socket.socket, answer: bytes) -> None:
    connection, _ = listening.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(answer)


def test_what_is_not_found_there_is_no_sidecars(path: Path) -> None:
    with serving(path, status()), pytest.raises(NoAnswerError, match="not the admin socket of a sidecar"):
        ask(path, "/elsewhere", member="settings")


def test_a_process_that_is_stopped_is_told_as_such(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.status.client._TIMEOUT_S", 0.05)
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(path))
        deaf.listen(1)
        with pytest.raises(NoAnswerError, match="stopped or stuck"):
            ask(path, "/status", member="settings")
