"""An audit runs where no sidecar does: without any part of the data plane, and without its libraries."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from delegation_audit.command import AUDITS as COMMANDS

pytestmark = pytest.mark.integration

AUDIT: Final = Path(__file__).parents[2] / "audit"
ENTRIES: Final = AUDIT / "selectors" / "data" / "spire-1.13.3.json"
AUDITS: Final = sorted(COMMANDS)
RECORDED: Final = sorted((AUDIT / "recorded").glob("*.records"))
LIBRARIES: Final = ("aiohttp", "grpclib", "h2", "prometheus_client", "pydantic", "uvloop")
ROOMS: Final = ("app", "assembly", "config", "exchange", "identity", "process", "proxy", "serving", "sts", "wire")
# An interpreter in which each of them fails to import, however it is asked for.
WITHOUT: Final = f"""
import sys
sys.modules.update(dict.fromkeys({[*LIBRARIES, *(f"sidecar.{room}" for room in ROOMS)]!r}))
"""
EVERY_MODULE: Final = """
import importlib, pkgutil, delegation_audit
for module in pkgutil.walk_packages(delegation_audit.__path__, "delegation_audit."):
    importlib.import_module(module.name)
    print(module.name)
"""
COMMAND: Final = "from sidecar.cli import main; sys.exit(main(sys.argv[1:]))"
ALONE: Final = "sys.modules['sidecar'] = None; from delegation_audit.command import main; sys.exit(main(sys.argv[1:]))"


def interpreter(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", WITHOUT + code, *words], capture_output=True, text=True, check=False)


def test_every_module_of_the_audit_is_imported_without_the_data_plane() -> None:
    done = interpreter(EVERY_MODULE)
    assert (done.returncode, done.stderr) == (0, "")
    assert "delegation_audit.chains.command" in done.stdout.split()


@pytest.mark.parametrize("command", AUDITS)
def test_a_command_of_the_audit_shows_its_help_without_the_data_plane(command: str) -> None:
    done = interpreter(COMMAND, "audit", command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "examples:" in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ("chains", "--json", *RECORDED),
        ("attribution", "--json", *RECORDED),
        ("verify", "--json", *RECORDED),
        ("ratio", "--json", *RECORDED),
        ("suggest", "--json", *RECORDED),
        ("export", "--as", "ocsf", *RECORDED),
        ("selectors", "--json", ENTRIES),
        ("credentials", "--json", *RECORDED),
    ],
    ids=lambda words: str(words[0]),
)
def test_a_command_of_the_audit_runs_without_the_data_plane(words: Sequence[str | Path]) -> None:
    done = interpreter(COMMAND, "audit", *map(str, words))
    assert (done.returncode in {0, 1}, done.stderr) == (True, "")
    assert done.stdout.startswith("{")
    alone = interpreter(ALONE, *map(str, words))
    assert (alone.returncode, alone.stderr) == (done.returncode, "")


def test_entries_are_judged_without_the_data_plane() -> None:
    entries = Path(__file__).parents[2] / "audit" / "selectors" / "data" / "spire-1.13.3.json"
    done = interpreter(COMMAND, "audit", "selectors", "--json", str(entries))
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("{")


def test_a_command_that_needs_the_data_plane_does_not_run_so() -> None:
    done = interpreter(COMMAND, "explain", str(RECORDED[0]))
    assert done.returncode == 1
    assert "ModuleNotFoundError" in done.stderr
