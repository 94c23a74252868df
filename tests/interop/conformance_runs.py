"""The official conformance runner of MCP: what it can run, and each check of a run, made comparable with another's."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from difflib import unified_diff
from pathlib import Path
from typing import Final, TypeAlias

from tests.interop import agents
from tests.interop.tool_mesh import APPS

LONGEST_S: Final = 120

SERVER_RUNS: Final = {
    "released": (("--suite", "all"),),  # active and pending
    "alpha": (
        ("--suite", "all"),  # active, pending and draft, with every extension
        ("--requirements", "2025-11-25"),  # the same scenarios in each revision's form
        ("--requirements", "2026-07-28"),
    ),
}
"""Every suite of each runner, for servers."""

Check: TypeAlias = tuple[str, str, str, str]
Checks: TypeAlias = dict[str, list[Check]]
"""Of each scenario its checks: id, name, status, and the message of one that failed."""

_STAMP: Final = re.compile(r"-\d{4}-\d\d-\d\dT[\d-]+Z$")
_LISTED: Final = re.compile(r"^  - (\S+)", re.MULTILINE)
_PORT: Final = re.compile(r"(?<=127\.0\.0\.1:)\d+|(?<=localhost:)\d+")
_SESSION: Final = re.compile(r"\b[A-Za-z0-9_-]{32,}(\.[0-9a-f]{32})?\b")


def run_server_checks(runner: str, url: str, *words: str) -> Checks:
    """Run a runner's scenarios against the server at a URL."""
    with tempfile.TemporaryDirectory() as folder:
        return _run(runner, Path(folder), "server", "--url", url, *words)


def client_scenarios(runner: str) -> list[str]:
    """Return the names of a runner's scenarios for clients."""
    words = (agents.node(), agents.conformance(runner), "list", "--client")
    listed = subprocess.run(words, capture_output=True, text=True, timeout=LONGEST_S, check=True).stdout
    return _LISTED.findall(listed)


def run_client_checks(runner: str, scenario: str, where: str, port: int) -> Checks:
    """Run one scenario with a client that calls ``where``: the runner's server itself, or a mesh before that port."""
    client = f"{agents.PYTHON} {APPS / 'mcp_conformance_client.py'} {where} {port}"
    with tempfile.TemporaryDirectory() as folder:
        return _run(runner, Path(folder), "client", "--command", client, "--scenario", scenario)


def _run(runner: str, folder: Path, *words: str) -> Checks:
    command: list[str | Path] = [agents.node(), agents.conformance(runner), *words, "-o", folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_S, check=False)
    found: Checks = {}
    for file in folder.glob("*/checks.json"):
        scenario = _STAMP.sub("", str(file.parent.relative_to(folder)))
        assert scenario not in found, f"{scenario} has run twice"
        found[scenario] = [_comparable(check) for check in json.loads(file.read_text())]
    assert found, (done.stdout + done.stderr)[-3000:]
    return found


def _comparable(check: dict[str, str]) -> Check:
    told = _SESSION.sub("SESSION", _PORT.sub("PORT", check.get("errorMessage") or ""))
    return check["id"], check["name"], check["status"], told


def passed(checks: Checks) -> set[str]:
    """Return the scenarios of which no check failed, and one succeeded."""
    by_status = {name: {status for _, _, status, _ in one} for name, one in checks.items()}
    return {name for name, found in by_status.items() if "SUCCESS" in found and "FAILURE" not in found}


def differences(straight: Checks, through: Checks) -> dict[str, list[str]]:
    """Return each scenario's checks that come out otherwise through the sidecars, with both outcomes.

    What a runner only notes, such as each message, may come in another order: clients send several at once.
    """
    found = {}
    for name in straight.keys() | through.keys():
        pairs = unified_diff(_with_notes_last(straight.get(name, [])), _with_notes_last(through.get(name, [])))
        found[name] = [line for line in pairs if line[0] in "+-"][2:]
    return {name: lines for name, lines in found.items() if lines}


def _with_notes_last(checks: list[Check]) -> list[str]:
    notes = sorted(str(one) for one in checks if one[2] == "INFO")
    return [str(one) for one in checks if one[2] != "INFO"] + notes
