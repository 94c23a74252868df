"""Status documents for tests: of a healthy sidecar, with one fact changed."""

import copy
from typing import Any, Final

NOW: Final = 1_000_000
ISSUER: Final = "https://sts.acme.example"
WORKS: Final = {
    "url": "https://a",
    "open": False,
    "failing_s": None,
    "reason": None,
    "detail": None,
}
FAILS: Final = {**WORKS, "url": "https://b", "failing_s": 5, "reason": "sts_timeout", "detail": "no answer"}

WELL: Final[dict[str, Any]] = {
    "version": "1",
    "run": "r",
    "pid": 1,
    "network_namespace": "b00t net:[1]",
    "tasks": 5,
    "since": NOW - 7260,
    "now": NOW,
    "ready": True,
    "missing": [],
    "stopping": False,
    "identity": {
        "state": "ready",
        "spiffe_id": "spiffe://acme.example/agent/writer",
        "not_before": NOW - 60,
        "not_after": NOW + 3600,
        "generation": 2,
        "trust_domains": ["acme.example"],
        "missing_trust_domains": [],
        "last_error": None,
        "updates": {},
    },
    "issuers": [{"issuer": ISSUER, "needed": True, "key_age_s": 60, "last_error": None}],
    "revocations": [{"issuer": ISSUER, "seq": 7, "revoked": 2, "age_s": 1, "stale": False, "last_error": None}],
    "deny_file": {"file": "/d", "rows": 2, "sha256": "a" * 64, "in_force_at": NOW - 9, "age_s": 0, "error": None},
    "deny_unmatched": [],
    "settings": {
        "number": 1,
        "loaded_at": NOW - 60,
        "inbound_routes": ["draft"],
        "outbound_routes": [],
        "deny_rows": 0,
        "refused_at": None,
        "problems": [],
    },
    "requests": {"being_served": 0, "handles": 0},
    "listeners": [{"direction": "inbound", "address": "0.0.0.0:7443", "connections": 1, "max_connections": 100}],
    "logins": None,
    "streams": {"inbound": 0, "outbound": 0},
    "door": None,
    "bypass": {"listeners": [], "refused": False, "error": None},
    "agent": {"address": "127.0.0.1:8080", "up": True},
    "memory": {"used_bytes": 40 << 20, "limit_bytes": 256 << 20, "short": False},
    "upstream_connections": 0,
    "engine": "python",
    "upstreams": [],
    "exchanges": [
        {
            "issuer": "https://sts.acme.example",
            "tokens": 0,
            "under_way": 0,
            "last_refusal": None,
            "endpoints": [WORKS],
        }
    ],
    "records": {
        "sink": "file",
        "trouble": None,
        "waiting": 0,
        "waiting_bytes": 0,
        "refused_at_bytes": 1 << 20,
        "free_bytes": 5 << 30,
        "size_bytes": 10 << 30,
        "full_in_s": None,
        "lost": 0,
        "suppressed": 0,
    },
    "refused": {},
    "refused_lately": {},
}


def status(*changes: tuple[str, object]) -> dict[str, Any]:
    """Return the document with other values at dotted paths."""
    document = copy.deepcopy(WELL)
    for path, value in changes:
        *parents, last = path.split(".")
        section: Any = document
        for part in parents:
            section = section[int(part)] if isinstance(section, list) else section[part]
        section[last] = value
    return document
