"""README's commands in README's order, in a fresh clone, by a user whose home is empty and who has no cargo.

The walk's folder, build/readme, is kept from one call to the next: an engine that reaches registries builds the images
(`-k "not compose"`), and the same engine, confined to a network of its own, may bring them up (`-k compose`).
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Final

import pytest

from sidecar_dev.processes import free_ports
from tests.docs.blocks import Block, block, blocks
from tests.interop.engine import Mesh, docker, require

pytestmark = [pytest.mark.interop, pytest.mark.timeout(600)]

ROOT: Final = Path(__file__).parents[2]
PLACE: Final = ROOT / "build" / "readme"
CLONE: Final = PLACE / "clone"
IMAGES: Final = {"IMAGE": "sidecar:readme", "DEV_IMAGE": "sidecar-dev:readme"}
# The blocks of commands, as README has them; the picture is none.
STEPS: Final = ("python3 -m venv", "make demo", "sidecar check", "make image", "sidecar dev run")


def environ() -> dict[str, str]:
    """A newcomer's environment: no cargo, nothing of this project, the settings of the machine's pip and engine."""
    machine = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "DOCKER_", "LANG", "LC_"))}
    ours = Path(os.environ.get("VIRTUAL_ENV", ROOT / ".venv")) / "bin"
    without = [
        part for part in os.environ["PATH"].split(":") if Path(part) != ours and not Path(part, "cargo").exists()
    ]
    cache = os.environ.get("PIP_CACHE_DIR") or str(Path.home() / ".cache" / "pip")
    return {**machine, **IMAGES, "PIP_CACHE_DIR": cache, "PATH": ":".join(without), "HOME": str(PLACE / "home")}


def shell(command: str) -> subprocess.CompletedProcess[str]:
    words = ["bash", "-euc", command]
    return subprocess.run(words, cwd=CLONE, env=environ(), capture_output=True, text=True, check=False)


def installed(command: str) -> str:
    """A command in the environment that the first block makes."""
    return f". ~/sidecar-venv/bin/activate\n{command}"


def line_of(block: Block) -> str:
    return block.text.splitlines()[0].partition(" #")[0].strip()


def clone() -> None:
    """Begin the walk: what an earlier one left is removed."""
    shutil.rmtree(PLACE, ignore_errors=True)
    (PLACE / "home").mkdir(parents=True)
    subprocess.run(["git", "clone", "-q", ROOT, CLONE], check=True)


def test_install() -> None:
    clone()
    assert shutil.which("cargo", path=environ()["PATH"]) is None
    done = shell(block("README.md", STEPS[0]).text)
    assert "agents that impersonate" in done.stdout, done.stderr
    assert done.returncode == 1  # the last command has findings
    assert subprocess.run(["git", "status", "--porcelain"], cwd=CLONE, capture_output=True, check=True).stdout == b""


def test_demo() -> None:
    """The line after it, `make test`, is what .ci/run begins with, on a clean clone (tests/test_ci.py)."""
    demo, tests = block("README.md", STEPS[1]).text.splitlines()
    done = shell(demo)
    assert done.returncode == 0, done.stdout + done.stderr
    assert tests.startswith("make test ")


def test_check() -> None:
    (settings,) = re.findall(r"```yaml\n(# sidecar\.yaml\n.*?)```", (CLONE / "README.md").read_text(), re.DOTALL)
    (CLONE / "sidecar.yaml").write_text(settings)
    done = shell(installed(line_of(block("README.md", STEPS[2]))))
    assert (done.returncode, done.stderr) == (0, "")


def test_image() -> None:
    require(None if shutil.which("docker") else "docker is not on PATH")
    image, _, compose = line_of(block("README.md", STEPS[3])).partition(" && ")
    done = shell(f"{image} BUILD_ARGS={os.environ.get('BUILD_ARGS', '')}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert compose == "docker compose up --wait"
    for name in IMAGES.values():
        docker("image", "inspect", name)


def test_compose() -> None:
    require(None if shutil.which("docker") else "docker is not on PATH")
    up, curl = block("README.md", STEPS[3]).text.splitlines()
    mesh = Mesh("readme")
    named = {
        "SIDECAR_IMAGE": IMAGES["IMAGE"],
        "SIDECAR_DEV_IMAGE": IMAGES["DEV_IMAGE"],
        "FRONT_PORT": str(mesh.front_port),
    }
    settings = " ".join(f"{name}={value}" for name, value in {**named, "COMPOSE_PROJECT_NAME": mesh.name}.items())
    try:
        done = shell(f"export {settings}\n{up.partition(' && ')[2]}\n{curl.replace('8080', str(mesh.front_port))} -sf")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Globex renews" in done.stdout
    finally:
        mesh.down()


def test_dev_run() -> None:
    (port,) = free_ports(1)
    command = line_of(block("README.md", STEPS[4]))
    command = command.replace("8080", str(port)).replace("dev run", f"dev run --agent-port {port}")
    with subprocess.Popen(
        ["bash", "-euc", installed(f"exec {command}")],
        cwd=CLONE, env=environ(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            call = next(told[1] for line in process.stdout if (told := re.match(r"sidecar:   (curl .*)$", line)))
            assert "install.md" in shell(call.replace("curl", "curl -s")).stdout
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate()


def test_the_walk_takes_every_block_of_commands_in_the_order_of_the_page() -> None:
    commands = [one.start for one in blocks("README.md") if "──" not in one.text]
    assert [start for start, step in zip(commands, STEPS, strict=True) if not start.startswith(step)] == []
    names = [name for name in globals() if name.startswith("test_")][: len(STEPS) + 1]
    assert names == ["test_install", "test_demo", "test_check", "test_image", "test_compose", "test_dev_run"]
