"""Observed calls, and a settings file that takes the routes proposed for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml

from delegation_audit.suggest.evidence import Evidence
from delegation_audit.suggest.proposal import Suggestion, suggestions
from delegation_core.records.reading import Record
from tests.audit.evidence import CRM, WRITER

STS: Final = "https://sts.acme.example"
MONDAY, TUESDAY = "2026-11-23", "2026-11-24"


def call(day: str = MONDAY, **changes: Any) -> Record:
    """Return the record of a call: the writer reads a customer, with a delegated token if its caller is proven."""
    members: dict[str, Any] = {
        "event": "request", "ts": f"{day}T10:00:00.000000Z", "run": "r", "seq": 1, "digest": "d",
        "decision": "observed_deny", "reason": "no_token", "direction": "inbound", "workload": CRM, "peer": WRITER,
        "route": "everything", "method": "GET", "path": "/customers", "scope_needed": frozenset(),
    }  # fmt: skip
    made = members | changes
    if made["direction"] == "inbound" and made["peer"] is not None and not {"decision", "reason"} & changes.keys():
        made |= {"decision": "allow", "reason": "ok", "subject": "alice", "actor": made["peer"]}
        made |= {"chain": (made["peer"],)}
    return Record(**made)


def claimed(day: str = MONDAY, **changes: Any) -> Record:
    """Return what the called side alone says of a call without a token, which a route that observes let pass."""
    return call(day, **({"decision": "observed_deny", "reason": "no_token"} | changes))


def on_both_sides(day: str, call_id: str, *, prefix: str = "/crm", **changes: Any) -> list[Record]:
    """Return what the caller's own sidecar records of such a call, and what the called one does."""
    inward = claimed(day, call_in=call_id, **changes)
    path = f"{prefix}{inward.path}"
    return [inward, out(day, call_out=call_id, workload=inward.peer, method=inward.method, path=path)]


def often(**changes: Any) -> list[Record]:
    """Return the records of a call that was seen three times, on two days."""
    return [call(MONDAY, **changes), call(TUESDAY, **changes), call(TUESDAY, **changes)]


def out(day: str = MONDAY, **changes: Any) -> Record:
    """Return the record of an observed call of the writer to the CRM."""
    return call(day, **({"direction": "outbound", "workload": WRITER, "peer": CRM, "route": "crm"} | changes))


def evidence_of(*records: Record) -> Evidence:
    found = Evidence()
    for record in records:
        found.add(record)
    return found


def suggested(*records: Record) -> list[Suggestion]:
    return suggestions(evidence_of(*records).witnesses)


def merged(folder: Path, document: str) -> Path:
    """Write a settings file with as little as it needs, and the proposed routes in it."""
    proposed = yaml.safe_load(document) or {}
    scopes = {scope for side in proposed.values() for route in side["routes"] for scope in route["scopes"]}
    file: dict[str, Any] = {
        "identity": {"workload_api": "unix:///run/workload.sock"},
        "issuers": [
            {
                "issuer": STS, "jwks": f"{STS}/jwks", "profile": "sts", "tls": {"peer": "spiffe://acme.example/sts"},
                "actor_trust_domains": ["acme.example"], "scopes": sorted(scopes) or ["any"],
            }
        ],
        "exchange": {"issuer": STS, "peer": "spiffe://acme.example/sts"},
    }  # fmt: skip
    for side, section in proposed.items():
        file[side] = section | ({"agent": "http://127.0.0.1:8080"} if side == "inbound" else {})
    path = folder / "sidecar.yaml"
    path.write_text(yaml.safe_dump(file), encoding="utf-8")
    return path
