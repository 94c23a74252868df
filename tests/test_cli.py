from __future__ import annotations

import re
from importlib.metadata import EntryPoint

import pytest

from sidecar import __version__
from sidecar.cli import ENTRY_POINTS, main

COMMANDS = ["run", "check", "sts", "injector", "demo", "explain", "healthcheck", "audit", "dev"]


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert all(re.search(rf"^    {command}\s", told, re.MULTILINE) for command in COMMANDS)


@pytest.mark.parametrize("words", [[], ["nonsense"], ["run", "--nonsense"], ["dev"], ["audit"], ["demo", "--nonsense"]])
def test_wrong_usage_is_exit_code_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "usage: sidecar" in capsys.readouterr().err


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"sidecar {__version__}\n"


@pytest.mark.parametrize("word", ["workload-api", "user-issuer", "svid", "run"])
def test_a_development_command_knows_its_options(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["dev", word, "--help"])
    assert ended.value.code == 0
    assert "--" in capsys.readouterr().out.replace("--help", "")


@pytest.mark.parametrize("words", [["dev", "run"], ["demo"]])
def test_without_the_tools_a_command_says_how_to_get_them(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: ())
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "pip install ./core ./audit . ./dev" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["audit", "verify", "a.jsonl"], ["demo"]])
def test_a_command_that_two_distributions_register_is_not_loaded(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [EntryPoint(words[0], f"{module}.none:add", ENTRY_POINTS) for module in ("foreign", "ours")]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: found)
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "registered by several distributions ('foreign.none:add', 'ours.none:add')" in error


@pytest.mark.parametrize("name", ["attribution", "chains", "selectors"])
def test_a_room_of_the_audit_adds_its_own_arguments(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["audit", name, "--help"])
    assert ended.value.code == 0
    assert "--json" in capsys.readouterr().out
