import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegation_core.records.reading import MAX_LINE_BYTES, RecordError, is_login, parse_record
from delegation_core.records.record import EVENTS, MAX_ITEMS
from delegation_core.records.record_text import CUT, encode
from sidecar.features.logins.logins import SUBJECT_PATH
from sidecar.observe.entry import LOGIN
from tests.audit.evidence import record

LEAST = record(event="request", ts="2026-11-24T21:04:05.000000Z", run="r", seq=1)


def test_a_record_as_the_sidecar_writes_it_is_read_back() -> None:
    written = {**LEAST, "scope": ["b", "a"], "chain": ["x", "y"], "verified": True, "status": 200, "subject": "alice"}
    read = parse_record(*encode([written]))
    assert (read.name, read.scope, read.chain, read.verified, read.status, read.subject) == (
        "r/1", frozenset("ab"), ("x", "y"), True, 200, "alice",
    )  # fmt: skip


def test_an_older_record_with_fewer_keys_is_read() -> None:
    assert parse_record(b'{"event":"started","ts":"t","run":"r","seq":1}').workload is None


@pytest.mark.parametrize(
    ("direction", "op", "path", "expected"),
    [
        pytest.param("outbound", LOGIN, "/x", True, id="taken"),
        pytest.param("outbound", None, SUBJECT_PATH, True, id="refused"),
        pytest.param("outbound", None, "/x", False, id="a-request"),
        pytest.param("outbound", None, "/.sidecars", False, id="another-path"),
        pytest.param("inbound", None, SUBJECT_PATH, False, id="a-path-of-the-agents"),
        pytest.param("outbound", None, None, False, id="neither-is-told"),
    ],
)
def test_a_login_is_known_by_its_operation_or_by_where_it_was_shown(
    direction: object, op: object, path: object, expected: bool
) -> None:
    assert is_login(direction, op, path) is expected


@pytest.mark.parametrize("decision", ["allow", "deny", None])
def test_only_what_was_allowed_was_let_through(decision: str | None) -> None:
    read = parse_record(json.dumps({**LEAST, "decision": decision}).encode())
    assert read.allowed is (decision == "allow")


def test_a_scope_list_that_was_cut_is_known_to_be() -> None:
    many = [f"s{number}" for number in range(MAX_ITEMS + 1)]
    assert parse_record(json.dumps({**LEAST, "scope": [*many[:MAX_ITEMS], f"{CUT}1 more"]}).encode()).scope_cut
    assert not parse_record(json.dumps({**LEAST, "scope": many[:MAX_ITEMS]}).encode()).scope_cut


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"event": "no.such"}, id="unknown-event"),
        pytest.param({"event": None}, id="no-event"),
        pytest.param({"run": ""}, id="no-run"),
        pytest.param({"run": 1}, id="run-as-number"),
        pytest.param({"ts": None}, id="no-time"),
        pytest.param({"ts": ""}, id="empty-time"),
        pytest.param({"chain": ["a"] * (MAX_ITEMS + 2)}, id="chain-longer-than-any"),
        pytest.param({"decision": "permit"}, id="decision-that-there-is-not"),
        pytest.param({"decision": ""}, id="empty-decision"),
        pytest.param({"direction": "Inbound"}, id="direction-that-there-is-not"),
        pytest.param({"seq": 0}, id="seq-zero"),
        pytest.param({"seq": "1"}, id="seq-as-text"),
        pytest.param({"seq": True}, id="seq-as-bool"),
        pytest.param({"seq": 1.0}, id="seq-as-float"),
        pytest.param({"seq": -1}, id="seq-negative"),
        pytest.param({"subject": 1}, id="text-as-number"),
        pytest.param({"chain": "a"}, id="list-as-text"),
        pytest.param({"chain": ["a", 1]}, id="list-of-another-type"),
        pytest.param({"verified": "true"}, id="flag-as-text"),
        pytest.param({"verified": 1}, id="flag-as-number"),
        pytest.param({"status": "200"}, id="count-as-text"),
    ],
)
def test_a_record_of_another_shape_is_refused(changes: dict[str, object]) -> None:
    parse_record(json.dumps(LEAST).encode())
    with pytest.raises(RecordError):
        parse_record(json.dumps({**LEAST, **changes}).encode())


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"[1]", id="no-object"),
        pytest.param(b'{"event":"started","event":"started","ts":"t","run":"r","seq":1}', id="a-key-twice"),
        pytest.param(b'{"event":"started","ts":"t","run":"r","seq":1', id="cut-off"),
        pytest.param(b"\xff", id="no-text"),
        pytest.param(b'{"a":"' + b"x" * MAX_LINE_BYTES + b'"}', id="too-long"),
    ],
)
def test_a_line_that_is_no_record_is_refused(line: bytes) -> None:
    with pytest.raises(RecordError):
        parse_record(line)


STARTED = b'{"event":"started","ts":"t","run":"r","seq":1}'


def _changed(change: tuple[int, bytes]) -> bytes:
    at, put = change
    return STARTED[:at] + put + STARTED[at + len(put) :]


@given(st.binary(max_size=200) | st.tuples(st.integers(0, len(STARTED)), st.binary(max_size=3)).map(_changed))
def test_any_line_is_a_record_or_refused(line: bytes) -> None:
    with contextlib.suppress(RecordError):
        assert parse_record(line).event in EVENTS
