"""Judges if a recorded call that is refused would have passed on a route that only observed then. Pure."""

from __future__ import annotations

from delegation_core.decide import decide_observed, decide_observed_call
from delegation_core.errors import Denied, Reason
from delegation_core.outbound_routes import CallRoute
from delegation_core.policy import Policy
from delegation_core.records.reading import Record
from delegation_core.target import canonical_target
from sidecar.explain.recorded_token import spiffe_id, time_of, token_of


def passes_observed(record: Record, policy: Policy, reason: str) -> bool:
    """Return True if a call that ``reason`` refuses passed because its route observed under ``policy``.

    False also if the record lacks the facts.
    """
    try:
        denied = Denied(Reason(reason))
        if record.direction == "outbound":
            _call(record, policy, denied)
        else:
            _request(record, policy, denied)
    except (Denied, ValueError):  # ValueError: an unknown reason, or a record that names no such token, peer or time
        return False
    return True


def _request(record: Record, policy: Policy, denied: Denied) -> None:
    route = policy.inbound.find(record.method or "", canonical_target((record.path or "").encode()).path)
    now = time_of(record)
    if denied.reason is Reason.NO_CLIENT_CERT:  # it came to `inbound.plain`; the policy does not say if that is open
        if record.decision != "observed_deny" or now >= route.observe_until:
            raise denied
        return
    decide_observed(
        denied,
        token=token_of(record) if record.verified else None,
        peer=None if record.peer is None else spiffe_id(record.peer, "peer"),
        route=route,
        policy=policy,
        now=now,
    )


def _call(record: Record, policy: Policy, denied: Denied) -> None:
    """Judge a call of the agent. Only the record of an observed call says that the call had no token of ours."""
    routes: tuple[CallRoute, ...] = (*policy.outbound.routes, *policy.outbound.outside)
    for route in routes:
        if route.name == record.route and record.decision == "observed_deny":
            decide_observed_call(denied, issuers=(), route=route, policy=policy, now=time_of(record))
            return
    raise denied
