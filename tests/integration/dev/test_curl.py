"""Old or missing programs: one sentence that names what is needed, before anything is started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

pytestmark = pytest.mark.integration

SIDECAR: Final = Path(sys.executable).with_name("sidecar")
NEW: Final = "echo 'curl 7.82.0 (x86_64-pc-linux-gnu) libcurl/7.82.0'"
OLD: Final = "echo 'curl 7.81.0 (x86_64-pc-linux-gnu) libcurl/7.81.0'"
MESSAGE: Final = "demo: the demo needs curl 7.82 or newer and openssl: "


def program(folder: Path, name: str, script: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def demo(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the demo with no other programs on PATH than those in the folder."""
    environ = {**os.environ, "PATH": str(folder)}
    return subprocess.run([SIDECAR, "demo"], env=environ, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("script", "problem"),
    [(OLD, "is curl 7.81"), ("exit 127", "does not tell its version"), ("exec /nowhere", "does not tell its version")],
)
def test_an_old_curl_is_one_sentence(script: str, problem: str, tmp_path: Path) -> None:
    program(tmp_path, "openssl", "exit 0")
    old = program(tmp_path, "curl", script)
    done = demo(tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"{MESSAGE}{old} {problem}. Install it, or put it first on PATH\n"


def test_a_new_curl_without_openssl_is_told_so_and_the_other_way_round(tmp_path: Path) -> None:
    program(tmp_path, "curl", NEW)
    assert demo(tmp_path).stderr == f"{MESSAGE}openssl is not on PATH. Install it, or put it first on PATH\n"
    (tmp_path / "curl").rename(tmp_path / "openssl")
    assert demo(tmp_path).stderr == f"{MESSAGE}curl is not on PATH. Install it, or put it first on PATH\n"


@pytest.mark.parametrize(("version", "code"), [((3, 10, 14), 1), ((3, 11, 0), 0)])
def test_an_old_python_is_one_sentence(version: tuple[int, int, int], code: int) -> None:
    """As it is in a clone, where no installer has checked the version."""
    script = f"import sys; sys.version_info = {version}; sys.version = '3.10.14 (main)'; import sidecar"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    told = "sidecar: Python 3.11 or newer is needed, this is 3.10.14; try python3.11 -m sidecar\n"
    assert (done.returncode, done.stderr) == (code, told if code else "")
