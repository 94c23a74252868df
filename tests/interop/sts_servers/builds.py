"""Builds of foreign servers and clients, each kept below ``build/sts`` under a name made of its sources' content."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[2]
CACHE: Final = Path(os.environ.get("STS_CACHE", ROOT / "build/sts"))
_LOCK: Final = ROOT / "requirements/sts.txt"
_TRIES: Final = 3  # registries answer badly at times


def built(name: str, sources: Iterable[Path], make: Callable[[Path], None], *, relocatable: bool = True) -> Path:
    """Return the folder with what ``make`` builds into the folder that it gets, built once for these sources.

    A build that fails leaves nothing. One that is not ``relocatable`` is made in its final place.
    """
    digest = hashlib.sha256()
    for source in sorted(sources):
        digest.update(f"{source.relative_to(ROOT)}\0".encode() + source.read_bytes() + b"\0")
    final = CACHE / f"{name}-{digest.hexdigest()[:16]}"
    mark = final / ".made"
    if mark.exists():
        return final
    CACHE.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(final, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=CACHE)) if relocatable else final
    try:
        folder.mkdir(exist_ok=True)
        make(folder)
        (folder / ".made").touch()
        if folder != final:
            folder.rename(final)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return final


def run(*command: str | Path, cwd: Path | None = None, tries: int = _TRIES, **environment: str) -> None:
    """Run a step of a build; its output is shown only if it fails."""
    for left in reversed(range(tries)):
        done = subprocess.run(
            [*map(str, command)],
            cwd=cwd,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            return
        assert left, f"{command[0]}: {(done.stderr + done.stdout)[-3000:]}"


def not_on_path(tools: Sequence[str]) -> str | None:
    """Return which of these programs this machine lacks."""
    lacking = [tool for tool in tools if shutil.which(tool) is None]
    return f"not on PATH: {', '.join(lacking)}" if lacking else None


def python() -> Path:
    """Return a Python with the foreign libraries: they have requirements of their own."""

    def make(folder: Path) -> None:
        run(sys.executable, "-m", "venv", folder)
        pip = (folder / "bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check")
        run(*pip, "--require-hashes", "-r", _LOCK)

    return built("python", [_LOCK], make, relocatable=False) / "bin/python"


def maven(name: str, folder: Path, build: str) -> Path:
    """Return the folder of a Maven project's archive, ``build`` being the property that names it."""

    def make(target: Path) -> None:
        run("mvn", "-q", "-B", "-f", folder / "pom.xml", f"-D{build}={target}", "package")

    return built(name, files_of(folder), make)


def files_of(folder: Path) -> list[Path]:
    """Return the files below a folder of sources."""
    return [path for path in folder.rglob("*") if path.is_file()]
