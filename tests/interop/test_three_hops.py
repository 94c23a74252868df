"""docs/three-hops.md, block by block: a real Keycloak, a real SPIRE, and sidecars that run as users of their own."""

from __future__ import annotations

import json
import os
import queue
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

import pytest

from tests.integration.world import free_port
from tests.interop import keycloak, spire
from tests.interop.engine import require

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "three-hops.md"
BLOCK_S: Final = 300.0
SYSTEM: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # where all users can run what there is
ACTORS: Final = [f"spiffe://acme.example/{name}" for name in ("front", "agent/planner", "agent/writer")]

pytestmark = [pytest.mark.interop, pytest.mark.timeout(1200)]


def lacking() -> str | None:
    if os.getuid() != 0:
        return "root is needed: each process runs as a user of its own"
    if spire.missing():
        return f"not on PATH: {', '.join(spire.missing())}"
    python = shutil.which("python3", path=SYSTEM)
    script = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))"
    if python is None or subprocess.run([python, "-c", script], capture_output=True, check=False).returncode:
        return "no Python 3.11 with venv that all users can run"
    return keycloak.lacking()


class Shell:
    """One shell that gets the page's blocks, as a reader would paste them, with this machine's folders and ports."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names = {"/srv/mesh": f"{folder}/mesh", "/opt/sidecar": f"{folder}/opt"}
        ports = set(re.findall(r"\b(?:127\.0\.0\.1:|port=|port = )(\d{4})\b", self._sources()))
        self._names |= {port: str(free_port()) for port in sorted(ports | {"8082", "8083", "8084"})}
        path = [SYSTEM, *(str(Path(str(shutil.which(name))).parent) for name in (*spire.NEEDED, "java"))]
        self._process = subprocess.Popen(
            ["bash"],
            cwd=folder / "clone",
            env={"PATH": ":".join(path), "HOME": str(folder), "KEYCLOAK_HOME": os.environ["KEYCLOAK_HOME"]}
            | {"JAVA_OPTS_KC_HEAP": "-Xms64m -Xmx256m", "JAVA_OPTS_APPEND": "-XX:TieredStopAtLevel=1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True).start()

    def _sources(self) -> str:
        return "\n".join(path.read_text() for path in (PAGE, *sorted((ROOT / "config/three-hops").iterdir())))

    def _read(self, output: IO[str]) -> None:
        for line in output:
            self._lines.put(line)

    def here(self, text: str) -> str:
        """Return the text with the folders and ports of this run."""
        return re.sub("|".join(rf"{re.escape(name)}\b" for name in self._names), lambda m: self._names[m[0]], text)

    def run(self, block: str) -> str:
        """Run a block, whose last command must succeed; return what it printed, with the page's folders and ports."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{self.here(block)}\necho; echo ended $?\n")
        self._process.stdin.flush()
        printed: list[str] = []
        while (line := self._lines.get(timeout=BLOCK_S)) and not re.fullmatch(r"ended \d+\n", line):
            printed.append(line)
        output = "".join(printed)
        assert line == "ended 0\n", f"{block}\n{output}"
        there = {value: name for name, value in self._names.items()}
        return re.sub("|".join(map(re.escape, there)), lambda m: there[m[0]], output)

    def stop(self) -> None:
        pids = self.folder / "mesh" / "pids"
        for pid in pids.read_text().split() if pids.exists() else []:
            try:
                os.kill(int(pid), signal.SIGTERM)
            except ProcessLookupError:
                continue
        with self._process:
            self._process.kill()


@pytest.fixture
def shell() -> Iterator[Shell]:
    require(lacking())
    with tempfile.TemporaryDirectory(prefix="th-", dir="/tmp") as name:  # short: a socket's path has to be
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "clone").mkdir()
        for source in ("core", "audit", "sidecar", "config", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
            copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
            copy(ROOT / source, folder / "clone" / source)
        for path in (folder / "clone" / "config" / "three-hops").iterdir():
            path.chmod(0o644)
        started = Shell(folder)
        for path in (folder / "clone" / "config" / "three-hops").iterdir():
            path.write_text(started.here(path.read_text()))
        try:
            yield started
        finally:
            started.stop()


def test_the_page_as_copied_shows_three_hops_for_alice_and_refuses_each_changed_fact(shell: Shell) -> None:
    blocks = re.findall(r"^```(sh|text)\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert [language for language, _ in blocks].count("text") == 4
    printed = ""
    for language, block in blocks[:-1]:
        if language == "sh":
            printed = nameless(shell.run(block))
            continue
        for line in nameless(block).splitlines():
            assert line.removesuffix(" …") in printed, printed
    three_tokens(shell)
    refused_chains(nameless(shell.run("$sidecar audit chains ./*/records.jsonl || true")))
    shell.run(blocks[-1][1])


def nameless(text: str) -> str:
    """Return the text without the random names of chains."""
    return re.sub(r"^chain \S+,", "chain NAME,", text, flags=re.MULTILINE)


def three_tokens(shell: Shell) -> None:
    path = shell.folder / "mesh" / "sts" / "records.jsonl"
    issued = [one for one in map(json.loads, path.read_text().splitlines()) if one["event"] == "token.exchanged"][:3]
    assert {one["subject"] for one in issued} == {"acme:alice"}
    assert [one["chain"] for one in issued] == [ACTORS[:1], ACTORS[1::-1], ACTORS[::-1]]
    assert [one["parent_jti"] for one in issued[1:]] == [one["jti_out"] for one in issued[:2]]
    assert len({one["txn"] for one in issued}) == 1


def refused_chains(shown: str) -> None:
    assert re.search(
        r"for acme:bob .*\n.*\n1 .*\n2 .*\n3 +/agent/writer → route crm .* deny 403 insufficient_sc", shown
    )
    assert re.search(r"^outside any chain: .*exchange_denied", shown, re.MULTILINE)
    assert "0 of 3 chains are broken" in shown
