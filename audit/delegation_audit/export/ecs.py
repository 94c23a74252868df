"""Converts records to events of the Elastic Common Schema (ECS 9).

In ECS, ``user.*`` is the party that acts, and ``user.effective.*`` the party whose rights are used. In a delegation
``user.id`` is the agent and ``user.effective.id`` the subject; neither replaces the other. ``related.user`` holds all
parties, so that a search for a person finds the calls that agents made for that person. Record keys that have no ECS
field are under ``sidecar.*``.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from delegation_core.records.reading import Record

VERSION: Final = "9.0.0"

_TYPES: Final[Mapping[str, tuple[list[str], list[str]]]] = {  # event.category and event.type of each event
    "request": (["api"], ["access"]),
    "request.opened": (["api"], ["start"]),
    "connection.refused": (["network"], ["connection", "denied"]),
    "token.exchanged": (["authentication"], ["info"]),
    "token.exchange_refused": (["authentication"], ["info"]),
    "token.introspected": (["authentication"], ["info"]),
    "identity.rotated": (["configuration"], ["change"]),
    "identity.lost": (["configuration"], ["change"]),
    "config.reloaded": (["configuration"], ["change"]),
    "config.refused": (["configuration"], ["info"]),
    "deny.changed": (["configuration"], ["change"]),
    "deny.refused": (["configuration"], ["info"]),
    "started": (["process"], ["start"]),
    "stopped": (["process"], ["end"]),
    "not_ready": (["process"], ["info"]),
    "ready": (["process"], ["info"]),
    "records.countersigned": (["configuration"], ["info"]),
    "revocation.ordered": (["iam"], ["change"]),
    "revocation.refused": (["iam"], ["info"]),
    "revocations.changed": (["configuration"], ["change"]),
    "pod.injected": (["configuration"], ["creation"]),
    "pod.refused": (["configuration"], ["info"]),
}
_OUTCOMES: Final = {"allow": "success", "deny": "failure", "observed_deny": "success"}  # an observed call passed
_DECIDED: Final = {"allow": "allowed", "deny": "denied", "observed_deny": "denied"}
_PUT_OUT: Final = frozenset({"event", "ts", "seq", "decision", "reason", "trace_id"})  # keys with an ECS field


def ecs_event(record: Record, members: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a record to an ECS event. ``members``: all keys of the record, parsed."""
    category, kinds = _TYPES[record.event]
    decided = _DECIDED.get(record.decision or "")
    if decided is not None and category == ["api"]:
        kinds = [*kinds, decided]
    people = [name for name in (record.subject, record.actor, *(record.chain or ()), record.peer) if name]
    event: dict[str, Any] = {
        "@timestamp": record.ts,
        "ecs": {"version": VERSION},
        "event": {
            "kind": "event",
            "category": category,
            "type": kinds,
            "action": record.event,
            "outcome": _OUTCOMES.get(record.decision or "", "unknown"),
            "reason": record.reason,
            "sequence": record.seq,
            "dataset": "sidecar.records",
            "module": "sidecar",
            "duration": _nanoseconds(members.get("total_ms")),
        },
        "service": {"name": record.workload, "type": "sidecar"},
        "user": {
            "id": record.actor or record.peer,
            "effective": {"id": record.subject, "domain": record.subject_iss},
        },
        "related": {"user": list(dict.fromkeys(people))},
        "http": {
            "request": {"method": record.method, "id": record.request_id, "bytes": members.get("bytes_in")},
            "response": {"status_code": record.status, "bytes": members.get("bytes_out")},
        },
        "url": {"path": record.path},
        "trace": {"id": record.trace_id},
        "span": {"id": members.get("span_id")},
        "rule": {"name": record.route},
        "source": {"address": record.source},
        "tls": {"client": {"x509": {"alternative_names": [record.peer]}}}
        if record.peer and record.direction == "inbound"
        else None,
        "sidecar": {name: value for name, value in members.items() if name not in _PUT_OUT},
    }
    whole: dict[str, Any] = _drop_nulls(event)
    return whole


def milliseconds_of(ts: str) -> int:
    """Convert ``ts`` of a record to milliseconds since 1970. Raises ValueError if it is no ISO 8601 time."""
    return round(datetime.fromisoformat(ts).timestamp() * 1000)


def _nanoseconds(value: object) -> int | None:
    return round(value * 1_000_000) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _drop_nulls(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    kept = {name: _drop_nulls(member) for name, member in value.items()}
    return {name: member for name, member in kept.items() if member is not None and member not in ({}, [])}
