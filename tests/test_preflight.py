"""Messages of ``make setup`` on a machine that lacks something."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent


@pytest.fixture
def preflight() -> ModuleType:
    spec = importlib.util.spec_from_file_location("preflight", ROOT / ".ci" / "preflight.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def lacking(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in names else object())


def test_an_old_python_is_told_which_is_needed(
    preflight: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 14))
    assert preflight.main() == 1
    assert capsys.readouterr().out.startswith("setup: Python 3.11 or newer is needed")
    monkeypatch.setattr(sys, "version_info", (3, 11, 0))
    lacking(monkeypatch)
    assert preflight.main() == 0


@pytest.mark.parametrize("name", ["venv", "ensurepip"])
def test_a_python_without_environments_is_told_what_to_install(
    name: str, preflight: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lacking(monkeypatch, name, "virtualenv")
    assert preflight.main() == 1
    assert "apt-get install python3-venv" in capsys.readouterr().out
    lacking(monkeypatch, name)
    assert preflight.main() == 0
