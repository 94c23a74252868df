"""The sample is written again each time, with keys that open nothing, and records whose hashes are right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from delegation_audit.all.sample import write_sample
from delegation_audit.verify.command import examine
from tests.audit.verify.evidence import chained_again


def judged(folder: Path) -> tuple[int, int, list[str]]:
    """Return the number of records and of runs, and the findings."""
    records = sorted(map(str, (folder / "records").iterdir()))
    streams, verdict = examine(records, [str(folder / "jwks.json")], countersigned=True)
    assert verdict.signatures_checked
    return streams.records, len(verdict.runs), [one.kind.value for one in verdict.findings]


def test_records_of_the_sample_are_whole_and_countersigned(tmp_path: Path) -> None:
    write_sample(tmp_path)
    assert judged(tmp_path) == (40, 5, [])


@pytest.mark.parametrize("name", ["front", "planner", "writer", "crm", "sts"])
def test_a_line_removed_from_the_sample_is_found(tmp_path: Path, name: str) -> None:
    write_sample(tmp_path)
    file = tmp_path / "records" / f"{name}.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:2] + lines[3:]))
    assert judged(tmp_path) == (39, 5, ["removed"])
    file.write_bytes(b"".join(line + b"\n" for line in chained_again(lines[:2] + lines[3:])))
    assert "false_checkpoint" in judged(tmp_path)[2]  # whoever computes the chain again has no key


def test_a_sample_verifies_with_no_other_key(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_sample(tmp_path / name)
    (tmp_path / "a" / "jwks.json").write_bytes((tmp_path / "b" / "jwks.json").read_bytes())
    assert set(judged(tmp_path / "a")[2]) == {"unknown_key", "not_countersigned"}


def test_no_private_key_is_written(tmp_path: Path) -> None:
    write_sample(tmp_path)
    (key,) = json.loads((tmp_path / "jwks.json").read_text())["keys"]
    assert key.keys() == {"kty", "crv", "x", "kid", "alg", "use"}


def test_two_samples_have_different_keys(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_sample(tmp_path / name)
    one, other = ((tmp_path / name / "mcp.json").read_text() for name in ("a", "b"))
    assert one != other
