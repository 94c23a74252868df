"""``sidecar audit export`` on files."""

from __future__ import annotations

import json
from pathlib import Path

import orjson
import pytest

from delegation_audit.command import main
from tests.audit.export.evidence import members


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "r.jsonl"
    path.write_bytes(orjson.dumps(members()) + b"\n" + orjson.dumps(members("started")) + b"\n")
    return path


@pytest.mark.parametrize(("form", "key"), [("ecs", "@timestamp"), ("ocsf", "class_uid")])
def test_each_record_is_one_line(file: Path, form: str, key: str, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["export", "--as", form, str(file)]) == 0
    events = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
    assert [key in event for event in events] == [True, True]


@pytest.mark.parametrize("line", [b"no record", b'{"event":"request"}', orjson.dumps(members(ts="yesterday"))])
def test_what_is_no_record_is_left_out_and_told(
    file: Path, line: bytes, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    file.write_bytes(file.read_bytes() + line + b"\n")
    code = main(["export", "--as", "ocsf", str(file)])
    said = capfdbinary.readouterr()
    assert (code, len(said.out.splitlines())) == (1, 2)
    assert f"not records: 1, the first is {file}:3".encode() in said.err


def test_a_file_that_is_not_there_is_named(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["export", "--as", "ecs", str(tmp_path / "gone")]) == 2
    assert b"gone" in capfdbinary.readouterr().err
