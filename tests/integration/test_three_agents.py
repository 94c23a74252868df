"""``docs/three-agents.md``, done as a reader does it: its programs, its commands, its two calls."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from sidecar_dev.processes import free_ports, listens

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

PAGE: Final = (Path(__file__).parents[2] / "docs" / "three-agents.md").read_text(encoding="utf-8")
BLOCKS: Final = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
PROGRAMS: Final = {"python": "planner.py", "javascript": "writer.mjs", "java": "Crm.java"}
PATIENCE_S: Final = 60.0


class Mesh:
    """The three programs and the mesh around them, with other ports than the page's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = dict(zip(("8080", "7081", "9001", "9002"), free_ports(4), strict=True))
        self.environ = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        self.said = ""
        self.processes: list[subprocess.Popen[str]] = []

    def here(self, text: str) -> str:
        """The page's text with our ports."""
        for port, ours in self.ports.items():
            text = re.sub(rf"\b{port}\b", str(ours), text)
        return text

    def start(self, command: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            ["bash", "-c", f"exec {self.here(command)}"],
            cwd=self.folder,
            env=self.environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE if command.startswith("sidecar") else subprocess.DEVNULL,
            text=True,
        )
        self.processes.append(process)
        return process

    def hears(self, pattern: str) -> str:
        told = self.processes[-1].stderr
        assert told is not None
        for line in told:
            self.said += line
            if found := re.search(pattern, line):
                return str(found[1])
        raise AssertionError(f"it ended without {pattern!r}: {self.said}")

    def curl(self, line: str) -> str:
        words = shlex.split(line)
        assert words[0] == "curl"
        done = subprocess.run([*words, "-sS", "-i"], capture_output=True, text=True, check=False, timeout=30)
        return done.stdout + done.stderr

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    for program in ("node", "javac", "curl"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not on PATH")
    mesh = Mesh(tmp_path)
    for language, text in BLOCKS:
        if language in PROGRAMS:
            (tmp_path / PROGRAMS[language]).write_text(mesh.here(text))
    try:
        yield mesh
    finally:
        mesh.stop()


def test_the_page_leads_to_three_agents_and_a_refused_impersonation(mesh: Mesh) -> None:
    waiting, running = (text for language, text in BLOCKS if not language)
    _, answer, records, _ = (text for language, text in BLOCKS if language == "text")
    for command in waiting.splitlines():
        prefix, _, rest = command.removesuffix(" &").rpartition("http://127.0.0.1:7081 ")
        mesh.start(f"env {prefix}http://127.0.0.1:7081 {rest}" if prefix else rest)
    deadline = time.monotonic() + PATIENCE_S
    while not all(listens(mesh.ports[port]) for port in ("9001", "9002")):
        assert time.monotonic() < deadline, "node or java does not listen"
        time.sleep(0.1)
    mesh.start(running.replace("dev run", "dev run --agent-port 8080"))

    lawful = mesh.hears(r"^sidecar:   (curl .*)$")
    refused = mesh.hears(r"^sidecar:   (curl --cert .*)$")
    assert answer in mesh.curl(lawful)
    missing = {" ".join(line.split()) for line in records.splitlines()}
    while missing:  # in any order
        line = " ".join(mesh.hears(r"^sidecar: +(.* inbound .*)$").split())
        missing = {one for one in missing if one not in line}

    impersonation = mesh.curl(refused)
    assert "HTTP/1.1 401" in impersonation
    assert "delegation-reason: act_missing" in impersonation.lower()
    assert mesh.hears(r"(writer +inbound GET / 401 +act_missing.*)")
