"""Observed calls, and a settings file that takes the routes proposed for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml

from sidecar.audit.records import Record
from sidecar.audit.suggest.evidence import Evidence
from sidecar.audit.suggest.proposal import Suggestion, suggestions
from tests.audit.evidence import CRM, WRITER

STS: Final = "https://sts.acme.example"
MONDAY, TUESDAY = "2026-11-23", "2026-11-24"


def call(day: str = MONDAY, **changes: Any) -> Record:
    """Return the record of an observed call without a token: the writer reads a customer."""
    members: dict[str, Any] = {
        "event": "request", "ts": f"{day}T10:00:00.000000Z", "run": "r", "seq": 1, "digest": "d",
        "decision": "observed_deny", "reason": "no_token", "direction": "inbound", "workload": CRM, "peer": WRITER,
        "route": "everything", "method": "GET", "path": "/customers", "scope_needed": frozenset(),
    }  # fmt: skip
    return Record(**(members | changes))


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
