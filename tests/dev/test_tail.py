import json
from pathlib import Path
from typing import Any

import pytest

from delegation_core.records.record import FIELDS
from sidecar_dev.tail import Tail, line_of

PLANNER = "spiffe://acme.example/agent/planner"
FRONT = "spiffe://acme.example/agent/front"


def record(**changes: Any) -> dict[str, Any]:
    usual = {
        "event": "request",
        "ts": "2026-11-25T10:00:01.000002Z",
        "decision": "allow",
        "reason": "ok",
        "direction": "inbound",
        "method": "GET",
        "path": "/x",
        "status": 200,
        "subject": "alice",
        "actor": PLANNER,
        "chain": [PLANNER, FRONT],
        "verified": True,
        "total_ms": 1.25,
    }
    return {**dict.fromkeys(FIELDS), **usual, **changes}


LINES = {
    "allowed": ({}, "10:00:01  +  crm       inbound GET /x 200  for alice by planner via front  1.2 ms"),
    "an operation": (
        {"method": "POST", "path": "/mcp", "op": "tools/call:search"},
        "10:00:01  +  crm       inbound POST /mcp tools/call:search 200  for alice by planner via front  1.2 ms",
    ),
    "a method of gRPC": (
        {"method": "POST", "path": "/shop.Orders/Get", "op": "/shop.Orders/other"},
        "10:00:01  +  crm       inbound POST /shop.Orders/Get 200  for alice by planner via front  1.2 ms",
    ),
    "refused by gRPC": (
        {"method": "POST", "path": "/a.B/C", "op": "other", "decision": "deny", "reason": "operation_refused"},
        "10:00:01  -  crm       inbound POST /a.B/C other  operation_refused  for alice by planner via front  1.2 ms",
    ),
    "refused": (
        {"decision": "deny", "reason": "actor_mismatch", "status": 403, "verified": False, "detail": "another"},
        "10:00:01  -  crm       inbound GET /x 403  actor_mismatch  for alice by planner via front (unverified)"
        "  1.2 ms  (another)",
    ),
    "opened": (
        {"event": "request.opened", "status": None, "total_ms": None},
        "10:00:01  +  crm       request.opened  inbound GET /x  for alice by planner via front",
    ),
    "a token": (
        {"event": "token.exchanged", "direction": None, "audience": "spiffe://a/crm", "chain": None},
        "10:00:01  +  crm       token.exchanged  token for spiffe://a/crm  for alice by planner  1.2 ms",
    ),
    "a handshake": (
        {**dict.fromkeys(FIELDS), "event": "connection.refused", "ts": record()["ts"], "reason": "bad_svid"},
        "10:00:01     crm       connection.refused    bad_svid",
    ),
}


@pytest.mark.parametrize(("changes", "line"), LINES.values(), ids=LINES.keys())
def test_a_record_is_one_readable_line(changes: dict[str, Any], line: str) -> None:
    assert line_of("crm", record(**changes)).split() == line.split()


def test_only_what_is_new_and_whole_is_told_in_the_order_of_time(tmp_path: Path) -> None:
    one, other = tmp_path / "one.records", tmp_path / "other.records"
    tail = Tail([one, other])
    assert list(tail.new()) == []
    later = json.dumps(record(ts="2026-11-25T10:00:02.000000Z", path="/later"))
    one.write_text(later + "\n" + later[:20])
    other.write_text(json.dumps(record(path="/first")) + "\n")
    assert [line.split()[5] for line in tail.new()] == ["/first", "/later"]
    assert list(tail.new()) == []
    with one.open("a") as file:
        file.write(later[20:] + "\n")
    assert len(list(tail.new())) == 1


@pytest.mark.parametrize(
    ("name", "event", "told"),
    [
        ("agent", "started", 0),
        ("agent", "token.exchanged", 0),
        ("sts", "token.exchanged", 1),
        ("agent", "token.exchange_refused", 1),
        ("agent", "connection.refused", 1),
    ],
)
def test_of_two_witnesses_of_a_token_the_issuer_is_told(tmp_path: Path, name: str, event: str, told: int) -> None:
    file = tmp_path / f"{name}.records"
    file.write_text(json.dumps(record(event=event)) + "\n")
    assert len(list(Tail([file]).new())) == told
