"""The command `delegation-audit`, and `sidecar audit` made of it."""

from __future__ import annotations

import argparse
from importlib import import_module
from importlib.metadata import EntryPoint

import pytest

from delegation_audit import __version__, command
from delegation_audit.command import AUDITS, ENTRY_POINTS, REPLAY, add_commands, main


def test_the_command_lists_every_audit(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert [name for name in (*AUDITS, REPLAY) if f" {name} " not in text] == []
    assert "delegation-audit attribution access.log" in text


@pytest.mark.parametrize("name", AUDITS)
def test_the_examples_of_an_audit_name_the_command_that_was_called(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([name, "--help"])
    text = capsys.readouterr().out
    assert f"delegation-audit {name}" in text
    assert "sidecar audit" not in text.partition("examples:")[2]


@pytest.mark.parametrize("name", AUDITS)
def test_every_audit_has_a_function_to_run(name: str) -> None:
    assert callable(import_module(f"delegation_audit.{name}.command").run)


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"delegation-audit {__version__}\n"


def test_an_audit_that_does_not_exist_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["everything"])
    assert "invalid choice: 'everything'" in capsys.readouterr().err


def test_replay_without_a_sidecar_names_the_way_to_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "entry_points", lambda **_: [])
    with pytest.raises(SystemExit, match="2"):
        main([REPLAY, "records/"])
    assert "needs the distribution delegation-sidecar" in capsys.readouterr().err


def test_replay_that_two_distributions_register_is_not_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [EntryPoint(REPLAY, value, ENTRY_POINTS) for value in ("foreign.none", "ours.none")]
    monkeypatch.setattr(command, "entry_points", lambda **_: found)
    with pytest.raises(SystemExit, match="2"):
        main([REPLAY, "records/"])
    assert "registered by several distributions ('foreign.none', 'ours.none')" in capsys.readouterr().err


def test_only_the_audit_that_is_called_gets_its_arguments() -> None:
    parser = argparse.ArgumentParser(prog="sidecar audit")
    add_commands(parser, ["verify", "a.jsonl"])
    assert parser.parse_args(["verify", "a.jsonl"]).target == "delegation_audit.verify.command:run"
    assert not hasattr(parser.parse_args(["chains"]), "target")
