"""Records of requests to judge again, in the small world of the decision tests."""

from typing import Any

from delegation_core.records.reading import Record, record_of
from tests.audit.evidence import record
from tests.core.world import CRM, FRONT, PLANNER, STS, WRITER


def inbound(**changes: Any) -> Record:
    """Return the record of a permitted call: the planner calls the writer for alice."""
    members = record(
        event="request", ts="2026-09-21T14:13:20.000000Z", run="r", seq=1, decision="allow", reason="ok",
        direction="inbound", workload=str(WRITER), peer=str(PLANNER), subject="alice", subject_iss=STS,
        actor=str(PLANNER), chain=[str(PLANNER), str(FRONT)], audience=str(WRITER), scope=["crm.read", "docs.read"],
        route="search", method="POST", path="/search", jti_in="token-2", parent_jti="token-1", txn="txn-1", fp="f",
        verified=True, status=200,
    )  # fmt: skip
    return record_of({**members, **changes})


def outbound(**changes: Any) -> Record:
    """Return the record of a permitted call: the writer calls the CRM in that request."""
    members = record(
        event="request", ts="2026-09-21T14:13:20.000000Z", run="r", seq=2, decision="allow", reason="ok",
        direction="outbound", workload=str(WRITER), peer=str(CRM), subject="alice", subject_iss=STS, actor=str(WRITER),
        chain=[str(WRITER), str(PLANNER), str(FRONT)], audience=str(CRM), scope=["crm.read"], scope_needed=["crm.read"],
        route="crm", method="GET", path="/customers/42", jti_in="token-2", jti_out="token-3", parent_jti="token-2",
        txn="txn-1", fp="f", call_in="c2", call_out="c3", verified=True, status=200,
    )  # fmt: skip
    return record_of({**members, **changes})


def refused_outbound(reason: str, **changes: Any) -> Record:
    """Return the record of a refused call, which holds the token of the request in progress."""
    served = {
        "actor": str(PLANNER), "chain": [str(PLANNER), str(FRONT)], "audience": str(WRITER),
        "scope": ["crm.read", "docs.read"], "scope_needed": None, "jti_out": None, "parent_jti": "token-1",
        "peer": None, "call_out": None, "status": 403,
    }  # fmt: skip
    return outbound(**{**served, "decision": "deny", "reason": reason, **changes})
