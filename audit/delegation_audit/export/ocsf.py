"""Converts records to events of the Open Cybersecurity Schema Framework (OCSF 1.8).

The subject is ``actor.user``, the acting agent ``actor.app_uid``. OCSF has no attribute for the whole chain: it is in
``unmapped`` with the other keys. Classes: API Activity (6003) for requests and pods, Authentication (3002) for token
exchanges, Network Activity (4001) for refused connections, Application Lifecycle (6002) for everything else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from delegation_audit import __version__
from delegation_audit.export.ecs import milliseconds_of
from delegation_core.records.reading import Record

VERSION: Final = "1.8.0"

API_ACTIVITY: Final = 6003
AUTHENTICATION: Final = 3002
NETWORK_ACTIVITY: Final = 4001
APPLICATION_LIFECYCLE: Final = 6002

_OTHER: Final = 99
_BY_METHOD: Final = {"POST": 1, "GET": 2, "HEAD": 2, "PUT": 3, "PATCH": 3, "DELETE": 4}
_SERVICE_TICKET: Final = 4
_REFUSE: Final = 5
_LIFECYCLE: Final = {"started": 3, "stopped": 4, "config.reloaded": 8, "identity.rotated": 8}
_OAUTH: Final = 6  # auth_protocol_id: OAuth 2.0
_API_TOKEN: Final = 7
_SEVERITY: Final = {"allow": 1, "deny": 3, "observed_deny": 3}  # informational, medium
_STATUS: Final = {"allow": 1, "deny": 2, "observed_deny": 1}  # success, failure
_ACTION: Final = {"deny": 2, "observed_deny": 3}  # denied, observed; else allowed
_DISPOSITION: Final = {"deny": 2, "observed_deny": 17}  # blocked, logged; else allowed
_PUT_OUT: Final = frozenset({"event", "ts", "seq", "decision", "reason", "status", "method", "path", "detail"})


def ocsf_event(record: Record, members: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a record to an OCSF event. ``members``: all keys of the record, parsed. Raises ValueError for its ts."""
    class_uid, activity_id = _class_of(record)
    event: dict[str, Any] = {
        "class_uid": class_uid,
        "category_uid": class_uid // 1000,
        "activity_id": activity_id,
        "type_uid": class_uid * 100 + activity_id,
        "time": milliseconds_of(record.ts),
        "severity_id": _SEVERITY.get(record.decision or "", 1),
        "status_id": _STATUS.get(record.decision or "", 0),
        "status_code": record.reason,
        "status_detail": record.detail,
        "message": f"{record.event} {record.reason}" if record.reason else record.event,
        "metadata": {
            "version": VERSION,
            "product": {"name": "delegation-sidecar", "vendor_name": "delegation-sidecar", "version": __version__},
            "uid": record.name,
            "sequence": record.seq,
            "event_code": record.event,
            "correlation_uid": record.txn or record.trace_id,
            "profiles": [],
        },
        "unmapped": {name: value for name, value in members.items() if value is not None and name not in _PUT_OUT},
    }
    if record.decision is not None:
        event["metadata"]["profiles"] = ["security_control"]
        event["action_id"] = _ACTION.get(record.decision, 1)
        event["disposition_id"] = _DISPOSITION.get(record.decision, 1)
    event |= _BY_CLASS[class_uid](record)
    return {name: value for name, value in event.items() if value is not None}


def _class_of(record: Record) -> tuple[int, int]:
    match record.event:
        case "request" | "request.opened":
            return API_ACTIVITY, _BY_METHOD.get(record.method or "", _OTHER)
        case "pod.injected" | "pod.refused":
            return API_ACTIVITY, 1
        case "token.exchanged" | "token.exchange_refused" | "token.introspected":
            return AUTHENTICATION, _SERVICE_TICKET
        case "connection.refused":
            return NETWORK_ACTIVITY, _REFUSE
        case _:
            return APPLICATION_LIFECYCLE, _LIFECYCLE.get(record.event, _OTHER)


def _api_activity(record: Record) -> dict[str, Any]:
    operation = record.op or " ".join(filter(None, (record.method, record.path))) or record.event
    inbound = record.direction != "outbound"
    called = record.workload if inbound else (record.peer or record.audience)
    token = record.jti_in if inbound else record.jti_out
    api: dict[str, Any] = {"operation": operation, "service": {"name": called} if called else None}
    if token is not None:
        api["token"] = {"uid": token, "type": "API Token", "type_id": _API_TOKEN}
    request: dict[str, Any] = {"http_method": record.method, "uid": record.request_id}
    if record.path is not None:
        request["url"] = {"path": record.path}
    return {
        "actor": _actor(record),
        "api": _pick_given(api),
        "src_endpoint": _endpoint(record.peer if inbound else record.workload, record.source),
        "dst_endpoint": _endpoint(called, None) if called else None,
        "http_request": _pick_given(request) or None,
        "http_response": None if record.status is None else {"code": record.status},
        "resources": [{"name": record.audience}] if record.audience else None,
    }


def _authentication(record: Record) -> dict[str, Any]:
    service = record.audience or record.workload or "unknown"
    return {
        "user": _user(record),
        "actor": _actor(record),
        "auth_protocol_id": _OAUTH,
        "auth_protocol": "OAUTH 2.0",
        "service": {"name": service},
        "src_endpoint": _endpoint(record.peer, record.source),
    }


def _network_activity(record: Record) -> dict[str, Any]:
    return {
        "src_endpoint": _endpoint(record.peer, record.source),
        "dst_endpoint": _endpoint(record.workload, None),
    }


def _application_lifecycle(record: Record) -> dict[str, Any]:
    return {"app": {"name": "delegation-sidecar", "uid": record.workload or record.run, "version": __version__}}


_BY_CLASS: Final = {
    API_ACTIVITY: _api_activity,
    AUTHENTICATION: _authentication,
    NETWORK_ACTIVITY: _network_activity,
    APPLICATION_LIFECYCLE: _application_lifecycle,
}


def _actor(record: Record) -> dict[str, Any]:
    actor: dict[str, Any] = {"app_uid": record.actor or record.peer or record.workload or record.run}
    if record.subject is not None:
        actor["user"] = _user(record)
    session = record.txn or record.jti_in
    if session is not None:
        actor["session"] = _pick_given({"uid": session, "issuer": record.subject_iss})
    if record.decision is not None:
        actor["authorizations"] = [{"decision": "Allowed" if record.decision == "allow" else "Denied"}]
    return actor


def _user(record: Record) -> dict[str, Any]:
    return _pick_given({"uid": record.subject or "unknown", "domain": record.subject_iss, "type_id": 0})


def _endpoint(name: str | None, address: str | None) -> dict[str, Any]:
    """Return an endpoint with the name or address that OCSF requires. ``address`` is HOST:PORT."""
    if address is None:
        return {"svc_name": name or "unknown"}
    host, _, port = address.rpartition(":")
    return _pick_given(
        {"svc_name": name, "ip": host.strip("[]") or address, "port": int(port) if port.isdecimal() else None}
    )


def _pick_given(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}
