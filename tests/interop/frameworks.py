"""Real servers and frameworks at their defaults, each with an app that reports its view of a request.

Their requirements are installed once, below ``build/frameworks``. FRAMEWORKS selects some by name, separated by spaces;
all by default. One with missing tools is skipped with the reason; a selected one fails under CI=true.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.integration.world import free_port, until

ROOT: Final = Path(__file__).parents[2]
APPS: Final = Path(__file__).parent / "apps"
CACHE: Final = Path(os.environ.get("FRAMEWORKS_CACHE", ROOT / "build/frameworks"))
READY_S: Final = 90.0  # a busy machine takes a while to compile Spring's classes

PYTHON: Final = CACHE / "python/bin"
LOCK: Final = ROOT / "requirements/frameworks.txt"


def _run(*command: str | Path, cwd: Path = APPS, **environment: str) -> None:
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command[0]}: {(done.stderr or done.stdout)[-2000:]}"


def _once(mark: str, sources: Sequence[Path], make: Callable[[], None]) -> None:
    """Build something unless it was built from the same sources."""
    done = CACHE / f"{mark}.made"
    wanted = "".join(source.read_text() for source in sources)
    if not done.exists() or done.read_text() != wanted:
        CACHE.mkdir(parents=True, exist_ok=True)
        make()
        done.write_text(wanted)


def _python() -> None:
    def make() -> None:
        _run(sys.executable, "-m", "venv", "--clear", CACHE / "python")
        _run(PYTHON / "pip", "install", "-q", "--disable-pip-version-check", "--require-hashes", "-r", LOCK)

    _once("python", [LOCK], make)


def _go() -> None:
    source = APPS / "main.go"
    _once("go", [source], lambda: _run("go", "build", "-o", CACHE / "go-agent", source, GO111MODULE="off"))


def _express() -> None:
    folder = CACHE / "express"

    def make() -> None:
        folder.mkdir(exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(APPS / name, folder)
        _run("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", cwd=folder)

    _once("express", [APPS / "package.json", APPS / "package-lock.json"], make)
    shutil.copy(APPS / "express.cjs", folder)


def _spring() -> None:
    sources = [APPS / "spring/pom.xml", APPS / "spring/src/main/java/agent/Agent.java"]
    repository, build = f"-Dmaven.repo.local={CACHE / 'maven'}", f"-Dagent.build={CACHE / 'spring'}"
    _once("spring", sources, lambda: _run("mvn", "-q", "-f", APPS / "spring/pom.xml", repository, build, "package"))


def java_caller() -> list[str]:
    """Compile the caller with Java's client once; return the command that runs it, without arguments."""
    source = APPS / "Caller.java"
    _once("caller", [source], lambda: _run("javac", "-d", CACHE / "caller", source))
    return ["java", "-Xshare:auto", "-cp", str(CACHE / "caller"), "Caller"]


def _nothing() -> None:
    """Do nothing: everything needed is on PATH."""


@dataclass(frozen=True, kw_only=True)
class Framework:
    """One server: its tools, its build and start on a port, and the attacks that work without a sidecar.

    ``library`` is a command that succeeds only with a library that no name on PATH shows.
    """

    name: str
    tools: tuple[str, ...] = ()
    library: tuple[str, ...] = ()
    prepare: Callable[[], None]
    start: Callable[[int], list[str | Path]]
    bites: frozenset[str] = frozenset()

    def reason_to_skip(self) -> str | None:
        """Return the reason to skip it here; None: it can run.

        Raises:
            AssertionError: it was selected, under CI=true, and its tools are missing.
        """
        return reason_to_skip(self.name, self.tools, self.library)


def reason_to_skip(name: str, tools: Sequence[str], library: Sequence[str] = ()) -> str | None:
    """Return the reason to skip a test of these tools: see ``Framework.reason_to_skip``."""
    chosen = os.environ.get("FRAMEWORKS", "").split()
    if chosen and name not in chosen:
        return "not chosen by FRAMEWORKS"
    lacking = _missing(tools, library)
    assert lacking is None or not chosen or "CI" not in os.environ, lacking
    return lacking


def _missing(tools: Sequence[str], library: Sequence[str]) -> str | None:
    lacking = [tool for tool in tools if shutil.which(tool) is None]
    if lacking:
        return f"not on PATH: {', '.join(lacking)}"
    if library and subprocess.run(library, capture_output=True, check=False).returncode:
        return f"fails: {' '.join(library)}"
    return None


FRAMEWORKS: Final = (
    Framework(
        name="gunicorn",
        prepare=_python,
        start=lambda port: [PYTHON / "gunicorn", "--bind", f"127.0.0.1:{port}", "wsgi_app:app"],
        bites=frozenset({"SCRIPT_NAME", "X-Forwarded-Proto", "X-Forwarded-Ssl", "X-Forwarded-Protocol"}),
    ),
    Framework(
        name="uvicorn",
        prepare=_python,
        start=lambda port: [PYTHON / "uvicorn", "--port", str(port), "asgi_app:app"],
        bites=frozenset({"X-Forwarded-For", "X-Forwarded-Proto"}),
    ),
    Framework(
        name="waitress",
        prepare=_python,
        start=lambda port: [PYTHON / "waitress-serve", "--listen", f"127.0.0.1:{port}", "wsgi_app:app"],
    ),
    Framework(
        name="flask",
        prepare=_python,
        start=lambda port: [PYTHON / "flask", "--app", "flask_app", "run", "--port", str(port)],
    ),
    Framework(
        name="django",
        prepare=_python,
        start=lambda port: [PYTHON / "python", "django_app.py", "runserver", "--noreload", f"127.0.0.1:{port}"],
    ),
    Framework(name="go", tools=("go",), prepare=_go, start=lambda port: [CACHE / "go-agent", str(port)]),
    Framework(
        name="express",
        tools=("node", "npm"),
        prepare=_express,
        start=lambda port: ["node", CACHE / "express/express.cjs", str(port)],
        bites=frozenset({"X-HTTP-Method-Override"}),
    ),
    Framework(
        name="spring",
        tools=("java", "mvn"),
        prepare=_spring,
        start=lambda port: [
            *("java", "-Xmx128m", "-XX:TieredStopAtLevel=1", "-jar", CACHE / "spring/agent.jar"),
            *(f"--server.port={port}", "--server.address=127.0.0.1"),
        ],
    ),
    Framework(
        name="rack",
        tools=("ruby", "puma"),
        library=("ruby", "-e", "require 'rack'"),
        prepare=_nothing,
        start=lambda port: ["puma", "--bind", f"tcp://127.0.0.1:{port}", "config.ru"],
        bites=frozenset({"X-HTTP-Method-Override", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host"}),
    ),
    Framework(
        name="php",
        tools=("php",),
        prepare=_nothing,
        start=lambda port: ["php", "-S", f"127.0.0.1:{port}", "index.php"],
    ),
)


@asynccontextmanager
async def serving(framework: Framework, log: Path) -> AsyncIterator[int]:
    """Run a framework's app; yield its port."""
    port = free_port()
    process = _begin(framework, port, log)
    try:
        await until(lambda: process.poll() is not None or listens(port), READY_S)
        assert process.poll() is None, end_of(log)
        yield port
    finally:
        await asyncio.to_thread(end, process)


def _begin(framework: Framework, port: int, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        command = [*map(str, framework.start(port))]
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.Popen(
            command, cwd=APPS, env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL
        )


def end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def end_of(log: Path) -> str:
    return log.read_text()[-2000:]


def view_of(body: bytes) -> dict[str, Any]:
    """Read an app's answer. Servers spell names of fields differently: lower case and hyphens here."""
    view: dict[str, Any] = json.loads(body)
    view["fields"] = {name.lower().replace("_", "-"): value for name, value in view["fields"].items()}
    return view
