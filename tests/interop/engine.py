"""A Docker engine with Compose, from `docker` on PATH and DOCKER_HOST, and one mesh on it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.integration.world import free_port

ROOT: Final = Path(__file__).parents[2]
IMAGE: Final = os.environ.get("SIDECAR_IMAGE", "sidecar:dev")
DEV_IMAGE: Final = os.environ.get("SIDECAR_DEV_IMAGE", "sidecar-dev:dev")  # with the tools for development
_PATIENCE_S: Final = 60.0
_COMMAND_S: Final = 280.0


def missing() -> str | None:
    """Return the reason why there is no engine or image to test with."""
    if shutil.which("docker") is None:
        return "docker is not on PATH"
    for words, why in (
        (["version"], "no Docker engine answers"),
        (["compose", "version"], "docker has no compose"),
        (["image", "inspect", IMAGE], f"there is no image {IMAGE}: make image"),
        (["image", "inspect", DEV_IMAGE], f"there is no image {DEV_IMAGE}: make image"),
    ):
        if subprocess.run(["docker", *words], capture_output=True, check=False).returncode:
            return why
    return None


def require(lacking: str | None) -> None:
    """Skip if a requirement is missing, or fail where continuous integration must have it."""
    if lacking:
        assert "CI" not in os.environ, lacking
        pytest.skip(lacking)


def docker(*words: str, check: bool = True, stdin: str | None = None) -> str:
    """Send a command to the engine; return its standard output."""
    return output(["docker", *words], check=check, stdin=stdin)


def output(command: Sequence[str], *, check: bool = True, stdin: str | None = None, env: Any = None) -> str:
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=_COMMAND_S, check=False, input=stdin, env=env
    )
    assert not check or done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: Mapping[str, Any]


class Mesh:
    """One compose project, with its own ports on 127.0.0.1. ``files`` are laid over compose.yaml."""

    def __init__(self, name: str, *files: Path) -> None:
        self.name = name
        self.front_port, self.prometheus_port, self.grafana_port = free_port(), free_port(), free_port()
        self._command = ["docker", "compose", "--project-name", name]
        self._command += [word for file in (ROOT / "compose.yaml", *files) for word in ("--file", str(file))]
        ports = {"FRONT_PORT": self.front_port, "PROMETHEUS_PORT": self.prometheus_port}
        ports["GRAFANA_PORT"] = self.grafana_port
        images = {"SIDECAR_IMAGE": IMAGE, "SIDECAR_DEV_IMAGE": DEV_IMAGE}
        self.environ = {**os.environ, **{key: str(port) for key, port in ports.items()}, **images}

    def compose(self, *words: str, check: bool = True) -> str:
        return output([*self._command, *words], check=check, env=self.environ)

    def up(self, *services: str) -> None:
        """Run the README's command, which has to suffice."""
        self.compose("up", "--detach", "--wait", *services)

    def down(self) -> None:
        self.compose("--profile", "*", "down", "--volumes", "--timeout", "3")

    def attack(self, attacker: str) -> tuple[int, str]:
        """Run one attack; return its verdict and output."""
        command = [*self._command, "run", "--rm", "--no-deps", f"attack-{attacker}"]
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=_COMMAND_S, check=False, env=self.environ
        )
        return done.returncode, done.stdout + done.stderr

    def ask(self, user: str = "alice", **question: Any) -> Answer:
        """Ask the front app as a user. Status 0 is not an answer at all."""
        body = json.dumps({"question": "When does Globex renew?", "customer": "42", **question}).encode()
        authorization = f"Basic {b64encode(f'{user}:'.encode()).decode()}"
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.front_port}/ask", body, {"Authorization": authorization}
        )
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as response:
                return Answer(response.status, json.loads(response.read()))
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, json.loads(error.read() or b"{}"))
        except (OSError, ValueError) as error:
            return Answer(0, {"error": repr(error)})

    def wait_for_the_chain(self) -> None:
        """Wait until alice gets her answer again."""
        last = wait_for(lambda: self.ask(), lambda answer: answer.status == 200)
        assert last.status == 200, last

    def container(self, service: str) -> str:
        return f"{self.name}-{service}-1"

    def inspect(self, *services: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(docker("inspect", *map(self.container, services)))
        return found

    def services(self) -> list[str]:
        """The services of the plain mesh, without profiles."""
        return sorted(self.compose("config", "--services").split())

    def config(self) -> dict[str, Any]:
        """Return the whole file as Compose reads it."""
        found: dict[str, Any] = json.loads(self.compose("--profile", "*", "config", "--format", "json"))
        return found

    def records(self, service: str) -> list[dict[str, Any]]:
        lines = self.compose("logs", "--no-log-prefix", "--no-color", service).splitlines()
        return [json.loads(line[line.index("{") :]) for line in lines if '{"event"' in line]


def wait_for(look: Callable[[], Any], is_it: Callable[[Any], bool]) -> Any:
    """Poll until the condition holds or time is over; return the last value."""
    deadline = time.monotonic() + _PATIENCE_S
    while not is_it(found := look()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found
