from __future__ import annotations

import json

import pytest

from delegation_audit.credentials.fields import Field
from delegation_audit.credentials.kinds import Kind
from delegation_audit.credentials.recorded import is_records, read_recorded
from delegation_core.records.log_lines import Line

RECORD: dict[str, object] = {
    "event": "request",
    "ts": "2026-09-20T10:00:00.000000Z",
    "run": "r",
    "seq": 1,
    "decision": "allow",
    "direction": "inbound",
    "workload": "spiffe://acme.example/agent/crm",
    "subject": "batch",
    "subject_iss": "https://sts.acme.example",
    "client_id": "batch",
}


def read(*records: dict[str, object]) -> list[Field]:
    lines = (Line("r.jsonl", number, json.dumps(one).encode()) for number, one in enumerate(records, 1))
    return read_recorded(lines)


def test_a_client_whose_tokens_name_no_actor_is_found_once_with_its_first_use() -> None:
    later = {**RECORD, "ts": "2026-09-21T10:00:00.000000Z", "seq": 2}
    (field,) = read(later, RECORD, {**later, "seq": 3})
    assert (field.kind, field.owner, field.line, field.created) == (
        Kind.CLIENT_WITHOUT_DELEGATION,
        "client batch",
        2,
        "2026-09-20",
    )
    assert dict(field.facts) == {"calls": "3", "acts for": "itself"}


@pytest.mark.parametrize(
    "change",
    [
        {"actor": "spiffe://acme.example/agent/planner"},
        {"chain": ["spiffe://acme.example/agent/planner"]},
        {"client_id": None},
        {"direction": "outbound"},
        {"event": "token.exchanged"},
    ],
)
def test_a_delegated_call_or_another_event_is_none(change: dict[str, object]) -> None:
    assert read({**RECORD, **change}) == []


def test_a_line_that_is_no_record_is_passed_over() -> None:
    broken = Line("r.jsonl", 1, b"{"), Line("r.jsonl", 2, None), Line("r.jsonl", 3, json.dumps(RECORD).encode())
    assert [field.line for field in read_recorded(broken)] == [3]


def test_a_stream_is_known_by_its_first_line() -> None:
    assert is_records(json.dumps(RECORD).encode())
    assert not is_records(b'{"event": "request"}')
    assert not is_records(b"GET / HTTP/1.1")


CALL: dict[str, object] = {
    **RECORD,
    "direction": "outbound",
    "client_id": None,
    "actor": "spiffe://acme.example/agent/planner",
    "route": "model",
    "credential": "inject:9f86d081884c7d65",
}


def test_a_static_key_on_calls_out_of_the_mesh_is_found_once_with_its_holder() -> None:
    own = {**CALL, "seq": 2, "credential": "passthrough:bearer:aa,x-api-key:bb", "decision": "observed_deny"}
    fields = read(CALL, {**CALL, "seq": 3}, own)
    assert [(one.kind, one.identity[-1], dict(one.facts)) for one in fields] == [
        (Kind.STATIC_KEY_IN_USE, "9f86d081884c7d65", {"calls": "2", "held by": "the sidecar"}),
        (Kind.STATIC_KEY_IN_USE, "bearer:aa", {"calls": "1", "held by": "the agent"}),
        (Kind.STATIC_KEY_IN_USE, "x-api-key:bb", {"calls": "1", "held by": "the agent"}),
    ]


def test_a_secret_that_authenticates_a_sidecar_at_a_token_service_is_found() -> None:
    exchange = {**CALL, "event": "token.exchanged", "credential": "client:client-secret-basic:9f86"}
    (field,) = read(exchange)
    assert (field.identity[-1], dict(field.facts)["held by"]) == ("client-secret-basic:9f86", "the sidecar")
    assert read({**exchange, "event": "request"}) == []
    assert read({**exchange, "credential": "inject:9f86"}) == []


@pytest.mark.parametrize(
    "change",
    [
        {"credential": None},
        {"credential": "passthrough:none"},
        {"credential": "federate:openai:9f86"},
        {"decision": "deny"},
        {"event": "request.opened"},
    ],
)
def test_a_call_without_a_static_key_that_left_is_none(change: dict[str, object]) -> None:
    assert read({**CALL, **change}) == []
