"""Lines are read as the sidecar meant them: in any order, written again by a shipper, and never in two ways."""

from __future__ import annotations

import json

import pytest

from delegation_audit.verify import streams as streams_module
from delegation_audit.verify.streams import Streams, canonical
from delegation_core.records.log_lines import Line
from delegation_core.records.record import FIELDS
from tests.audit.verify.evidence import Writer, kinds, verdict
from tests.fakes.tokens import NOW, PLANNER


@pytest.fixture
def writer() -> Writer:
    writer = Writer()
    writer.write(10)
    writer.checkpoint()  # the eleventh
    writer.write(5)
    return writer


def test_runs_may_be_mixed_and_files_in_any_order(writer: Writer) -> None:
    other = Writer("r2", PLANNER)
    other.write(16)
    mixed = [line for pair in zip(writer.lines, other.lines, strict=True) for line in pair]
    assert kinds(verdict(mixed[20:], mixed[:20])) == []


@pytest.mark.parametrize("name", ["collector", "host"])
def test_a_shipper_may_write_lines_again_with_other_spacing_order_and_keys_of_its_own(
    writer: Writer, name: str
) -> None:
    lines = [
        json.dumps({**dict(sorted(json.loads(line).items())), name: "n1"}, indent=None).encode()
        for line in writer.lines
    ]
    found = verdict(lines)
    assert found.findings == []
    assert found.runs[0].countersigned == (10, NOW)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"{",
        b'{"event":"request"}',
        b'{"event":"request","run":"r1","seq":true,"prev":null}',
        b'{"event":"request","run":"r1","seq":1,"prev":"ABC"}',
        b'{"event":"request","run":"r1","seq":1,"chain":' + b"[" * 300 + b"]" * 300 + b',"prev":null}',
        b'{"event":"request","run":1,"seq":1,"prev":null}',
        b'{"event":"request","run":["r1"],"seq":1,"prev":null}',
        b'{"event":["request"],"run":"r1","seq":1,"prev":null}',
        b'{"event":"request","run":"r1","seq":"1","prev":null}',
        b'{"event":"request","run":"r1","seq":0,"prev":null}',
        b'{"event":"request","run":"r1","seq":-1,"prev":null}',
        b'{"event":"request","run":"r1","seq":9223372036854775808,"prev":null}',
        b'{"event":"request","run":"r1","seq":1,"prev":1}',
        b'{"event":"request","run":"r1","seq":1,"prev":"' + b"a" * 63 + b'"}',
        b'{"event":"request","run":"r1","seq":1,"prev":"' + b"a" * 65 + b'"}',
        b'{"event":"unheard","run":"r1","seq":1,"prev":null}',
    ],
)
def test_what_is_no_record_is_told_with_its_place(writer: Writer, line: bytes) -> None:
    (finding,) = verdict([*writer.lines, line]).findings
    assert (finding.kind, finding.places) == ("unreadable", ("0:17",))


def test_a_line_that_reads_in_two_ways_is_no_record(writer: Writer) -> None:
    twice = writer.lines[3].replace(b'{"event"', b'{"subject":"mallory","event"', 1)
    assert json.loads(twice) == json.loads(writer.lines[3])
    assert kinds(verdict([*writer.lines[:3], twice, *writer.lines[4:]])) == ["unreadable", "removed"]


def test_a_line_that_is_too_long_to_read_is_told_with_its_place(writer: Writer) -> None:
    streams = Streams()
    streams.read([Line("0", 1, writer.lines[0]), Line("0", 2, None)])
    assert (streams.records, streams.unreadable, streams.unreadable_places) == (1, 1, ["0:2"])


@pytest.mark.parametrize("checkpoint", [1, None, ["x"]])
def test_a_checkpoint_that_is_no_text_is_false(writer: Writer, checkpoint: object) -> None:
    writer.write(event="records.countersigned", checkpoint=checkpoint)
    assert kinds(verdict(writer.lines)) == ["false_checkpoint"]


def test_runs_are_bounded_and_further_records_of_known_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """A packed file of a megabyte may hold millions of lines that each claim a run."""
    monkeypatch.setattr(streams_module, "MAX_RUNS", 3)
    lines = [line for name in "abc" for line in run_of_two(name)]
    streams = Streams()
    streams.read(Line("f", number, line) for number, line in enumerate(lines, 1))
    assert (len(streams.runs), streams.records) == (3, 6)
    with pytest.raises(ValueError, match=r"^g:1: there are more than 3 runs; verify fewer files at a time$"):
        streams.read([Line("g", 1, run_of_two("d")[0])])


def run_of_two(run: str) -> list[bytes]:
    writer = Writer(run)
    writer.write(2)
    return writer.lines


def test_the_host_of_a_refused_attempt_is_part_of_its_line_and_of_no_other() -> None:
    attempt = {**dict.fromkeys(FIELDS), "reason": "target_denied", "host": "evil.example"}
    assert canonical(attempt) != canonical({**attempt, "host": "other.example"})
    served = {**dict.fromkeys(FIELDS), "reason": "ok"}
    assert canonical({**served, "host": "node-1"}) == canonical(served)
    older = {name: value for name, value in served.items() if name not in {"host", "candidates", "credential"}}
    assert canonical({**older, "host": "node-1"}) == canonical(older)
