"""Evidence to audit: a lawful chain of three hops, in the records of all its witnesses. Each test changes one fact.

Records are named by hop and witness (``caller2``, ``issued2``, ``exchanged2``, ``callee2``); ``chains.evidence.read``
numbers them by run, so only a test about numbers has gaps.
"""

from collections.abc import Callable
from typing import Any

from delegation_core.records.record import FIELDS

STS = "https://sts.acme.example"
ACME = "spiffe://acme.example"
FRONT, PLANNER, WRITER, CRM = (
    f"{ACME}/{path}" for path in ("agent/front", "agent/planner", "agent/writer", "tool/crm")
)
WORKLOADS = (FRONT, PLANNER, WRITER, CRM)
SCOPES = (["crm.read", "docs.write", "plan.make"], ["crm.read", "docs.write"], ["crm.read"])

Evidence = dict[str, dict[str, Any]]
Change = Callable[[Evidence], object]


def record(**members: Any) -> dict[str, Any]:
    return {**dict.fromkeys(FIELDS), **members}


def lawful(txn: str = "t1", subject: str = "alice", prefix: str = "") -> Evidence:
    """Return three hops for a subject. ``prefix`` separates tokens and calls of two chains; runs are per workload."""
    told: Evidence = {}
    for hop in (1, 2, 3):
        caller, callee = WORKLOADS[hop - 1], WORKLOADS[hop]
        token = {
            "subject": subject,
            "subject_iss": STS,
            "actor": caller,
            "chain": list(reversed(WORKLOADS[:hop])),
            "client_id": caller,
            "audience": callee,
            "scope": SCOPES[hop - 1],
            "txn": txn,
            "fp": f"{prefix}fp{hop}",
            "parent_jti": f"{prefix}j{hop - 1}",
            "verified": True,
            "decision": "allow",
            "reason": "ok",
        }
        links = {"jti_in": f"{prefix}j{hop - 1}", "jti_out": f"{prefix}j{hop}", "scope_needed": SCOPES[hop - 1]}
        request = {"event": "request", "ts": f"2026-11-24T21:04:0{hop}.000000Z", "status": 200, "upstream_status": 200}
        trace = {"trace_id": f"{prefix}trace", "request_id": f"{prefix}r{hop}"}
        call = f"{prefix}c{hop}"
        told[f"issued{hop}"] = record(
            **token, **links, event="token.exchanged", ts=request["ts"], run="sts", workload=f"{ACME}/sts", peer=caller
        )
        told[f"exchanged{hop}"] = record(
            **token,
            **links,
            event="token.exchanged",
            ts=request["ts"],
            run=caller,
            workload=caller,
            direction="outbound",
        )
        told[f"caller{hop}"] = record(
            **token, **links, **request, **trace, run=caller, workload=caller, peer=callee, direction="outbound",
            call_in=f"{prefix}c{hop - 1}" if hop > 1 else None, call_out=call, path="/x", method="GET", route="next",
        )  # fmt: skip
        told[f"callee{hop}"] = record(
            **{**token, "scope_needed": []}, **request, **trace, run=callee, workload=callee, peer=caller,
            direction="inbound", jti_in=f"{prefix}j{hop}", call_in=call, path="/x", method="GET", route="here",
        )  # fmt: skip
    return told
