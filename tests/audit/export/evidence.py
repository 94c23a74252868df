"""One lawful inbound request, or another event, with every key."""

from __future__ import annotations

from typing import Any

from delegation_core.records.record import FIELDS


def members(event: str = "request", **fields: Any) -> dict[str, Any]:
    lawful = {"ts": "2026-11-24T21:04:05.123456Z", "run": "r1", "seq": 7, "workload": "spiffe://acme.example/tool/crm"}
    if event == "request":
        lawful |= {
            "direction": "inbound",
            "decision": "allow",
            "reason": "ok",
            "peer": "spiffe://acme.example/agent/writer",
            "actor": "spiffe://acme.example/agent/writer",
            "chain": ["spiffe://acme.example/agent/writer", "spiffe://acme.example/agent/planner"],
            "subject": "alice",
            "subject_iss": "https://sts.acme.example",
            "method": "GET",
            "path": "/customers/42",
            "status": 200,
            "total_ms": 1.25,
            "txn": "t1",
            "jti_in": "j1",
            "audience": "spiffe://acme.example/tool/crm",
        }
    return {**dict.fromkeys(FIELDS), "event": event, **lawful, **fields}
