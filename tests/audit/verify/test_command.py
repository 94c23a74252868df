"""``sidecar audit verify`` on files: exit codes, the table, the document, and every error with its fix."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from delegation_audit.command import main
from sidecar.sts.keys import KeyRing
from tests.audit.verify.evidence import KEY, Writer, changed


@pytest.fixture
def writer() -> Writer:
    writer = Writer()
    writer.write(3)
    writer.checkpoint()
    return writer


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "jwks.json"
    path.write_bytes(KeyRing(KEY).jwks())
    return path


def write(path: Path, lines: list[bytes]) -> str:
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return str(path)


def test_whole_records_are_success(
    tmp_path: Path, writer: Writer, keys: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "r.jsonl", writer.lines)
    assert main(["verify", "--keys", str(keys), "--countersigned", file]) == 0
    said = capsys.readouterr().out
    assert "4 records: 1 run, and no line was changed, removed, inserted or moved" in said
    assert "to 3, 20" in said
    assert "not checked" not in said


def test_a_changed_line_is_told_with_its_place(
    tmp_path: Path, writer: Writer, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "r.jsonl", [writer.lines[0], changed(writer.lines[1], subject="x"), *writer.lines[2:]])
    assert main(["verify", file]) == 1
    said = capsys.readouterr().out
    assert "changed: record 2 of spiffe://acme.example/agent/writer (run r1) was changed" in said
    assert f"{file}:2" in said
    assert "Signatures of checkpoints were not checked" in said
    assert main(["verify", "--ignore", "changed", file]) == 0


def test_the_document_holds_runs_and_findings(
    tmp_path: Path, writer: Writer, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "r.jsonl", [writer.lines[0], *writer.lines[2:]])
    assert main(["verify", "--json", file]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["records"] == 3
    assert document["runs"][0]["countersigned_up_to"] == 3
    assert document["runs"][0]["uncovered"] == 1
    (finding,) = document["findings"]
    assert (finding["kind"], finding["places"]) == ("removed", [f"{file}:1", f"{file}:2"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--ignore", "nothing"], "nothing is not a kind of finding; there are changed, removed"),
        (["--keys", "KEYS"], ": not a JWKS"),
        (["--keys", "EMPTY"], "no usable key; fetch the JWKS from the token service's jwks_uri"),
        (["/nonexistent"], "No such file"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_fix(
    tmp_path: Path, writer: Writer, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "KEYS").write_text("[]")
    (tmp_path / "EMPTY").write_text('{"keys":[]}')
    file = write(tmp_path / "r.jsonl", writer.lines)
    words = [str(tmp_path / word) if word.isupper() else word for word in words]
    assert main(["verify", file, *words]) == 2
    assert said in capsys.readouterr().err


def test_no_record_at_all_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", write(tmp_path / "r.jsonl", [b"nothing"])]) == 2
    assert "no line is a record" in capsys.readouterr().err


def test_a_folder_is_verified_as_its_files(tmp_path: Path, writer: Writer, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "records" / "in").mkdir(parents=True)
    write(tmp_path / "records" / "in" / "a.jsonl", writer.lines[:2])
    write(tmp_path / "records" / "b.jsonl", writer.lines[2:])
    assert main(["verify", str(tmp_path / "records")]) == 0
    assert "4 records: 1 run, and no line was" in capsys.readouterr().out
    (tmp_path / "records" / "in" / "a.jsonl").unlink()
    assert main(["verify", str(tmp_path / "records")]) == 1
    assert "begins late" in capsys.readouterr().out


def test_countersigned_without_keys_says_which_option_is_missing_and_where_keys_come_from(
    tmp_path: Path, writer: Writer, keys: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["verify", "--countersigned", write(tmp_path / "r.jsonl", writer.lines)]
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert "--countersigned needs --keys FILE, the JWKS that the token service serves at its jwks_uri" in said.err
    assert said.out == ""
    assert main([*words, "--keys", str(keys)]) == 0
