"""Answers at an admin socket, perhaps not a sidecar's: any bytes as the HTTP answer to ``sidecar status``."""

from __future__ import annotations

import http.client
from io import BytesIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

from sidecar.status import client
from sidecar.status.client import NoAnswerError, ask
from tests.fuzz.properties import printable


class _Said:
    """A socket with these bytes to read."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def sendall(self, _data: bytes) -> None:
        pass

    def makefile(self, _mode: str) -> BytesIO:
        return BytesIO(self._data)

    def close(self) -> None:
        pass


def status_answer(data: bytes) -> None:
    """A JSON document with the member of a sidecar's, or one sentence that quotes nothing of the answer."""

    class Connection(http.client.HTTPConnection):
        def __init__(self, _path: Path) -> None:
            super().__init__("admin")

        def connect(self) -> None:
            said: Any = _Said(data)
            self.sock = said

    with patch.object(client, "_Unix", Connection):
        try:
            document = ask(Path("/run/admin.sock"), "/status", member="settings")
        except NoAnswerError as error:
            printable(str(error))
            assert str(error).startswith("/run/admin.sock is not the admin socket of a sidecar")
        else:
            assert "settings" in document
