"""``sidecar audit ratio``: the number, the trigger, the list behind it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from delegation_audit.command import main
from tests.audit.ratio.evidence import AGENT, credentials, record, written


@pytest.fixture
def file(tmp_path: Path) -> str:
    return written(tmp_path / "r.jsonl", [record(1, "alice", "front", "planner"), record(2, "bob", "planner", "crm")])


def test_below_the_trigger_is_success(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ratio", file]) == 0
    said = capsys.readouterr().out
    assert "3 machine identities and 2 people: 1.5 to 1, which is below 50 to 1" in said
    assert AGENT + "planner" in said


def test_at_the_trigger_it_is_a_finding_with_the_list_behind_it(
    tmp_path: Path, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = credentials(tmp_path / "c.json", *(f"key-{number}" for number in range(97)))
    assert main(["ratio", "--credentials", keys, file]) == 1
    said = capsys.readouterr().out
    assert "100 machine identities and 2 people: 50.0 to 1, which reaches 50 to 1" in said
    assert "key-0 (Deployment shop/bot)" in said
    assert "and 80 more; --json lists all" in said
    assert main(["ratio", "--credentials", keys, "--trigger", "51", file]) == 0


def test_entries_and_a_directory_count_too(tmp_path: Path, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    entry = {
        "id": "e1",
        "spiffe_id": {"trust_domain": "acme.example", "path": "/agent/idle"},
        "parent_id": {"trust_domain": "acme.example", "path": "/spire/agent/k8s_psat/c1/n1"},
        "selectors": [{"type": "k8s", "value": "ns:agents"}],
    }
    (tmp_path / "entries.json").write_text(json.dumps({"entries": [entry]}))
    (tmp_path / "users.csv").write_text("sub\nalice\ncarol\n")
    words = ["--entries", str(tmp_path / "entries.json"), "--directory", str(tmp_path / "users.csv")]
    assert main(["ratio", "--json", *words, file]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["machines"], document["people"], document["people_seen"]) == (4, 3, 2)
    idle = document["identities"][0]  # acts for nobody
    assert (idle["name"], idle["sources"], idle["people"]) == (AGENT + "idle", ["entries"], 0)


def test_sketches_of_two_sites_count_together_by_one_key(
    tmp_path: Path, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "key").write_text("0123456789abcdef")
    other = written(tmp_path / "o.jsonl", [record(1, "alice", "front", "mailer"), record(2, "dora", "front", "mailer")])
    sketch = tmp_path / "site-b"
    assert main(["ratio", "--hash-key", str(tmp_path / "key"), "--save", str(sketch), other]) == 0
    assert "alice" not in sketch.read_text()
    capsys.readouterr()
    words = ["--hash-key", str(tmp_path / "key"), "--merge", str(sketch), "--json", file]
    assert main(["ratio", *words]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["machines"], document["people"], document["exact"]) == (4, 3, False)


def test_machines_without_any_person_reach_the_trigger(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ratio", "--credentials", credentials(tmp_path / "c", "k")]) == 1
    assert "no person was seen" in capsys.readouterr().out


def test_what_is_no_record_is_told(tmp_path: Path, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    with Path(file).open("a") as appended:
        appended.write("nothing\n")
    assert main(["ratio", file]) == 0
    assert "lines that are not records, not counted: 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "nothing to count: give records, --entries, --search, --credentials or --directory"),
        (["/nonexistent"], "No such file"),
        (["--hash-key", "SHORT"], "a key has at least 16 bytes"),
        (["--merge", "SHORT"], "not a sketch"),
        (["--directory", "SHORT"], "no active person"),
    ],
)
def test_what_cannot_be_used_is_named(
    tmp_path: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "SHORT").write_text("x")
    words = [str(tmp_path / word) if word == "SHORT" else word for word in words]
    assert main(["ratio", *words]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("window", ["0h", "3", "1w", "-1d"])
def test_a_window_is_hours_or_days(window: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["ratio", f"--window={window}", "x"])
    assert "such as 24h or 30d" in capsys.readouterr().err


def test_files_without_a_record_are_no_success_beside_a_directory(
    tmp_path: Path, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "users.csv").write_text("sub\nalice\n")
    other = tmp_path / "other.log"
    other.write_text("GET / 200\n")
    words = ["ratio", "--directory", str(tmp_path / "users.csv")]
    assert main([*words, str(other)]) == 2
    assert "other.log is a record; give a sidecar's records" in capsys.readouterr().err
    assert main([*words, file]) == 0
    assert main(words) == 0


def test_only_the_window_counts(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ratio", "--window", "1h", file]) == 2
    assert "nothing to count" in capsys.readouterr().err


def test_a_directory_of_strangers_is_told_and_one_of_the_same_people_is_not(
    tmp_path: Path, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "users.csv").write_text("sub,oid\nalice@x,alice\nbob@x,bob\n")
    words = ["ratio", "--directory", str(tmp_path / "users.csv"), file]
    assert main(words) == 0
    assert "each now counts twice" in capsys.readouterr().out
    assert main([*words, "--directory-field", "oid"]) == 0
    assert "each now counts twice" not in capsys.readouterr().out


def test_a_folder_of_records_counts_as_its_files(tmp_path: Path, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("no record\n")
    assert main(["ratio", "--json", str(tmp_path)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["machines"], document["people"], document["not_records"]) == (3, 2, 0)


def test_a_search_and_the_result_of_one_are_not_counted_together(
    tmp_path: Path, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = credentials(tmp_path / "c.json", "key-1")
    with pytest.raises(SystemExit):
        main(["ratio", "--search", str(tmp_path), "--credentials", keys, file])
    assert "not allowed with argument" in capsys.readouterr().err
