"""Runs the tests of one distribution without the others: ``pytest -p tests.alone --alone core tests/core``.

Packages of the other distributions, and libraries that only they need, cannot be imported.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

_SIDECAR: Final = (
    "sidecar", "sidecar_dev", "delegation_agent", "aiohttp", "grpclib", "h2", "prometheus_client", "pydantic", "uvloop",
)  # fmt: skip
_AUDIT: Final = ("delegation_audit", "duckdb", "jinja2", "kingfisher", "yaml")
BLOCKED: Final = {"core": (*_SIDECAR, *_AUDIT), "audit": _SIDECAR}
# Tests that compare a distribution with the sidecar that uses it.
COMPARED: Final[Mapping[str, frozenset[str]]] = {
    "core": frozenset(
        {
            "records/test_reading.py",
            "records/test_record.py",
            "records/test_unpacking.py",
            "test_checkpoint.py",
            "test_deny_list.py",
            "test_mcp.py",
            "test_revocation_list.py",
            "test_txn_token.py",
        }
    ),
    "audit": frozenset(
        {
            "all/test_find.py",
            "all/test_sample.py",
            "credentials/test_retire.py",
            "suggest/test_settings_text.py",
            "test_archives.py",
            "verify/test_command.py",
            "verify/test_streams.py",
            "verify/test_verdicts.py",
        }
    ),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--alone``."""
    parser.addoption("--alone", choices=sorted(BLOCKED), required=True)


def pytest_configure(config: pytest.Config) -> None:
    """Block the imports, before any test is collected."""
    for package in BLOCKED[config.option.alone]:
        sys.modules[package] = None  # type: ignore[assignment]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the tests that compare with a sidecar."""
    alone = config.option.alone
    folder = config.rootpath / "tests" / alone
    inside = collection_path.is_relative_to(folder)
    return True if inside and collection_path.relative_to(folder).as_posix() in COMPARED[alone] else None
