from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import pytest

from delegation_audit.command import main
from delegation_audit.credentials import command, walk
from delegation_audit.credentials.detector import MISSING, DetectorError
from delegation_core.console.extras import needs
from tests.audit.credentials.drawn import GITHUB, KEY, PASSWORD
from tests.audit.credentials.labelled import text
from tests.fakes.detector import FakeDetector


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "Kingfisher", FakeDetector)


def run(*words: str) -> int:
    return main(["credentials", *words])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "agent.env").write_text(f"GITHUB_TOKEN={GITHUB}\nCRM_API_KEY={KEY}\nSEED_VALUE={KEY}{PASSWORD}\n")
    (tmp_path / "copy.py").write_text(f'TOKEN = "{GITHUB}"\n')
    return tmp_path


def test_the_table_shows_severity_owner_place_and_fix(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(folder)) == 1
    output = capsys.readouterr().out
    first = output.splitlines()[1]
    assert first.startswith("high")
    assert "Token of a Git host" in first
    assert f"{folder / 'agent.env'}:1 and 1 more" in first
    assert "2 static credentials lie in 3 places" in output
    assert "Not counted: 1 value" in output
    assert "outbound:" in output
    assert "      peer: " in output


def test_json_lists_each_credential_with_its_places_and_settings(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--json", str(folder)) == 1
    document = json.loads(capsys.readouterr().out)
    first, second = document["credentials"]
    assert first["kind"] == "git-host-token"
    assert [place["line"] for place in first["places"]] == [1, 1]
    assert second["settings"].startswith("outbound:")
    assert document["summary"]["kinds"] == {"git-host-token": 1, "api-key": 1}
    assert [one["kind"] for one in document["unsure"]] == ["random-text"]
    assert set(first) == set(second)
    assert first["fix"] == first["cure"] != ""


def test_sarif_has_a_result_for_each_place(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--sarif", str(folder)) == 1
    (one,) = json.loads(capsys.readouterr().out)["runs"]
    assert [result["ruleId"] for result in one["results"]] == ["git-host-token", "git-host-token", "api-key"]
    assert {rule["id"] for rule in one["tool"]["driver"]["rules"]} >= {"git-host-token", "api-key"}


def test_each_provider_gets_settings_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = f"MISTRAL_API_KEY={text(random.Random(1), 32)}\nCOHERE_API_KEY={text(random.Random(2), 40)}\n"
    (tmp_path / "a.env").write_text(keys)
    assert run(str(tmp_path)) == 1
    output = capsys.readouterr().out
    assert "    - name: mistral" in output
    assert "    - name: cohere" in output
    assert output.count("in may_call") == 2


def test_nothing_found_is_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.env").write_text("TOKEN=${TOKEN}\n")
    assert run(str(tmp_path)) == 0
    assert "No static credential was found in 1 file." in capsys.readouterr().out


def test_nothing_found_is_no_success_while_a_text_was_not_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.env").write_text("TOKEN=${TOKEN}\n")
    (tmp_path / "data").write_bytes(b"\0" * 100)
    assert run(str(tmp_path)) == 0
    monkeypatch.setattr(walk, "MAX_FILE_BYTES", 50)
    assert run(str(tmp_path)) == 0  # data, of any size, is no text
    (tmp_path / "large.env").write_text("a" * 51)
    assert run(str(tmp_path)) == 2
    assert "1 file was not read to the end" in capsys.readouterr().err
    monkeypatch.setattr(walk, "MAX_FILE_BYTES", 2000)
    (tmp_path / "b.env").write_text(f"GITHUB_TOKEN={GITHUB}\n")
    (tmp_path / "large.env").write_text("a" * 2001)
    assert run(str(tmp_path)) == 1


def test_an_ignored_kind_is_left_out(folder: Path) -> None:
    assert run("--ignore", "git-host-token", "--ignore", "api-key", str(folder)) == 0


def test_a_key_file_makes_fingerprints_comparable(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = folder / "audit.key"
    key.write_text("0f" * 32)
    seen = []
    for words in (("--key", str(key)), ("--key", str(key)), ()):
        run("--json", *words, str(folder / "agent.env"))
        seen.append(json.loads(capsys.readouterr().out)["credentials"][0]["fingerprint"])
    assert seen[0] == seen[1] != seen[2]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--ignore", "git-host-tokens", "FOLDER"], "git-host-tokens is not a rule"),
        (["--key", "FOLDER/short", "FOLDER"], "the key is shorter than 16 bytes"),
        (["FOLDER/absent"], "absent: cannot be read"),
        (["FOLDER/empty"], "no text file found"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_fix(
    folder: Path, words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "empty").mkdir()
    (folder / "short").write_text("k")
    assert run(*(word.replace("FOLDER", str(folder)) for word in words)) == 2
    assert complaint in capsys.readouterr().err


def test_without_the_library_the_command_names_the_extra(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing() -> FakeDetector:
        raise DetectorError(MISSING)

    monkeypatch.setattr(command, "Kingfisher", missing)
    assert run(str(folder)) == 2
    expected = f"sidecar audit credentials: this {needs('audit')}\n"
    assert capsys.readouterr().err == expected


def test_help_has_examples() -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    assert "sidecar audit credentials --history" in parser.format_help()
