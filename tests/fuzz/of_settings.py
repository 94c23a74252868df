"""Settings files: YAML text to objects, then whole files of each kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from delegation_core.errors import ConfigError, Problem
from sidecar.config.addresses import parse_address, parse_origin
from sidecar.config.document import MAX_DEPTH, DocumentError, override, parse_document
from sidecar.config.platform_file import load_platform
from sidecar.config.sidecar_file import load_sidecar
from sidecar.config.sts_file import load_sts
from tests.fuzz.properties import printable


def document(data: bytes) -> None:
    """YAML with one meaning: written as JSON, which is YAML, it reads the same."""
    text = data.decode("utf-8", "replace")
    try:
        read = parse_document(text, name="file")
    except DocumentError as error:
        _plain(error.problem)
        return
    assert _depth(read) <= MAX_DEPTH
    again = json.dumps(read)
    if "\\u" not in again:  # YAML must not hold some characters that JSON escapes
        assert parse_document(again, name="file") == read
    rest: dict[str, object] = {}
    for problem in override(rest, {"SIDECAR__A__B": text, "SIDECAR__A": "{}"}):
        _plain(problem)


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


def sidecar_file(data: bytes) -> None:
    """A sidecar's file: settings, or all its faults."""
    _file(data, lambda path: load_sidecar(path, {}))


def sts_file(data: bytes) -> None:
    """A token service's file: settings, or all its faults."""
    _file(data, lambda path: load_sts(path, {}))


def platform_file(data: bytes) -> None:
    """A platform file: settings, or all its faults."""
    _file(data, load_platform)


def address(data: bytes) -> None:
    """Listen addresses and origins: read as written, or refused with a fix."""
    text = data.decode("latin-1")
    try:
        read = parse_address(text)
    except ValueError as error:
        assert "; " in str(error)
    else:
        assert parse_address(str(read)) == read
    try:
        origin = parse_origin(text)
    except ValueError as error:
        assert "; " in str(error)
    else:
        assert origin.hostname
        assert origin.path in {"", "/"}
        assert "@" not in text


def _file(data: bytes, load: Callable[[Path], object]) -> None:
    path = _scratch() / "settings.yaml"
    path.write_bytes(data)
    try:
        load(path)
    except ConfigError as error:
        assert error.problems
        for problem in error.problems:
            _plain(problem)


def _plain(problem: Problem) -> None:
    for text in (problem.field, problem.wrong, problem.fix):
        printable(text)
    assert problem.wrong
    assert problem.fix


@lru_cache(maxsize=1)
def _scratch() -> Path:
    memory = Path("/dev/shm")
    return Path(mkdtemp(prefix="fuzz-", dir=memory if memory.is_dir() else None))
