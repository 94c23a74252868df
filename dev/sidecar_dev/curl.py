"""Runs the demo's requests with curl and openssl, by commands that anybody can copy."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

JSON_SINCE: Final = (7, 82)  # curl --json
HEADER_FILE_SINCE: Final = (7, 55)  # curl --header @FILE
_TIMEOUT_S: Final = 20
_PROXIES: Final = ("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")  # what curl reads


class ToolError(Exception):
    """A program the demo needs is missing or failed."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer to a curl command. ``status`` 0: no HTTP answer, the handshake failed. ``said`` is for people."""

    command: str
    status: int
    reason: str | None
    body: dict[str, Any]

    @property
    def said(self) -> str:
        """The answer in a few words."""
        if self.status == 0:
            return "no handshake"
        error = self.body.get("error")  # OAuth: a word; JSON-RPC: an object, whose reason is in ``reason``
        told = error if isinstance(error, str) else None
        return " ".join(str(part) for part in (self.status, self.reason, told) if part)


def require_tools() -> None:
    """Check that openssl is there, and a curl that knows ``--json``.

    Raises:
        ToolError: one is missing or too old; the text says what is needed.
    """
    lacking = [] if shutil.which("openssl") else ["openssl is not on PATH"]
    if problem := curl_problem(JSON_SINCE):
        lacking.insert(0, problem)
    if lacking:
        needed = f"curl {version_text(JSON_SINCE)} or newer and openssl"
        raise ToolError(f"the demo needs {needed}: {'; '.join(lacking)}. Install it, or put it first on PATH")


def curl_problem(since: tuple[int, int]) -> str | None:
    """Return a problem in words if the curl on PATH is missing or older than ``since``."""
    program = shutil.which("curl")
    if program is None:
        return "curl is not on PATH"
    try:
        done = subprocess.run([program, "--version"], capture_output=True, timeout=_TIMEOUT_S, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return f"{program} does not run"
    found = curl_version(done.stdout.decode(errors="replace"))
    if found is None:
        return f"{program} does not tell its version"
    return f"{program} is curl {version_text(found)}" if found < since else None


def curl_version(text: str) -> tuple[int, int] | None:
    """Return the major and minor version in the output of ``curl --version``."""
    told = re.match(r"curl (\d{1,4})\.(\d{1,4})\b", text)
    return None if told is None else (int(told[1]), int(told[2]))


def version_text(version: tuple[int, int]) -> str:
    """Write a version as people do."""
    return ".".join(map(str, version))


class Shell:
    """Runs commands inside one folder, so that the paths in them are short."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def curl(self, *arguments: str) -> Answer:
        """Run curl once. The shown command equals the command that runs, except for options about curl's output."""
        direct = ["--noproxy", "*"]
        ran = ["curl", "--silent", "--include", *direct, "--max-time", str(_TIMEOUT_S), *arguments]
        finished = subprocess.run(ran, cwd=self._folder, capture_output=True, check=False)  # noqa: S603
        head, _, body = finished.stdout.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        status = int(lines[0].split(" ")[1]) if lines[0].startswith("HTTP/") else 0
        fields = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
        needed = direct if any(os.environ.get(name) for name in _PROXIES) else []
        shown = shlex.join(["curl", *needed, *arguments])
        return Answer(shown, status, fields.get("delegation-reason"), _json(body))

    def openssl(self, *arguments: str) -> str:
        """One openssl command; returns it as text.

        Raises:
            ToolError: it failed.
        """
        finished = subprocess.run(["openssl", *arguments], cwd=self._folder, capture_output=True, check=False)  # noqa: S603, S607
        if finished.returncode != 0:
            raise ToolError(f"openssl failed: {finished.stderr.decode(errors='replace').strip()}")
        return shlex.join(["openssl", *arguments])

    def write(self, name: str, text: str) -> str:
        """Keep a header or an extension in a file for a command; returns its name."""
        path = self._folder / name
        path.touch(mode=0o600)
        path.write_text(text)
        return name


def as_workload(name: str) -> Sequence[str]:
    """Return curl's options for a call with a workload's SVID."""
    folder = f"svids/{name}"
    return ("--cert", f"{folder}/svid.pem", "--key", f"{folder}/svid_key.pem", "--cacert", f"{folder}/bundle.pem")


def _json(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
