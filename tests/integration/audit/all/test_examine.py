"""Every audit runs over a folder; a part that cannot be run costs only its own number."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import pytest

from delegation_audit.all import examine as examine_module
from delegation_audit.all.examine import examine
from delegation_audit.all.overview import Outcome, Overview
from delegation_audit.all.sample import write_sample
from delegation_audit.credentials.detector import DetectorError
from delegation_audit.credentials.walk import MAX_FILE_BYTES
from sidecar.cli import main

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    write_sample(folder)
    return folder


@pytest.fixture(scope="module")
def whole(sample: Path) -> Overview:
    """Return the overview of the whole sample, examined once."""
    return examine([str(sample)])


def values(overview: Overview) -> dict[str, int | None]:
    return {number.name: number.value for number in overview.numbers}


def test_the_sample_has_something_of_everything(whole: Overview) -> None:
    assert whole.troubles == []
    assert values(whole) == {
        "static credentials": 3,
        "agents that impersonate": 1,
        "weak entries": 2,
        "machine identities for each person": 3,
        "broken chains": 1,
    }
    assert whole.outcome is Outcome.FOUND
    assert [action.of for action in whole.actions] == [
        "agents that impersonate", "static credentials", "weak entries"
    ]  # fmt: skip
    assert all(action.fix for action in whole.actions)


def test_no_byte_of_a_secret_is_in_the_overview(sample: Path, whole: Overview) -> None:
    overview = repr(whole)
    secrets = [word for word in (sample / "manifests/support-bot.yaml").read_text().split() if len(word) > 40]
    assert secrets
    for secret in secrets:
        assert not any(secret[at : at + 8] in overview for at in range(8, len(secret) - 8) if "registry" not in secret)


def test_what_is_not_there_has_no_number_and_a_fix(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("nothing\n")
    overview = examine([str(tmp_path)])
    assert values(overview) == {
        "static credentials": 0,
        "agents that impersonate": None,
        "weak entries": None,
        "machine identities for each person": None,
        "broken chains": None,
    }
    assert overview.outcome is Outcome.CANNOT_TELL
    assert "spire-server entry show -output json" in overview.numbers[2].sentence
    assert overview.actions == []


def test_a_part_that_cannot_be_run_is_told_and_stops_no_other(sample: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise DetectorError("this needs the extra")

    monkeypatch.setattr(examine_module, "examine_credentials", fails)
    overview = examine([str(sample)])
    assert overview.troubles == ["audit credentials could not be run: this needs the extra"]
    assert values(overview)["static credentials"] is None
    assert values(overview)["weak entries"] == 2


def test_each_step_is_told_before_it_begins(tmp_path: Path) -> None:
    steps: list[str] = []
    examine([str(tmp_path)], progress=steps.append)
    assert steps == ["looking at the files", "credentials", "selectors"]


def test_a_printed_command_runs_nothing_that_a_file_is_named(sample: Path, tmp_path: Path) -> None:
    hostile = tmp_path / "x; touch owned $(touch owned).jsonl"
    hostile.write_bytes(next(sample.glob("records/*")).read_bytes())
    lawful = tmp_path / "lawful.jsonl"
    lawful.write_bytes(hostile.read_bytes())
    for file in (hostile, lawful):
        commands = [command for command, _ in examine([str(file)]).commands]
        assert len(commands) > 3
        for command in commands:
            assert shlex.split(command)[-1] == str(file)
    assert f"sidecar audit verify {lawful}" in commands


def test_an_error_that_may_quote_a_file_is_told_by_its_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_paths: object) -> None:
        int("hunter2")

    monkeypatch.setattr(examine_module, "examine_selectors", fail)
    assert examine([str(tmp_path)]).troubles == ["audit selectors could not be run: ValueError"]


def test_a_text_that_was_not_read_is_a_trouble(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"\0" * (MAX_FILE_BYTES + 1))
    assert examine([str(tmp_path)]).troubles == []
    (tmp_path / "large.txt").write_bytes(b"a" * (MAX_FILE_BYTES + 1))
    assert examine([str(tmp_path)]).troubles == ["audit credentials did not read 1 file; run it to see the reason"]


def test_a_part_that_failed_does_not_say_that_nothing_was_there(sample: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError("this needs the extra")

    monkeypatch.setattr(examine_module, "examine_chains", fails)
    number = examine([str(sample)]).numbers[-1]
    assert (number.name, number.value) == ("broken chains", None)
    assert number.sentence == "it could not be counted, see below"


def test_callers_that_cannot_be_told_are_not_counted_as_no_impersonator(sample: Path, tmp_path: Path) -> None:
    (tmp_path / "access.log").write_bytes((sample / "logs" / "support-bot.log").read_bytes())
    number = examine([str(tmp_path)]).numbers[1]
    assert (number.name, number.value) == ("agents that impersonate", None)
    assert "agents.txt" in number.sentence
    (tmp_path / "agents.txt").write_bytes((sample / "agents.txt").read_bytes())
    assert examine([str(tmp_path)]).numbers[1].value == 1


def test_a_command_to_read_on_names_the_list_of_agents_and_all_records(sample: Path, whole: Overview) -> None:
    commands = [command for command, _ in whole.commands]
    assert any(command.startswith(f"sidecar audit attribution --agents {sample}/agents.txt ") for command in commands)
    assert f"sidecar audit chains {sample}/records/*.jsonl" in commands
    assert any(command.startswith("sidecar audit ratio ") for command in commands)
    assert not any("…" in command for command in commands)


def test_a_pattern_stands_for_no_file_that_was_not_audited(sample: Path, tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_bytes((sample / "records" / "crm.jsonl").read_bytes())
    assert f"sidecar audit verify {tmp_path}/*.jsonl" in [command for command, _ in examine([str(tmp_path)]).commands]
    (tmp_path / "c.jsonl").write_text("no record\n")
    commands = [command for command, _ in examine([str(tmp_path)]).commands]
    assert f"sidecar audit verify {tmp_path}/a.jsonl {tmp_path}/b.jsonl" in commands


def test_a_folder_without_entries_is_sent_to_no_audit_of_entries(sample: Path, whole: Overview, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes((sample / "records" / "crm.jsonl").read_bytes())
    assert not any("audit selectors" in command for command, _ in examine([str(tmp_path)]).commands)
    assert any("audit selectors" in command for command, _ in whole.commands)


def test_a_weak_entry_to_fix_first_is_told_with_its_place(sample: Path, whole: Overview) -> None:
    weak = [one.text for one in whole.actions if one.of == "weak entries"]
    assert len(weak) == 1
    assert f", at {sample}/entries.json:" in weak[0]


def test_what_was_refused_breaks_no_chain_here_and_in_the_chains_themselves(
    sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in (sample / "records").iterdir():  # bob's chain lost a record; in carol's a call was refused
        kept = [line for line in file.read_text().splitlines() if '"bob"' not in line]
        (tmp_path / file.name).write_text("\n".join(kept) + "\n")
    words = ["audit", "chains", "--json", "--ignore", "records_lost", str(tmp_path)]
    assert main(words) == 1
    document = json.loads(capsys.readouterr().out)
    assert ([one["kind"] for one in document["findings"]], document["broken_chains"]) == (["refused_hop"], 0)
    number = examine([str(tmp_path)]).numbers[-1]
    assert (number.value, number.bad) == (0, False)
    assert "0 of 2 chains are broken; refused, which breaks no chain: 1" in number.sentence
    (tmp_path / "sts.jsonl").unlink()
    main(words)
    document = json.loads(capsys.readouterr().out)
    assert document["broken_chains"] == examine([str(tmp_path)]).numbers[-1].value == 2


def test_the_printed_command_counts_the_same_machines_and_people(
    sample: Path, whole: Overview, capsys: pytest.CaptureFixture[str]
) -> None:
    (command,) = [command for command, _ in whole.commands if command.startswith("sidecar audit ratio ")]
    words = shlex.split(command.replace(f"{sample}/records/*.jsonl", f"'{sample}/records/*.jsonl'"))
    assert main([*words[1:], "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    sentence = whole.numbers[3].sentence
    assert f"{document['machines']} machine identities and {document['people']} people" in sentence
    assert sum(one["kind"] == "static key" for one in document["identities"]) == whole.numbers[0].value == 3


def test_a_folder_that_cannot_be_read_is_told_and_the_others_are_audited(
    sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.scandir

    def refuse(path: str) -> object:
        if str(path) == str(sample / "logs"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    overview = examine([str(sample)])
    assert "1 file or folder not readable" in overview.troubles
    assert values(overview)["broken chains"] == 1


def test_an_empty_folder_has_no_number_at_all(tmp_path: Path) -> None:
    assert set(values(examine([str(tmp_path)])).values()) == {None}


def test_a_removed_record_is_told_before_one_that_is_there_twice(sample: Path, tmp_path: Path) -> None:
    for file in (sample / "records").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    lines = (tmp_path / "planner.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "planner.jsonl").write_bytes(b"".join(lines[:3] + lines[4:]))
    (tmp_path / "crm2.jsonl").write_bytes((tmp_path / "crm.jsonl").read_bytes())
    (told,) = [
        one.text for one in examine([str(tmp_path)]).actions if "spiffe://acme.example/agent/planner" in one.text
    ]
    assert "record 4 of spiffe://acme.example/agent/planner" in told
    assert told.endswith("was removed")
