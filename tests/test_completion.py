"""Completion scripts: current, complete, and printed as they are."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest

from sidecar.cli import main
from sidecar.completion import SHELLS, script
from tests.test_examples import commands

ROOT: Final = Path(__file__).parent.parent


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("completions", ROOT / ".ci" / "completions.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_is_current(shell: str) -> None:
    assert script(shell) == generator().scripts()[f"sidecar.{shell}"], "run: make docs"


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_knows_every_option_of_every_command(shell: str) -> None:
    text = script(shell)
    for parser in commands():
        assert parser.prog.split()[-1] in text
        for option in parser._option_string_actions:
            assert (option in text) or (option.startswith("--") and f"-l {option[2:]}" in text) or len(option) == 2


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_is_printed_as_it_is(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert capsys.readouterr().out == script(shell)


def test_a_shell_that_is_not_known_is_refused_with_those_that_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["completion", "tcsh"])
    assert ended.value.code == 2
    assert "'bash', 'zsh', 'fish'" in capsys.readouterr().err
