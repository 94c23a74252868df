"""Finds a peer's program: as given on the command line, on PATH, or in a wheel that brings it."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Final

_IN_WHEELS: Final = {"envoy": ("envoy", "_bin/envoy")}  # name: package, and the program in it

given: dict[str, str] = {}  # by --binary NAME=PATH


def find(name: str) -> str | None:
    """Return the program's path; None if it is not found."""
    if name in given:
        return given[name]
    package, inside = _IN_WHEELS.get(name, ("", ""))
    spec = importlib.util.find_spec(package) if package else None
    if spec is not None and spec.origin is not None:
        path = Path(spec.origin).parent / inside
        if path.exists():
            return str(path)
    return shutil.which(name)


def missing(name: str, fix: str) -> str | None:
    """Return the reason why the peer of this program cannot take part; None if it can."""
    if name in given and not Path(given[name]).is_file():
        return f"{given[name]} is not a file"
    return None if find(name) is not None else f"no binary of {name} ({fix})"
