"""Judges a recorded request at an entry's door again, with the sidecar's own core and order of checks. Pure.

The door asks more than the agent's listener does before it reads a message, and in another order
(``features/door/door.py``). From the operation on, a request is a call of the entry's for a login
(``judge_outbound.py``). The Host, the Origin and the token are in no record.
"""

from __future__ import annotations

from typing import Final

from delegation_core.door import METADATA_METHODS, METHODS, Door
from delegation_core.errors import Denied, Reason, SidecarError
from delegation_core.plan import plan_outbound
from delegation_core.policy import Policy
from delegation_core.records.reading import Record
from delegation_core.route import OutboundRoute
from delegation_core.target import canonical_target
from sidecar.explain.judge_inbound import OF_HTTP
from sidecar.explain.judge_outbound import AFTER_LOGIN, LOGIN, OPERATION, REQUEST, delegation_of, saw_of
from sidecar.explain.judgement import OK, Check, Judgement, conclude, names
from sidecar.explain.recorded_token import CannotJudgeError, time_of
from sidecar.observe.entry import METADATA, PREFLIGHT

CHECKS: Final = (
    REQUEST,
    Check("page", frozenset({Reason.ORIGIN_REFUSED}), provable=False),
    Check("host", frozenset({Reason.TARGET_DENIED}), provable=False),
    Check("target", frozenset({Reason.PATH_REFUSED})),
    Check("route", frozenset({Reason.NO_ROUTE})),
    Check("method", frozenset({Reason.METHOD_REFUSED})),
    LOGIN,
    *OPERATION,
    *AFTER_LOGIN,
)

ANSWERED_BY_ITSELF: Final = frozenset({METADATA, PREFLIGHT})  # operations that no target sees


def is_at_door(record: Record) -> bool:
    """Return True for a request at a door: only those outbound records have the caller's address."""
    return record.direction == "outbound" and record.source is not None


def judge_door(record: Record, policy: Policy) -> Judgement:
    """Find the check that decides under the given policy.

    Raises:
        CannotJudgeError: the record lacks input for a judgement, or these settings have no door.
    """
    door = None if policy.entry is None else policy.entry.door
    if door is None:
        raise CannotJudgeError("it is a request at a door, and these settings have none")
    recorded = OK if record.decision == "allow" else record.reason or ""
    saw = {
        "request": f"{record.method} {record.path} from {record.source}",
        "page": "not in a record",
        "host": "not in a record",
        "target": f"path {record.path}",
        "route": f"route {record.route} among {names(door.routes)}",
        "method": f"method {record.method}",
    }
    try:
        route = _route(record, door, policy)
    except Denied as error:
        return conclude(CHECKS, saw, recorded=recorded, judged=error.reason)
    if record.subject is None or not record.verified:
        saw[LOGIN.name] = "the record holds no verified token"
        return conclude(CHECKS, saw, recorded=recorded, judged=OK)
    listed = () if route.operations is None else route.operations.keys
    saw |= {**OF_HTTP, "operation": f"{record.op} among {names(listed)}"}
    try:
        route = route.for_operation(record.op or "")
        delegation = delegation_of(record, route, policy, door.issuers)
        saw |= saw_of(record, route, delegation, policy)
        plan_outbound(delegation, route, policy=policy, now=time_of(record))
    except SidecarError as error:
        return conclude(CHECKS, saw, recorded=recorded, judged=error.reason)
    return conclude(CHECKS, saw, recorded=recorded, judged=OK)


def _route(record: Record, door: Door, policy: Policy) -> OutboundRoute:
    target = canonical_target((record.path or "").encode())
    if door.tells_metadata_at(target.path) and record.method not in METADATA_METHODS:
        raise Denied(Reason.METHOD_REFUSED)
    route = door.route_of(target, policy.outbound)
    if record.method not in METHODS:
        raise Denied(Reason.METHOD_REFUSED)
    return route
