"""Asks a running sidecar through its admin socket."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any, Final

_TIMEOUT_S: Final = 5.0
_MAX_BYTES: Final = 16 * 1024 * 1024


class NoAnswerError(Exception):
    """The socket gave no usable answer. The message says why."""


def ask(path: Path, target: str, *, member: str) -> dict[str, Any]:
    """Return the JSON document at ``target``, which must have ``member``.

    Raises:
        NoAnswerError: the socket is missing, forbidden, closed or silent, no worker answers, or no sidecar is there.
    """
    connection = _Unix(path)
    try:
        connection.request("GET", target)
        answer = connection.getresponse()
        if answer.status == 503:
            raise NoAnswerError(f"{path}: none of its workers answers; they may be starting; see standard error")
        document = json.loads(answer.read(_MAX_BYTES))
    except FileNotFoundError:
        raise NoAnswerError(
            f"{path} does not exist: set admin.socket, start the sidecar, or pass --socket;"
            " a sidecar that does not start gives the reason on its standard error"
        ) from None
    except PermissionError:
        raise NoAnswerError(f"{path} may not be opened by this user: run the command as the sidecar's user") from None
    except ConnectionRefusedError:
        raise NoAnswerError(f"nobody listens at {path}: the sidecar that made it is gone; start it again") from None
    except TimeoutError:
        raise NoAnswerError(
            f"{path} does not answer within {_TIMEOUT_S:g} s: the process is stopped or stuck"
        ) from None
    except (OSError, http.client.HTTPException, ValueError, RecursionError):  # the last: JSON nested too deeply
        raise NoAnswerError(f"{path} is not the admin socket of a sidecar") from None
    finally:
        connection.close()
    if answer.status != 200 or not isinstance(document, dict) or member not in document:
        raise NoAnswerError(f"{path} is not the admin socket of a sidecar")
    return document


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("admin", timeout=_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_TIMEOUT_S)
        self.sock.connect(str(self._path))
