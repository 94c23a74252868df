"""The result of ``sidecar audit chains`` for a chain of three hops, one of them refused, and its report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from delegation_audit.report.build import stories_of
from delegation_audit.report.story import Evidence, Report

AGENT = "spiffe://acme.example/agent/"


def hop(depth: int, actor: str, audience: str, **changes: Any) -> dict[str, Any]:
    return {
        "depth": depth,
        "ts": f"2026-11-24T21:04:{depth:02}.000000Z",
        "actor": AGENT + actor,
        "audience": AGENT + audience,
        "act_chain": None,
        "scope": ["crm.read", "docs.write"][: 2 - min(depth, 1)],
        "jti": f"j{depth}",
        "call": f"c{depth}",
        "method": "POST",
        "path": f"/{audience}",
        "decision": "allow",
        "reason": "ok",
        "status": 200,
        "witnesses": {"caller": f"r1/{depth + 1}", "token_service": f"s1/{depth + 1}", "callee": f"r2/{depth + 1}"},
        "missing_witnesses": [],
        **changes,
    }


def document(*findings: dict[str, Any], hops: Sequence[dict[str, Any]] | None = None, **changes: Any) -> dict[str, Any]:
    lawful = [
        hop(0, "front", "planner"),
        hop(1, "planner", "writer"),
        hop(2, "writer", "crm", decision="deny", reason="insufficient_scope", status=403),
    ]
    chain = {
        "chain": "t1",
        "subjects": [{"iss": "https://login.acme.example", "sub": "alice"}],
        "hops": lawful if hops is None else list(hops),
    }
    return {"records": 9, "chains": [{**chain, **changes}], "outside": {}, "findings": list(findings)}


def finding(kind: str, text: str = "what happened", chain: str | None = "t1", *records: str) -> dict[str, Any]:
    return {"kind": kind, "text": text, "chain": chain, "records": list(records)}


def report(told: dict[str, Any], *evidence: Evidence, **changes: Any) -> Report:
    stories, problems = stories_of(told)
    facts: dict[str, Any] = {
        "title": "Delegation report",
        "made_at": "2026-11-28 09:00 UTC",
        "version": "0.1.0",
        "files": ["records.jsonl"],
        "choice": None,
        "records": told["records"],
        "all_chains": len(told["chains"]),
        "broken_chains": 0,
        "integrity": ["3 runs, and no line was changed, removed, inserted or moved"],
    }
    return Report(**{**facts, **changes}, stories=stories, problems=problems, evidence=evidence)
