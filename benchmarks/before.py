"""Another version of the sidecar beside this one: its files, run by this interpreter with their own PYTHONPATH."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.native import BuildError
from benchmarks.peers.sidecar_settings import BEFORE

_NATIVE: Final = ("*.rs", "*Cargo.toml", "*Cargo.lock")
ROOT: Final = Path(__file__).parents[1]


def prepare(ref: str, folder: Path) -> dict[str, str]:
    """Write the files of ``ref`` below ``folder``, and return a program for each peer of that version.

    Raises:
        BuildError: git does not know the reference.
    """
    folder = folder.absolute()
    checkout, archive = folder / "checkout", folder / "checkout.tar"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    done = _run("git", "archive", "--output", str(archive), ref)
    if done.returncode != 0:
        raise BuildError(f"--before {ref}: {done.stderr.strip()}")
    checkout.mkdir()
    subprocess.run(["tar", "--extract", "--no-same-owner", "--file", archive, "--directory", checkout], check=True)
    paths = python_path(checkout)
    programs = {BEFORE["sidecar"]: _program(folder / "python", paths)}
    if _run("git", "diff", "--quiet", ref, "--", *_NATIVE).returncode == 0:
        programs[BEFORE["sidecar-native"]] = _program(folder / "python-native", paths)  # .venv has its wheel
    elif (site := _native(checkout, folder)) is not None:
        programs[BEFORE["sidecar-native"]] = _program(folder / "python-native", [site, *paths])
    return programs


def python_path(checkout: Path) -> list[Path]:
    """Return the folders of a checkout from which its packages are imported: the top, and each distribution."""
    return [checkout, *sorted(file.parent for file in checkout.glob("*/pyproject.toml"))]


def _program(path: Path, folders: Sequence[Path]) -> str:
    """Write a script that runs the interpreter with this PYTHONPATH."""
    joined = shlex.quote(":".join(map(str, folders)))
    path.write_text(f'#!/bin/sh\nPYTHONPATH={joined} exec {shlex.quote(sys.executable)} "$@"\n')
    path.chmod(0o755)
    return str(path)


def _native(checkout: Path, folder: Path) -> Path | None:
    """Build that version's native engine, and return the folder with its module; None without its tools."""
    print("bench: building the native engine of the version before, some minutes", file=sys.stderr, flush=True)
    wheels, site = folder / "wheels", folder / "site"
    if _run(sys.executable, str(checkout / ".ci/native_wheel.py"), str(wheels)).returncode != 0:
        return None
    pip = (sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--upgrade", "--target", str(site))
    done = _run(*pip, *map(str, wheels.glob("*.whl")))
    return site if done.returncode == 0 else None


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
