"""Records as events of the Elastic Common Schema (ECS 9).

ECS says ``user.*`` for who performs and ``user.effective.*`` for whose rights are used. In a delegation the agent
performs and the user's rights are used, so ``user.id`` is the agent and ``user.effective.id`` the subject: neither is
ever written in place of the other. ``related.user`` holds everybody, so that a search for a person finds the calls that
agents made for them. What ECS has no field for is under ``sidecar.*``.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from sidecar.audit.records import Record

VERSION: Final = "9.0.0"

_TYPES: Final[Mapping[str, tuple[list[str], list[str]]]] = {  # event.category and event.type, of each event
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
_PUT_OUT: Final = frozenset({"event", "ts", "seq", "decision", "reason", "trace_id"})  # they have a field of their own


def ecs_event(record: Record, members: Mapping[str, Any]) -> dict[str, Any]:
    """Return one record as an ECS event. ``members`` are all keys of the record."""
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
    whole: dict[str, Any] = _without_nulls(event)
    return whole


def milliseconds_of(ts: str) -> int:
    """Return the time of a record in milliseconds since 1970. Raises ValueError for another form."""
    return round(datetime.fromisoformat(ts).timestamp() * 1000)


def _nanoseconds(value: object) -> int | None:
    return round(value * 1_000_000) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _without_nulls(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    kept = {name: _without_nulls(member) for name, member in value.items()}
    return {name: member for name, member in kept.items() if member is not None and member not in ({}, [])}
