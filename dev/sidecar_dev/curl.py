"""Runs the demo's requests with curl and openssl, by commands that anybody can copy."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_NEEDED: Final = ("curl", "openssl")
_TIMEOUT_S: Final = 20


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
        error = self.body.get("error")
        return " ".join(str(part) for part in (self.status, self.reason, error) if part)


def require_tools() -> None:
    """Check that curl and openssl are there.

    Raises:
        ToolError: one is missing; the text says what to install.
    """
    missing = [name for name in _NEEDED if shutil.which(name) is None]
    if missing:
        raise ToolError(f"the demo shows its attacks with curl and openssl; please install {' and '.join(missing)}")


class Shell:
    """Runs commands inside one folder, so that the paths in them are short."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def curl(self, *arguments: str) -> Answer:
        """One request. The command shown is the command run, except for what curl prints beside the body."""
        ran = ["curl", "--silent", "--include", "--noproxy", "*", "--max-time", str(_TIMEOUT_S), *arguments]
        finished = subprocess.run(ran, cwd=self._folder, capture_output=True, check=False)  # noqa: S603
        head, _, body = finished.stdout.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        status = int(lines[0].split(" ")[1]) if lines[0].startswith("HTTP/") else 0
        fields = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
        shown = shlex.join(["curl", *arguments])
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
    """curl's options for calling with a workload's SVID."""
    folder = f"svids/{name}"
    return ("--cert", f"{folder}/svid.pem", "--key", f"{folder}/svid_key.pem", "--cacert", f"{folder}/bundle.pem")


def _json(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
