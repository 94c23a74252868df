"""Commands of the README, run as they are copied; `make interop-readme` walks them in their order, in a fresh clone."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from sidecar_dev.processes import free_ports

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

ROOT: Final = Path(__file__).parents[2]
README: Final = (ROOT / "README.md").read_text(encoding="utf-8")
ENVIRON: Final = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def line_of(start: str) -> str:
    """Return the only line of a block that begins so."""
    (found,) = re.findall(rf"^{re.escape(start)}.*$", README, re.MULTILINE)
    return str(found)


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    words = ["bash", "-c", command]
    return subprocess.run(words, cwd=folder, env=ENVIRON, capture_output=True, text=True, check=False)


def test_the_first_screen_says_what_it_is_for_whom_on_what_it_runs_and_how_to_install_it() -> None:
    screen = "\n".join(README.splitlines()[:20])
    assert [
        word
        for word in ("Linux", "Python 3.11", "curl 7.82", "**For**", "pip install", "pipx", "uv tool")
        if word not in screen
    ] == []


def test_the_first_audit_finds_the_refused_hop_of_the_incident() -> None:
    done = shell(line_of("sidecar audit "), ROOT)
    assert (done.returncode, done.stderr) == (1, "")
    assert "agents that impersonate" in done.stdout


def test_the_settings_are_those_that_are_checked(tmp_path: Path) -> None:
    (settings,) = re.findall(r"```yaml\n(# sidecar\.yaml\n.*?)```", README, re.DOTALL)
    (tmp_path / "sidecar.yaml").write_text(settings)
    done = shell(line_of("sidecar check "), tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    (tmp_path / "sidecar.yaml").write_text(settings.replace("docs.read]}", "docs.writ]}", 1))
    assert shell(line_of("sidecar check "), tmp_path).returncode == 2


def test_a_mesh_stands_around_the_program_that_is_named() -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    (port,) = free_ports(1)
    command = line_of("sidecar dev run ").replace("8080", str(port)).replace("dev run", f"dev run --agent-port {port}")
    with subprocess.Popen(
        ["bash", "-c", f"exec {command}"],
        cwd=ROOT,
        env=ENVIRON,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            call = next(told[1] for line in process.stdout if (told := re.match(r"sidecar:   (curl .*)$", line)))
            assert "install.md" in shell(call.replace("curl", "curl -s"), ROOT).stdout
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate()
