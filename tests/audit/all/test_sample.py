"""The sample is written again each time, with keys that open nothing, and records whose hashes are right."""

from __future__ import annotations

from pathlib import Path

from sidecar.audit.all.sample import write_sample
from sidecar.audit.verify.command import examine


def test_records_of_the_sample_are_whole_streams(tmp_path: Path) -> None:
    write_sample(tmp_path)
    records = sorted(map(str, (tmp_path / "records").iterdir()))
    streams, verdict = examine(records)
    assert (streams.records, len(verdict.runs), verdict.findings) == (31, 5, [])


def test_two_samples_have_different_keys(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_sample(tmp_path / name)
    one, other = ((tmp_path / name / "mcp.json").read_text() for name in ("a", "b"))
    assert one != other
