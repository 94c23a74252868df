"""Records, a directory and a list of credentials, as files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from delegation_core.records.record import FIELDS

AGENT = "spiffe://acme.example/agent/"
ISSUER = "https://login.acme.example"


def record(seq: int, subject: str | None, *agents: str, **fields: Any) -> dict[str, Any]:
    """Return the record of an inbound call: the last agent is called, the one before it is the actor."""
    chain = [AGENT + name for name in reversed(agents[:-1])]
    told = {
        "event": "request",
        "ts": f"2026-01-01T00:00:{seq % 60:02}.000000Z",
        "run": "r1",
        "seq": seq,
        "direction": "inbound",
        "decision": "allow",
        "reason": "ok",
        "workload": AGENT + agents[-1],
        "subject": subject,
        "subject_iss": ISSUER,
        "verified": True,
    }
    if chain:
        told |= {"peer": chain[0], "actor": chain[0], "chain": chain}
    return {**dict.fromkeys(FIELDS), **told, **fields}


def written(path: Path, records: Sequence[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(one) + "\n" for one in records))
    return str(path)


def credentials(path: Path, *fingerprints: str) -> str:
    found = [{"fingerprint": one, "owners": ["Deployment shop/bot"]} for one in fingerprints]
    path.write_text(json.dumps({"credentials": found, "unsure": [{"fingerprint": "x", "owners": []}]}))
    return str(path)
