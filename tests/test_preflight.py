"""Messages of ``make setup`` on a machine that lacks something."""

from __future__ import annotations

import ast
import importlib.util
import sys
from importlib.metadata import PackageNotFoundError
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


@pytest.mark.parametrize(
    ("version", "problem"),
    [("21.3", ""), ("26.0.1", ""), ("21.2.4", "pip 21.2.4"), ("9.0", "pip 9.0"), ("odd", "pip odd"), ("", "no pip")],
)
def test_an_environment_with_an_old_pip_is_told_which_is_needed(
    version: str,
    problem: str,
    preflight: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def installed(_name: str) -> str:
        if not version:
            raise PackageNotFoundError
        return version

    monkeypatch.setattr("importlib.metadata.version", installed)
    assert preflight.check_pip() == bool(problem)
    said = capsys.readouterr().out
    assert said.startswith(f"setup: there is {problem} in the environment; 21.3 or newer" if problem else "")
    assert ("apt-get install python3-venv" in said) == bool(problem)


def test_setup_looks_at_pip_before_it_installs_anything() -> None:
    commands = (ROOT / "Makefile").read_text().partition("\n$(STAMP):")[2].partition("\n\n")[0]
    assert commands.index("preflight.py\n") < commands.index("-m venv") < commands.index("preflight.py pip\n")
    assert commands.index("preflight.py pip\n") < commands.index("pip install")


@pytest.mark.parametrize("file", [".ci/preflight.py", "sidecar/__init__.py", "sidecar/__main__.py"])
def test_what_an_old_python_reads_first_is_written_for_it(file: str) -> None:
    """A message in a file that it cannot parse would be a SyntaxError instead."""
    ast.parse((ROOT / file).read_text(), feature_version=(3, 7))
