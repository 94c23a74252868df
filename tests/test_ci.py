"""Tests that continuous integration runs on a clone alone, with no folder of tools beside it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
FIRST: Final = {"setup", "build/agents/.installed"}  # one beside the other
THEN: Final = ["check integration", "budgets"]
BESIDE: Final = ("demo", "fuzz MINUTES=1 ARGS=--seed 1", "test-core test-audit")  # the other stages


def stub(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def test_a_clone_without_tools_beside_it_runs_what_needs_none(tmp_path: Path) -> None:
    clone, commands, log = tmp_path / "clone", tmp_path / "bin", tmp_path / "log"
    shutil.copytree(ROOT / ".ci", clone / ".ci", ignore=shutil.ignore_patterns("__pycache__"))
    commands.mkdir()
    stub(commands, "make", f'echo "$@" >>{log}')
    stub(commands, "id", "echo 1000")  # not root: nothing is installed
    for name in ("docker", "apt-get"):
        stub(commands, name, f"echo {name} >>{log}; exit 1")

    done = subprocess.run(
        [clone / ".ci" / "run"], env={"PATH": f"{commands}:/usr/bin:/bin"}, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
    ran = log.read_text().splitlines()
    assert set(ran[:2]) == FIRST
    assert ran[2:4] == THEN
    assert {*BESIDE} <= set(ran)
    assert {one.split()[0] for one in ran[4:]} <= {
        ".venv/.fuzzer",
        "bench-smoke",
        "build/site-tools/.installed",
        "demo",
        "fuzz",
        "interop-frameworks",
        "interop-agents",
        "interop-mcp",
        "interop-browser",
        "site",
        "test-core",
    }
    assert sorted(one.name for one in tmp_path.iterdir()) == ["bin", "clone", "log"]
