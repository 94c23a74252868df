"""``sidecar healthcheck``: ask the probe listener beside us whether all is well, for a container's health check.

It is run every few seconds, so it loads nothing of ours: the address comes from an option, the environment or one
member of the settings, and is asked over a plain socket. Whether the settings are any good, ``sidecar check`` says.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

DEFAULT_PROBE: Final = "127.0.0.1:7090"
TIMEOUT_S: Final = 3.0
_BETWEEN_S: Final = 0.2
_VARIABLE: Final = "SIDECAR__PROBE__LISTEN"
_STATUS: Final = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - what somebody else listens on
_MAX_BYTES: Final = 65_536


def run(arguments: argparse.Namespace) -> int:
    """Exit codes: 0 it is well, 1 it is not, or nobody answers."""
    address = arguments.probe or probe_of(os.environ, Path(arguments.config))
    path = "/livez" if arguments.live else "/readyz"
    give_up_at = time.monotonic() + arguments.wait
    while (wrong := _wrong_at(address, path)) and time.monotonic() < give_up_at:
        time.sleep(_BETWEEN_S)
    if wrong:
        print(wrong, file=sys.stderr)  # noqa: T201 - the command's own output
    return 1 if wrong else 0


def _wrong_at(address: str, path: str) -> str:
    """What is wrong, in words for the operator; empty if all is well."""
    try:
        status, lines = ask(address, path)
    except (OSError, ValueError) as error:
        return f"no answer from {address}: {error}"
    return "" if status == 200 else "\n".join(lines) or f"status {status}"


def probe_of(environ: Mapping[str, str], config: Path) -> str:
    """Where the probe listens, as a client on this machine calls it."""
    listen = environ.get(_VARIABLE) or _from_file(config) or DEFAULT_PROBE
    host, _, port = listen.rpartition(":")
    return f"{_WILDCARDS.get(host, host)}:{port}"


def ask(address: str, path: str) -> tuple[int, list[str]]:
    """The status and the lines of the answer.

    Raises:
        OSError: nobody listens, or not in time.
        ValueError: the address is none, or the answer is no HTTP.
    """
    host, _, port = address.rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=TIMEOUT_S) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while len(answer) < _MAX_BYTES and (received := connection.recv(_MAX_BYTES)):
            answer += received
    status = _STATUS.match(answer)
    if status is None:
        raise ValueError("it speaks no HTTP")
    return int(status[1]), answer.partition(b"\r\n\r\n")[2].decode(errors="replace").splitlines()


def _from_file(config: Path) -> str | None:
    import yaml

    try:
        document = yaml.load(config.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
        return str(document["probe"]["listen"])
    except (OSError, yaml.YAMLError, ValueError, TypeError, KeyError):  # not there, not written, or no settings at all
        return None
